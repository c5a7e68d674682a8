"""Linear algebra with the same result on every machine, bit for bit.

BLAS and LAPACK sum in an order that depends on the processor and on the number of threads.
"""

import numpy as np
from jaxtyping import Float

_BITS = 21
_ROWS = 2**10
"""Rows per product: the sum of this many products of integers of up to 2**21 is at most 2**52."""


def gram(values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """The product values^T values.

    Each column is written as a power of two times high + 2**-21 low, with integers high and low of 21 bits.
    Every partial sum of their products is then an integer below 2**53, which has no rounding error in any
    order. The product of two low parts is left out: an entry's error is that of values which are off by
    2**-42 of their column's largest.
    """
    exponent = np.frexp(np.abs(values).max(axis=0, initial=0.0))[1]
    high_high, high_low = np.zeros((2, values.shape[1], values.shape[1]))
    for start in range(0, len(values), _ROWS):
        scaled = np.ldexp(values[start : start + _ROWS].astype(np.float64), _BITS - exponent)
        high = np.rint(scaled)
        low = np.rint(np.ldexp(scaled - high, _BITS))
        high_high += high.T @ high
        high_low += high.T @ low
    total = high_high + np.ldexp(high_low + high_low.T, -_BITS)
    result: np.ndarray = np.ldexp(total, exponent[:, None] + exponent - 2 * _BITS)
    return result


def cholesky(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Lower Cholesky factor of a symmetric matrix; the upper triangle is not read.

    Raises:
        numpy.linalg.LinAlgError: the matrix is not positive definite.
    """
    rest, factor = np.array(matrix, np.float64), np.zeros(matrix.shape)
    for k in range(len(rest)):
        if not rest[k, k] > 0.0:
            raise np.linalg.LinAlgError(
                f"row {k} leaves {rest[k, k]:g} on the diagonal; expected a positive definite matrix"
            )
        column = factor[k:, k] = rest[k:, k] / np.sqrt(rest[k, k])
        rest[k + 1 :, k + 1 :] -= np.outer(column[1:], column[1:])
    return factor
