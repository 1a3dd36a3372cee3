"""Directions do not depend on the size of rows, as far as a float holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import world

import dask_embstab as es
from dask_embstab.core.moments import row_lengths, unit

T, W = world(83)
SIZES = pytest.mark.parametrize("size", [2.0**-1000, 2.0**-530, 2.0**-300, 1.0, 2.0**500])


@given(
    exponents=st.lists(st.integers(-1000, 1000), min_size=1, max_size=9), seed=st.integers(0, 99)
)
def test_the_length_of_a_row_is_exact_to_rounding_at_any_size(
    exponents: list[int], seed: int
) -> None:
    rows = np.random.default_rng(seed).normal(size=(len(exponents), 5))
    sizes = 2.0 ** np.array(exponents, float)
    np.testing.assert_allclose(
        row_lengths(rows * sizes[:, None]) / sizes, np.linalg.norm(rows, axis=1), rtol=1e-15
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_ordinary_size_have_the_bits_of_numpy(dtype: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 7)).astype(dtype)
    rows[3] = 0
    np.testing.assert_array_equal(row_lengths(rows), np.linalg.norm(rows, axis=1))
    assert (unit(rows)[3] == 0).all()


@pytest.mark.parametrize("size", [2.0**-480, 2.0**-300, 1.0, 2.0**490])
def test_cosines_that_evaluate_measures_do_not_depend_on_the_size(size: float) -> None:
    assert es.evaluate(T * size, T).items.mean_cosine == pytest.approx(1.0, abs=1e-12)


@SIZES
def test_cosines_of_a_search_are_right_for_rows_of_any_size(size: float) -> None:
    scores, ids = es.search(T * size, T, 1, metric="cosine")
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-12)
    np.testing.assert_array_equal(ids[:, 0], np.arange(60))
    _, ids = es.search(T, T * size, 1, metric="cosine")
    np.testing.assert_array_equal(ids[:, 0], np.arange(60))


@pytest.mark.parametrize(
    ("size", "message"),
    [(1e200, "large that their squares overflow"), (1e-160, "small that their squares underflow"),
     (2.0**-1000, "small that their squares underflow")],
)  # fmt: skip
def test_evaluate_refuses_rows_whose_squares_leave_float64(size: float, message: str) -> None:
    with pytest.raises(es.InputError, match=f"so {message}"):
        es.evaluate(T * size, T)
