"""Exact moments of action chunks, from sums over frames: the same bits in any order, on any machine.

A chunk has 690 values, of which two chunks that begin one frame apart share all but 46. So the products of
two entries of a chunk, summed over all chunks of a demonstration, are sums of products a lag apart, but for
the ends: with m chunks, actions a, and l = k - h,

    sum over t < m of a[t+h] a[t+k]  =  sum over t < m of a[t] a[t+l]
                                        - sum over j < h of a[j] a[j+l] + sum over j < h of a[m+j] a[m+j+l]

The first sum takes 30 lags x 23 x 23 products a frame instead of 690 x 690; the others take the first and
last 29 frames. The state at a chunk's first step, from which joint actions are measured, adds 30 x 23 x 17.

Values are rounded to multiples of 2**-40, which changes no float32 from 1.6e-5 on, and the others by at most
5e-13. They are written as two integers, high and low, whose products BLAS adds without rounding in any order.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON, DELTA_DIMS

_GRID, _LOW = 40, 21
_ROWS = 1024
_EXACT = 2.0**53
_LARGEST = 128.0
_EDGE = ACTION_HORIZON - 1
_BATCH = 64
"""Demonstrations whose ends are multiplied together."""


class ExactSum:
    """A sum of arrays of whole numbers below 2**53, without rounding or overflow.

    Args:
        shape: of the arrays.
    """

    def __init__(self, *shape: int) -> None:
        self._high, self._low, self._recent = np.zeros((3, *shape), np.int64)
        self._count = 0

    def add(self, values: Float64[np.ndarray, "..."]) -> None:
        """Add an array."""
        self._recent += values.astype(np.int64)
        self._count += 1
        if self._count == 2**9:
            self._carry()

    def merge(self, other: "ExactSum") -> None:
        """Add another sum."""
        for one in (self, other):
            one._carry()
        self._high += other._high
        self._low += other._low

    def total(self) -> np.ndarray:
        """The sum as integers of Python."""
        self._carry()
        result: np.ndarray = self._high.astype(object) * 2**32 + self._low
        return result

    def _carry(self) -> None:
        self._low += self._recent
        self._high += self._low >> 32
        self._low &= 2**32 - 1
        self._recent[...] = 0
        self._count = 0


class ChunkMoments:
    """Mean and second moments of the states, and of the delta chunks that lie wholly inside a demonstration.

    Args:
        absolute: chunks of absolute actions instead.
    """

    def __init__(self, *, absolute: bool = False) -> None:
        self._absolute = absolute
        self._joints = DELTA_DIMS[:0] if absolute else DELTA_DIMS
        first, joints = 2 * ACTION_DIM, len(self._joints)
        self._states = ExactSum(first + 1, first + 1)
        self._lagged = ExactSum(ACTION_HORIZON, first, first + 2 * joints + 1)
        self._starts = ExactSum(2 * joints + 1, 2 * joints + 1)
        self._edges = ExactSum(2 * _EDGE * ACTION_DIM, 2 * _EDGE * ACTION_DIM)
        self._heads: list[np.ndarray] = []
        self._tails: list[np.ndarray] = []
        self.frames = 0
        self.chunks = 0

    def update(self, state: Float[np.ndarray, "n 23"], actions: Float[np.ndarray, "n 23"]) -> None:
        """Add a demonstration: states, and absolute actions.

        Raises:
            ValueError: a value is not finite, or beyond anything that a robot measures.
        """
        largest = max(float(np.abs(state).max(initial=0.0)), float(np.abs(actions).max(initial=0.0)))
        if not largest <= _LARGEST:
            raise ValueError(f"a value of {largest:g} in states or actions; expected at most {_LARGEST:g}")
        rows = min(_ROWS, int(_EXACT / max(largest * 2.0 ** (_GRID - _LOW) + 1, 2.0**_LOW) ** 2))
        moved, measured = _pieces(actions), _pieces(state)
        one = np.ones((len(measured), 1))
        whole = np.hstack([measured, one])
        for start in range(0, len(whole), rows):
            part = whole[start : start + rows]
            self._states.add(part.T @ part)
        self.frames += len(state)
        count = len(actions) - _EDGE
        if count < 1:
            return
        self.chunks += count
        joints = np.hstack([measured[:, self._joints], measured[:, ACTION_DIM + self._joints], one])
        right = np.hstack([moved, joints])
        products = np.empty((ACTION_HORIZON, 2 * ACTION_DIM, right.shape[1]))
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            for lag in range(ACTION_HORIZON):
                np.matmul(moved[start + lag : stop + lag].T, right[start:stop], out=products[lag])
            self._lagged.add(products)
            part = joints[start:stop]
            self._starts.add(part.T @ part)
        self._heads.append(_ends(moved[:_EDGE]))
        self._tails.append(_ends(moved[count:]))
        if len(self._heads) == min(rows, _BATCH):
            self._flush()

    def merge(self, other: "ChunkMoments") -> None:
        """Add the demonstrations of another one."""
        self._flush()
        other._flush()
        for name in ("_states", "_lagged", "_starts", "_edges"):
            getattr(self, name).merge(getattr(other, name))
        self.frames += other.frames
        self.chunks += other.chunks

    def state_moments(self) -> tuple[Float64[np.ndarray, "23"], Float64[np.ndarray, "23"]]:
        """Mean and population variance of the states."""
        total = self._states.total()
        squares = np.diag(_joined(total[:-1, :-1], ACTION_DIM, ACTION_DIM))
        sums = _joined(total[:-1, -1:], ACTION_DIM, 1)[:, 0]
        return _ratio(sums, self.frames, _GRID), _ratio(
            squares * self.frames - sums * sums, self.frames**2, 2 * _GRID
        )

    def chunk_moments(self) -> tuple[Float64[np.ndarray, "690"], Float64[np.ndarray, "690 690"]]:
        """Mean and population covariance of the chunks, row-major (step, dimension); each rounded once."""
        self._flush()
        joints, lagged, starts = self._joints, self._lagged.total(), self._starts.total()
        width = len(joints)
        actions, beside = lagged[..., : 2 * ACTION_DIM], lagged[..., 2 * ACTION_DIM : -1]
        edges = self._edges.total()
        shape = (ACTION_HORIZON, ACTION_DIM, ACTION_HORIZON, ACTION_DIM)
        products = np.zeros(shape, object)
        edge = _joined(edges, _EDGE * ACTION_DIM, _EDGE * ACTION_DIM)
        edge = edge.reshape(_EDGE, ACTION_DIM, _EDGE, ACTION_DIM)
        for lag in range(ACTION_HORIZON):
            # the left side of `lagged` is the later one
            block = _joined(actions[lag], ACTION_DIM, ACTION_DIM).T
            for step in range(ACTION_HORIZON - lag):
                if step:
                    block = block + edge[step - 1, :, step - 1 + lag]
                products[step, :, step + lag] = block
                products[step + lag, :, step] = block.T
        sums = np.stack([_joined(part[:, -1:], ACTION_DIM, 1)[:, 0] for part in lagged])
        if width:
            start = _joined(starts[:-1, -1:], width, 1)[:, 0]
            square = _joined(starts[:-1, :-1], width, width)
            for step in range(ACTION_HORIZON):
                cross = _joined(beside[step], ACTION_DIM, width)
                products[step][:, :, joints] -= cross[:, None, :]
                products[:, joints, step] -= cross.T[None]
            steps = np.arange(ACTION_HORIZON)
            products[np.ix_(steps, joints, steps, joints)] += square[None, :, None, :]
            sums[:, joints] -= start
        flat = ACTION_HORIZON * ACTION_DIM
        sums = sums.reshape(flat)
        centred = products.reshape(flat, flat) * self.chunks - np.outer(sums, sums)
        return _ratio(sums, self.chunks, _GRID), _ratio(centred, self.chunks**2, 2 * _GRID)

    def _flush(self) -> None:
        if self._heads:
            heads, tails = np.stack(self._heads), np.stack(self._tails)
            self._edges.add(tails.T @ tails - heads.T @ heads)
            self._heads.clear()
            self._tails.clear()


def _pieces(values: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n e"]:
    """High and low parts side by side: value = (high * 2**21 + low) * 2**-40."""
    whole = np.rint(np.ldexp(values.astype(np.float64), _GRID))
    high = np.rint(np.ldexp(whole, -_LOW))
    return np.hstack([high, whole - np.ldexp(high, _LOW)])


def _ends(rows: Float64[np.ndarray, "29 46"]) -> Float64[np.ndarray, "e"]:
    """The first or last frames in one row: all high parts, then all low ones."""
    return np.concatenate([rows[:, :ACTION_DIM].reshape(-1), rows[:, ACTION_DIM:].reshape(-1)])


def _joined(total: np.ndarray, left: int, right: int) -> np.ndarray:
    """Sums of products of values, from those of their parts; of values, where the right side is ones."""
    if total.shape[1] == right:
        result: np.ndarray = total[:left] * 2**_LOW + total[left:]
        return result
    high, low = total[:left], total[left:]
    middle = high[:, right:] + low[:, :right]
    joined: np.ndarray = high[:, :right] * 2 ** (2 * _LOW) + middle * 2**_LOW + low[:, right:]
    return joined


def _ratio(numerator: np.ndarray, denominator: int, shift: int) -> Float64[np.ndarray, "..."]:
    """Integers over an integer and a power of two, rounded once."""
    result: Any = np.array(numerator / (max(denominator, 1) << shift), np.float64)
    return np.asarray(result)
