"""What the stage promote takes and makes."""

from dataclasses import dataclass

from components.runtime.declaration import Declaration
from components.store.artifact import Artifact
from pi_behavior.config import require


@dataclass(frozen=True)
class Config:
    """Where the champion is."""

    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        require((self.seed >= 0, f"seed is {self.seed}; expected 0 or more"))


@dataclass(frozen=True)
class Inputs:
    """The challenger."""

    leaderboard: Artifact
    """Its leaderboard."""
    plan: Artifact
    """The plan that was scored: its policies, and how they were executed."""


DECLARATION = Declaration("promote", Config, Inputs)
