"""From chunks to actions: the state machine of one environment, without network, clock or I/O.

Source: report, section 7; where it is silent, the published policy's behaviour, which a golden file pins.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from pi_behavior.layout import ACTION_DIM, ACTION_HIGH, ACTION_HORIZON, ACTION_LOW, BASE, GRIPPERS
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import Prediction
from pi_behavior.policy.rules import ClosureLookup, Situation, active_rules
from pi_behavior.policy.stage_voting import StageTracker


@dataclass(frozen=True)
class Event:
    """One application of a rule."""

    task: int
    stage: int
    """The stage before."""
    step: int
    """Control step of the episode, from 0."""
    rule: str
    """gripper, radio, uncompressed, or stage_ and the transition: forward, skip, back, follow."""
    episode: int = 0
    """Number of the episode in its session."""
    environment: int = 0
    """Number of the environment in its session."""


@dataclass(frozen=True)
class Call:
    """One call of the network."""

    step: int
    """Control step of the episode, from 0."""
    predicted: int
    """The stage that the network predicted."""
    stage: int
    """The stage after the vote."""


def gripper_moves(chunk: Float[np.ndarray, "n 23"], threshold: float) -> bool:
    """Whether either gripper's target changes by more than the threshold within the steps."""
    return bool(np.any(np.ptp(chunk[:, list(GRIPPERS)], axis=0) > threshold))


def compress(chunk: Float[np.ndarray, "n 23"], steps: int) -> Float[np.ndarray, "steps 23"]:
    """Play a chunk in fewer steps: cubic spline with not-a-knot ends, base velocities scaled up.

    Positions follow the same path faster; a velocity must be larger to cover the same distance
    (report, section 7.2).
    """
    rows = np.arange(len(chunk))
    spline = CubicSpline(rows, chunk.astype(np.float64), axis=0, bc_type="not-a-knot")
    actions: np.ndarray = spline(np.linspace(0, len(chunk) - 1, steps))
    actions[:, BASE] *= len(chunk) / steps
    return actions


class ControlLoop:
    """One environment's episode: when `remaining` is 0, `plan` from a prediction; `act` once per step."""

    def __init__(
        self,
        config: PolicyConfig,
        closure: ClosureLookup,
        on_event: Callable[[Event], None] | None = None,
        on_call: Callable[[Call], None] | None = None,
    ) -> None:
        """Start an episode.

        Args:
            config: settings.
            closure: where a task's demonstrations close the grippers, for the gripper rule.
            on_event: called at every application of a rule.
            on_call: called after every call of the network.
        """
        self.config = config
        self.rules = active_rules(config, closure)
        self.counts: Counter[str] = Counter()
        """Applications of every rule since the loop was made, over all episodes."""
        self._on_event = on_event
        self._on_call = on_call
        self._queue: deque[np.ndarray] = deque()
        self.task: int | None = None
        self.reset()

    def reset(self) -> None:
        """Start a new episode."""
        self.tracker = StageTracker(voting=self.config.voting == "published")
        self.saved: Float[np.ndarray, "k 23"] | None = None
        self.step = 0
        self.calls = 0
        self.task = None
        self._queue.clear()

    def begin_step(self, task: int, oracle_stage: int | None = None) -> None:
        """Take the observation's task, and the stage where it is told.

        Args:
            task: task index; a changed one starts a new episode.
            oracle_stage: the true stage, for the voting `oracle`.
        """
        if self.task is not None and task != self.task:
            self.reset()
        self.task = task
        if self.config.voting == "oracle":
            if oracle_stage is None:
                raise ValueError("voting is oracle, and the observation has no stage")
            self.tracker.move(oracle_stage)

    @property
    def stage(self) -> int:
        """The current stage."""
        return self.tracker.stage

    @property
    def remaining(self) -> int:
        """Actions until the network is needed again."""
        return len(self._queue)

    def discard(self) -> None:
        """Forget the queued actions: the next chunk starts with the first of them, as far as any are kept."""
        if self._queue and self.saved is not None:
            self.saved = np.concatenate([self._queue, self.saved])[: self.config.kept]
        self._queue.clear()

    def plan(
        self, prediction: Prediction, state: Float[np.ndarray, "23"], config: PolicyConfig | None = None
    ) -> None:
        """Queue the actions of a new chunk, and count its vote for the stage.

        Args:
            prediction: the network's answer for this observation, this stage and the saved actions.
            state: this observation's un-normalised state, and what the robot does to hold still.
            config: other settings for this chunk, as `PolicyConfig.replaying` gives.

        Raises:
            ValueError: the chunk has another shape, or values that are not finite.
            RuntimeError: the task was not given, or there are actions left.
        """
        if self.task is None or self._queue:
            raise RuntimeError("plan needs begin_step first, and an empty queue")
        chunk = prediction.chunk
        if chunk.shape != (ACTION_HORIZON, ACTION_DIM) or not np.isfinite(chunk).all():
            raise ValueError(
                f"the network's chunk of shape {chunk.shape} is not {ACTION_HORIZON} x {ACTION_DIM} "
                "finite values; the checkpoint or the observation is broken"
            )
        chunk = self._apply_rules(chunk, state)
        self._enqueue(chunk, config or self.config)
        if self.config.voting != "oracle":
            stage = self.stage
            transition = self.tracker.update(prediction.stage_logits)
            if transition is not None:
                self._record(f"stage_{transition}", stage)
        if self._on_call is not None:
            self._on_call(Call(self.step, int(np.argmax(prediction.stage_logits)), self.stage))
        self.calls += 1

    def act(self) -> Float[np.ndarray, "23"]:
        """Take the next action.

        Raises:
            RuntimeError: no action is left; plan first.
        """
        if not self._queue:
            raise RuntimeError("no action is left: plan first")
        self.step += 1
        return self._queue.popleft()

    def _apply_rules(
        self, chunk: Float[np.ndarray, "30 23"], state: Float[np.ndarray, "23"]
    ) -> Float[np.ndarray, "30 23"]:
        if self.task is None:
            raise RuntimeError("begin_step first")
        situation = Situation(self.task, self.stage, state)
        for rule in self.rules:
            action = rule(situation)
            if action is None:
                continue
            self._record(action.rule, situation.stage)
            if action.stage is not None:
                self.tracker.move(action.stage)
            return action.apply(chunk, state)
        return chunk

    def _enqueue(self, chunk: Float[np.ndarray, "30 23"], config: PolicyConfig) -> None:
        end = config.execute
        actions = chunk[:end]
        if config.compress_from != config.execute:
            window = chunk[: config.compress_from]
            if gripper_moves(window, config.gripper_range):
                self._record("uncompressed", self.stage)
            else:
                end = config.compress_from
                actions = compress(window, config.execute)
        self.saved = chunk[end : end + config.kept].copy() if config.kept else None
        if config.clip:
            actions = np.clip(actions, ACTION_LOW, ACTION_HIGH)
        self._queue.extend(actions.astype(np.float32))

    def _record(self, rule: str, stage: int) -> None:
        self.counts[rule] += 1
        if self._on_event is not None and self.task is not None:
            self._on_event(Event(self.task, stage, self.step, rule))
