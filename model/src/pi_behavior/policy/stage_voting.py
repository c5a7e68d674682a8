"""Stage tracking by vote. Source: report, section 7.3."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

Transition = Literal["forward", "skip", "back", "follow"]
WINDOW = 3
"""Predictions that vote; all of them made since the last transition."""
MAJORITY = 2


def vote(stage: int, history: list[int]) -> Transition | None:
    """Decide whether the predictions since the last transition move the stage.

    Args:
        stage: the current stage s.
        history: up to three last predictions since the last transition, oldest first.

    Returns:
        forward: two of three say s + 1. skip: all three say s + 2 (the stage still moves by one). back: all
        three say s - 1. None: the stage stays, as it does with fewer than three predictions.
    """
    if len(history) < WINDOW:
        return None
    if history.count(stage + 1) >= MAJORITY:
        return "forward"
    if history.count(stage + 2) == WINDOW:
        return "skip"
    if history.count(stage - 1) == WINDOW:
        return "back"
    return None


@dataclass
class StageTracker:
    """The stage that the policy believes it is in, and the predictions since it last changed."""

    voting: bool = True
    """Whether predictions vote; otherwise the stage is the last prediction."""
    stage: int = 0
    history: list[int] = field(default_factory=list)

    def move(self, stage: int) -> None:
        """Set the stage and forget the predictions."""
        self.stage = stage
        self.history.clear()

    def update(self, logits: Float[np.ndarray, "15"]) -> Transition | None:
        """Take one more prediction and move if the rules say so.

        Returns:
            The transition made; follow where voting is off and the stage changed.
        """
        predicted = int(np.argmax(logits))
        if not self.voting:
            changed = predicted != self.stage
            self.move(predicted)
            return "follow" if changed else None
        self.history = [*self.history, predicted][-WINDOW:]
        transition = vote(self.stage, self.history)
        if transition is not None:
            self.move(self.stage + (-1 if transition == "back" else 1))
        return transition
