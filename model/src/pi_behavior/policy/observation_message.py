"""What a client's observation message holds, checked: of every release of the challenge's evaluators.

Releases up to v3.9.2 send one environment without a leading axis; later ones send a leading axis of
environments, also for one. The robot's name in the keys is any. What no release is known to send, but has
only one meaning, is understood too, such as pictures of a batch of one without the leading axis.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from pi_behavior.challenge import BaseVelocity
from pi_behavior.layout import (
    PROMPT_KEY,
    PROPRIOCEPTION_SUFFIX,
    TASK_ID_KEY,
    camera_observation_keys,
    proprioception_layout,
    state_from_proprioception,
)
from pi_behavior.policy.protocol import ACTION_CHUNK_SIZE, ProtocolError

MAX_ENVIRONMENTS = 256
MAX_SIDE = 2048
"""Largest height and width of an image, in pixels; no camera has more."""
MAX_PROMPT = 1000
"""Characters of an instruction."""


@dataclass(frozen=True)
class ObservationMessage:
    """One message; images are looked at when they are needed."""

    message: dict[str, Any]
    robot: str
    """The robot's name in the keys."""
    batched: bool
    """Whether there is a leading axis of environments."""
    states: Float32[np.ndarray, "n 23"]
    """Un-normalised, one row per environment."""
    base_velocity: BaseVelocity
    """What the base part of the states is."""
    tasks: list[int]
    """Task index of every environment."""
    chunk_size: int | None
    """Actions that the client will replay without asking; None if it asks for every one."""

    @classmethod
    def read(cls, message: dict[str, Any]) -> "ObservationMessage":
        """Check a message.

        Raises:
            ProtocolError: something is missing or has another shape.
        """
        key = _proprioception_key(message)
        given = _array(message, key)
        if given.ndim not in (1, 2):
            raise ProtocolError(
                f"{key} has the shape {given.shape}; expected (values,) or (environments, values)"
            )
        try:
            layout = proprioception_layout(given.shape[-1])
        except ValueError as error:
            raise ProtocolError(f"{key} has the shape {given.shape}: {error}") from error
        with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, and is refused
            states = np.atleast_2d(state_from_proprioception(given.astype(np.float32)))
        if not np.isfinite(states).all():
            raise ProtocolError(f"{key} has values that are not finite, of those that the policy reads")
        if not 0 < len(states) <= MAX_ENVIRONMENTS:
            raise ProtocolError(f"{key} has {len(states)} environments; expected 1 to {MAX_ENVIRONMENTS}")
        return cls(
            message=message,
            robot=key.removesuffix(PROPRIOCEPTION_SUFFIX),
            batched=given.ndim == 2,
            states=states,
            base_velocity=layout.base_velocity,
            tasks=whole_numbers(message, TASK_ID_KEY, len(states)),
            chunk_size=_chunk_size(message, len(states)),
        )

    def whole_numbers(self, key: str) -> list[int]:
        """One number per environment; see the function of the same name."""
        return whole_numbers(self.message, key, len(self.states))

    def prompts(self) -> list[str]:
        """The instruction of every environment; empty where the task's own is meant.

        Raises:
            ProtocolError: the message has something else than one text, or one for each environment.
        """
        given = self.message.get(PROMPT_KEY, "")
        texts = [given] * len(self.states) if isinstance(given, str) else given
        if not isinstance(texts, list) or len(texts) != len(self.states):
            raise ProtocolError(f"{PROMPT_KEY} is {given!r:.100}; expected a text, or one per environment")
        if not all(isinstance(text, str) and len(text) <= MAX_PROMPT for text in texts):
            raise ProtocolError(f"{PROMPT_KEY} holds no texts of at most {MAX_PROMPT} characters")
        return texts

    def images(self) -> dict[str, UInt8[np.ndarray, "n h w 3"]]:
        """RGB images of all cameras; a fourth channel, alpha, is dropped.

        Raises:
            ProtocolError: an image is missing, or has another shape or type.
        """
        images = {}
        for camera, usual in camera_observation_keys(self.robot).items():
            key = self._camera_key(usual)
            pixels = _array(self.message, key)
            if pixels.ndim == 3 and len(self.states) == 1:
                pixels = pixels[None]
            good = pixels.ndim == 4 and pixels.shape[0] == len(self.states) and pixels.shape[-1] in (3, 4)
            if (
                not good
                or pixels.dtype != np.uint8
                or not 0 < min(pixels.shape) <= max(pixels.shape[1:]) <= MAX_SIDE
            ):
                raise ProtocolError(
                    f"{key} has the type {pixels.dtype} and shape {np.shape(self.message[key])}; expected "
                    f"uint8 {'(environments, ' if self.batched else '('}height, width, 3 or 4), with sides "
                    f"up to {MAX_SIDE}"
                )
            images[camera] = pixels[..., :3]
        return images

    def _camera_key(self, usual: str) -> str:
        """A camera's key; the robot's second name in it may differ from the first."""
        link = usual.removeprefix(f"{self.robot}::{self.robot}")
        found = [key for key in self.message if isinstance(key, str) and key.endswith(link)]
        return found[0] if len(found) == 1 else usual


def _proprioception_key(message: dict[str, Any]) -> str:
    keys = [key for key in message if isinstance(key, str) and key.endswith(PROPRIOCEPTION_SUFFIX)]
    if len(keys) != 1:
        raise ProtocolError(
            f"the observation has {len(keys)} keys ROBOT{PROPRIOCEPTION_SUFFIX}; expected one. It has "
            f"{sorted(map(str, message))}"
        )
    return keys[0]


def _array(message: dict[str, Any], key: str) -> np.ndarray:
    if key not in message:
        raise ProtocolError(f"the observation has no {key!r}; it has {sorted(map(str, message))}")
    try:
        value = np.asarray(message[key])
    except ValueError as error:
        raise ProtocolError(f"{key} is not an array: {error}") from error
    if value.dtype.kind not in "biuf":
        raise ProtocolError(f"{key} has the type {value.dtype}; expected numbers")
    return value


def _chunk_size(message: dict[str, Any], environments: int) -> int | None:
    if message.get(ACTION_CHUNK_SIZE) is None:
        return None
    sizes = set(whole_numbers(message, ACTION_CHUNK_SIZE, environments))
    if len(sizes) != 1 or min(sizes) < 0:
        raise ProtocolError(f"{ACTION_CHUNK_SIZE} is {sizes}; expected one whole number from 0 up")
    return sizes.pop() or None


def whole_numbers(message: dict[str, Any], key: str, environments: int) -> list[int]:
    """One number per environment; a single one is for all.

    Raises:
        ProtocolError: there are no such numbers, or not so many.
    """
    value = _array(message, key)
    whole = value.dtype.kind in "iu" or (value.dtype.kind == "f" and bool((value == np.floor(value)).all()))
    if not whole or value.size not in (1, environments) or not np.isfinite(value).all():
        raise ProtocolError(
            f"{key} has the type {value.dtype} and shape {value.shape}; expected one whole number, "
            "or one per environment"
        )
    return [int(number) for number in np.broadcast_to(value.reshape(-1), (environments,))]
