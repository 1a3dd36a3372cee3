"""The inverse of a transform undoes it, however far the columns of the tables lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Array

import dask_embstab as es
from dask_embstab import Transform
from dask_embstab.core.matrix.inverse import pseudo_inverse
from dask_embstab.core.procrustes import procrustes


def tables(seed: int, d: int, decades: float, *, opposed: bool) -> tuple[Array, Array]:
    """Items and users whose components spread over so many decades, in opposite orders or in orders
    of their own.
    """
    rng = np.random.default_rng(seed)
    mine, theirs = (
        10.0 ** rng.permutation(np.linspace(-decades / 2, decades / 2, d)) for _ in range(2)
    )
    return rng.normal(size=(80, d)) * mine, rng.normal(size=(60, d)) * (
        1 / mine if opposed else theirs
    )


def off(inverted: Array, table: Array) -> float:
    """Largest error of a component, relative to its length."""
    return float((np.linalg.norm(inverted - table, axis=0) / np.linalg.norm(table, axis=0)).max())


@pytest.mark.parametrize("decades", [0, 6, 12, 18])
@pytest.mark.parametrize("aligned", [False, True])
def test_compose_of_inverse_is_the_identity_over_eighteen_decades(
    decades: int, aligned: bool
) -> None:
    T, W = tables(0, 6, decades, opposed=aligned)
    reference = np.random.default_rng(1).normal(size=T.shape) if aligned else None
    there = es.fit(T, W, reference=reference)
    back, both = there.inverse(), there.compose(there.inverse())
    for rows, forward, backward, at_once in (
        (T, there.transform_items, back.transform_items, both.transform_items),
        (W, there.transform_users, back.transform_users, both.transform_users),
    ):
        assert off(backward(forward(rows)), rows) <= 2e-14
        assert off(at_once(rows), rows) <= 2e-14
    again = back.compose(there)
    np.testing.assert_allclose(again.items, np.eye(6), atol=1e-13)
    np.testing.assert_allclose(again.users, np.eye(6), atol=1e-13)


@given(
    seed=st.integers(0, 10_000),
    d=st.integers(1, 12),
    decades=st.integers(0, 18),
    centred=st.booleans(),
)
def test_any_scaling_is_undone_to_rounding(seed: int, d: int, decades: int, centred: bool) -> None:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scale = 10.0 ** rng.permutation(np.linspace(0, decades, d))
    M, offset = Q / scale[:, None], rng.normal(size=d) if centred else None
    rows = rng.normal(size=(20, d)) * scale
    there = Transform(M, None, np.ones(d), offset)
    assert off(there.inverse().transform_items(there.transform_items(rows)), rows) <= 3e-15 * d
    if decades <= 12:
        twice = there.inverse().inverse()
        # Of 60,000 draws the worst was 3e-14 a component, all but a handful below 3e-15.
        assert off((twice.items * scale[:, None]).T, (M * scale[:, None]).T) <= 1e-13 * d


@given(
    seed=st.integers(0, 10_000),
    d=st.integers(1, 7),
    k=st.integers(1, 9),
    rank=st.integers(0, 7),
    empty=st.integers(0, 2),
)
def test_it_is_the_pseudo_inverse_of_any_matrix(
    seed: int, d: int, k: int, rank: int, empty: int
) -> None:
    rng = np.random.default_rng(seed)
    M = (
        rng.normal(size=(d, rank)) @ rng.normal(size=(rank, k))
        if rank < min(d, k)
        else rng.normal(size=(d, k))
    )
    M = np.pad(M, ((0, empty), (0, empty)))
    np.testing.assert_allclose(pseudo_inverse(M), np.linalg.pinv(M, rcond=1e-10), atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 5), (5, 8), (8, 5)])
def test_the_conditions_of_moore_and_penrose_hold_over_decades(shape: tuple[int, int]) -> None:
    """In the metric of the rows: of every product, what a rounding of its factors allows."""
    rng = np.random.default_rng(3)
    d, k = shape
    M = rng.normal(size=(d, 3)) @ np.linalg.qr(rng.normal(size=(k, 3)))[0].T
    M *= 10.0 ** rng.permutation(np.linspace(-3, 3, d))[:, None]
    X = pseudo_inverse(M)
    size = np.linalg.norm(M, 2) * np.linalg.norm(X, 2)
    np.testing.assert_allclose(M @ X @ M, M, atol=1e-14 * size * np.abs(M).max())
    np.testing.assert_allclose(X @ M @ X, X, atol=1e-14 * size * np.abs(X).max())
    for product in (M @ X, X @ M):
        np.testing.assert_allclose(product, product.T, atol=1e-14 * size)


def test_zeros_have_a_pseudo_inverse_of_zeros() -> None:
    np.testing.assert_array_equal(pseudo_inverse(np.zeros((3, 2))), np.zeros((2, 3)))


def test_components_that_the_reference_leaves_empty_stay_empty() -> None:
    """To the last bit: rounding in their place would be an honest direction to whoever scales
    columns.
    """
    rng = np.random.default_rng(4)
    thin, W = rng.normal(size=(90, 4)) @ rng.normal(size=(4, 6)), rng.normal(size=(70, 6))
    first = es.fit(thin, W)
    second: Any = es.fit(thin @ np.diag(np.linspace(1, 2, 6)), W, reference=thin @ first.items)
    assert not second.items[:, 4:].any()
    assert np.abs(second.inverse().items).max() < 1e3
    noise = np.pad(rng.normal(size=(6, 4)), ((0, 0), (0, 2))) + 1e-17 * rng.normal(size=(6, 6))
    np.testing.assert_allclose(
        pseudo_inverse(noise), np.linalg.pinv(noise, rcond=1e-10), atol=1e-12
    )


def test_free_directions_may_take_what_the_reference_leaves_empty() -> None:
    cross = np.zeros((3, 4))
    cross[0, 0] = cross[1, 1] = 1.0
    Q = procrustes(cross).Q
    np.testing.assert_allclose(Q @ Q.T, np.eye(3), atol=1e-15)
