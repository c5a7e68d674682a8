"""Rollouts: ask the policy, act, and measure, in one environment or in several together."""

import logging
from collections import deque
from collections.abc import Sequence
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
from household.outcome import Outcome
from household.robot import FloatArray
from household.simulation import Simulation
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


@dataclass(frozen=True)
class View:
    """What a policy is sent of the robot.

    Attributes:
        head: side of the head camera's pictures in pixels.
        wrist: of the wrists'.
        depth: whether depth is sent too.
        robot: name of the robot, in the keys.
    """

    head: int
    wrist: int
    depth: bool = False
    robot: str = robot.NAME


def observe(simulation: Simulation, view: View) -> dict[str, Any]:
    """Take the observation that the evaluator sends.

    Args:
        simulation: the simulation.
        view: what of it is sent.

    Returns:
        The message: proprioception float32 [61] or [256], pictures uint8 [size, size, 4] RGBA, camera poses
        float32 [21], task id int64 [1]; with depth also float32 [size, size] in metres for every camera.
    """
    message: dict[str, Any] = {
        robot.PROPRIOCEPTION_KEY: simulation.proprioception().astype(np.float32),
        robot.CAMERA_POSES_KEY: simulation.camera_poses().astype(np.float32),
        "task_id": np.array([simulation.task.index], np.int64),
    }
    for camera, key in robot.CAMERA_OBSERVATION_KEYS.items():
        size = view.head if camera == "head" else view.wrist
        picture = through_camera(simulation.render(camera, size))
        alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
        message[key] = np.concatenate([picture, alpha], axis=-1)
        if view.depth:
            message[key.removesuffix("rgb") + "depth_linear"] = simulation.depth(camera, size)
    return {key.replace(robot.NAME, view.robot): value for key, value in message.items()}


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


class _Environment:
    """One environment of a group, from its start to its end."""

    def __init__(
        self,
        simulation: Simulation,
        instance: Instance,
        view: View,
        film: Film | None,
        *,
        oracle_stage: bool,
    ) -> None:
        simulation.reset(instance)
        self._simulation, self._view, self._film = simulation, view, film
        self._goal, self._odometer = Goal(simulation), Odometer(simulation)
        self._goals: dict[str, list[tuple[int, bool]]] = {}
        _note(self._goals, self._goal, 0)
        self._oracle = Oracle(simulation) if oracle_stage else None
        self._last: dict[str, Any] = {}
        self.outcome: Outcome | None = None

    def observe(self, step: int) -> dict[str, Any]:
        """The observation; after the end always the same."""
        if self.outcome is None:
            self._last = observe(self._simulation, self._view)
            if self._oracle is not None:
                self._last[robot.ORACLE_STAGE_KEY] = np.array([self._oracle.stage(step)], np.int64)
        return self._last

    def act(self, action: FloatArray, step: int, max_steps: int) -> None:
        """Take a control step, from 1; after the end nothing happens."""
        if self.outcome is not None:
            return
        self._simulation.step(action)
        self._odometer.update()
        if self._film is not None:
            self._film.take(self._simulation, step)
        success = self._goal.satisfied()
        is_end = success or step == max_steps
        if is_end or step % _GOAL_EVERY == 0:
            _note(self._goals, self._goal, step)
        if is_end:
            self.outcome = Outcome(step, success, self._goal.q(), self._odometer.total, self._goals)


def _actions_of(answer: dict[str, Any], chunk_size: int | None, environments: int) -> FloatArray:
    """The actions of an answer, [steps, environments, 23], checked."""
    name = "action" if chunk_size is None or "action_chunk" not in answer else "action_chunk"
    if name not in answer:
        raise ConnectionError(f"the policy's answer has no 'action'; it has {sorted(map(str, answer))}")
    actions = np.asarray(answer[name], dtype=np.float64)
    fits = environments == 1 or (actions.ndim > 1 and len(actions) == environments)
    if not fits or actions.shape[-1:] != (robot.ACTION_DIM,):
        raise ConnectionError(
            f"the policy's {name!r} has the shape {actions.shape}; expected {robot.ACTION_DIM} numbers for "
            f"each of {environments} environments"
        )
    actions = actions.reshape(environments, -1, robot.ACTION_DIM).transpose(1, 0, 2)
    if not len(actions):
        raise ConnectionError(f"the policy's {name!r} is empty")
    if not np.isfinite(actions).all():
        raise ConnectionError(f"the policy's {name!r} has values that are not finite")
    return actions


def roll_out(
    simulations: Sequence[Simulation],
    instances: Sequence[Instance],
    policy: Policy,
    *,
    max_steps: int,
    view: View,
    chunk_size: int | None,
    films: Sequence[Film | None],
    faults: Faults,
    oracle_stage: bool = False,
    is_batch: bool,
) -> list[Outcome]:
    """Let the policy act in several environments until all have ended, by success or the time limit.

    As in the official evaluator from v3.9.3 on, the batch keeps its size and order to the end: an environment
    that has ended sends its last observation, and its actions are ignored.

    Args:
        simulations: one per environment, of the instances' task.
        instances: where to start.
        policy: the policy that acts.
        max_steps: time limit in control steps.
        view: what the policy is sent.
        chunk_size: ask for this many actions at once and replay them, or None for one.
        films: each gets the video's pictures of an environment, or is None for no video.
        faults: failures that the process's variables ask for.
        oracle_stage: tell the policy the true stage.
        is_batch: send values with a leading axis of environments; else there is one environment.

    Returns:
        The outcomes in the order of the instances.

    Raises:
        ConnectionError: the policy failed, or its answer is malformed.
    """
    environments = [
        _Environment(simulation, instance, view, film, oracle_stage=oracle_stage)
        for simulation, instance, film in zip(simulations, instances, films, strict=True)
    ]
    policy.reset()
    actions: deque[FloatArray] = deque()
    for step in range(1, max_steps + 1):
        if not actions:
            messages = [environment.observe(step - 1) for environment in environments]
            message: dict[str, Any] = {key: np.stack([one[key] for one in messages]) for key in messages[0]}
            if not is_batch:
                message = dict(messages[0])
            if chunk_size is not None:
                message["__action_chunk_size__"] = chunk_size
            actions.extend(_actions_of(policy.infer(message), chunk_size, len(environments)))
        for environment, action in zip(environments, actions.popleft(), strict=True):
            environment.act(action, step, max_steps)
        faults.step(step)
        if step % _STEPS_PER_LINE == 0:  # the official evaluator's line; supervisors look for it
            logger.info("Current step: %d", step)
        if all(environment.outcome is not None for environment in environments):
            break
    for _ in environments:
        faults.rollout()
    return [one.outcome for one in environments if one.outcome is not None]
