"""One connection's session: observations in, actions out, one control loop per environment.

Source: the challenge's observation keys; the batched evaluator sends a leading axis of environments.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.layout import (
    ACTION_HORIZON,
    CAMERA_OBSERVATION_KEYS,
    ORACLE_STAGE_KEY,
    PROPRIOCEPTION_DIM,
    PROPRIOCEPTION_KEY,
    TASK_ID_KEY,
    state_from_proprioception,
)
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.control_loop import ControlLoop, Event
from pi_behavior.policy.interface import NoiseId, Prediction, Request
from pi_behavior.policy.protocol import ACTION, ACTION_CHUNK, ACTION_CHUNK_SIZE, ProtocolError
from pi_behavior.policy.rules import ClosureLookup

MAX_ENVIRONMENTS = 256
MAX_SIDE = 2048
"""Largest height and width of an image, in pixels; no camera has more."""
Submit = Callable[[Request], Awaitable[Prediction]]


class Session:
    """The state of one connection. Not for concurrent use: one message after the other."""

    def __init__(
        self,
        config: PolicyConfig,
        submit: Submit,
        closure: ClosureLookup,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Start without environments; the first observation says how many there are.

        Args:
            config: settings.
            submit: asks the network.
            closure: where a task's demonstrations close the grippers.
            on_event: called at every application of a rule.
        """
        self._config = config
        self._submit = submit
        self._closure = closure
        self._on_event = on_event
        self._loops: list[ControlLoop] = []
        self._starts: Counter[int] = Counter()
        """Episodes by the CRC-32 of their first observation."""
        self._episodes: dict[int, tuple[int, int]] = {}
        """Start and repeat of each environment's episode."""
        self.episode = 0
        """Episodes finished; several resets in a row count once."""
        self.counts: Counter[str] = Counter()
        """Rule applications of all finished episodes."""

    def reset(self) -> None:
        """End the episode of all environments."""
        if self._loops:
            self.episode += 1
        for loop in self._loops:
            self.counts.update(loop.counts)
        self._loops = []

    async def act(self, message: dict[str, Any]) -> dict[str, Any]:
        """Answer one observation.

        Args:
            message: the observation: proprioception [256] or [environments, 256], the task id, and images
                [h, w, 3 or 4], with the same leading axis, where the network is called. With
                `__action_chunk_size__`, a chunk of so many actions, K, is asked for.

        Returns:
            `action` float32 [23] or [environments, 23]; where a chunk was asked for, also `action_chunk`
            [..., n, 23] with `action` first. n is smaller than K where the network is to be called sooner: a
            client that replays a chunk would skip the observation for that call.

        Raises:
            ProtocolError: something of the observation is missing or has another shape.
        """
        wanted = _chunk_size(message)
        with np.errstate(over="ignore"):  # becomes infinite, and is refused
            proprioception = _array(message, PROPRIOCEPTION_KEY).astype(np.float32)
        if proprioception.ndim not in (1, 2) or proprioception.shape[-1] != PROPRIOCEPTION_DIM:
            raise ProtocolError(
                f"{PROPRIOCEPTION_KEY} has the shape {proprioception.shape}; expected "
                f"({PROPRIOCEPTION_DIM},) or (environments, {PROPRIOCEPTION_DIM})"
            )
        batched = proprioception.ndim == 2
        with np.errstate(over="ignore"):
            states = np.atleast_2d(state_from_proprioception(proprioception))
        if not np.isfinite(proprioception).all() or not np.isfinite(states).all():
            raise ProtocolError(f"{PROPRIOCEPTION_KEY} has values that are not finite")
        tasks = _whole_numbers(message, TASK_ID_KEY, len(states))
        stages: list[int] | list[None] = [None] * len(states)
        if self._config.voting == "oracle":
            stages = _whole_numbers(message, ORACLE_STAGE_KEY, len(states))
        self._make_loops(len(states))
        for loop, task, stage in zip(self._loops, tasks, stages, strict=True):
            loop.begin_step(task, stage)
        await self._plan(message, states, batched)
        steps = min(wanted or 1, *(loop.remaining for loop in self._loops))
        chunk = np.stack([[loop.act() for _ in range(steps)] for loop in self._loops])
        if not batched:
            chunk = chunk[0]
        answer: dict[str, Any] = {ACTION: chunk[..., 0, :]}
        if wanted is not None:
            answer[ACTION_CHUNK] = chunk
        return answer

    def _make_loops(self, environments: int) -> None:
        if not 0 < environments <= MAX_ENVIRONMENTS:
            raise ProtocolError(
                f"{PROPRIOCEPTION_KEY} has {environments} environments; expected 1 to {MAX_ENVIRONMENTS}"
            )
        if self._loops and len(self._loops) != environments:
            raise ProtocolError(
                f"the observation has {environments} environments, the episode began with "
                f"{len(self._loops)}; send a reset to change that"
            )
        if not self._loops:
            self._loops = [
                ControlLoop(self._config, self._closure, self._on_event) for _ in range(environments)
            ]

    async def _plan(self, message: dict[str, Any], states: np.ndarray, batched: bool) -> None:
        due = [index for index, loop in enumerate(self._loops) if loop.remaining == 0]
        if not due:
            return
        images = _images(message, len(states), batched)
        requests = [
            Request(
                images={camera: pixels[index] for camera, pixels in images.items()},
                state=states[index],
                task=self._loops[index].task or 0,
                stage=int(np.clip(self._loops[index].stage, 0, MAX_STAGES - 1)),
                saved=self._loops[index].saved,
                noise=self._noise(index, states, images),
            )
            for index in due
        ]
        predictions = await asyncio.gather(*map(self._submit, requests))
        for index, prediction in zip(due, predictions, strict=True):
            self._loops[index].plan(prediction, states[index])

    def _noise(self, index: int, states: np.ndarray, images: dict[str, np.ndarray]) -> NoiseId:
        calls = self._loops[index].calls
        if calls == 0:
            start = zlib.crc32(states[index].tobytes())
            for pixels in images.values():
                start = zlib.crc32(pixels[index].tobytes(), start)
            self._episodes[index] = start, self._starts[start]
            self._starts[start] += 1
        return NoiseId(*self._episodes[index], calls)


def _array(message: dict[str, Any], key: str) -> np.ndarray:
    if key not in message:
        raise ProtocolError(f"the observation has no {key!r}; it has {sorted(map(str, message))}")
    value = np.asarray(message[key])
    if value.dtype.kind not in "biuf":
        raise ProtocolError(f"{key} has the type {value.dtype}; expected numbers")
    return value


def _chunk_size(message: dict[str, Any]) -> int | None:
    if ACTION_CHUNK_SIZE not in message:
        return None
    value = _array(message, ACTION_CHUNK_SIZE)
    if value.size != 1 or value.dtype.kind not in "iu" or value.item() < 1:
        raise ProtocolError(f"{ACTION_CHUNK_SIZE} is {value!r}; expected a whole number from 1 up")
    return min(int(value.item()), ACTION_HORIZON)


def _whole_numbers(message: dict[str, Any], key: str, environments: int) -> list[int]:
    """One number per environment; a single one is for all."""
    value = _array(message, key)
    if value.dtype.kind not in "iu" or value.size not in (1, environments):
        raise ProtocolError(
            f"{key} has the type {value.dtype} and shape {value.shape}; expected one whole number, "
            "or one per environment"
        )
    numbers: list[int] = np.broadcast_to(value.reshape(-1), (environments,)).tolist()
    return numbers


def _images(message: dict[str, Any], environments: int, batched: bool) -> dict[str, np.ndarray]:
    """RGB images [environments, h, w, 3] of all cameras; a fourth channel, alpha, is dropped."""
    images = {}
    for camera, key in CAMERA_OBSERVATION_KEYS.items():
        pixels = _array(message, key)
        if not batched:
            pixels = pixels[None]
        good = pixels.ndim == 4 and pixels.shape[0] == environments and pixels.shape[-1] in (3, 4)
        if (
            not good
            or pixels.dtype != np.uint8
            or not 0 < min(pixels.shape) <= max(pixels.shape[1:]) <= MAX_SIDE
        ):
            raise ProtocolError(
                f"{key} has the type {pixels.dtype} and shape {np.shape(message[key])}; expected uint8 "
                f"{'(environments, ' if batched else '('}height, width, 3 or 4), with sides up to {MAX_SIDE}"
            )
        images[camera] = pixels[..., :3]
    return images
