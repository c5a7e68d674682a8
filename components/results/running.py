"""Evaluations that are being done, from what their workers have put in place."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from components.errors import UserError
from components.evaluation.durations import TIMES
from components.evaluation.plan import Plan
from components.leaderboard.report_data import read_json
from components.store.making import CONTENT


@dataclass(frozen=True)
class Count:
    """The rollouts of a policy on the instances of one task and split."""

    policy: str
    split: str
    task: str
    done: int
    planned: int | None
    """None where the plan is not known."""
    q: float | None
    """Mean of those that are done."""


@dataclass(frozen=True)
class Running:
    """An evaluation in progress."""

    name: str
    counts: tuple[Count, ...]
    spent: float
    """Seconds from the first start of a rollout to the last end of one."""

    @property
    def done(self) -> int:
        """Finished rollouts."""
        return sum(one.done for one in self.counts)

    @property
    def planned(self) -> int | None:
        """All rollouts; None where the plan is not known."""
        planned = [one.planned for one in self.counts if one.planned is not None]
        return sum(planned) if len(planned) == len(self.counts) else None

    @property
    def left(self) -> float | None:
        """Seconds until all are done, if the rest takes as long as the others did."""
        if self.planned is None or not self.done:
            return None
        return self.spent / self.done * max(0, self.planned - self.done)


def running(root: Path) -> list[Running]:
    """The evaluations in progress in a workspace."""
    return [_read(folder) for folder in sorted(root.glob("artifacts/evaluate/*.partial"))]


def _read(folder: Path) -> Running:
    planned: dict[tuple[str, str, str], int] = {}
    try:
        plan = Plan.load(folder)
        for job in plan.jobs:
            key = job.policy, job.split, job.task
            planned[key] = planned.get(key, 0) + len(job.instances) * plan.rollouts
    except UserError:
        plan = None
    # folders have no colons
    names = {policy.replace(":", "-"): policy for policy in (plan.policies if plan else ())}
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    times = []
    for path in folder.glob(f"{CONTENT}/rollouts/*/*/[!.]*/*_*.json"):
        found = _finished(path, path.stat().st_mtime_ns)
        if found is not None:
            q, begin, end = found
            policy, split = path.parts[-4], path.parts[-3]
            scores[names.get(policy, policy), split, path.stem.rsplit("_", 2)[0]].append(q)
            times.append((begin, end))
    counts = tuple(
        Count(
            *key,
            done=len(qs := scores.get(key, [])),
            planned=planned.get(key) if plan else None,
            q=sum(qs) / len(qs) if qs else None,
        )
        for key in (planned or sorted(scores))
    )
    spent = max(end for _, end in times) - min(begin for begin, _ in times) if times else 0.0
    return Running(folder.stem, counts, spent)


@lru_cache(maxsize=100_000)  # what is in place does not change, and a page looks every few seconds
def _finished(path: Path, _changed: int) -> tuple[float, float, float] | None:
    """Score, begin and end of a finished rollout; None where its JSON is not understood."""
    q, times = read_json(path).get("q_score", {}).get("final"), read_json(path.with_name(TIMES))
    begin, end = times.get("begin", 0.0), times.get("end", 0.0)
    if not all(isinstance(value, int | float) for value in (q, begin, end)):
        return None
    return float(q), float(begin), float(end)
