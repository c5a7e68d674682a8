"""What the stage collect takes and makes."""

from dataclasses import dataclass, field

from components.evaluation.evaluators import Edition
from components.runtime.declaration import Declaration
from pi_behavior.challenge import DEFAULT_EDITION, check_tasks
from pi_behavior.config import OPERATIONAL, require


@dataclass(frozen=True)
class Config:
    """Which demonstrations, and where to keep them."""

    repository: str = ""
    """Folder of the git and DVC repository of the demonstrations; made where there is none."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks to demonstrate, evaluate and train on; none means all of the household simulator."""
    episodes: int = 80
    """Demonstrations per task, 1 to 100."""
    image_size: int = 56
    """Height and width of the cameras' pictures in pixels."""
    edition: Edition = DEFAULT_EDITION
    """Edition of the challenge, which decides the layout of the demonstrations."""
    seed: int = 0
    """Seed of all that is random; of the demonstrations, the disturbances that experts correct."""
    processes: int = field(default=2, metadata=OPERATIONAL)
    """Processes that collect in parallel."""

    def __post_init__(self) -> None:
        require(
            (1 <= self.episodes <= 100, f"episodes is {self.episodes}; expected 1 to 100"),
            (self.processes >= 1, f"processes is {self.processes}; expected at least 1"),
            *check_tasks(self.tasks),
        )


@dataclass(frozen=True)
class Inputs:
    """Nothing: the demonstrations come from the simulator."""


DECLARATION = Declaration(
    "collect", Config, Inputs, image="household", outputs={"commit": str}, output="demonstrations"
)
