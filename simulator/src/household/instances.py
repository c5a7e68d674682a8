"""Task instances: where the robot and the objects stand, drawn from the instance's number alone."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from household.robot import FloatArray
from household.room import kind_of
from household.task import Placement, Task

TRAIN_INSTANCES = range(1, 201)
TEST_INSTANCES = range(301, 341)
PUBLIC_TEST_INSTANCES = range(301, 321)
TEST_WIDENING = 1.1
"""Test instances are drawn from ranges this much wider than those of the training instances."""


@dataclass(frozen=True)
class Instance:
    """One starting state of a task.

    Attributes:
        task: task name.
        instance_id: 1-200 train, 301-340 test.
        base: [3] x, y in metres and yaw in rad of the robot's base.
        poses: object name to [4]: x, y, z in metres and yaw in rad.
        posture: [20] small offsets in rad of trunk and arm joints (trunk 4, left 7, right 7) and, last two,
            of the grippers' commands.
        openings: object name to the angle in rad of its door, for doors that are open.
    """

    task: str
    instance_id: int
    base: FloatArray
    poses: dict[str, FloatArray]
    posture: FloatArray
    openings: dict[str, float] = field(default_factory=dict)


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on nothing but the key.

    Args:
        *key: anything whose text identifies the draw, for example the task's name and the instance.

    Returns:
        The same generator for the same key on every machine.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def make_instance(task: Task, instance_id: int) -> Instance:
    """Draw an instance.

    Args:
        task: the task.
        instance_id: 1-200 (train) or 301-340 (test).

    Returns:
        The instance, always the same for the same arguments.

    Raises:
        ValueError: no such instance.
    """
    if instance_id not in TRAIN_INSTANCES and instance_id not in TEST_INSTANCES:
        raise ValueError(f"instance {instance_id} does not exist; expected 1-200 (train) or 301-340 (test)")
    rng = generator("instance", task.name, instance_id)
    width = TEST_WIDENING if instance_id in TEST_INSTANCES else 1.0

    def around(ranges: tuple[float, ...]) -> FloatArray:
        return np.asarray(rng.uniform(-1.0, 1.0, len(ranges)) * np.array(ranges) * width)

    base = np.array([*task.base_centre, 0.0]) + around(task.base_range)
    poses: dict[str, FloatArray] = {}
    for placement in task.placements:
        drawn = np.array([*placement.centre, 0.0]) + around(placement.ranges)
        poses[placement.name] = _pose(placement, drawn, poses)
    # Never exactly the same posture: a joint that never varies would have no spread to normalise with.
    posture = np.concatenate([rng.normal(0.0, 0.015, 18).clip(-0.04, 0.04), -rng.uniform(0.0, 0.3, 2)])
    openings = {p.name: float(rng.uniform(*p.opening)) for p in task.placements if p.opening is not None}
    return Instance(task.name, instance_id, base, poses, posture, openings)


def _pose(placement: Placement, drawn: FloatArray, poses: dict[str, FloatArray]) -> FloatArray:
    """Pose in the room, [4], of what was drawn in the frame of its parent: x, y, yaw."""
    x, y, yaw = drawn
    if placement.parent is not None:
        px, py, _, turn = poses[placement.parent]
        cos, sin = np.cos(turn), np.sin(turn)
        x, y, yaw = px + cos * x - sin * y, py + sin * x + cos * y, yaw + turn
    kind = kind_of(placement.name)
    return np.array([x, y, placement.height - (kind.low[2] if kind.free else 0.0), yaw])
