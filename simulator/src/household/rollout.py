"""One rollout: ask the policy, act, measure, and write the challenge's JSON and video."""

import json
import logging
from collections import deque
from dataclasses import dataclass, field
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

_STEPS_PER_LINE = 100
_GOAL_EVERY = 5
"""Control steps between two looks at the goal's predicates, besides those at the end."""
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
        goals: changes of the goal's predicates, by the predicate: steps, and whether it holds from then on.
    """

    steps: int
    success: bool
    q: float
    distances: FloatArray
    goals: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Film:
    """The video of a rollout while it is made.

    Attributes:
        every: control steps per picture.
        size: side of the head camera's picture in pixels, a multiple of 4; the wrists' have half of it.
        frames: the pictures.
    """

    every: int = 1
    size: int = 448
    frames: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def take(self, simulation: Simulation, step: int) -> None:
        """Take a picture after a control step, from 1, if it is the turn of one.

        Args:
            simulation: the simulation.
            step: the step.
        """
        if (step - 1) % self.every == 0:
            self.frames.append(video_frame(simulation, self.size))


def observe(simulation: Simulation, image_size: int) -> dict[str, Any]:
    """Take the observation that the evaluator sends.

    Args:
        simulation: the simulation.
        image_size: side of the pictures in pixels.

    Returns:
        The message: proprioception float32 [61] or [256], pictures uint8 [size, size, 4] RGBA, camera poses
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


def video_frame(simulation: Simulation, size: int) -> npt.NDArray[np.uint8]:
    """Compose the video's picture.

    Args:
        simulation: the simulation.
        size: side of the head camera's picture in pixels, even.

    Returns:
        [size, 1.5 size, 3] uint8: left wrist top left, right wrist bottom left, head right.
    """
    left, right = (simulation.render(f"{side}_wrist", size // 2) for side in robot.SIDES)
    wrists = np.concatenate([left, right], axis=0)
    return np.concatenate([wrists, simulation.render("head", size)], axis=1)


def _note(goals: dict[str, list[tuple[int, bool]]], goal: Goal, step: int) -> None:
    """Add the predicates that changed since the last look."""
    for name, holds in goal.holding().items():
        changes = goals.setdefault(name, [])
        if not changes or changes[-1][1] != holds:
            changes.append((step, holds))


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
    film: Film | None,
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
        film: gets the video's pictures, or None for no video.
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
    success, goals = False, dict[str, list[tuple[int, bool]]]()
    _note(goals, goal, 0)
    for step in range(1, max_steps + 1):
        simulation.step(actions.next(step - 1))
        odometer.update()
        if film is not None:
            film.take(simulation, step)
        faults.step(step)
        if step % _STEPS_PER_LINE == 0:  # the official evaluator's line; supervisors look for it
            logger.info("Current step: %d", step)
        success = goal.satisfied()
        if success or step % _GOAL_EVERY == 0 or step == max_steps:
            _note(goals, goal, step)
        if success:
            break
    faults.rollout()
    return Outcome(step, success, goal.q(), odometer.total, goals)


def goal_lines(outcome: Outcome) -> str:
    """The changes of the goal's predicates as JSON lines, in the order of the steps.

    Args:
        outcome: an outcome.

    Returns:
        Lines such as {"step": 40, "predicate": "open fridge.n.01_1", "holds": true}.
    """
    rows = sorted((step, name, holds) for name, changes in outcome.goals.items() for step, holds in changes)
    return "".join(
        json.dumps({"step": step, "predicate": name, "holds": holds}) + "\n" for step, name, holds in rows
    )


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
