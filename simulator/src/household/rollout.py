"""One rollout: ask the policy, act, measure, and write the challenge's JSON and video."""

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from household import robot
from household.episode import Odometer
from household.faults import Faults
from household.goals import Goal
from household.instances import Instance
from household.oracle import Oracle
from household.robot import FloatArray
from household.simulation import Simulation
from household.task import Task
from household.video import through_camera

_HEAD_SIZE = 448
_WRIST_SIZE = 224
_STEPS_PER_LINE = 100
logger = logging.getLogger(__name__)


class Policy(Protocol):
    """A policy, as a rollout uses it; `protocol.PolicyClient` is one."""

    def reset(self) -> None:
        """A new rollout begins."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer an observation message."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a rollout.

    Attributes:
        steps: control steps taken.
        success: whether the goal was reached.
        q: the episode's q.
        distances: [3] paths of base, left and right hand in metres.
    """

    steps: int
    success: bool
    q: float
    distances: FloatArray


def observe(simulation: Simulation, image_size: int) -> dict[str, Any]:
    """Take the observation that the evaluator sends.

    Args:
        simulation: the simulation.
        image_size: side of the pictures in pixels.

    Returns:
        The message: proprioception float32 [256], pictures uint8 [size, size, 4] RGBA, camera poses
        float32 [21], task id int64 [1].
    """
    message: dict[str, Any] = {
        robot.PROPRIOCEPTION_KEY: simulation.proprioception().astype(np.float32),
        robot.CAMERA_POSES_KEY: simulation.camera_poses().astype(np.float32),
        "task_id": np.array([simulation.task.index], np.int64),
    }
    for camera, key in robot.CAMERA_OBSERVATION_KEYS.items():
        picture = through_camera(simulation.render(camera, image_size))
        alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
        message[key] = np.concatenate([picture, alpha], axis=-1)
    return message


def video_frame(simulation: Simulation) -> npt.NDArray[np.uint8]:
    """Compose the video's picture.

    Args:
        simulation: the simulation.

    Returns:
        [448, 672, 3] uint8: left wrist top left, right wrist bottom left, head right.
    """
    left, right = (simulation.render(f"{side}_wrist", _WRIST_SIZE) for side in robot.SIDES)
    wrists = np.concatenate([left, right], axis=0)
    return np.concatenate([wrists, simulation.render("head", _HEAD_SIZE)], axis=1)


class _Actions:
    """Actions one by one: from the replay buffer while it lasts, else from the policy."""

    def __init__(
        self,
        policy: Policy,
        simulation: Simulation,
        image_size: int,
        chunk_size: int | None,
        oracle: Oracle | None,
    ) -> None:
        self._policy, self._simulation = policy, simulation
        self._image_size, self._chunk_size, self._oracle = image_size, chunk_size, oracle
        self._buffer: deque[FloatArray] = deque()
        policy.reset()

    def next(self, step: int) -> FloatArray:
        if not self._buffer:
            message = observe(self._simulation, self._image_size)
            if self._chunk_size is not None:
                message["__action_chunk_size__"] = self._chunk_size
            if self._oracle is not None:
                message[robot.ORACLE_STAGE_KEY] = np.array([self._oracle.stage(step)], np.int64)
            self._buffer.extend(_actions_of(self._policy.infer(message), self._chunk_size))
        return self._buffer.popleft()


def _actions_of(answer: dict[str, Any], chunk_size: int | None) -> FloatArray:
    """The actions of an answer, [k, 23], checked."""
    name = "action" if chunk_size is None or "action_chunk" not in answer else "action_chunk"
    if name not in answer:
        raise ConnectionError(f"the policy's answer has no 'action'; it has {sorted(map(str, answer))}")
    actions = np.asarray(answer[name], dtype=np.float64).reshape(-1, robot.ACTION_DIM)
    if not len(actions):
        raise ConnectionError(f"the policy's {name!r} is empty")
    if not np.isfinite(actions).all():
        raise ConnectionError(f"the policy's {name!r} has values that are not finite")
    return actions


def roll_out(
    simulation: Simulation,
    instance: Instance,
    policy: Policy,
    *,
    max_steps: int,
    image_size: int,
    chunk_size: int | None,
    frames: list[npt.NDArray[np.uint8]] | None,
    faults: Faults,
    oracle_stage: bool = False,
) -> Outcome:
    """Let the policy act until success or the time limit.

    Args:
        simulation: a simulation of the instance's task.
        instance: where to start.
        policy: the policy that acts.
        max_steps: time limit in control steps.
        image_size: side of the policy's pictures in pixels.
        chunk_size: ask for this many actions at once and replay them, or None for one.
        frames: gets the video's pictures, or None for no video.
        faults: failures that the environment asks for.
        oracle_stage: tell the policy the true stage.

    Returns:
        The outcome.

    Raises:
        ConnectionError: the policy failed, or its answer is malformed.
    """
    simulation.reset(instance)
    goal, odometer = Goal(simulation), Odometer(simulation)
    oracle = Oracle(simulation) if oracle_stage else None
    actions = _Actions(policy, simulation, image_size, chunk_size, oracle)
    success = False
    for step in range(1, max_steps + 1):
        simulation.step(actions.next(step - 1))
        odometer.update()
        if frames is not None:
            frames.append(video_frame(simulation))
        faults.step(step)
        if step % _STEPS_PER_LINE == 0:  # the official evaluator's line; supervisors look for it
            logger.info("Current step: %d", step)
        success = goal.satisfied()
        if success:
            break
    faults.rollout()
    return Outcome(step, success, goal.q(), odometer.total)


def outcome_json(task: Task, instance_id: int, rollout_id: int, outcome: Outcome) -> dict[str, Any]:
    """The challenge's JSON (2026) of a rollout.

    Args:
        task: the task.
        instance_id: the instance.
        rollout_id: which rollout of the instance.
        outcome: its outcome.

    Returns:
        Exactly the official keys; normalised values are human mean / achieved, infinite where achieved is 0.
    """
    human = task.human
    means = {
        "base": human.distance_traveled,
        "left": human.left_eef_displacement,
        "right": human.right_eef_displacement,
    }
    achieved = dict(zip(means, map(float, outcome.distances), strict=True))
    normalised = {k: means[k] / v if v > 0 else float("inf") for k, v in achieved.items()}
    return {
        "task": task.name,
        "instance_id": instance_id,
        "rollout_id": rollout_id,
        "steps": outcome.steps,
        "success": outcome.success,
        "agent_distance": achieved,
        "normalized_agent_distance": normalised,
        "q_score": {"final": outcome.q},
        "time": {
            "simulator_steps": outcome.steps,
            "simulator_time": outcome.steps / robot.CONTROL_HZ,
            "normalized_time": human.length / outcome.steps,
        },
    }
