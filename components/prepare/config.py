"""What the stage prepare takes and makes."""

from dataclasses import dataclass, field

from components.runtime.declaration import Declaration
from components.store.artifact import Artifact
from pi_behavior.config import OPERATIONAL, require
from pi_behavior.data.training_copy import CopyOptions


@dataclass(frozen=True)
class Config(CopyOptions):
    """What the training copy holds."""

    processes: int = field(default=0, metadata=OPERATIONAL)
    """How many encode at the same time; 0: as many as there are cores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require((self.processes >= 0, f"processes is {self.processes}; expected 0 or more"))


@dataclass(frozen=True)
class Inputs:
    """What is copied."""

    dataset: Artifact
    """The checked demonstrations."""


DECLARATION = Declaration("prepare", Config, Inputs, makes="Dataset")
