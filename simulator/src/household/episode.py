"""One demonstration: the expert acts, every frame is recorded, labelled with the expert's own action."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from household import robot
from household.expert import draw_variation
from household.experts import make_expert
from household.goals import Goal
from household.instances import generator, make_instance
from household.robot import FloatArray
from household.room import kind_of
from household.simulation import Simulation

Style = Literal["clean", "corrected"]

_MIN_STEPS = 240
_MAX_LENGTHS = 2
"""An expert that has not succeeded after this many mean lengths, or the steps above, has failed."""
HOLD_STEPS = 8
"""Frames recorded after success, so that the last chunk shows how to stay there."""
_CORRELATION = 0.93
"""Share of the disturbance that remains after a control step: it lasts about half a second."""
_DISTURBANCE: FloatArray = np.array(
    [0.0667, 0.0667, 0.06, *[0.004] * 4, *[0.006] * 7, 0.10, *[0.006] * 7, 0.30]
)
"""Deviation of the disturbance per action: 0.05 m/s, 0.06 rad/s, both as commands, rad, gripper units."""
_GRIPPER_LIMIT = 0.5
"""Largest disturbance of a gripper: less than what would drop an object that is held."""
_SLIP_PROBABILITY = 0.03
_SLIP_STEPS = (5, 20)
_SLIP_DISTANCE = 0.07
"""Now and then the empty right gripper closes by itself for a while, while the labels still open it.

Only the gripper: a label is a joint target near the measured joints, so a chunk of labels follows the path
that the arm really took, and a disturbance that moves the arm away would teach that path.
"""


@dataclass
class Recording:
    """Observations and actions, one entry per frame.

    Attributes:
        actions: the expert's actions, each [23].
        proprioception: each [61] or [256].
        camera_poses: each [21].
        task_info: privileged object poses, each [7 * objects]; never a policy's input.
        frames: pictures by camera, each [size, size, 3] uint8.
        skills: (skill, object, object in the hand or None) per frame.
        success: whether the goal was reached.
        distances: paths of base, left and right hand in metres.
    """

    actions: list[FloatArray] = field(default_factory=list)
    proprioception: list[FloatArray] = field(default_factory=list)
    camera_poses: list[FloatArray] = field(default_factory=list)
    task_info: list[FloatArray] = field(default_factory=list)
    frames: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)
    skills: list[tuple[str, str, str | None]] = field(default_factory=list)
    success: bool = False
    distances: FloatArray = field(default_factory=lambda: np.zeros(3))


class Odometer:
    """Adds up the paths of the base and of both hands.

    Args:
        simulation: a simulation after `reset`.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._last = self._points()
        self.total: FloatArray = np.zeros(3)

    def update(self) -> None:
        """Add the path since the last call; to be called after every control step."""
        points = self._points()
        self.total = self.total + np.linalg.norm(points - self._last, axis=1)
        self._last = points

    def _points(self) -> FloatArray:
        base = np.array([*self._simulation.data.qpos[self._simulation.addresses.base_q[:2]], 0.0])
        return np.stack([base, *(self._simulation.hand_position(side) for side in robot.SIDES)])


def record(
    simulation: Simulation,
    instance_id: int,
    *,
    image_size: int | None,
    style: Style,
    seed: int,
    attempt: int = 0,
) -> Recording:
    """Let the expert demonstrate one instance.

    Args:
        simulation: a simulation of the task.
        instance_id: which instance.
        image_size: side of the pictures in pixels, or None for no pictures.
        style: "clean" executes the expert's actions; "corrected" executes them with a mild, slowly varying
            disturbance while the labels stay the expert's own, so that the data shows how to correct.
        seed: of the disturbance.
        attempt: changes the disturbance.

    Returns:
        The recording, whether successful or not.
    """
    task = simulation.task
    simulation.reset(make_instance(task, instance_id))
    variation = draw_variation(generator("variation", seed, task.name, instance_id, attempt), task.variation)
    goal, expert, odometer = Goal(simulation), make_expert(simulation, variation), Odometer(simulation)
    disturbance = _Disturbance(simulation, generator("disturbance", seed, task.name, instance_id, attempt))
    result = Recording(frames={camera: [] for camera in robot.CAMERAS})
    hold = 0
    for _ in range(max(_MIN_STEPS, round(_MAX_LENGTHS * task.human.length))):
        command = expert.act()
        _see(simulation, result, image_size)
        result.actions.append(command.action)
        result.skills.append((command.skill, command.target, _held(simulation)))
        simulation.step(command.action if style == "clean" else disturbance.apply(command.action))
        odometer.update()
        if goal.satisfied():
            result.success = True
            hold += 1
            if hold > HOLD_STEPS:
                break
    result.distances = odometer.total
    return result


class _Disturbance:
    """Slowly varying errors of execution, and slips of the empty gripper."""

    def __init__(self, simulation: Simulation, rng: np.random.Generator) -> None:
        self._simulation, self._rng = simulation, rng
        self._value = rng.normal(size=robot.ACTION_DIM) * _DISTURBANCE
        self._slip = 0

    def apply(self, action: FloatArray) -> FloatArray:
        """The action as it is executed, [23]."""
        grippers = [robot.LEFT_GRIPPER, robot.RIGHT_GRIPPER]
        disturbed = action + self._value
        disturbed[grippers] = action[grippers] + self._value[grippers].clip(-_GRIPPER_LIMIT, _GRIPPER_LIMIT)
        fresh = self._rng.normal(size=robot.ACTION_DIM) * _DISTURBANCE
        self._value = _CORRELATION * self._value + np.sqrt(1 - _CORRELATION**2) * fresh
        if self._slip == 0 and self._rng.random() < _SLIP_PROBABILITY:
            self._slip = int(self._rng.integers(*_SLIP_STEPS))
        if self._slip > 0:
            self._slip -= 1
            if self._far_from_objects():
                disturbed[robot.RIGHT_GRIPPER] = -1.0
        return disturbed

    def _far_from_objects(self) -> bool:
        """Whether a closing right hand cannot grasp anything: a slip must not become a grasp."""
        simulation = self._simulation
        graspable = [n for n in simulation.task.objects if kind_of(n).grasp is not None]
        if not graspable or simulation.grasp.held:
            return False
        hand = simulation.hand_position("right")
        offsets = [simulation.object_pose(name)[:3] - hand for name in graspable]
        return min(float(np.hypot(x, y)) for x, y, _ in offsets) > _SLIP_DISTANCE


def _held(simulation: Simulation) -> str | None:
    """The object in either hand; an expert never holds two."""
    return next(iter(simulation.grasp.held.values()), None)


def _see(simulation: Simulation, result: Recording, image_size: int | None) -> None:
    result.proprioception.append(simulation.proprioception())
    result.camera_poses.append(simulation.camera_poses())
    poses = [simulation.object_pose(name) for name in simulation.task.objects]
    result.task_info.append(np.concatenate(poses))
    if image_size is not None:
        for camera in robot.CAMERAS:
            result.frames[camera].append(simulation.render(camera, image_size))
