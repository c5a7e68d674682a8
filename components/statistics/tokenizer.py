"""What the statistics stage trains the FAST tokenizer on, and how well it does on held-out episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from pi_behavior.accumulators import delta_chunks
from pi_behavior.fast import COEFFICIENTS, DIMENSIONS, MAX_TOKENS, FastTokenizer
from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON

SAMPLE = 10_000
"""Chunks that the tokenizer is trained and measured on: 0.8 GB of memory and seconds on two cores."""
HELD_OUT = 10
"""Every how many episodes one is held out of training."""


@dataclass(frozen=True)
class Measurements:
    """How a tokenizer does on some chunks."""

    chunks: int
    tokens_mean: float
    """Mean tokens of a chunk."""
    tokens_p99: float
    """99 % quantile of the tokens of a chunk."""
    compression: float
    """Numbers of the encoded dimensions per token: 30 steps x 22 dimensions / tokens_mean."""
    truncated: float
    """Share of the chunks that have more tokens than training reads."""
    error: float
    """Root mean square error of encoding and decoding chunks in [-1, 1]."""


class ChunkSample:
    """Chunks drawn without replacement from all whole chunks of a dataset, in one pass over its episodes.

    Which ones are drawn follows from the episodes' lengths (in frames, in the order of the pass) alone, so
    memory is bounded and the sample is the same every time.
    """

    def __init__(
        self, lengths: Sequence[int], count: int = SAMPLE, *, absolute_actions: bool = False
    ) -> None:
        self._absolute = absolute_actions
        whole = np.maximum(np.array(lengths, int) - ACTION_HORIZON + 1, 0)
        ends = np.cumsum(whole)
        total = int(whole.sum())
        drawn = np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))
        self._episode = np.searchsorted(ends, drawn, side="right")
        self._start = drawn - (ends - whole)[self._episode]
        self.chunks: Float32[np.ndarray, "n 30 23"] = np.zeros(
            (len(drawn), ACTION_HORIZON, ACTION_DIM), np.float32
        )
        """Delta chunks; those of episodes that the pass has not reached are 0."""

    def update(
        self, episode: int, state: Float[np.ndarray, "n 23"], actions: Float[np.ndarray, "n 23"]
    ) -> None:
        """Take what was drawn from an episode, given by its number in the pass."""
        mine = self._episode == episode
        if mine.any():
            chunks = delta_chunks(state, actions, absolute=self._absolute)[self._start[mine]]
            self.chunks[mine] = chunks.reshape(-1, ACTION_HORIZON, ACTION_DIM)

    @property
    def held_out(self) -> Bool[np.ndarray, " n"]:
        """Which chunks are of held-out episodes; none where there is only one episode."""
        _, number = np.unique(self._episode, return_inverse=True)
        held: np.ndarray = (number % HELD_OUT == 0) & (number.max() > 0)
        return held


def measure(tokenizer: FastTokenizer, chunks: Float[np.ndarray, "n 30 23"]) -> Measurements:
    """Encode and decode chunks in [-1, 1]."""
    rows = tokenizer.encode(chunks)
    lengths = np.array([len(row) for row in rows])
    errors = (tokenizer.decode(rows) - chunks)[..., DIMENSIONS]
    return Measurements(
        chunks=len(chunks),
        tokens_mean=float(lengths.mean()),
        tokens_p99=float(np.quantile(lengths, 0.99)),
        compression=float(COEFFICIENTS / lengths.mean()),
        truncated=float((lengths > MAX_TOKENS).mean()),
        error=float(np.sqrt(np.square(errors, dtype=np.float64).mean())),
    )
