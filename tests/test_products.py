"""A product in strips is the product, with rounding that the error bounds of a fit take for
granted.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dask_embstab.core import products
from dask_embstab.core.products import (
    Family,
    Strips,
    gramian,
    gramian_in_strips,
    joint_gramian,
    multiply,
)
from dask_embstab.core.square_root import sum_units

FAMILIES: tuple[Family, ...] = get_args(Family)
EPS = np.finfo(float).eps
families = st.sampled_from(FAMILIES)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    n=st.integers(0, 3000),
    d=st.integers(1, 70),
    r=st.integers(1, 70),
    family=families,
    seed=st.integers(0, 2**32 - 1),
)
def test_strips_do_not_change_a_product(
    dtype: type, n: int, d: int, r: int, family: Family, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, M = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((d, r)).astype(dtype)
    out = np.full((n, r), np.nan, dtype)
    multiply(rows, M, out, family=family)
    expected = rows.astype(float) @ M.astype(float)
    scale = np.abs(rows).astype(float) @ np.abs(M).astype(float)
    assert (np.abs(out - expected) <= d * np.finfo(dtype).eps * scale).all()


def test_where_a_panel_ends_does_not_change_the_rows_before() -> None:
    rng = np.random.default_rng(0)
    rows, M = rng.standard_normal((4096, 64)), rng.standard_normal((64, 64))
    whole, part = np.empty_like(rows), np.empty_like(rows)
    multiply(rows, M, whole, family="avx512")
    multiply(rows[:2048], M, part[:2048], family="avx512")
    assert (whole[:2048] == part[:2048]).all()


def require_gramian(rows: Any, family: Family, units: float = 64) -> None:
    square = gramian(rows, family=family)
    assert (square == square.T).all()
    exact = rows.T @ rows
    assert (np.abs(square - exact) <= units * EPS * (np.abs(rows).T @ np.abs(rows))).all()


@example(n=4096, d=64, more=0, family="avx512", seed=0)
@example(n=4096 + 300, d=49, more=7, family="avx512", seed=0)
@example(n=4095, d=128, more=0, family="avx512-amd", seed=0)
@given(
    n=st.integers(1, 5000),
    d=st.integers(1, 140),
    more=st.integers(0, 9),
    family=families,
    seed=st.integers(0, 2**32 - 1),
)
def test_strips_do_not_change_a_gramian(
    n: int, d: int, more: int, family: Family, seed: int
) -> None:
    """Nor does it matter whether rows are next to each other in memory."""
    require_gramian(np.random.default_rng(seed).standard_normal((n, d + more))[:, :d], family)


@given(
    n=st.integers(1, 400),
    d=st.integers(17, 40),
    rows=st.integers(1, 300),
    columns=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_cut_gives_the_same_gramian(n: int, d: int, rows: int, columns: int, seed: int) -> None:
    X = np.random.default_rng(seed).standard_normal((n, d))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_BLOCK_BYTES", 64 << (seed % 12))
        square = gramian_in_strips(X, Strips(rows, columns))
    assert (square == square.T).all()
    assert (np.abs(square - X.T @ X) <= 64 * EPS * (np.abs(X).T @ np.abs(X))).all()


def test_other_orders_in_memory_and_other_steps_are_no_strips() -> None:
    rows = np.random.default_rng(0).standard_normal((2048, 64))
    for odd in (np.asfortranarray(rows), rows[:, ::2], rows[::-1], rows[::3]):
        require_gramian(odd, "avx512")


@pytest.mark.parametrize("d", [32, 64])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_strips_gather_no_more_rounding_than_the_product_that_bounds_were_made_for(
    d: int, mean: float
) -> None:
    """`sum_units` was calibrated on it; the largest error of one sign is that of the diagonal."""
    rows = (np.random.default_rng(d).standard_normal((4096, d)) + mean).astype("float32")
    wide = rows.astype(np.longdouble)
    exact = np.array([(wide[:, i, None] * wide).sum(axis=0) for i in range(d)])
    lengths = np.sqrt(np.diag(exact))
    _, one_sign = sum_units(len(rows), float(np.finfo(np.float32).eps))
    estimates = {}
    for family in FAMILIES:
        off = (gramian(rows.astype(float), family=family) - exact) / np.outer(lengths, lengths)
        estimates[family] = float(np.sqrt(np.mean(off**2)))
        assert np.abs(off).max() <= one_sign * EPS
    assert max(estimates.values()) <= 1.2 * estimates["packed"]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_strip_adds_more_rows_in_a_row_than_the_narrowest(family: Family) -> None:
    widths = [width for width, _ in products.GRAMIANS[family]]
    assert widths == sorted(widths)
    assert all(cut.rows <= products._STRIP_ROWS for _, cut in products.GRAMIANS[family])


@given(
    n=st.integers(1, 5000),
    d=st.integers(1, 40),
    D=st.integers(1, 40),
    family=families,
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_apart_or_in_one_array_have_the_same_sums(
    n: int, d: int, D: int, family: Family, seed: int
) -> None:
    joint = np.random.default_rng(seed).standard_normal((n, d + D))
    apart = joint[:, :d].copy(), joint[:, d:].copy()
    bound = 64 * EPS * (np.abs(joint).T @ np.abs(joint))
    for parts in ((joint,), apart):
        square = joint_gramian(parts, family=family)
        assert (square == square.T).all()
        assert (np.abs(square - joint.T @ joint) <= bound).all()


@pytest.mark.parametrize("d", [8, 40, 64])
def test_a_gramian_of_what_is_not_finite_is_not_finite(d: int) -> None:
    rows = np.ones((4096, d))
    for bad in (np.nan, np.inf):
        for row in (0, 1023, 4095):
            rows[row, d - 1] = bad
            with np.errstate(invalid="ignore"):
                assert not np.isfinite(np.trace(gramian(rows, family="avx512")))
            rows[row, d - 1] = 1
