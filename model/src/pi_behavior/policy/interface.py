"""The interface between control loop and network: requests and predictions in NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pi_behavior.challenge import BaseVelocity

ClosureTable = Bool[np.ndarray, "stages 2"]
"""Whether the left and the right gripper may be closed, per stage of one task."""


class NoiseId(NamedTuple):
    """Names the noise of one call. With the seed it determines the noise; nothing else does.

    So an episode gets the same noise in any session, in any order, and whatever other sessions do.
    """

    start: int
    """CRC-32 of the episode's first observation."""
    repeat: int
    """Episodes of the session that started with the same observation before."""
    call: int
    """Calls of the network made before in this episode."""


class Moments(NamedTuple):
    """What was seen at the steps before, the oldest first; the first observation counts for all before it."""

    images: dict[str, UInt8[np.ndarray, "s h w 3"]]
    state: Float[np.ndarray, "s 23"]


@dataclass(frozen=True)
class Request:
    """One environment's question to the network."""

    images: dict[str, UInt8[np.ndarray, "h w 3"]]
    """RGB by camera name, any size."""
    state: Float[np.ndarray, "23"]
    """Un-normalised state, as layout.state_from_proprioception gives it."""
    task: int
    stage: int
    """The stage that the policy believes it is in."""
    saved: Float[np.ndarray, "k 23"] | None
    """Absolute actions that the chunk should start with; None on the first call of an episode."""
    noise: NoiseId
    prompt: str = ""
    """The instruction, for networks that read one; empty is the task's own."""
    base_velocity: BaseVelocity | None = None
    """What the state's base part is; None is what the network was trained with."""
    earlier: Moments | None = None
    """For networks that read several observations; None where there was none before."""


@dataclass(frozen=True)
class Prediction:
    """The network's answer to one request."""

    chunk: Float[np.ndarray, "30 23"]
    """Absolute, un-normalised actions."""
    stage_logits: Float[np.ndarray, "15"]
    """-inf beyond the task's stages."""


@runtime_checkable
class Predictor(Protocol):
    """A network with its weights."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the checkpoint that was read."""

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Batch sizes it runs at, ascending; smaller batches are padded."""

    @property
    def observation_steps(self) -> int:
        """Observations that the network reads; with more than one it has to see every step."""

    def check(self, request: Request) -> None:
        """Raise ProtocolError for a request that the network cannot answer, before it is in a batch."""

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer up to batch_sizes[-1] requests, each as if it were alone."""

    def closure(self, task: int) -> ClosureTable | None:
        """Where the demonstrations close the grippers; None for a task without demonstrations."""
