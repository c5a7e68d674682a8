"""What the stage dataset takes and makes."""

from dataclasses import dataclass

from components.demonstrations.source import Source
from components.runtime.declaration import Declaration
from pi_behavior.config import require


@dataclass(frozen=True)
class Config(Source):
    """Which demonstrations."""

    decode_all: bool = True
    """Decode every frame of every video in the checks; otherwise count them and decode first and last."""
    limit_tolerance: float = 0.05
    """How far values may be outside the robot's limits: rad, m/s, or gripper units."""

    def __post_init__(self) -> None:
        tolerance = self.limit_tolerance
        require((tolerance >= 0, f"limit_tolerance is {tolerance}; expected 0 or more"))


@dataclass(frozen=True)
class Inputs:
    """Nothing: the data come from DVC."""


DECLARATION = Declaration(
    "dataset", Config, Inputs, makes="Dataset", output="dataset", page="dataset_summary"
)
