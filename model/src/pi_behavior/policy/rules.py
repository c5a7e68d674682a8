"""Hand-written rules for situations that no demonstration shows. Source: report, section 7.4.

A rule is a function from a situation to an action or None. Rules are tried in order; the first one that acts
is the only one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.layout import GRIPPERS
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import ClosureTable

CLOSED = -0.98
"""A gripper whose state is below this is closed."""
OPEN = 0.90
"""A gripper whose state is above this is open."""
FULLY_OPEN = 1.0
_RADIO_TASK, _RADIO_FIRST, _RADIO_LAST, _RADIO_BACK = 0, 2, 4, 2

ClosureLookup = Callable[[int], ClosureTable | None]


@dataclass(frozen=True)
class Situation:
    """What rules see: the robot when the network is called, before its prediction votes for a stage."""

    task: int
    stage: int
    state: Float[np.ndarray, "23"]

    @property
    def closed(self) -> tuple[bool, bool]:
        """Whether the left and the right gripper are closed."""
        left, right = (bool(self.state[g] < CLOSED) for g in GRIPPERS)
        return left, right


@dataclass(frozen=True)
class RuleAction:
    """What a rule does."""

    rule: str
    opened: tuple[bool, bool] = (False, False)
    """Grippers to open, left and right; the rest of the robot holds still meanwhile."""
    stage: int | None = None
    """Stage to go to."""

    def apply(
        self, chunk: Float[np.ndarray, "30 23"], state: Float[np.ndarray, "23"]
    ) -> Float[np.ndarray, "30 23"]:
        """Where a gripper is to be opened, replace the chunk by the measured state with that gripper open.

        The base velocity becomes the measured one too, as in the published policy.
        """
        if not any(self.opened):
            return chunk
        held = np.repeat(state[None].astype(chunk.dtype), len(chunk), axis=0)
        for gripper, opened in zip(GRIPPERS, self.opened, strict=True):
            if opened:
                held[:, gripper] = FULLY_OPEN
        return held


Rule = Callable[[Situation], RuleAction | None]


def gripper_rule(closure: ClosureLookup) -> Rule:
    """The general gripper rule (report, section 7.4.1).

    A gripper that is closed at a stage where it never is in the demonstrations has failed to grasp: open it.
    Nothing happens at stages beyond the table and in tasks without one.
    """

    def rule(situation: Situation) -> RuleAction | None:
        table = closure(situation.task)
        if table is None or not 0 <= situation.stage < len(table):
            return None
        left, right = (
            closed and not allowed
            for closed, allowed in zip(situation.closed, table[situation.stage], strict=True)
        )
        return RuleAction("gripper", (bool(left), bool(right))) if left or right else None

    return rule


def radio_rule(situation: Situation) -> RuleAction | None:
    """The rule for turning_on_radio (report, section 7.4.2), from stage 2 on.

    The last stage goes back by two: it was reached, but the radio is not on. A closed gripper is opened if
    the other one is open, or closed too: neither can hold the radio for the other to press.
    """
    if situation.task != _RADIO_TASK or situation.stage < _RADIO_FIRST:
        return None
    stage = _RADIO_BACK if situation.stage == _RADIO_LAST else None
    left, right = situation.closed
    left_open, right_open = (bool(situation.state[g] > OPEN) for g in GRIPPERS)
    opened = (left and (right or right_open), right and (left or left_open))
    return RuleAction("radio", opened, stage) if stage is not None or any(opened) else None


def active_rules(config: PolicyConfig, closure: ClosureLookup) -> tuple[Rule, ...]:
    """The rules that a configuration asks for, in order.

    Args:
        config: settings.
        closure: table of a task from the demonstrations, for the rule that uses it.
    """
    rules: list[Rule] = []
    if config.task_rules == "published":
        rules.append(radio_rule)
    if config.gripper != "off":
        rules.append(gripper_rule(published_closure().get if config.gripper == "published" else closure))
    return tuple(rules)


@cache
def published_closure() -> Mapping[int, ClosureTable]:
    """The published policy's hand-made table, by task index.

    Its file gives, per task and gripper, the first stage at which it may be closed; null is never.
    """
    rows = json.loads(files(__package__).joinpath("published_closure.json").read_text())
    stages = np.arange(MAX_STAGES)
    return {
        int(task): np.stack(
            [stages >= (MAX_STAGES if row[side] is None else row[side]) for side in ("left", "right")], axis=1
        )
        for task, row in rows.items()
    }
