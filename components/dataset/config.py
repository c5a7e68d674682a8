"""What the stage dataset takes and makes."""

import math
from dataclasses import dataclass, field

from components.demonstrations.source import Source
from components.runtime.declaration import Declaration
from pi_behavior.challenge import check_tasks
from pi_behavior.config import OPERATIONAL, require
from pi_behavior.layout import CAMERAS

MODALITIES = ("rgb", "depth", "segmentation")


@dataclass(frozen=True)
class Config(Source):
    """Which demonstrations."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks whose files are fetched; none means all."""
    cameras: tuple[str, ...] = ()
    """Cameras whose videos are fetched: head, left_wrist, right_wrist; none means all. Training needs all."""
    modalities: tuple[str, ...] = ()
    """Videos that are fetched: rgb, depth, segmentation; none means all. Training needs rgb."""
    decode_all: bool = True
    """Decode every frame of every video in the checks; otherwise count them and decode first and last."""
    limit_tolerance: float = 0.05
    """How far base commands and grippers may be outside the robot's limits, as parts of the largest one."""
    joint_tolerance: float = 0.4
    """How far joints may be outside their limits, in rad."""
    quarantine: bool = False
    """Leave out, and list, episodes in which the checks find something, instead of refusing the dataset."""
    idle_tolerance: float = 0.0
    """Cut frames at the beginning and end of an episode in which no action is further than this from the
    first or last one and the base stands; 0 cuts none."""
    length_factor: float = 0.0
    """Leave out episodes that are so many times as long, or as short, as their task's median; 0 leaves out
    none."""
    processes: int = field(default=0, metadata=OPERATIONAL)
    """How many check at the same time; 0: as many as there are cores."""

    def __post_init__(self) -> None:
        unknown = [c for c in self.cameras if c not in CAMERAS]
        unknown += [m for m in self.modalities if m not in MODALITIES]
        at_least = {"limit_tolerance": 0, "joint_tolerance": 0, "idle_tolerance": 0, "processes": 0}
        factor = self.length_factor
        require(
            *check_tasks(self.tasks),
            (not unknown, f"{', '.join(unknown)}: expected {', '.join((*CAMERAS, *MODALITIES))}"),
            *(
                (getattr(self, name) >= least, f"{name} is {getattr(self, name)}; expected {least} or more")
                for name, least in at_least.items()
            ),
            (
                factor == 0 or (factor > 1 and math.isfinite(factor)),
                f"length_factor is {factor}; expected a number above 1, or 0",
            ),
        )


@dataclass(frozen=True)
class Inputs:
    """Nothing: the data come from DVC."""


DECLARATION = Declaration(
    "dataset", Config, Inputs, makes="Dataset", output="dataset", page="dataset_summary"
)
