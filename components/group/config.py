"""What the stage group takes and makes."""

from dataclasses import dataclass

from components.runtime.declaration import LOOP, Declaration
from components.store.artifact import Artifact
from pi_behavior.config import require

GROUPS = ("best", "good", "bad")


@dataclass(frozen=True)
class Config:
    """Thresholds between the groups of tasks."""

    best: float = 0.5
    """A task whose mean validation q is at least this is in the group best."""
    good: float = 0.0
    """Of the other tasks those with a mean validation q above this are in the group good, the rest in bad."""
    minimum: int = 1
    """Fewest groups to make, 1 to 3: where the thresholds give fewer, tasks are split by rank."""

    def __post_init__(self) -> None:
        require(
            (
                0 <= self.good < self.best <= 1,
                f"best is {self.best} and good {self.good}; expected 0 <= good < best <= 1",
            ),
            (
                1 <= self.minimum <= len(GROUPS),
                f"minimum is {self.minimum}; expected 1 to {len(GROUPS)}",
            ),
        )


@dataclass(frozen=True)
class Inputs:
    """What grouping reads."""

    rollouts: tuple[Artifact, ...]
    """Evaluations of the common policy; all workers of one give the same artifact."""


DECLARATION = Declaration(
    "group", Config, Inputs, outputs={LOOP: list}, output="groups", page="groups_summary"
)
