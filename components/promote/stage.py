"""Promote: replace the champion if the trial says that the challenger is better, and no task has fallen.

A person may decide otherwise; the record then says who and why.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.champion import Champion, Forced, challenger_of
from components.evaluation.pairs import fallen
from components.evaluation.plan import Plan
from components.evaluation.rollouts import ROLLOUTS, load
from components.evaluation.sequential import Verdict, judge
from components.evaluation.trial import Lead, Trial
from components.promote.config import DECLARATION, Config, Inputs
from components.runtime.page import page, paragraph, table
from components.runtime.stage import Result, Stage, Work
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
    lead: Lead | None
    """On validation instances; None where the rival has none."""
    level: float | None
    """The test's share of the error; None where there was no test."""
    verdict: Verdict | None
    """None where no round was finished."""
    fallen: Mapping[str, float]
    """Tasks that have fallen, with the upper bound of their difference."""
    missing: tuple[str, ...]
    """Tasks of the champion that the challenger lacks; they count as 0."""
    forced: Forced | None


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `decision.json`, and `champion.json` in the champion's folder if the challenger is promoted."""
    folder, file = Path(config.champion), work.path / DECISION
    with exclusive(folder / ".lock", "promote: another challenger is being compared; waiting for it"):
        plan = Plan.load(inputs.plan.path)
        champion = Champion.load(folder)
        challenger = challenger_of(inputs.leaderboard, plan, folder, work.workspace)
        if config.force:
            challenger = dataclasses.replace(challenger, forced=Forced(config.by, config.force))
        known = [one.leaderboard for one in (champion, *Champion.former(folder)) if one is not None]
        if file.exists() and challenger.leaderboard in known:
            # killed after the promotion: that decision stands, whichever policy is the champion now
            decision = records.read(file, Decision, "remove it and promote again")
        else:
            decision = _decide(config, inputs, challenger, champion)
            records.write(file, decision)
            if decision.promoted:
                plan.artifacts(work.workspace)  # refuses other weights than those that were evaluated
                challenger.replace(champion, folder)
        if decision.promoted and (now := Champion.load(folder)) is not None:
            config.registry.publish(now)
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


def _decide(config: Config, inputs: Inputs, challenger: Champion, champion: Champion | None) -> Decision:
    trial, forced = Trial.load(inputs.trial.path), challenger.forced
    _check(trial, challenger, champion, config)
    differences = trial.differences(
        Plan.load(inputs.trial.path),
        (one for each in inputs.confirmation for one in load(each.path / ROLLOUTS)),
    )
    verdict, down = None, dict[str, float]()
    if trial.rule is not None and differences.size:
        verdict = judge(differences, trial.rule)
        down = fallen(differences, trial.tasks, config.fall)
    elif trial.rule is not None and forced is None:
        raise UserError(
            "the trial has no whole round of rollouts; expected those of the stage evaluate, given the trial"
        )
    promoted = verdict is not None and verdict.answer == "better" and not down
    reason = _reason(trial, verdict, down)
    if forced is not None:
        promoted, reason = True, f"forced by {forced.by} ({forced.why}); otherwise {reason}"
    return Decision(
        promoted=promoted,
        reason=reason,
        compared_with=trial.rival if trial.champion is None else trial.champion.uri,
        lead=trial.lead,
        level=None if trial.rule is None else trial.rule.level,
        verdict=verdict,
        fallen=down,
        missing=tuple(trial.missing),
        forced=forced,
    )


def _check(trial: Trial, challenger: Champion, champion: Champion | None, config: Config) -> None:
    """Refuse a trial of another challenger, or against a champion that was replaced since."""
    now = None if champion is None else champion.leaderboard
    if trial.challenger != challenger.leaderboard:
        raise UserError(
            f"the trial is of {trial.challenger.uri}, and the challenger is {challenger.leaderboard.uri}; "
            "expected the trial of this challenger"
        )
    if config.force:
        return
    if trial.refused:
        raise UserError(
            f"{trial.refused}. To promote it all the same, give promote.force, why, and promote.by, your name"
        )
    if trial.champion != now:
        then, name = (one.uri if one else "no champion" for one in (trial.champion, now))
        raise UserError(
            f"the trial was against {then}, and {config.champion} has {name} now: it was replaced since. "
            "Start the run again: what is finished is kept, and the trial is made against the champion of now"
        )


def _reason(trial: Trial, verdict: Verdict | None, down: Mapping[str, float]) -> str:
    if trial.refused:
        return f"no comparison: {trial.refused}"
    if trial.rule is None:
        return f"not ahead of the champion on validation: {trial.lead}"
    if verdict is None:
        return "no whole round of rollouts"
    rival = {"champion": "the champion", "untrained": "its untrained policy", "floor": f"q {trial.floor:g}"}
    said = {
        "better": f"better than {rival[trial.rival]}",
        "not better": f"not better than {rival[trial.rival]} by what is worth it",
        "go on": f"no evidence that it is better than {rival[trial.rival]}",
    }[verdict.answer]
    numbers = (
        f"difference in q {verdict.difference:+.3f}, 95 % [{verdict.low:+.3f}, {verdict.high:+.3f}], "
        f"{verdict.pairs} pairs"
    )
    falls = "".join(f"; but {task} fell, to {bound:+.2f} at most" for task, bound in down.items())
    lacks = f"; without {', '.join(trial.missing)}, which count as 0" if trial.missing else ""
    return f"{said}: {numbers}{falls}{lacks}"


def _resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    return dataclasses.replace(config, champion=str(champion_folder(config.champion, workspace)))


STAGE = Stage(DECLARATION, run, _resolve)
