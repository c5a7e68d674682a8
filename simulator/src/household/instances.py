"""Task instances: where the robot and the objects stand, drawn from the instance's number alone."""

import hashlib
from dataclasses import dataclass

import numpy as np

from household import room
from household.robot import FloatArray
from household.tasks import Task

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
    """

    task: str
    instance_id: int
    base: FloatArray
    poses: dict[str, FloatArray]
    posture: FloatArray


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
        x, y, yaw = np.array([*placement.centre, 0.0]) + around(placement.ranges)
        poses[placement.name] = np.array([x, y, _height(placement.name), yaw])
    # Never exactly the same posture: a joint that never varies would have no spread to normalise with.
    posture = np.concatenate([rng.normal(0.0, 0.015, 18).clip(-0.04, 0.04), -rng.uniform(0.0, 0.3, 2)])
    return Instance(task.name, instance_id, base, poses, posture)


def _height(name: str) -> float:
    """Height of an object's frame above the floor when it stands in its place, in metres."""
    if name.startswith("radio"):
        return room.TABLE_HEIGHT + room.RADIO_HEIGHT / 2
    if name.startswith("can"):
        return room.TABLE_HEIGHT + room.CAN_HALF_HEIGHT
    return 0.0
