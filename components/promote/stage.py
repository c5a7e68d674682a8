"""Promote: compare the challenger with the champion on the same instances; replace it on evidence only.

The first champion has to beat its own untrained policy. Later ones need a paired bootstrap interval of the
difference in q, over the rollouts that both have done, that lies wholly above 0, and a paired permutation
test that agrees. A tie changes nothing.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.intervals import Comparison, compare
from components.evaluation.plan import REPORTED, UNTRAINED, Plan
from components.evaluation.records import Champion, Reference, Scores
from components.evaluation.rollouts import EPISODES, load
from components.evaluation.serving import served_policies
from components.promote.config import DECLARATION, Config, Inputs
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.champion import CHAMPION, champion_folder
from components.store.making import exclusive

DECISION = "decision.json"


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
    folder, file = Path(config.champion), work.path / DECISION
    with exclusive(folder / ".lock", "promote: another challenger is being compared; waiting for it"):
        plan = Plan.load(inputs.plan.path)
        challenger, champion = _challenger(plan, inputs, folder, work.workspace), Champion.load(folder)
        known = [one.leaderboard for one in (champion, *Champion.former(folder)) if one is not None]
        if file.exists() and challenger.leaderboard in known:
            # killed after the promotion: that decision stands, whichever policy is the champion now
            decision = records.read(file, Decision, "remove it and promote again")
        else:
            if champion is not None:
                champion.check(plan.edition, plan.evaluator)
            decision = _decide(config, inputs.leaderboard, challenger, champion)
            records.write(file, decision)
            if decision.promoted:
                plan.artifacts(work.workspace)  # refuses other weights than those that were evaluated
                challenger.replace(champion, folder)
    numbers = decision.comparison
    return Result(
        metrics={"promoted": float(decision.promoted)}
        | ({} if numbers is None else {n: getattr(numbers, n) for n in ("difference", "low", "high")}),
        metadata={"promoted": decision.promoted, "reason": decision.reason},
        summary=f"{'promoted' if decision.promoted else 'not promoted'}: {decision.reason}",
    )


def _challenger(plan: Plan, inputs: Inputs, folder: Path, workspace: Path) -> Champion:
    """The challenger as the champion of a folder."""
    board = inputs.leaderboard
    chosen = Scores.load(board.path).chosen
    top = os.path.relpath(workspace, folder) if folder.is_relative_to(workspace) else str(workspace)
    return Champion(
        edition=plan.edition,
        evaluator=plan.evaluator,
        leaderboard=Reference(board.uri, board.digest),
        checkpoints=served_policies(plan, chosen, top),
        policy=plan.policy,
        episodes=_episodes(board, chosen),
        promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        format=2,
    )


def _decide(config: Config, board: Artifact, challenger: Champion, champion: Champion | None) -> Decision:
    if champion is None:
        rival, name = _episodes(board, dict.fromkeys(challenger.episodes, UNTRAINED)), "untrained"
    else:
        rival, name = champion.episodes, champion.leaderboard.uri
    try:
        comparison = compare(challenger.episodes, rival, config.seed) if rival else None
    except ValueError as error:
        raise UserError(
            f"the challenger and the champion {Path(config.champion, CHAMPION)} cannot be compared: {error}. "
            "Evaluate both on the same tasks and instances, or give another folder as promote.champion"
        ) from error
    if comparison is None:
        promoted = any(q > 0 for episodes in challenger.episodes.values() for q in episodes.values())
        reason = "q is 0 and there is no untrained policy to compare with"
        if promoted:
            reason = "first champion; its q is above 0 (no untrained policy was evaluated)"
        return Decision(promoted, reason, None, name)
    if champion is None:
        promoted = comparison.difference > 0
        reason = "first champion; better than untrained" if promoted else "not better than untrained"
    else:
        promoted = comparison.better
        reason = f"{'' if promoted else 'no evidence that it is '}better than the champion"
    numbers = (
        f"difference in q {comparison.difference:+.3f}, "
        f"95 % [{comparison.low:+.3f}, {comparison.high:+.3f}], {comparison.pairs} paired rollouts"
    )
    return Decision(promoted, f"{reason}: {numbers}", comparison, name)


def _episodes(board: Artifact, policies: Mapping[str, str]) -> Mapping[str, Mapping[str, float]]:
    """Reported q by task and rollout (INDEX_ROLLOUT) of a leaderboard, with one policy for each task."""
    episodes: dict[str, dict[str, float]] = {}
    for rollout in load(board.path / EPISODES):
        key = rollout.key
        if key.split == REPORTED and policies.get(key.task) == key.policy:
            episodes.setdefault(key.task, {})[f"{key.index}_{key.rollout}"] = rollout.q
    return episodes


def _resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    return dataclasses.replace(config, champion=str(champion_folder(config.champion, workspace)))


STAGE = Stage(DECLARATION, run, _resolve)
