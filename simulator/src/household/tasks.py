"""The household tasks: reduced forms of BEHAVIOR tasks, in one room with one or two objects.

The goal of each is read from the bddl package (`goals.py`), grounded for the objects that are present.
What is reduced: the room, the number of objects, the distances; the can stands on the table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Where an object may stand.

    Attributes:
        name: BDDL name, for example "can__of__soda.n.01_1".
        centre: x, y in metres.
        ranges: half-ranges of x, y (metres) and yaw (rad); drawn uniformly.
    """

    name: str
    centre: tuple[float, float]
    ranges: tuple[float, float, float]


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
        placements: the objects that are present.
        grasp_object: the object that hands can grasp, or None.
        gripper: right gripper's command at the start, -1 closed to 1 open.
        base_centre: mean x, y of the robot's start, metres.
        base_range: half-ranges of the robot's start x, y (metres) and yaw (rad).
        human: means that normalise time and distances, measured over 80 demonstrations of style "corrected".
    """

    name: str
    index: int
    stages: int
    instruction: str
    placements: tuple[Placement, ...]
    grasp_object: str | None
    gripper: float
    base_centre: tuple[float, float]
    base_range: tuple[float, float, float]
    human: HumanMeans

    @property
    def time_limit(self) -> int:
        """Control steps a rollout may take: 1.5 times the human mean (2026 edition)."""
        return round(1.5 * self.human.length)


_BASE_RANGE = (0.06, 0.06, 0.04)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="turning_on_radio",
            index=0,
            stages=5,
            instruction="Turn on the radio receiver that's on the table in the living room.",
            placements=(Placement("radio_receiver.n.01_1", (0.56, -0.03), (0.04, 0.08, 0.15)),),
            grasp_object=None,
            gripper=-1.0,
            base_centre=(-0.32, 0.0),
            base_range=_BASE_RANGE,
            human=HumanMeans(63.0, 0.401, 0.426, 0.540),
        ),
        Task(
            name="picking_up_trash",
            index=1,
            stages=6,
            instruction="Put the three can of soda from the living room inside the tash can in the kitchen.",
            placements=(
                Placement("can__of__soda.n.01_1", (0.56, -0.05), (0.04, 0.07, 3.14)),
                Placement("ashcan.n.01_1", (0.54, -0.43), (0.03, 0.03, 0.1)),
            ),
            grasp_object="can__of__soda.n.01_1",
            gripper=1.0,
            base_centre=(-0.15, 0.0),
            base_range=_BASE_RANGE,
            human=HumanMeans(109.3, 0.362, 0.422, 0.765),
        ),
    )
}
"""Tasks by name."""


def task_named(name: str) -> Task:
    """Look a task up.

    Args:
        name: the challenge's task name.

    Returns:
        The task.

    Raises:
        ValueError: the simulator does not have it.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not in the household simulator; it has {', '.join(TASKS)}")
    return TASKS[name]
