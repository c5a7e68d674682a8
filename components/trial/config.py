"""What the stage trial takes and makes."""

from dataclasses import dataclass, field

from components.runtime.declaration import LOOP, Declaration
from components.store.artifact import Artifact
from pi_behavior.config import OPERATIONAL, require


@dataclass(frozen=True)
class Config:
    """What it takes to replace a champion."""

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
    floor: float = 0.02
    """q that a first champion has to exceed where its parameters of step 0 were not kept."""
    rounds: int = 10
    """Most rounds of the test; in each both policies do one rollout of every task."""
    block: int = 2
    """Rounds that are rolled out at a time: the more, the fewer scenes are loaded, and the more rollouts are
    for nothing when the test ends."""
    workers: int = field(default=1, metadata=OPERATIONAL)
    """Largest number of evaluation workers."""

    def __post_init__(self) -> None:
        require(
            *(
                (0 < getattr(self, one) < 1, f"{one} is {getattr(self, one)}; expected more than 0, below 1")
                for one in ("error", "gain", "miss")
            ),
            *(
                (getattr(self, one) >= 1, f"{one} is {getattr(self, one)}; expected at least 1")
                for one in ("rounds", "block", "workers")
            ),
            (self.lead >= 0, f"lead is {self.lead}; expected 0 or more"),
            (0 <= self.floor < 1, f"floor is {self.floor}; expected 0 or more, below 1"),
        )


@dataclass(frozen=True)
class Inputs:
    """The challenger."""

    leaderboard: Artifact
    """Its leaderboard."""
    plan: Artifact
    """The plan that was scored: its policies, and how they were executed."""


DECLARATION = Declaration("trial", Config, Inputs, outputs={LOOP: list}, output="trial", page="trial_summary")
