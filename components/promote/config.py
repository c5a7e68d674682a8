"""What the stage promote takes and makes."""

from dataclasses import dataclass

from components.runtime.declaration import Declaration
from components.store.artifact import Artifact
from pi_behavior.config import require


@dataclass(frozen=True)
class Config:
    """Where the champion is, and what it takes to replace it."""

    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    error: float = 0.05
    """Largest probability that any of all the challengers that are not better ever replaces a champion."""
    gain: float = 0.05
    """Difference in q that is worth finding."""
    miss: float = 0.1
    """Largest probability that the test gives up a challenger that is better by `gain`."""
    lead: float = 1.0
    """Standard errors by which a challenger must lead on validation instances to be tested at all."""
    fall: float = 0.3
    """Fall of q that no single task may have with confidence."""
    floor: float = 0.02
    """q that a first champion has to exceed where no untrained policy was evaluated."""
    force: str = ""
    """Why the challenger is to be promoted whatever the comparison says; it is recorded. Empty: the
    comparison decides."""
    by: str = ""
    """Name of the person who decided to `force` it."""

    def __post_init__(self) -> None:
        shares = ("error", "gain", "miss", "fall")
        require(
            *(
                (0 < getattr(self, one) < 1, f"{one} is {getattr(self, one)}; expected more than 0, below 1")
                for one in shares
            ),
            (self.lead >= 0, f"lead is {self.lead}; expected 0 or more"),
            (0 <= self.floor < 1, f"floor is {self.floor}; expected 0 or more, below 1"),
            (
                bool(self.force.strip()) == bool(self.by.strip()),
                f"force is {self.force!r} and by {self.by!r}; expected why and by whom, or neither",
            ),
        )


@dataclass(frozen=True)
class Inputs:
    """The challenger."""

    leaderboard: Artifact
    """Its leaderboard."""
    plan: Artifact
    """The plan that was scored: its policies, and how they were executed."""


DECLARATION = Declaration("promote", Config, Inputs, output="decision", page="decision_summary")
