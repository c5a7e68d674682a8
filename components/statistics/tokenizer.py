"""What the statistics stage trains the FAST tokenizer on, and how well it does on held-out episodes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt64

from pi_behavior.accumulators import chunks_at
from pi_behavior.fast import COEFFICIENTS, DIMENSIONS, MAX_TOKENS, FastTokenizer
from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON

SAMPLE = 10_000
"""Chunks that the tokenizer is trained and measured on: 0.8 GB of memory and seconds on two cores."""
HELD_OUT = 10
"""One in how many demonstrations is held out of training."""


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
    """Chunks drawn without replacement from all whole chunks of the demonstrations, in one pass.

    Every chunk has a pseudo-random number, a hash of its demonstration's number and its first frame; the
    chunks with the smallest numbers are the sample. So it is the same in any order and by any number of
    processes, and samples of parts merge into that of the whole.
    """

    def __init__(self, count: int = SAMPLE, *, absolute_actions: bool = False) -> None:
        self._count, self._absolute = count, absolute_actions
        self._ranks, self._episodes = np.zeros((2, 0), np.uint64)
        self._chunks: Float32[np.ndarray, "n 30 23"] = np.zeros((0, ACTION_HORIZON, ACTION_DIM), np.float32)

    def update(
        self, episode: int, state: Float[np.ndarray, "n 23"], actions: Float[np.ndarray, "n 23"]
    ) -> None:
        """Take what is drawn from a demonstration, given by a number of its own."""
        number = _mixed(np.array([episode], np.uint64))
        starts = np.arange(max(len(actions) - ACTION_HORIZON + 1, 0))
        ranks = _mixed(number + starts.astype(np.uint64))
        if len(self._ranks) == self._count > 0:
            starts = starts[ranks < self._ranks[-1]]
        starts = starts[np.argsort(ranks[starts])[: self._count]]
        ranks = ranks[starts]
        chunks = chunks_at(state, actions, starts, absolute=self._absolute).astype(np.float32)
        self._add(ranks, np.repeat(number, len(ranks)), chunks.reshape(-1, ACTION_HORIZON, ACTION_DIM))

    def merge(self, other: "ChunkSample") -> None:
        """Add the sample of other demonstrations."""
        self._add(other._ranks, other._episodes, other._chunks)

    def _add(self, ranks: np.ndarray, episodes: np.ndarray, chunks: np.ndarray) -> None:
        ranks = np.concatenate([self._ranks, ranks])
        order = np.argsort(ranks)[: self._count]
        self._ranks = ranks[order]
        self._episodes = np.concatenate([self._episodes, episodes])[order]
        self._chunks = np.concatenate([self._chunks, chunks])[order]

    @property
    def chunks(self) -> Float32[np.ndarray, "n 30 23"]:
        """Delta chunks."""
        return self._chunks

    @property
    def held_out(self) -> Bool[np.ndarray, " n"]:
        """Which chunks are of held-out demonstrations; none where there is only one demonstration."""
        if len(np.unique(self._episodes)) < 2:
            return np.zeros(len(self._episodes), bool)
        held: np.ndarray = self._episodes % np.uint64(HELD_OUT) == 0
        if held.all() or not held.any():
            held = self._episodes == self._episodes.min()
        return held


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The finaliser of SplitMix64 (Steele et al. 2014): a permutation of 64-bit numbers that looks random."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result


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
