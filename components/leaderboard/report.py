"""The report: one static page with its style inside, videos beside it; opens from a file, without network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import REPORTED, Plan
from components.evaluation.records import Scores
from components.evaluation.rollouts import Rollout
from components.leaderboard.curves import Curve
from components.leaderboard.gallery import Clip
from components.leaderboard.scores import Rollouts, policy_order
from components.runtime.progress import format_seconds
from components.store import lineage
from components.store.artifact import Artifact

REDUCED = "reduced: one room, few objects; not a BEHAVIOR score"


Cell = tuple[str, str, str]
"""One rollout in a heat map: CSS class, text, and what it means in words."""


@dataclass(frozen=True)
class HeatMap:
    """Reported rollouts of a task, a row per policy and a column per instance."""

    task: str
    columns: list[str]
    rows: list[tuple[str, bool, float, list[Cell]]]
    """Policy, whether it is the chosen one, mean q, cells."""


def heat_maps(table: Rollouts, chosen: Mapping[str, str]) -> list[HeatMap]:
    """The heat maps of all tasks."""
    maps = []
    for task, policies in table.items():
        rollouts = {
            name: {(r.key.index, r.key.rollout): r for r in policies[name][REPORTED]}
            for name in sorted(policies, key=policy_order)
            if policies[name].get(REPORTED)
        }
        columns = sorted({column for row in rollouts.values() for column in row})
        ids = {column: r.instance for row in rollouts.values() for column, r in row.items()}
        labels = [str(ids[column]) + (f".{column[1]}" if column[1] else "") for column in columns]
        rows = []
        for name, row in rollouts.items():
            mean = sum(r.q for r in row.values()) / len(row)
            rows.append((name, chosen[task] == name, mean, [_cell(row.get(column)) for column in columns]))
        maps.append(HeatMap(task, labels, rows))
    return maps


def _cell(rollout: Rollout | None) -> Cell:
    if rollout is None:
        return "absent", "", "not planned"
    if rollout.outcome is None:
        return "unfinished", "?", "never finished, counts as 0"
    if rollout.success:
        return "success", "1", "success"
    if rollout.q > 0:
        return "partial", f"{rollout.q:.2f}".lstrip("0"), f"partial success, q {rollout.q:.2f}"
    return "zero", "0", "q 0"


def render(
    *,
    scores: Scores,
    table: Rollouts,
    plan: Plan,
    clips: Sequence[Clip],
    curves: Sequence[Curve],
    artifacts: Sequence[Artifact],
    created: str,
) -> str:
    """The page; `artifacts` are those that were scored, `created` is a date to print."""
    sources = sorted(lineage.chain(*artifacts), key=lambda node: (node.run["startedOn"], node.path))
    rollouts = [r for ps in table.values() for splits in ps.values() for rs in splits.values() for r in rs]

    def clip_order(clip: Clip) -> tuple[Any, ...]:
        """Chosen policies first, in each successes before failures."""
        key = clip.rollout.key
        is_chosen = scores.chosen[key.task] == key.policy
        return (not is_chosen, policy_order(key.policy)[0], key.task, -clip.rollout.q, key.index)

    environment = Environment(
        loader=PackageLoader("components.leaderboard", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_seconds
    context: dict[str, Any] = {
        "scores": scores,
        "plan": plan,
        "reduced": REDUCED if find_evaluator(plan.evaluator, plan.edition).reduced else "",
        "maps": heat_maps(table, scores.chosen),
        "clips": sorted(clips, key=clip_order),
        "curves": curves,
        "sources": sources,
        "stages": _stage_times(sources),
        "created": created,
        "unfinished": sum(r.outcome is None for r in rollouts),
        "reruns": [r for r in rollouts if r.reruns],
    }
    return environment.get_template("report.html").render(context)


def _stage_times(sources: Sequence[lineage.Node]) -> list[tuple[str, float, float, int]]:
    """Stage, seconds, per cent of the longest, and how many runs of it, in the order of their start."""
    totals: dict[str, list[float]] = {}
    for source in sources:
        started, finished = (datetime.fromisoformat(source.run[one]) for one in ("startedOn", "finishedOn"))
        totals.setdefault(source.stage, []).append((finished - started).total_seconds())
    longest = max((sum(times) for times in totals.values()), default=0.0) or 1.0
    return [(name, sum(times), 100 * sum(times) / longest, len(times)) for name, times in totals.items()]
