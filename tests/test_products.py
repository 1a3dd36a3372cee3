"""A product in strips is the product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_embstab.core.products import gramian, joint_gramian, multiply


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    n=st.integers(0, 3000),
    d=st.integers(1, 70),
    r=st.integers(1, 70),
    in_place=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_strips_do_not_change_a_product(
    dtype: type, n: int, d: int, r: int, in_place: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, M = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((d, r)).astype(dtype)
    out = np.full((n, r), np.nan, dtype)
    multiply(rows, M, out, in_place=in_place)
    expected = rows.astype(float) @ M.astype(float)
    scale = np.abs(rows).astype(float) @ np.abs(M).astype(float)
    assert (np.abs(out - expected) <= d * np.finfo(dtype).eps * scale).all()


def test_where_a_panel_ends_does_not_change_the_rows_before() -> None:
    rng = np.random.default_rng(0)
    rows, M = rng.standard_normal((4096, 64)), rng.standard_normal((64, 64))
    whole, part = np.empty_like(rows), np.empty_like(rows)
    multiply(rows, M, whole, in_place=True)
    multiply(rows[:2048], M, part[:2048], in_place=True)
    assert (whole[:2048] == part[:2048]).all()


@given(
    n=st.integers(1, 5000),
    d=st.integers(1, 40),
    in_place=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_strips_do_not_change_a_gramian(n: int, d: int, in_place: bool, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    square = gramian(rows, in_place=in_place)
    assert (square == square.T).all()
    eps = np.finfo(float).eps
    assert (np.abs(square - rows.T @ rows) <= 64 * eps * (np.abs(rows).T @ np.abs(rows))).all()


@given(
    n=st.integers(1, 5000),
    d=st.integers(1, 40),
    D=st.integers(1, 40),
    in_place=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_apart_or_in_one_array_have_the_same_sums(
    n: int, d: int, D: int, in_place: bool, seed: int
) -> None:
    joint = np.random.default_rng(seed).standard_normal((n, d + D))
    apart = joint[:, :d].copy(), joint[:, d:].copy()
    bound = 64 * np.finfo(float).eps * (np.abs(joint).T @ np.abs(joint))
    for parts in ((joint,), apart):
        square = joint_gramian(parts, in_place=in_place)
        assert (square == square.T).all()
        assert (np.abs(square - joint.T @ joint) <= bound).all()


def test_a_gramian_of_what_is_not_finite_is_not_finite() -> None:
    rows = np.ones((4096, 8))
    for bad in (np.nan, np.inf):
        for row in (0, 1023, 4095):
            rows[row, 7] = bad
            with np.errstate(invalid="ignore"):
                assert not np.isfinite(np.trace(gramian(rows, in_place=True)))
            rows[row, 7] = 1
