"""Promote: compare the challenger with the champion on the same instances; replace it on evidence only.

The first champion has to beat its own untrained policy. Later ones need a paired bootstrap interval of the
difference in q, over the rollouts that both have done, that lies wholly above 0, and a paired permutation
test that agrees. A tie changes nothing.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.intervals import Comparison, compare
from components.evaluation.plan import REPORTED, UNTRAINED, Plan
from components.evaluation.records import Champion, Reference, Scores
from components.evaluation.rollouts import EPISODES, Rollout, load
from components.evaluation.serving import served_policies
from components.promote.config import DECLARATION, Config, Inputs
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.champion import CHAMPION
from components.store.making import exclusive

DECISION = "decision.json"
Episodes = dict[str, dict[str, float]]
"""q by task and rollout."""


@dataclass(frozen=True)
class Decision:
    """Whether the challenger became the champion, and why."""

    promoted: bool
    reason: str
    comparison: Comparison | None
    compared_with: str
    """Place of the champion's leaderboard in the workspace, or `untrained`."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `decision.json`, and `champion.json` in the champion's folder if the challenger is promoted."""
    folder = Path(config.champion)
    file = work.path / DECISION
    with exclusive(folder / ".lock", "promote: another challenger is being compared; waiting for it"):
        champion = Champion.load(folder)
        known = [one.leaderboard for one in (champion, *Champion.former(folder)) if one is not None]
        if file.exists() and _reference(inputs.leaderboard) in known:
            # killed after the promotion: that decision stands, whichever policy is the champion now
            decision = records.read(file, Decision, "remove it and promote again")
        else:
            if champion is not None:
                plan = Plan.load(inputs.plan.path)
                champion.check(plan.edition, plan.evaluator)
            decision = _decide(config, inputs.leaderboard, champion, folder)
            records.write(file, decision)
            if decision.promoted:
                _record(inputs, folder, work.workspace).replace(champion, folder)
    numbers = decision.comparison
    return Result(
        metrics={"promoted": float(decision.promoted)}
        | ({} if numbers is None else {n: getattr(numbers, n) for n in ("difference", "low", "high")}),
        metadata={"promoted": decision.promoted, "reason": decision.reason},
        summary=f"{'promoted' if decision.promoted else 'not promoted'}: {decision.reason}",
    )


def _decide(config: Config, leaderboard: Artifact, champion: Champion | None, folder: Path) -> Decision:
    challenger = _chosen(leaderboard)
    rival = (
        _episodes(leaderboard, lambda rollout: rollout.key.policy == UNTRAINED)
        if champion is None
        else champion.episodes
    )
    try:
        comparison = compare(challenger, rival, config.seed) if rival else None
    except ValueError as error:
        raise UserError(
            f"the challenger and the champion {folder / CHAMPION} cannot be compared: {error}. Evaluate both "
            "on the same tasks and instances, or give another folder as promote.champion"
        ) from error
    promoted, reason = _rule(champion is None, comparison, challenger)
    return Decision(
        promoted, reason, comparison, "untrained" if champion is None else champion.leaderboard.uri
    )


def _rule(first: bool, comparison: Comparison | None, challenger: Episodes) -> tuple[bool, str]:
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


def _chosen(leaderboard: Artifact) -> Episodes:
    """Reported rollouts of the policies that were chosen for the tasks."""
    chosen = Scores.load(leaderboard.path).chosen
    return _episodes(leaderboard, lambda rollout: chosen[rollout.key.task] == rollout.key.policy)


def _episodes(leaderboard: Artifact, wanted: Callable[[Rollout], bool]) -> Episodes:
    """Reported rollouts of a leaderboard that `wanted` accepts."""
    episodes: Episodes = {}
    for rollout in load(leaderboard.path / EPISODES):
        key = rollout.key
        if key.split == REPORTED and wanted(rollout):
            episodes.setdefault(key.task, {})[f"{key.index}_{key.rollout}"] = rollout.q
    return episodes


def _reference(artifact: Artifact) -> Reference:
    return Reference(artifact.uri, artifact.digest)


def _record(inputs: Inputs, folder: Path, workspace: Path) -> Champion:
    """The challenger as the champion."""
    plan = Plan.load(inputs.plan.path)
    plan.artifacts(workspace)  # refuses other weights than those that were evaluated
    top = os.path.relpath(workspace, folder) if folder.is_relative_to(workspace) else str(workspace)
    return Champion(
        edition=plan.edition,
        evaluator=plan.evaluator,
        leaderboard=_reference(inputs.leaderboard),
        checkpoints=served_policies(plan, Scores.load(inputs.leaderboard.path).chosen, top),
        policy=plan.policy,
        episodes=_chosen(inputs.leaderboard),
        promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        format=2,
    )


def _resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    folder = Path(config.champion).resolve() if config.champion else workspace / "champion"
    return dataclasses.replace(config, champion=str(folder))


STAGE = Stage(DECLARATION, run, _resolve)
