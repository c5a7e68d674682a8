"""Promote: compare the challenger with the champion on the same instances; replace it on evidence only.

The first champion has to beat its own untrained policy. Later ones need a paired bootstrap interval of the
difference in q, over the rollouts that both have done, that lies wholly above 0, and a paired permutation
test that agrees. A tie changes nothing.
"""

import dataclasses
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.intervals import Comparison, compare
from components.evaluation.plan import COMMON, GROUP, REPORTED, UNTRAINED
from components.leaderboard.stage import EPISODES, SCORES
from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact, write_atomic

CHAMPION = "champion.json"
DECISION = "decision.json"
Scores = dict[str, dict[str, float]]
"""q by task and rollout."""


@dataclass(frozen=True)
class Config:
    """Where the champion is."""

    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class Inputs:
    """The challenger."""

    leaderboard: Artifact
    """Its leaderboard."""
    models: tuple[Artifact, ...]
    """Its policies."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `decision.json`, and `champion.json` in the champion's folder if the challenger is promoted."""
    folder = Path(config.champion) if config.champion else work.workspace / "champion"
    folder.mkdir(parents=True, exist_ok=True)
    decision_file = work.path / DECISION
    with _locked(folder):
        # a decision from before a kill stands: the champion may be this challenger already
        if not decision_file.exists():
            decision = _decide(config, inputs, folder / CHAMPION)
            write_atomic(decision_file, json.dumps(decision, indent=2) + "\n")
        decision = json.loads(decision_file.read_text())
        if decision["promoted"]:
            write_atomic(folder / CHAMPION, json.dumps(record(inputs), indent=2) + "\n")
    comparison = decision["comparison"] or {}
    return Result(
        metrics={
            "promoted": float(decision["promoted"]),
            **{name: float(comparison[name]) for name in ("difference", "low", "high") if name in comparison},
        },
        parameters={"promoted": "true" if decision["promoted"] else "false"},
        metadata={"promoted": decision["promoted"], "reason": decision["reason"]},
    )


def _decide(config: Config, inputs: Inputs, champion_file: Path) -> dict[str, Any]:
    challenger = _chosen_scores(inputs.leaderboard)
    champion = json.loads(champion_file.read_text()) if champion_file.exists() else None
    rival = _untrained_scores(inputs.leaderboard) if champion is None else champion["episodes"]
    try:
        comparison = compare(challenger, rival, config.seed) if rival else None
    except ValueError as error:
        raise UserError(
            f"the challenger and the champion {champion_file} cannot be compared: {error}. Evaluate "
            "both on the same tasks and instances, or give another --config.champion folder"
        ) from error
    promoted, reason = _rule(champion is None, comparison, challenger)
    return {
        "promoted": promoted,
        "reason": reason,
        "comparison": None if comparison is None else dataclasses.asdict(comparison),
        "compared_with": "untrained" if champion is None else champion["leaderboard"]["uri"],
    }


def _rule(first: bool, comparison: Comparison | None, challenger: Scores) -> tuple[bool, str]:
    """Whether to promote, and why."""
    if comparison is None:
        if any(q > 0 for episodes in challenger.values() for q in episodes.values()):
            return True, "first champion; its q is above 0 (no untrained policy was evaluated)"
        return False, "q is 0 and there is no untrained policy to compare with"
    numbers = (
        f"difference in q {comparison.difference:+.3f}, "
        f"95 % [{comparison.low:+.3f}, {comparison.high:+.3f}], {comparison.pairs} paired rollouts"
    )
    if first:
        if comparison.difference > 0:
            return True, f"first champion; better than untrained: {numbers}"
        return False, f"not better than untrained: {numbers}"
    if comparison.better:
        return True, f"better than the champion: {numbers}"
    return False, f"no evidence that it is better than the champion: {numbers}"


def _episodes(leaderboard: Artifact) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Reported rollouts, and the chosen policy by task."""
    try:
        rows = json.loads((leaderboard.path / EPISODES).read_text())
        tasks = json.loads((leaderboard.path / SCORES).read_text())["tasks"]
    except OSError as error:
        raise UserError(f"{leaderboard.path} is not a leaderboard: {error.filename} is missing") from error
    chosen = {task: entry["chosen"] for task, entry in tasks.items()}
    return [row for row in rows if row["split"] == REPORTED], chosen


def _by_task(rows: list[dict[str, Any]]) -> Scores:
    scores: Scores = {}
    for row in rows:
        scores.setdefault(row["task"], {})[f"{row['index']}_{row['rollout']}"] = row["q"]
    return scores


def _chosen_scores(leaderboard: Artifact) -> Scores:
    rows, chosen = _episodes(leaderboard)
    return _by_task([row for row in rows if chosen[row["task"]] == row["policy"]])


def _untrained_scores(leaderboard: Artifact) -> Scores:
    rows, _ = _episodes(leaderboard)
    return _by_task([row for row in rows if row["policy"] == UNTRAINED])


def record(inputs: Inputs) -> dict[str, Any]:
    """The champion's record: where its checkpoints are, and its scores for the next comparison."""
    _, chosen = _episodes(inputs.leaderboard)
    models = {}
    for number, model in enumerate(inputs.models):
        name = json.loads((model.path / "record.json").read_text())["name"]
        models[COMMON if number == 0 else GROUP + name] = model
    unknown = sorted(set(chosen.values()) - models.keys())
    if unknown:
        raise UserError(f"no model given for {', '.join(unknown)}; expected all models of the leaderboard")
    return {
        "leaderboard": {"uri": inputs.leaderboard.uri, "digest": inputs.leaderboard.digest},
        "checkpoints": {
            name: {
                "uri": model.uri,
                "digest": model.digest,
                "path": f"{model.uri}/checkpoint",
                "tasks": sorted(task for task, policy in chosen.items() if policy == name),
            }
            for name, model in models.items()
        },
        "episodes": _chosen_scores(inputs.leaderboard),
    }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One promotion at a time: two challengers must not both compare with the old champion."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


STAGE = Stage(
    "promote",
    Config,
    Inputs,
    run,
    ("components.evaluation.plan", "components.leaderboard"),
)
