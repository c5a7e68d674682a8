"""The report: one page with its style, data and script inside; videos, posters and traces beside it.

It opens from a file, from S3 and from any web server, and loads nothing from elsewhere.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.evaluation.durations import DURATIONS
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan
from components.evaluation.records import Scores
from components.evaluation.rollouts import RolloutKey
from components.leaderboard import report_data, report_lineage
from components.leaderboard.matrices import Matrix
from components.leaderboard.published import PUBLISHED_2025
from components.leaderboard.scores import Rollouts
from components.runtime.curves import Curve
from components.runtime.progress import format_seconds
from components.runtime.stage import SUMMARY
from components.store import lineage
from components.store.artifact import RESULT, Artifact
from components.store.files import write_atomic

REDUCED = "reduced: one room, few objects; not a BEHAVIOR score"
PAGE = "index.html"
_SCRIPTS = ("base", "labels", "heat", "gallery", "player", "together", "pairs", "figures")


@dataclass(frozen=True)
class Report:
    """What a report shows."""

    scores: Scores
    table: Rollouts
    plan: Plan
    artifacts: Sequence[Artifact]
    """Those that were scored, and their plan."""
    created: str
    """A date to print."""
    filmed: Collection[RolloutKey] = ()
    """Rollouts whose videos the page's folder has."""
    curves: Sequence[Curve] = ()
    matrices: Sequence[Matrix] = ()
    price: float = 0.0
    """Of a GPU for an hour; 0 where it is not known."""


def write(report: Report, page: Path) -> str:
    """Write the page and its traces into a folder that has the videos; returns the page."""
    rollouts = report_data.reported(report.table)
    traces = {
        place: trace
        for place, rollout in enumerate(rollouts)
        if (trace := report_data.read_trace(rollout)) is not None
    }
    report_data.write_traces(page, rollouts, traces)
    data = report_data.collect(
        report.scores,
        report.table,
        report.filmed,
        traces,
        [matrix.data for matrix in report.matrices],
    )
    html = _render(report, data, page)
    write_atomic(page / PAGE, html)
    return html


def alone(report: Report) -> str:
    """The page for a viewer that has this one file, without videos and traces."""
    data = report_data.collect(report.scores, report.table, (), {}, [])
    return _render(report, data, None)


def _render(report: Report, data: Mapping[str, Any], folder: Path | None) -> str:
    sources = sorted(lineage.chain(*report.artifacts), key=lambda node: (node.run["startedOn"], node.path))
    reduced = find_evaluator(report.plan.evaluator, report.plan.edition).reduced
    context: dict[str, Any] = {
        "scores": report.scores,
        "plan": report.plan,
        "settings": _in_words(asdict(report.plan.policy)),
        "reduced": REDUCED if reduced else "",
        "published": () if reduced else PUBLISHED_2025,
        "decision": None,  # promotion comes later
        "curves": report.curves,
        "matrices": report.matrices if data["matrices"] else (),
        "sources": sources,
        "anchor": report_lineage.anchor,
        "pages": {} if folder is None else _pages(sources, folder),
        "drawing": report_lineage.draw(sources),
        "stages": _spent(sources),
        "price": report.price,
        "rules": _rules(report.artifacts),
        "created": report.created,
        "is_site": folder is not None,
        "unfinished": data["rollouts"]["steps"].count(None),
        "reruns": len(data["reruns"]),
        # none of these two may be escaped; `as_script` and our own files hold nothing that ends a script
        "data": Markup(report_data.as_script(data)),  # noqa: S704
        "script": Markup(script()),  # noqa: S704
    }
    return templates().get_template("report.html").render(context)


def templates() -> Environment:
    """The page's templates."""
    environment = Environment(
        loader=PackageLoader("components.leaderboard", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_seconds
    return environment


def script() -> str:
    """The page's script."""
    folder = files("components.leaderboard")
    parts = [folder.joinpath(f"report_{name}.js").read_text() for name in _SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def _pages(sources: Sequence[lineage.Node], folder: Path) -> dict[Path, str]:
    """The pages of the workspace's artifacts, relative to the report's folder."""
    workspace = folder.parents[3]
    found = (node.path / SUMMARY for node in sources if node.path.is_relative_to(workspace))
    return {page.parent: os.path.relpath(page, folder) for page in found if page.is_file()}


def _in_words(values: Mapping[str, Any]) -> dict[str, str]:
    words = {True: "yes", False: "no"}
    return {name: words[value] if isinstance(value, bool) else str(value) for name, value in values.items()}


def _rules(artifacts: Sequence[Artifact]) -> dict[str, int]:
    """How often every rule of the control loop was applied, over all evaluations."""
    totals: dict[str, int] = {}
    for artifact in artifacts:
        metrics = report_data.read_json(artifact.path / RESULT).get("metrics", {})
        for name, value in metrics.items():
            if name.startswith("rule_"):
                totals[name.removeprefix("rule_")] = totals.get(name.removeprefix("rule_"), 0) + int(value)
    return dict(sorted(totals.items(), key=lambda entry: -entry[1]))


@dataclass
class Spent:
    """What the runs of a stage took."""

    runs: int = 0
    seconds: float = 0.0
    gpu_hours: float = 0.0


def _spent(sources: Sequence[lineage.Node]) -> dict[str, Spent]:
    """What the stages took, in the order of their start."""
    found: dict[str, Spent] = {}
    for source in sources:
        started, finished = (datetime.fromisoformat(source.run[one]) for one in ("startedOn", "finishedOn"))
        wall = busy = (finished - started).total_seconds()
        workers: dict[int, list[float]] = {}
        for one in report_data.read_json(source.path / DURATIONS).get("rollouts", ()):
            workers.setdefault(one["times"]["worker"], []).extend(
                (one["times"]["begin"], one["times"]["end"])
            )
        if workers:  # the lineage of an evaluation is that of its completion
            times = list(chain.from_iterable(workers.values()))
            wall, busy = max(times) - min(times), sum(max(one) - min(one) for one in workers.values())
        stage = found.setdefault(source.stage, Spent())
        stage.runs += 1
        stage.seconds += wall
        stage.gpu_hours += len(source.run.get("b1k_gpus", {}).get("names", ())) * busy / 3600
    return found
