"""One connection's session: observations in, actions out, one control loop per environment."""

import asyncio
import dataclasses
import logging
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.layout import ACTION_HORIZON, BASE, ORACLE_STAGE_KEY
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.control_loop import Call, ControlLoop, Event
from pi_behavior.policy.history import History
from pi_behavior.policy.interface import Moments, NoiseId, Prediction, Request
from pi_behavior.policy.observation_message import ObservationMessage
from pi_behavior.policy.protocol import ACTION, ACTION_CHUNK, ProtocolError
from pi_behavior.policy.rules import ClosureLookup

logger = logging.getLogger(__name__)
Submit = Callable[[Request], Awaitable[Prediction]]
Trace = Callable[[dict[str, Any]], None]
"""Takes records of an episode's course: see `Session`."""
_tracer = logging.getLogger("pi_behavior.policy.trace")


def log_trace(peer: str, row: dict[str, Any]) -> None:
    """Log a record of an episode's course, for logs that programs read."""
    _tracer.info("trace", extra={"event": {"session": peer, **row}})


class Session:
    """The state of one connection. Not for concurrent use: one message after the other."""

    def __init__(
        self,
        config: PolicyConfig,
        submit: Submit,
        closure: ClosureLookup,
        on_event: Callable[[Event], None] | None = None,
        on_trace: Trace | None = None,
        observation_steps: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        """Start without environments; the first observation says how many there are.

        Args:
            config: settings.
            submit: asks the network.
            closure: where a task's demonstrations close the grippers.
            on_event: called at every application of a rule.
            on_trace: called with `episode`, `environment`, `task` and either `step`, `predicted` and `stage`,
                when one of the last two changed, or, at an episode's end, `steps` and `ended`, the time of
                its last answer in seconds since 1970.
            observation_steps: how many observations the network of a task reads; not given, one.
        """
        self._config = config
        self._submit = submit
        self._closure = closure
        self._on_event = on_event
        self._on_trace = on_trace
        self._stages: dict[int, tuple[int, int]] = {}
        """Predicted and voted stage that were last told, by environment."""
        self._answered = 0.0
        self._loops: list[ControlLoop] = []
        self._observation_steps = observation_steps
        self._seen: dict[int, list[History[np.ndarray]]] = {}
        """Last states and images of the cameras, by environment, where a network reads several."""
        self._starts: Counter[int] = Counter()
        """Episodes by the CRC-32 of their first observation."""
        self._episodes: dict[int, tuple[int, int]] = {}
        """Start and repeat of each environment's episode."""
        self._refused: set[int] = set()
        """Sizes of chunks that the client asked for in vain."""
        self.episode = 0
        """Episodes finished; several resets in a row count once."""
        self.counts: Counter[str] = Counter()
        """Rule applications of all finished episodes."""
        self._told: Counter[str] = Counter()

    def reset(self) -> None:
        """End the episode of all environments."""
        for index, loop in enumerate(self._loops):
            if loop.step:
                self._trace(index, steps=loop.step, ended=self._answered)
        self._stages.clear()
        self._seen.clear()
        if self._loops:
            self.episode += 1
        for loop in self._loops:
            self.counts.update(loop.counts)
        self._loops = []

    def summary(self) -> tuple[int, dict[str, int]]:
        """Episodes so far, with the one that is running, and applications of rules since the last summary."""
        counts = sum((loop.counts for loop in self._loops), self.counts.copy())
        new, self._told = counts - self._told, counts
        return self.episode + bool(self._loops), dict(new)

    async def act(self, message: dict[str, Any]) -> dict[str, Any]:
        """Answer one observation.

        Args:
            message: the observation, see `ObservationMessage`; images are needed where the network is called.

        Returns:
            `action` float32 [23], or [environments, 23] if the observation has that axis. Where the client
            asked for a chunk of K actions, also `action_chunk` [..., K, 23] with `action` first; it is absent
            where no such chunk can be planned, see `PolicyConfig.replaying`, and where the network reads
            several observations, of which it would miss some.

        Raises:
            ProtocolError: something of the observation is missing or has another shape.
        """
        observation = ObservationMessage.read(message)
        environments = len(observation.states)
        stages: list[int] | list[None] = [None] * environments
        if self._config.voting == "oracle":
            stages = observation.whole_numbers(ORACLE_STAGE_KEY)
        self._make_loops(environments)
        for loop, task, stage in zip(self._loops, observation.tasks, stages, strict=True):
            loop.begin_step(task, stage)
        size, config = observation.chunk_size, None
        if await self._remember(observation):
            size = None
        if size is not None:
            config = self._config.replaying(size)
            if config is None:
                self._refuse_chunk(size)
                size = None
        await self._plan(observation, config or self._config, size or 1)
        chunk = np.stack([[loop.act() for _ in range(size or 1)] for loop in self._loops])
        if not observation.batched:
            chunk = chunk[0]
        answer: dict[str, Any] = {ACTION: chunk[..., 0, :]}
        if size is not None:
            answer[ACTION_CHUNK] = chunk
        self._answered = time.time()
        return answer

    async def _remember(self, observation: ObservationMessage) -> bool:
        """Keep what networks read of this step at later ones; False if none reads more than one step."""
        if self._observation_steps is None:
            return False
        counts = [await self._observation_steps(task) for task in observation.tasks]
        if max(counts) == 1:
            return False
        images, states = observation.images(), observation.states
        for index, (loop, count) in enumerate(zip(self._loops, counts, strict=True)):
            if loop.step == 0 or index not in self._seen:
                self._seen[index] = [History(count) for _ in range(1 + len(images))]
            for kept, value in zip(self._seen[index], (states, *images.values()), strict=True):
                kept.append(value[index])
        return True

    def _earlier(self, index: int, cameras: Iterable[str]) -> Moments | None:
        if index not in self._seen:
            return None
        state, *images = (kept.window()[:-1] for kept in self._seen[index])
        return Moments(dict(zip(cameras, images, strict=True)), state)

    def _refuse_chunk(self, size: int) -> None:
        if size in self._refused:
            return
        self._refused.add(size)
        logger.warning(
            "chunks of %d actions are not given: %d does not divide the %d actions of a plan, and with the "
            "%d that are kept for the next one it does not fit into %d; the client gets single actions",
            size,
            size,
            self._config.execute,
            self._config.kept,
            ACTION_HORIZON,
        )

    def _make_loops(self, environments: int) -> None:
        if self._loops and len(self._loops) != environments:
            raise ProtocolError(
                f"the observation has {environments} environments, the episode began with "
                f"{len(self._loops)}; send a reset to change that"
            )
        if not self._loops:
            self._loops = [
                ControlLoop(
                    self._config, self._closure, partial(self._event, index), partial(self._call, index)
                )
                for index in range(environments)
            ]

    def _event(self, index: int, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(dataclasses.replace(event, episode=self.episode, environment=index))

    def _call(self, index: int, call: Call) -> None:
        if self._stages.get(index) != (call.predicted, call.stage):
            self._stages[index] = call.predicted, call.stage
            self._trace(index, **dataclasses.asdict(call))

    def _trace(self, index: int, **values: int | float) -> None:
        if self._on_trace is not None:
            task = self._loops[index].task
            self._on_trace({"episode": self.episode, "environment": index, "task": task, **values})

    async def _plan(self, observation: ObservationMessage, config: PolicyConfig, steps: int) -> None:
        """Call the network for the environments that have fewer actions left than the client wants."""
        due = [index for index, loop in enumerate(self._loops) if loop.remaining < steps]
        if not due:
            return
        images, states, prompts = observation.images(), observation.states, observation.prompts()
        for index in due:
            self._loops[index].discard()
        requests = [
            Request(
                images={camera: pixels[index] for camera, pixels in images.items()},
                state=states[index],
                task=self._loops[index].task or 0,
                stage=int(np.clip(self._loops[index].stage, 0, MAX_STAGES - 1)),
                saved=self._loops[index].saved,
                noise=self._noise(index, states, images),
                base_velocity=observation.base_velocity,
                prompt=prompts[index],
                earlier=self._earlier(index, images),
            )
            for index in due
        ]
        predictions = await asyncio.gather(*map(self._submit, requests))
        still = _holding_still(observation)
        for index, prediction in zip(due, predictions, strict=True):
            self._loops[index].plan(prediction, still[index], config)

    def _noise(self, index: int, states: np.ndarray, images: dict[str, np.ndarray]) -> NoiseId:
        calls = self._loops[index].calls
        if calls == 0:
            start = zlib.crc32(states[index].tobytes())
            for pixels in images.values():
                start = zlib.crc32(pixels[index].tobytes(), start)
            self._episodes[index] = start, self._starts[start]
            self._starts[start] += 1
        return NoiseId(*self._episodes[index], calls)


def _holding_still(observation: ObservationMessage) -> Float32[np.ndarray, "n 23"]:
    """The states as commands to hold still: a velocity that is really the base's would keep it moving."""
    states = observation.states
    if observation.base_velocity == "robot":
        states = states.copy()
        states[:, BASE] = 0.0
    return states
