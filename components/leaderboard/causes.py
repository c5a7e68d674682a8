"""Why a rollout failed: the causes of the report (section 9.2.2), and a first guess by rule.

A guess is for sorting the videos until somebody has watched them; it is always shown as a guess.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.evaluation.rollouts import Rollout
from components.evaluation.traces import Trace

_STILL = 0.05
"""Metres below which base and hands count as not moved."""
_QUIET = 0.5
"""Share of a rollout, at its end, in which nothing of the goal changed."""


@dataclass(frozen=True)
class Cause:
    """One entry of the closed list."""

    id: str
    name: str
    text: str


CAUSES = (
    Cause("dexterity", "Dexterity", "cannot reliably pick an item up, or let go of it"),
    Cause("order", "Order", "acts in the wrong order, or stops before the task is done"),
    Cause("confusion", "Confusion", "odd behaviour, as in a state that no demonstration shows"),
    Cause("fell", "Robot fell", "the robot fell over"),
    Cause("reasoning", "Reasoning", "an action was needed that is not obvious from where the robot stands"),
    Cause("search", "Search", "looks for an object at the same places again and again"),
    Cause("stuck", "Robot stuck", "pushes on although something holds the base"),
    Cause("visibility", "Head camera visibility", "what matters is outside of the head camera's view"),
    Cause("navigation", "Navigation", "goes to the wrong place"),
    Cause("reachability", "Reachability", "the object cannot be reached any more"),
    Cause("catastrophic", "Catastrophic error", "made the task impossible"),
    Cause("coordination", "Whole-body coordination", "does not notice that an arm is caught"),
    Cause("unknown", "Unknown", "no cause could be named"),
)
IDS = frozenset(cause.id for cause in CAUSES)


@dataclass(frozen=True)
class Guess:
    """A first guess."""

    cause: str
    reason: str
    """What it was guessed from."""


def catalogue() -> list[dict[str, str]]:
    """The list for the page."""
    return [asdict(cause) for cause in CAUSES]


def moved(document: Mapping[str, Any]) -> Mapping[str, float] | None:
    """Paths of base and hands in metres, from the evaluator's JSON; None where it does not tell."""
    value = document.get("agent_distance")
    try:
        return {name: float(value[name]) for name in ("base", "left", "right")} if value else None
    except (KeyError, TypeError, ValueError):
        return None


def guess(rollout: Rollout, document: Mapping[str, Any], trace: Trace | None) -> Guess | None:
    """A first guess why a finished rollout failed, from what the evaluator and the policy left.

    None for a success, or where no rule applies.
    """
    if rollout.outcome is None or rollout.success:
        return None
    said = str(document.get("failure_reason", ""))
    if "fell" in said or "fall" in said:
        return Guess("fell", f"the evaluator says {said}")
    distances = moved(document)
    if distances is not None and max(distances.values()) < _STILL:
        return Guess("confusion", "never moved")
    return None if trace is None else _by_trace(trace)


def _by_trace(trace: Trace) -> Guess | None:
    lost = [
        name
        for name, changes in trace.goals.items()
        if any(holds for step, holds in changes if step) and not changes[-1][1]
    ]
    if lost:
        return Guess("order", f"{lost[0]} was reached and lost again")
    empty = sum(rule == "gripper" for _, rule in trace.rules)
    if empty:
        return Guess("dexterity", f"a hand closed on air ({empty} time{'s' * (empty > 1)})")
    changes = [step for changes in trace.goals.values() for step, _ in changes if step]
    stages = [b[0] for a, b in zip(trace.calls, trace.calls[1:], strict=False) if a[2] != b[2]]
    last = max(changes if trace.goals else stages, default=0)
    if trace.steps and last <= (1 - _QUIET) * trace.steps:
        return Guess("unknown", f"timed out without progress after step {last}")
    return None
