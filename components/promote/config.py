"""What the stage promote takes and makes."""

from dataclasses import dataclass, field

from components.evaluation.registry import Registry
from components.runtime.declaration import Declaration
from components.store.artifact import Artifact
from pi_behavior.config import OPERATIONAL, require


@dataclass(frozen=True)
class Config:
    """Where the champion is, and who may overrule its trial."""

    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    fall: float = 0.3
    """Fall of q that no single task may have with confidence."""
    force: str = ""
    """Why the challenger is to be promoted whatever its trial says; it is recorded. Empty: the trial
    decides."""
    by: str = ""
    """Name of the person who decided to `force` it."""
    registry: Registry = field(default_factory=Registry, metadata=OPERATIONAL)
    """The model registry that a champion is also put into."""

    def __post_init__(self) -> None:
        require(
            (0 < self.fall < 1, f"fall is {self.fall}; expected more than 0, below 1"),
            (
                bool(self.force.strip()) == bool(self.by.strip()),
                f"force is {self.force!r} and by {self.by!r}; expected why and by whom, or neither",
            ),
        )


@dataclass(frozen=True)
class Inputs:
    """The challenger, and its trial."""

    leaderboard: Artifact
    """Its leaderboard."""
    plan: Artifact
    """The plan that was scored: its policies, and how they were executed."""
    trial: Artifact
    """The trial that was drawn for it."""
    confirmation: tuple[Artifact, ...] = ()
    """The trial's rollouts."""


DECLARATION = Declaration("promote", Config, Inputs, output="decision", page="decision_summary")
