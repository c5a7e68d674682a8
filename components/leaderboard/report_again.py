"""The report of a finished leaderboard once more, in another folder, with what is known since."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluation.plan import COMMON, Plan
from components.evaluation.records import Scores
from components.evaluation.rollouts import ROLLOUTS, load
from components.leaderboard import gallery, matrices, report
from components.leaderboard.curves import Curve, draw, draw_all
from components.leaderboard.matrices import Matrix
from components.leaderboard.report_data import Labels
from components.leaderboard.scores import collect
from components.runtime.progress import Progress
from components.store.artifact import Artifact
from components.store.lineage import Node


def write_again(
    board: Artifact, page: Path, labels: Labels, decision: Mapping[str, Any] | None, progress: Progress
) -> None:
    """Write the report of a leaderboard into a folder outside of it.

    Raises:
        UserError: an artifact that it was made from is missing, or the folder lies in an artifact.
    """
    if Artifact.containing(page) is not None:
        raise UserError(f"{page} lies in an artifact, which is not to be changed; give another folder")
    node = Node.read(board.path)
    inputs = [Artifact.load(place) for _, place in node.inputs()]
    plans, evaluations = ([one for one in inputs if one.stage == stage] for stage in ("plan", "evaluate"))
    if len(plans) != 1 or not evaluations:
        raise UserError(f"{board.path} is not a leaderboard: expected a plan and evaluations in its lineage")
    plan = Plan.load(plans[0].path)
    table = collect((r for one in evaluations for r in load(one.path / ROLLOUTS)), plan)
    rollouts = [r for ps in table.values() for splits in ps.values() for rs in splits.values() for r in rs]
    curves, pictures = training_figures(plan, board.workspace)
    finished = datetime.fromisoformat(node.run["finishedOn"])
    shown = report.Report(
        scores=Scores.load(board.path),
        table=table,
        plan=plan,
        artifacts=[*plans, *evaluations],
        created=finished.strftime("%d %B %Y, %H:%M UTC"),
        clips=gallery.collect(rollouts, page, progress),
        curves=curves,
        matrices=pictures,
        labels=labels,
        decision=decision,
    )
    report.write(shown, page)


def training_figures(plan: Plan, workspace: Path) -> tuple[list[Curve], list[Matrix]]:
    """Training curves of the plan's policies, and the matrices of the common one."""
    curves: list[Curve] = []
    pictures: list[Matrix] = []
    for name, artifact in plan.artifacts(workspace).items():
        file = artifact.path / "metrics.jsonl"
        if plan.policies[name].folder == "checkpoint" and file.is_file():
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            curves += draw_all(name, rows)
        if name == COMMON:
            checkpoint = artifact.path / "checkpoint"
            pictures = [*matrices.kv_mix(checkpoint), *matrices.correlation(checkpoint)]
            spectrum = [draw("noise", "spectrum", picture.spectrum) for picture in pictures]
            curves += [curve for curve in spectrum if curve is not None]
    return curves, pictures
