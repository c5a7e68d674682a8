"""Linear algebra that is the same on every machine: values against exact ones, and orders of summation."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pi_behavior.reproducible import cholesky, gram

FINITE = st.floats(-1e6, 1e6, width=32)
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(0, 40), st.integers(1, 4)), elements=FINITE)


@given(MATRICES)
def test_gram_is_close_to_the_exact_product(values: np.ndarray) -> None:
    found = gram(values)
    assert (found == found.T).all()
    largest = np.abs(values).max(axis=0, initial=0.0)
    bound = 2.0**-40 * len(values) * np.outer(largest, largest)
    for i, j in np.ndindex(found.shape):
        exact = sum(Fraction(row[i]) * Fraction(row[j]) for row in values)
        assert abs(Fraction(found[i, j]) - exact) <= bound[i, j]


@given(st.integers(0, 2**32 - 1), st.integers(1, 1000))
def test_gram_does_not_depend_on_the_order_of_rows_and_columns(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 9)) * np.exp(rng.normal(0, 5, 9))
    order, columns = rng.permutation(rows), rng.permutation(9)
    np.testing.assert_array_equal(gram(values[order][:, columns]), gram(values)[np.ix_(columns, columns)])


def test_gram_of_many_rows() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, (5000, 30)).astype(np.float32)
    expected = values.T.astype(np.float64) @ values.astype(np.float64)
    np.testing.assert_allclose(gram(values), expected, rtol=1e-11)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_cholesky_is_that_of_lapack(seed: int, width: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2 * width, width))
    matrix = values.T @ values / width + 0.1 * np.eye(width)
    np.testing.assert_allclose(cholesky(matrix), np.linalg.cholesky(matrix), rtol=0, atol=1e-10)


@pytest.mark.parametrize("last", [0.0, -1.0, np.nan])
def test_a_matrix_that_is_not_positive_definite_is_refused(last: float) -> None:
    with pytest.raises(np.linalg.LinAlgError, match=r"row 2 leaves .* expected a positive definite matrix"):
        cholesky(np.diag([4.0, 1.0, last]))
