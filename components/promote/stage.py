"""Promote: compare the challenger with the champion, and replace it on evidence only.

The rules are in `rules.py`. A first champion has to pass the test against its own untrained policy, or
against a stated floor where none was evaluated. A person may decide otherwise; the record then says who and
why.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.champion import Champion, Comparison, Forced, Table, episodes_of
from components.evaluation.plan import REPORTED, UNTRAINED, VALIDATION, Plan
from components.evaluation.records import Reference, Scores
from components.evaluation.sequential import Verdict, judge
from components.evaluation.serving import served_policies
from components.promote.config import DECLARATION, Config, Inputs
from components.promote.rules import Lead, fallen, lead, pair, rule
from components.runtime.page import page, paragraph, table
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.champion import champion_folder
from components.store.making import exclusive

DECISION = "decision.json"


@dataclass(frozen=True)
class Decision:
    """Whether the challenger became the champion, and why."""

    promoted: bool
    reason: str
    compared_with: str
    """Place of the champion's leaderboard in the workspace, `untrained`, or `floor`."""
    lead: Lead | None = None
    """On validation instances; None where the rival has none."""
    level: float | None = None
    """The test's share of the error; None where there was no test."""
    verdict: Verdict | None = None
    fallen: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Tasks that have fallen, with the upper bound of their difference."""
    missing: tuple[str, ...] = ()
    """Tasks of the champion that the challenger lacks; they count as 0."""
    forced: Forced | None = None


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `decision.json`, and `champion.json` in the champion's folder if the challenger is promoted."""
    folder, file = Path(config.champion), work.path / DECISION
    with exclusive(folder / ".lock", "promote: another challenger is being compared; waiting for it"):
        plan = Plan.load(inputs.plan.path)
        champion = Champion.load(folder)
        challenger = _challenger(config, plan, inputs, folder, work.workspace)
        known = [one.leaderboard for one in (champion, *Champion.former(folder)) if one is not None]
        if file.exists() and challenger.leaderboard in known:
            # killed after the promotion: that decision stands, whichever policy is the champion now
            decision = records.read(file, Decision, "remove it and promote again")
        else:
            decision = _decide(config, inputs.leaderboard, challenger, champion)
            records.write(file, decision)
            if decision.promoted:
                plan.artifacts(work.workspace)  # refuses other weights than those that were evaluated
                challenger.replace(champion, folder)
    verdict = decision.verdict
    numbers = {} if verdict is None else {n: getattr(verdict, n) for n in ("difference", "low", "high")}
    return Result(
        metrics={"promoted": float(decision.promoted), **numbers},
        metadata={"promoted": decision.promoted, "reason": decision.reason},
        summary=f"{'promoted' if decision.promoted else 'not promoted'}: {decision.reason}",
        html=page(
            "Promoted" if decision.promoted else "Not promoted",
            paragraph(decision.reason),
            paragraph(f"Compared with: {decision.compared_with}"),
            table(("test", ""), [] if verdict is None else dataclasses.asdict(verdict).items()),
        ),
    )


def _challenger(config: Config, plan: Plan, inputs: Inputs, folder: Path, workspace: Path) -> Champion:
    """The challenger as the champion of a folder."""
    board, scores = inputs.leaderboard, Scores.load(inputs.leaderboard.path)
    top = os.path.relpath(workspace, folder) if folder.is_relative_to(workspace) else str(workspace)
    return Champion(
        conditions=scores.conditions,
        leaderboard=Reference(board.uri, board.digest),
        checkpoints=served_policies(plan, scores.chosen, top),
        policy=plan.policy,
        validation=episodes_of(board, scores.chosen, VALIDATION),
        reported=episodes_of(board, scores.chosen, REPORTED),
        promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        forced=Forced(config.by, config.force) if config.force else None,
        format=3,
    )


def _decide(config: Config, board: Artifact, challenger: Champion, champion: Champion | None) -> Decision:
    try:
        decision = _compare(config, board, challenger, champion)
    except UserError as error:
        if challenger.forced is None:
            raise
        rival = "" if champion is None else champion.leaderboard.uri
        decision = Decision(promoted=False, reason=f"no comparison: {error}", compared_with=rival)
    if challenger.forced is not None:
        reason = f"forced by {config.by} ({config.force}); otherwise {decision.reason}"
        decision = dataclasses.replace(decision, promoted=True, reason=reason, forced=challenger.forced)
    return decision


def _compare(config: Config, board: Artifact, challenger: Champion, champion: Champion | None) -> Decision:
    missing: tuple[str, ...] = ()
    ahead = None
    if champion is None:
        untrained = episodes_of(board, dict.fromkeys(challenger.reported, UNTRAINED), REPORTED)
        name, rival = "untrained", untrained
        if not untrained:
            name, rival = "floor", _flat(challenger.reported, config.floor)
    else:
        champion.check(challenger.conditions)
        name, rival = champion.leaderboard.uri, champion.reported
        missing = tuple(sorted(rival.keys() - challenger.reported.keys()))
        ahead = lead(pair(challenger.validation, champion.validation))
        if not ahead.suffices(config.lead):
            reason = (
                f"not ahead of the champion on validation: difference in q {ahead.difference:+.3f}, standard "
                f"error {ahead.error:.3f}, {ahead.pairs} pairs"
            )
            return Decision(False, reason, name, ahead, missing=missing)
    differences = pair(challenger.reported, rival)
    folder = Path(config.champion)
    old = None if champion is None else champion.leaderboard
    test = Comparison.begin(folder, challenger.leaderboard, old, config.error)
    verdict = judge(differences, rule(config, test.level, len(differences)))
    down = fallen(differences, sorted(rival), config.fall)
    promoted = verdict.answer == "better" and not down
    return Decision(
        promoted=promoted,
        reason=_reason(verdict, name, down, missing),
        compared_with=name,
        lead=ahead,
        level=test.level,
        verdict=verdict,
        fallen=down,
        missing=missing,
    )


def _reason(verdict: Verdict, rival: str, down: Mapping[str, float], missing: tuple[str, ...]) -> str:
    named = rival if rival == "untrained" else "the floor" if rival == "floor" else "the champion"
    if verdict.answer == "better":
        said = f"better than {named}"
    elif verdict.answer == "not better":
        said = f"not better than {named} by what is worth it"
    else:
        said = f"no evidence that it is better than {named}"
    numbers = (
        f"difference in q {verdict.difference:+.3f}, 95 % [{verdict.low:+.3f}, {verdict.high:+.3f}], "
        f"{verdict.pairs} pairs"
    )
    falls = "".join(f"; but {task} fell, to {bound:+.2f} at most" for task, bound in down.items())
    lacks = f"; without {', '.join(missing)}, which count as 0" if missing else ""
    return f"{said}: {numbers}{falls}{lacks}"


def _flat(scores: Table, q: float) -> Table:
    return {task: dict.fromkeys(episodes, q) for task, episodes in scores.items()}


def _resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    return dataclasses.replace(config, champion=str(champion_folder(config.champion, workspace)))


STAGE = Stage(DECLARATION, run, _resolve)
