"""Correlation of action chunks: estimate, shrinkage, embedding in the padded width, inpainting's matrix.

A chunk is flattened row-major (step, then dimension): 30 x 23 = 690 values, 30 x 32 = 960 when padded.
Source: report, sections 5.2, 5.3 and 7.1.2.
"""

import numpy as np
from jaxtyping import Float

from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON, MODEL_DIM

EPSILON = 1e-6
"""Added to standard deviations; a dimension with less spread than this is constant."""
FLAT_DIM = ACTION_HORIZON * ACTION_DIM
PADDED_DIM = ACTION_HORIZON * MODEL_DIM
REAL = (np.arange(ACTION_HORIZON)[:, None] * MODEL_DIM + np.arange(ACTION_DIM)).reshape(-1)
"""Places of the 690 real entries among the 960 of a padded chunk."""


def correlation_matrix(
    scatter: Float[np.ndarray, "d d"], scale: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "d d"]:
    """Correlation of normalised chunks from their unnormalised second moment (report, section 5.2).

    Args:
        scatter: mean of x x^T, x = delta chunk minus the mean that actions are normalised with.
        scale: what they are divided by.

    Returns:
        Second moment of x / scale, scaled to unit diagonal; entries that never leave their mean by more
        than 1e-6 (RMS) get the row and column of the identity; 1e-6 I is added.
    """
    constant = np.sqrt(np.diag(scatter)) < EPSILON
    normalised = scatter / np.outer(scale, scale)
    root = np.where(constant, 1.0, np.sqrt(np.diag(normalised)))
    result: np.ndarray = normalised / np.outer(root, root)
    result[constant, :] = 0.0
    result[:, constant] = 0.0
    np.fill_diagonal(result, 1.0 + EPSILON)
    return result


def pad_correlation(correlation: Float[np.ndarray, "690 690"]) -> Float[np.ndarray, "960 960"]:
    """Embed a 690 x 690 matrix in the padded width, with the identity on the padding."""
    result = np.eye(PADDED_DIM)
    result[np.ix_(REAL, REAL)] = correlation
    return result


def shrunk_covariance(correlation: Float[np.ndarray, "960 960"], beta: float) -> Float[np.ndarray, "960 960"]:
    """Shrink towards the identity: beta Sigma + (1 - beta) I (report, section 5.3)."""
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta is {beta}; expected a number in [0, 1]")
    return beta * correlation + (1.0 - beta) * np.eye(len(correlation))


def correction_matrix(covariance: Float[np.ndarray, "960 960"], keep: int) -> Float[np.ndarray, "u o"]:
    """Matrix by which free entries of a chunk follow a correction of the first steps (section 7.1.2).

    Args:
        covariance: the shrunk covariance of padded chunks.
        keep: number of first steps that are given; O = their 23 dimensions, U = all other entries.

    Returns:
        Sigma_UO (Sigma_OO + 1e-6 max(mean diagonal, 1) I)^-1; rows U and columns O ascending.
    """
    if not 0 < keep < ACTION_HORIZON:
        raise ValueError(f"keep is {keep}; expected 1 to {ACTION_HORIZON - 1} steps")
    given = REAL[: keep * ACTION_DIM]
    free = np.setdiff1d(np.arange(PADDED_DIM), given)
    observed = covariance[np.ix_(given, given)]
    ridge = 1e-6 * max(float(np.diag(observed).mean()), 1.0)
    import scipy.linalg  # imported late: 0.2 s that every user of statistics would wait for

    solved = scipy.linalg.solve(
        observed + ridge * np.eye(len(given)), covariance[np.ix_(given, free)], assume_a="pos"
    )
    return np.asarray(solved.T)
