"""The household tasks: reduced forms of BEHAVIOR tasks, each in one room with few objects.

The goal of each is read from the bddl package (`goals.py`), grounded for the objects that are present; its
`reduced` says what is left out.
"""

from dataclasses import dataclass

from household.robot import Edition
from household.room import Zone

Ranges = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """Where an object may stand.

    Attributes:
        name: BDDL name, for example "can__of__soda.n.01_1".
        centre: x, y in metres, in the room or in the frame of `parent`.
        ranges: half-ranges of x, y (metres) and yaw (rad); drawn uniformly.
        height: height in metres of what it stands on.
        parent: the object that it moves with, listed before it; heights count from the floor all the same.
        opening: lowest and highest angle of its door in rad, or None for a closed one or none.
    """

    name: str
    centre: tuple[float, float]
    ranges: Ranges
    height: float = 0.0
    parent: str | None = None
    opening: tuple[float, float] | None = None


@dataclass(frozen=True)
class HumanMeans:
    """Means over the task's own demonstrations, in place of the human demonstrators' means.

    Attributes:
        length: control steps.
        distance_traveled: path of the base in metres.
        left_eef_displacement: path of the left hand in metres.
        right_eef_displacement: path of the right hand in metres.
    """

    length: float
    distance_traveled: float
    left_eef_displacement: float
    right_eef_displacement: float


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: the challenge's name, which is also bddl's activity.
        index: the challenge's task index.
        stages: number of stages the challenge's policy divides the task into.
        instruction: the challenge's instruction.
        reduced: what is left out or made easier here.
        room: one of `room.ROOMS`.
        placements: the objects that are present.
        zones: named parts of the floor that the goal speaks of.
        gripper: right gripper's command at the start, -1 closed to 1 open.
        base_centre: mean x, y of the robot's start, metres.
        base_range: half-ranges of the robot's start x, y (metres) and yaw (rad).
        variation: how much the expert's speed and path vary between episodes, 0 (not at all) to 1.
        human: means that normalise time and distances, measured over 80 demonstrations of style "corrected".
    """

    name: str
    index: int
    stages: int
    instruction: str
    reduced: str
    room: str
    placements: tuple[Placement, ...]
    base_centre: tuple[float, float]
    human: HumanMeans
    zones: tuple[Zone, ...] = ()
    base_range: Ranges = (0.10, 0.12, 0.15)
    gripper: float = 1.0
    variation: float = 1.0

    @property
    def objects(self) -> tuple[str, ...]:
        """BDDL names of the objects that are present, without parts of the floor."""
        return tuple(p.name for p in self.placements)

    @property
    def time_limit(self) -> int:
        """Control steps a rollout may take in 2026."""
        return self.limit("2026")

    def limit(self, edition: Edition) -> int:
        """Control steps that a rollout may take.

        Args:
            edition: year of the challenge.

        Returns:
            1.5 times the human mean; twice in 2025.
        """
        return round((2.0 if edition == "2025" else 1.5) * self.human.length)
