"""The report: one static page with its style inside, videos beside it; opens from a file, without network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
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
from pi_behavior.challenge import EDITIONS

REDUCED = "reduced: one room, few objects; not a BEHAVIOR score"


@dataclass(frozen=True)
class Provenance:
    """One artifact that the leaderboard comes from."""

    uri: str
    stage: str
    digest: str
    seconds: float
    started: str


@dataclass(frozen=True)
class Cell:
    """One rollout in the heat map."""

    state: str
    """CSS class: success, partial, zero or unfinished."""
    text: str
    label: str
    """What it means, in words."""


@dataclass(frozen=True)
class HeatMap:
    """Reported rollouts of a task, a row per policy and a column per instance."""

    task: str
    columns: list[str]
    rows: list[tuple[str, bool, float, list[Cell]]]
    """Policy, whether it is the chosen one, mean q, cells."""


def provenance(artifacts: Sequence[Artifact]) -> list[Provenance]:
    """All artifacts that the given ones come from, each once, the earliest first."""
    found = []
    for node in lineage.chain(*artifacts):
        subject = node.lineage["subject"][0]
        build = node.lineage["predicate"]["buildDefinition"]["internalParameters"]
        times = node.lineage["predicate"]["runDetails"]["metadata"]
        started, finished = (datetime.fromisoformat(times[k]) for k in ("startedOn", "finishedOn"))
        seconds = (finished - started).total_seconds()
        digest = subject["digest"]["sha256"]
        found.append(Provenance(subject["name"], build["stage"], digest, seconds, times["startedOn"]))
    return sorted(found, key=lambda item: (item.started, item.uri))


def heat_maps(table: Rollouts, chosen: Mapping[str, str]) -> list[HeatMap]:
    """The heat maps of all tasks."""
    maps = []
    for task, policies in table.items():
        names = [name for name in sorted(policies, key=policy_order) if policies[name].get(REPORTED)]
        rollouts = {name: {_column(r): r for r in policies[name][REPORTED]} for name in names}
        columns = sorted({column for row in rollouts.values() for column in row})
        ids = {column: r.instance for row in rollouts.values() for column, r in row.items() if r.instance}
        labels = [
            f"{ids.get(column, f'#{column[0]}')}" + (f".{column[1]}" if column[1] else "")
            for column in columns
        ]
        rows = []
        for name in names:
            cells = [_cell(rollouts[name].get(column)) for column in columns]
            mean = sum(r.q for r in rollouts[name].values()) / len(rollouts[name])
            rows.append((name, chosen[task] == name, mean, cells))
        maps.append(HeatMap(task, labels, rows))
    return maps


def _column(rollout: Rollout) -> tuple[int, int]:
    return rollout.key.index, rollout.key.rollout


def _cell(rollout: Rollout | None) -> Cell:
    if rollout is None:
        return Cell("absent", "", "not planned")
    if rollout.outcome is None:
        return Cell("unfinished", "?", "never finished, counts as 0")
    if rollout.success:
        return Cell("success", "1", "success")
    if rollout.q > 0:
        return Cell("partial", f"{rollout.q:.2f}".lstrip("0"), f"partial success, q {rollout.q:.2f}")
    return Cell("zero", "0", "q 0")


def render(
    *,
    scores: Scores,
    table: Rollouts,
    plan: Plan,
    clips: Sequence[Clip],
    curves: Sequence[Curve],
    sources: Sequence[Provenance],
    created: str,
) -> str:
    """The page; `sources` are the artifacts that the leaderboard comes from, `created` is a date to print."""
    environment = Environment(
        loader=PackageLoader("components.leaderboard", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_seconds
    context: dict[str, Any] = {
        "style": files("components.leaderboard").joinpath("report.css").read_text(),
        "scores": scores,
        "plan": plan,
        "edition": EDITIONS[plan.edition],
        "reduced": REDUCED if find_evaluator(plan.evaluator, plan.edition).reduced else "",
        "maps": heat_maps(table, scores.chosen),
        "clips": sorted(clips, key=_clip_order),
        "curves": curves,
        "sources": sources,
        "stages": _stage_times(sources),
        "created": created,
        "unfinished": sum(
            r.outcome is None for p in table.values() for s in p.values() for rs in s.values() for r in rs
        ),
    }
    return environment.get_template("report.html").render(context)


def _clip_order(clip: Clip) -> tuple[Any, ...]:
    """Chosen policies first, in each successes before failures."""
    key = clip.rollout.key
    return (not clip.chosen, policy_order(key.policy)[0], key.task, -clip.rollout.q, key.index)


def _stage_times(sources: Sequence[Provenance]) -> list[tuple[str, float, float, int]]:
    """Stage, seconds, per cent of the longest, and how many runs of it, in the order of their start."""
    totals: dict[str, list[float]] = {}
    for source in sources:
        totals.setdefault(source.stage, []).append(source.seconds)
    longest = max((sum(times) for times in totals.values()), default=0.0) or 1.0
    return [(name, sum(times), 100 * sum(times) / longest, len(times)) for name, times in totals.items()]
