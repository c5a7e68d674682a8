"""Scores: which checkpoint each task gets, and what the reported instances say of it.

Episode q, task score and overall score are those of the challenge (report, section 8.2). The checkpoint of a
task is chosen on validation instances alone, so that the reported score stays an honest estimate.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.evaluation.intervals import bootstrap, clopper_pearson
from components.evaluation.plan import COMMON, REPORTED, UNTRAINED, VALIDATION, Plan
from components.evaluation.rollouts import Rollout, RolloutKey


@dataclass(frozen=True)
class Score:
    """The score of one policy on one set of rollouts."""

    q: float
    """Mean q; a rollout that never finished counts as 0."""
    low: float
    """Clopper-Pearson interval of q, 95 %, generalised to sums of partial scores."""
    high: float
    n: int
    """Prescribed rollouts."""
    unfinished: int
    """Of these, never finished."""
    success: float
    """Share of rollouts with q = 1."""
    success_low: float
    """Clopper-Pearson interval of the success rate, 95 %."""
    success_high: float
    bootstrap_low: float
    """Percentile bootstrap interval of q, 95 %."""
    bootstrap_high: float
    time: float | None
    """Mean of 2 - time taken / human time over successful rollouts (not ranked); None without success."""

    @classmethod
    def of(cls, rollouts: Sequence[Rollout], seed: int) -> "Score":
        """Score rollouts of one policy and task."""
        n, qs = len(rollouts), [r.q for r in rollouts]
        successes = sum(r.success for r in rollouts)
        interval = clopper_pearson(sum(qs), n)
        success = clopper_pearson(successes, n)
        resampled = bootstrap([qs], seed)
        times = [2 - 1 / r.outcome.normalized_time for r in rollouts if r.success and r.outcome]
        return cls(
            q=sum(qs) / n,
            low=interval.low,
            high=interval.high,
            n=n,
            unfinished=sum(r.outcome is None for r in rollouts),
            success=successes / n,
            success_low=success.low,
            success_high=success.high,
            bootstrap_low=resampled.low,
            bootstrap_high=resampled.high,
            time=sum(times) / len(times) if times else None,
        )


@dataclass(frozen=True)
class Overall:
    """The mean of task scores, each task weighing the same."""

    q: float
    low: float
    """Clopper-Pearson interval of q, 95 %, generalised to sums of partial scores. It takes the rollouts of
    all tasks for one sample, which makes it wider, not narrower, where tasks differ (Hoeffding 1956)."""
    high: float
    success: float
    bootstrap_low: float
    """Percentile bootstrap interval of q, 95 %, resampled within tasks."""
    bootstrap_high: float
    tasks: int
    n: int
    """Prescribed rollouts."""


Rollouts = Mapping[str, Mapping[str, Mapping[str, Sequence[Rollout]]]]
"""Rollouts by task, policy and split."""


def collect(rollouts: Iterable[Rollout], plan: Plan) -> dict[str, dict[str, dict[str, list[Rollout]]]]:
    """Sort rollouts by task, policy and split; what was planned and never done comes as unfinished."""
    table: dict[RolloutKey, Rollout] = {rollout.key: rollout for rollout in rollouts}
    for job in plan.jobs:
        for index in job.instances:
            for number in range(plan.rollouts):
                key = RolloutKey(job.policy, job.split, job.task, index, number)
                if key not in table:
                    table[key] = Rollout(key, None, 0, None, None, None, Path())
    sorted_rollouts: dict[str, dict[str, dict[str, list[Rollout]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for key in sorted(table):
        sorted_rollouts[key.task][key.policy][key.split].append(table[key])
    return {
        task: {policy: dict(splits) for policy, splits in sorted_rollouts[task].items()}
        for task in plan.tasks
        if task in sorted_rollouts
    }


def choose(policies: Mapping[str, Mapping[str, Sequence[Rollout]]]) -> str:
    """The policy with the highest mean q on validation instances; the common one on a tie.

    A group's policy has to be better to be chosen, not only as good. Policies without validation or without
    reported rollouts, and the untrained one, cannot be chosen.
    """
    candidates = {
        name: sum(r.q for r in splits[VALIDATION]) / len(splits[VALIDATION])
        for name, splits in policies.items()
        if name != UNTRAINED and splits.get(VALIDATION) and splits.get(REPORTED)
    }
    if not candidates:
        return COMMON
    return min(candidates, key=lambda name: (-candidates[name], name != COMMON, name))


def overall(per_task: Sequence[Sequence[Rollout]], seed: int) -> Overall:
    """The overall score over tasks."""
    groups = [[r.q for r in rollouts] for rollouts in per_task]
    q = sum(sum(group) / len(group) for group in groups) / len(groups)
    # tasks weigh the same whatever their number of rollouts, so the smallest decides how much is known
    count = len(groups) * min(map(len, groups))
    interval, resampled = clopper_pearson(q * count, count), bootstrap(groups, seed)
    return Overall(
        q=q,
        low=interval.low,
        high=interval.high,
        bootstrap_low=resampled.low,
        bootstrap_high=resampled.high,
        success=sum(sum(r.success for r in rs) / len(rs) for rs in per_task) / len(per_task),
        tasks=len(groups),
        n=sum(map(len, groups)),
    )


@dataclass(frozen=True)
class Scores:
    """Everything that `scores.json` holds."""

    overall: Overall
    """Of the chosen checkpoints on the reported instances."""
    policies: dict[str, Overall]
    """Of policies that ran the reported instances of all tasks."""
    chosen: dict[str, str]
    """Chosen policy by task."""
    tasks: dict[str, dict[str, dict[str, Score]]]
    """Scores by task, policy and split."""

    @classmethod
    def of(cls, table: Rollouts, seed: int) -> "Scores":
        """Score all rollouts."""
        chosen = {task: choose(policies) for task, policies in table.items()}
        names = sorted({name for policies in table.values() for name in policies}, key=policy_order)
        complete = [n for n in names if all(p.get(n, {}).get(REPORTED) for p in table.values())]
        return cls(
            overall=overall([table[task][name][REPORTED] for task, name in chosen.items()], seed),
            policies={n: overall([p[n][REPORTED] for p in table.values()], seed) for n in complete},
            chosen=chosen,
            tasks={
                task: {
                    name: {split: Score.of(rs, seed) for split, rs in policies[name].items()}
                    for name in sorted(policies, key=policy_order)
                }
                for task, policies in table.items()
            },
        )

    def to_json(self) -> dict[str, object]:
        """The content of `scores.json`."""
        return {
            "overall": {
                **dataclasses.asdict(self.overall),
                "policies": {name: dataclasses.asdict(score) for name, score in self.policies.items()},
            },
            "tasks": {
                task: {
                    "chosen": self.chosen[task],
                    "policies": {
                        name: {split: dataclasses.asdict(score) for split, score in splits.items()}
                        for name, splits in policies.items()
                    },
                }
                for task, policies in self.tasks.items()
            },
        }


def policy_order(name: str) -> tuple[int, str]:
    """Sort key: groups, the common policy, the untrained one."""
    return (1 if name == COMMON else 2 if name == UNTRAINED else 0, name)
