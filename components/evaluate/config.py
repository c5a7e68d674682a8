"""What the stage evaluate takes and makes."""

from dataclasses import dataclass, field

from components.runtime.declaration import Declaration
from components.runtime.values import PER_TASK
from components.store.artifact import Artifact
from pi_behavior.config import require


@dataclass(frozen=True)
class Config:
    """A worker."""

    worker: int = field(default=0, metadata=PER_TASK)
    """Number of the worker in the plan."""

    def __post_init__(self) -> None:
        require((self.worker >= 0, f"worker is {self.worker}; expected 0 or more"))


@dataclass(frozen=True)
class Inputs:
    """What a worker reads."""

    plan: Artifact
    """The plan; the checkpoints that it names lie in the same workspace."""


DECLARATION = Declaration("evaluate", Config, Inputs, image="evaluator", output="rollouts", page="scores")
