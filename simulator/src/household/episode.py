"""One demonstration: the expert acts, every frame is recorded, and the labels are the expert's own actions."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from household import robot
from household.experts import EXPERTS
from household.goals import Goal
from household.instances import generator, make_instance
from household.robot import FloatArray
from household.simulation import Simulation

Style = Literal["clean", "corrected"]

MAX_STEPS = 240
"""An expert that has not succeeded after this many control steps has failed."""
HOLD_STEPS = 8
"""Frames recorded after success, so that the last chunk shows how to stay."""
_CORRELATION = 0.93
"""Share of the disturbance that one control step hands to the next: it lasts about half a second."""
_DISTURBANCE: FloatArray = np.array([0.05, 0.05, 0.06, *[0.004] * 4, *[0.006] * 7, 0.10, *[0.006] * 7, 0.10])
"""Standard deviation of the disturbance per action: m/s, rad/s, rad, gripper units."""


@dataclass
class Recording:
    """What was seen and done, one entry per frame.

    Attributes:
        actions: the expert's actions, each [23].
        proprioception: each [256].
        camera_poses: each [21].
        task_info: privileged object poses, each [7 * objects]; never a policy's input.
        frames: pictures by camera, each [size, size, 3] uint8.
        skills: (skill, object) per frame.
        success: whether the goal was reached.
        distances: paths of base, left and right hand in metres.
    """

    actions: list[FloatArray] = field(default_factory=list)
    proprioception: list[FloatArray] = field(default_factory=list)
    camera_poses: list[FloatArray] = field(default_factory=list)
    task_info: list[FloatArray] = field(default_factory=list)
    frames: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)
    skills: list[tuple[str, str]] = field(default_factory=list)
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
        """Add the way since the last call; to be called after every control step."""
        points = self._points()
        self.total = self.total + np.linalg.norm(points - self._last, axis=1)
        self._last = points

    def _points(self) -> FloatArray:
        base = np.array([*self._simulation.data.qpos[self._simulation.addresses.base_q[:2]], 0.0])
        return np.stack([base, *(self._simulation.hand_position(side) for side in robot.SIDES)])


def record(
    simulation: Simulation, instance_id: int, *, image_size: int | None, style: Style, seed: int, attempt: int = 0
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
    goal, expert, odometer = Goal(simulation), EXPERTS[task.name](simulation), Odometer(simulation)
    rng = generator("disturbance", seed, task.name, instance_id, attempt)
    disturbance = rng.normal(size=robot.ACTION_DIM) * _DISTURBANCE
    result = Recording(frames={camera: [] for camera in robot.CAMERAS})
    hold = 0
    for _ in range(MAX_STEPS):
        command = expert.act()
        _see(simulation, result, image_size)
        result.actions.append(command.action)
        result.skills.append((command.skill, command.target))
        executed = command.action
        if style == "corrected":
            executed = executed + disturbance
            fresh = rng.normal(size=robot.ACTION_DIM) * _DISTURBANCE
            disturbance = _CORRELATION * disturbance + np.sqrt(1 - _CORRELATION**2) * fresh
        simulation.step(executed)
        odometer.update()
        if goal.satisfied():
            result.success = True
            hold += 1
            if hold > HOLD_STEPS:
                break
    result.distances = odometer.total
    return result


def _see(simulation: Simulation, result: Recording, image_size: int | None) -> None:
    result.proprioception.append(simulation.proprioception())
    result.camera_poses.append(simulation.camera_poses())
    poses = [simulation.object_pose(p.name) for p in simulation.task.placements]
    result.task_info.append(np.concatenate(poses))
    if image_size is not None:
        for camera in robot.CAMERAS:
            result.frames[camera].append(simulation.render(camera, image_size))
