"""Streaming accumulators: exact moments, quantiles, and the pass over a dataset.

Accumulators of parts of the data merge into that of the whole. All that they add are whole numbers or exact
fractions, so the result is the same, bit for bit, however the pass is split, in any order, on any machine.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pi_behavior.correlation import EPSILON, correlation_matrix
from pi_behavior.layout import ACTION_DIM, ACTION_GROUPS, ACTION_HORIZON, DELTA_DIMS
from pi_behavior.moments import ChunkMoments
from pi_behavior.reproducible import cholesky
from pi_behavior.statistics import Normalisation, StageTable, Statistics, closed_grippers

_MANTISSA_SHIFT = 23 - 8
_SMALLEST, _LARGEST = 2.0**-14, 2.0**8
_LOW_CODE = int(np.float32(_SMALLEST).view(np.int32)) >> _MANTISSA_SHIFT
_SIDE = (int(np.float32(_LARGEST).view(np.int32)) >> _MANTISSA_SHIFT) - _LOW_CODE
SAMPLED = 128
"""Chunks of a demonstration that quantiles are taken from, at least: all of a short one, one in `stride` of a
longer one, evenly spaced and counted `stride` times. A quantile's rank is then off by at most `stride` chunks
for every time that the demonstration crosses its value."""
EXCLUDED_DIMS = np.array([*ACTION_GROUPS["base"], *ACTION_GROUPS["grippers"]])
"""Dimensions that the report leaves out of the per-step statistics (section 4.5.2)."""


class QuantileHistogram:
    """Quantiles of many dimensions in one pass, in fixed memory.

    Bins are the leading 8 bits of a float32's mantissa within each power of two, so the bin of a value is a
    shift of its bits, and histograms merge by addition. A quantile's error is at most 0.2 % of its value for
    magnitudes from 6.1e-5 to 256; smaller ones count as 0, larger ones as 256.

    Args:
        width: number of dimensions.
    """

    def __init__(self, width: int) -> None:
        self.counts = np.zeros((width, 2 * _SIDE + 1), np.int64)
        self.low = np.full(width, np.inf)
        self.high = np.full(width, -np.inf)

    def update(self, values: Float[np.ndarray, "n d"], times: int = 1) -> None:
        """Add vectors, each a number of times."""
        if not len(values):
            return
        values = np.ascontiguousarray(values, np.float32)
        self.low = np.minimum(self.low, values.min(axis=0))
        self.high = np.maximum(self.high, values.max(axis=0))
        code = (np.abs(values).view(np.int32) >> _MANTISSA_SHIFT) - (_LOW_CODE - 1)
        np.clip(code, 0, _SIDE, out=code)
        place = np.where(values < 0, _SIDE - code, _SIDE + code).astype(np.int64)
        place += np.arange(values.shape[1]) * self.counts.shape[1]
        np.add.at(self.counts.reshape(-1), place.reshape(-1), times)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the bins that hold something."""
        filled = np.flatnonzero(self.counts).astype(np.int32)
        return {**self.__dict__, "counts": (self.counts.shape, filled, self.counts.reshape(-1)[filled])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make what was pickled."""
        shape, filled, values = state["counts"]
        counts = np.zeros(shape, np.int64)
        counts.reshape(-1)[filled] = values
        self.__dict__ |= {**state, "counts": counts}

    def merge(self, other: "QuantileHistogram") -> None:
        """Add the data of another histogram."""
        self.counts += other.counts
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)

    def pooled(self, groups: int) -> "QuantileHistogram":
        """The histogram of dimensions d, d + width / groups, ... together, such as all steps of a chunk."""
        result = QuantileHistogram(len(self.counts) // groups)
        result.counts = self.counts.reshape(groups, -1, self.counts.shape[1]).sum(axis=0)
        result.low = self.low.reshape(groups, -1).min(axis=0)
        result.high = self.high.reshape(groups, -1).max(axis=0)
        return result

    def quantile(self, share: float) -> Float[np.ndarray, " d"]:
        """The smallest value that at least this share of the values does not exceed."""
        total = int(self.counts[0].sum())
        rank = max(int(np.ceil(share * total)), 1)
        # row by row: a row fits into the processor's cache, the whole table does not
        place = np.array([np.searchsorted(np.cumsum(row), rank) for row in self.counts])
        return np.clip(_bin_values()[np.minimum(place, 2 * _SIDE)], self.low, self.high)


def _bin_values() -> np.ndarray:
    """Middle of each bin, from the most negative to the most positive."""
    codes = np.arange(_LOW_CODE, _LOW_CODE + _SIDE, dtype=np.int32)
    edges = [(c << _MANTISSA_SHIFT).view(np.float32).astype(np.float64) for c in (codes, codes + 1)]
    middle = (edges[0] + edges[1]) / 2
    return np.concatenate([-middle[::-1], [0.0], middle])


class DatasetAccumulator:
    """One pass over demonstrations, for everything that `Statistics` holds.

    Args:
        absolute_actions: leave actions absolute instead of making them relative to the state.
    """

    def __init__(self, *, absolute_actions: bool = False) -> None:
        self.absolute_actions = absolute_actions
        self.moments = ChunkMoments(absolute=absolute_actions)
        self.state_histogram = QuantileHistogram(ACTION_DIM)
        self.chunk_histogram = QuantileHistogram(ACTION_HORIZON * ACTION_DIM)
        self.closure: dict[int, np.ndarray] = {}
        self.human: dict[str, dict[str, Fraction]] = {}
        self.human_counts: dict[str, int] = {}

    def update(
        self,
        task: int,
        task_name: str,
        stages: int,
        state: Float[np.ndarray, "n 23"],
        actions: Float[np.ndarray, "n 23"],
        human: Mapping[str, float],
        skills: Sequence[int] = (),
    ) -> None:
        """Add one demonstration.

        Args:
            task: task index.
            task_name: the task's name.
            stages: number of the task's stages.
            state: not normalised.
            actions: absolute.
            human: the demonstrator's measurements, to be averaged over the task's demonstrations.
            skills: first frames of the skills that the stages are; none where they are equal parts.
        """
        self.moments.update(state, actions)
        self.state_histogram.update(state)
        self._sample(state, actions)
        table = self.closure.setdefault(task, np.zeros((stages, 2), bool))
        frames = np.arange(len(state))
        stage = StageTable("skills", [len(state)], [stages], [skills]).of(np.zeros_like(frames), frames)
        np.logical_or.at(table, stage, closed_grippers(state))
        sums = self.human.setdefault(task_name, dict.fromkeys(human, Fraction()))
        for name, value in human.items():
            sums[name] += Fraction(value)
        self.human_counts[task_name] = self.human_counts.get(task_name, 0) + 1

    def _sample(self, state: Float[np.ndarray, "n 23"], actions: Float[np.ndarray, "n 23"]) -> None:
        """Count evenly spaced chunks for the quantiles, see `SAMPLED`."""
        count = len(actions) - ACTION_HORIZON + 1
        stride = max(count // SAMPLED, 1)
        starts = np.arange(0, max(count, 0), stride)
        flat = chunks_at(state, actions, starts, absolute=self.absolute_actions)
        self.chunk_histogram.update(flat[:-1], stride)
        # the last one stands for what is left
        self.chunk_histogram.update(flat[-1:], count - int(starts[-1]) if len(starts) else 0)

    def merge(self, other: "DatasetAccumulator") -> None:
        """Add the data of another accumulator."""
        self.moments.merge(other.moments)
        self.state_histogram.merge(other.state_histogram)
        self.chunk_histogram.merge(other.chunk_histogram)
        for task, table in other.closure.items():
            self.closure[task] = self.closure.get(task, False) | table
        for name, theirs in other.human.items():
            mine = self.human.setdefault(name, dict.fromkeys(theirs, Fraction()))
            for key, value in theirs.items():
                mine[key] += value
            self.human_counts[name] = self.human_counts.get(name, 0) + other.human_counts[name]

    def finish(self, *, normalisation: Normalisation = "report") -> Statistics:
        """The statistics of all demonstrations.

        Args:
            normalisation: per_step gives every dimension mean, deviation and quantiles of its own at each
                step (the published code's way); report gives base velocity and grippers the same at all
                steps; global does so for all dimensions.

        Raises:
            ValueError: no demonstration was as long as one chunk.
        """
        if not self.moments.chunks:
            raise ValueError(
                f"no chunk of {ACTION_HORIZON} actions in {self.moments.frames} frames; expected at least "
                "one demonstration that is as long as a chunk"
            )
        shape = (ACTION_HORIZON, ACTION_DIM)
        mean, covariance = self.moments.chunk_moments()
        means, variances = mean.reshape(shape), np.diag(covariance).reshape(shape)
        overall = self.chunk_histogram.pooled(ACTION_HORIZON)
        total = {
            "mean": means.mean(axis=0),
            "std": np.sqrt(variances.mean(axis=0) + means.var(axis=0)),
            "q01": overall.quantile(0.01),
            "q99": overall.quantile(0.99),
        }
        steps = {
            "mean": means.copy(),
            "std": np.sqrt(variances),
            "q01": self.chunk_histogram.quantile(0.01).reshape(shape),
            "q99": self.chunk_histogram.quantile(0.99).reshape(shape),
        }
        same = {"report": EXCLUDED_DIMS, "per_step": EXCLUDED_DIMS[:0], "global": np.arange(ACTION_DIM)}
        for kind, values in steps.items():
            values[:, same[normalisation]] = total[kind][same[normalisation]]
        shift = mean - steps["mean"].reshape(-1)
        correlation = correlation_matrix(
            covariance + np.outer(shift, shift), steps["std"].reshape(-1) + EPSILON
        )
        state_mean, state_variance = self.moments.state_moments()
        state = {
            "mean": state_mean,
            "std": np.sqrt(state_variance),
            "q01": self.state_histogram.quantile(0.01),
            "q99": self.state_histogram.quantile(0.99),
        }
        groups = {"state": state, "action": total, "action_step": steps}
        arrays = {
            f"{name}_{k}": v.astype(np.float32) for name, group in groups.items() for k, v in group.items()
        }
        return Statistics(
            **arrays,
            correlation_cholesky=cholesky(correlation).astype(np.float32),
            normalisation=normalisation,
            absolute_actions=self.absolute_actions,
            human={
                n: {k: float(v / self.human_counts[n]) for k, v in s.items()}
                for n, s in sorted(self.human.items())
            },
            closure={str(task): table.tolist() for task, table in sorted(self.closure.items())},
            num_frames=self.moments.frames,
            num_chunks=self.moments.chunks,
        )


def delta_chunks(
    state: Float[np.ndarray, "n 23"], actions: Float[np.ndarray, "n 23"], *, absolute: bool = False
) -> Float[np.ndarray, "m 690"]:
    """All delta chunks that lie wholly inside a demonstration, flattened row-major (step, dimension).

    Args:
        state: not normalised.
        actions: absolute.
        absolute: leave the actions absolute.
    """
    starts = np.arange(max(len(actions) - ACTION_HORIZON + 1, 0))
    return chunks_at(state, actions, starts, absolute=absolute)


def chunks_at(
    state: Float[np.ndarray, "n 23"],
    actions: Float[np.ndarray, "n 23"],
    starts: Int[np.ndarray, " m"],
    *,
    absolute: bool = False,
) -> Float[np.ndarray, "m 690"]:
    """As `delta_chunks`, of the chunks that begin at some frames."""
    chunks = actions[starts[:, None] + np.arange(ACTION_HORIZON)].astype(np.float64)
    if not absolute:
        chunks[..., DELTA_DIMS] -= state[starts][:, None, DELTA_DIMS]
    return chunks.reshape(len(chunks), ACTION_HORIZON * ACTION_DIM)
