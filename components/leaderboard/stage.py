"""Leaderboard: choose checkpoints on validation, score the reported instances, package, and write the report.

Report, sections 6.4 (a checkpoint per task) and 8.2 (scores).
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from components.evaluation.plan import COMMON, GROUP, REPORTED, Plan
from components.evaluation.rollouts import Rollout, load
from components.leaderboard import gallery, report
from components.leaderboard.curves import Curve, draw, read_metrics
from components.leaderboard.scores import Scores, collect
from components.leaderboard.submission import Identity, package
from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact, write_atomic

SCORES = "scores.json"
EPISODES = "episodes.json"
_METRICS = ("loss", "stage_accuracy")


@dataclass(frozen=True)
class Config:
    """A leaderboard and its submission."""

    team: str = "team"
    """Name of the team."""
    affiliation: str = "independent"
    """Affiliation of the team."""
    track: str = "standard"
    """standard or privileged."""
    testset: str = "public"
    """public or hidden."""
    edition: str = "2026"
    """Challenge edition; has to be the plan's."""
    seed: int = 0
    """Seed of the bootstrap."""
    wrapper: str = ""
    """Environment wrapper (.py) to put into the submission; none means the evaluator's default was used."""
    robot_config: str = ""
    """Robot configuration to put into the submission; none means the evaluator's default was used."""

    def __post_init__(self) -> None:
        """Check the parts of the submission's name."""
        self.identity("2000-01-01")

    def identity(self, date: str) -> Identity:
        """The submission's name for a date, YYYY-MM-DD."""
        return Identity(self.track, self.testset, self.team, self.affiliation, date)


@dataclass(frozen=True)
class Inputs:
    """What the leaderboard reads."""

    plan: Artifact
    """The plan of the reported evaluation."""
    reported: tuple[Artifact, ...]
    """Its evaluations, one per worker."""
    models: tuple[Artifact, ...] = ()
    """The trained policies, for their training curves."""
    rollouts: tuple[Artifact, ...] = ()
    """Earlier evaluations with the common policy's validation."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `scores.json`, `episodes.json`, `submission/` and `report/`."""
    plan = Plan.load(inputs.plan.path)
    if plan.edition != config.edition:
        raise UserError(f"edition is {config.edition}, but the plan was made for {plan.edition}")
    artifacts = (*inputs.rollouts, *inputs.reported)
    table = collect(chain.from_iterable(load(a.path) for a in artifacts), plan)
    without = [t for t in plan.tasks if not any(s.get(REPORTED) for s in table.get(t, {}).values())]
    if without:
        raise UserError(f"no reported rollouts of {', '.join(without)}; plan with --config.sets {REPORTED}")
    scores = Scores.of(table, config.seed)
    write_atomic(work.path / SCORES, json.dumps(scores.to_json(), indent=2) + "\n")
    rollouts = [r for ps in table.values() for splits in ps.values() for rs in splits.values() for r in rs]
    write_atomic(work.path / EPISODES, json.dumps([_row(r) for r in rollouts], indent=1) + "\n")
    now = datetime.now(UTC)
    chosen = {task: table[task][name][REPORTED] for task, name in scores.chosen.items()}
    package(
        work.path / "submission",
        config.identity(now.date().isoformat()),
        plan,
        chosen,
        scores.chosen,
        (config.wrapper, config.robot_config),
    )
    page = work.path / "report"
    clips = gallery.collect(
        ((r, scores.chosen[r.key.task] == r.key.policy) for r in rollouts), page, work.progress
    )
    html = report.render(
        scores=scores,
        table=table,
        plan=plan,
        clips=clips,
        curves=_curves(inputs.models),
        sources=report.provenance([inputs.plan, *inputs.models, *artifacts]),
        created=now.strftime("%d %B %Y, %H:%M UTC"),
    )
    write_atomic(page / "index.html", html)
    total = scores.overall
    metrics = {"q": total.q, "q_low": total.low, "q_high": total.high, "success": total.success}
    metrics |= {f"q_{task}": scores.tasks[task][name][REPORTED].q for task, name in scores.chosen.items()}
    return Result(metrics=metrics, metadata={"q": total.q, "tasks": total.tasks}, html=_without_videos(html))


def _row(rollout: Rollout) -> dict[str, object]:
    outcome = rollout.outcome
    return {
        **dataclasses.asdict(rollout.key),
        "instance": rollout.instance,
        "q": rollout.q,
        "success": rollout.success,
        "finished": outcome is not None,
        "steps": None if outcome is None else outcome.steps,
    }


def _curves(models: Sequence[Artifact]) -> list[Curve]:
    curves = []
    for number, model in enumerate(models):
        name = COMMON if number == 0 else GROUP + json.loads((model.path / "record.json").read_text())["name"]
        rows = read_metrics(model.path / "metrics.jsonl")
        curves += [draw(name, metric, rows) for metric in _METRICS]
    return [curve for curve in curves if curve is not None]


def _without_videos(html: str) -> str:
    """The page for a viewer that gets this one file only."""
    start, end = html.find("<!-- videos -->"), html.find("<!-- /videos -->")
    return html[:start] + html[end:] if 0 <= start < end else html


STAGE = Stage(
    "leaderboard",
    Config,
    Inputs,
    run,
    ("components.plan", "components.evaluation.rollouts", "pi_behavior.challenge"),
)
