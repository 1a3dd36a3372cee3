"""The svd by products is the exact one, on matrices graded from either side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import linalg

from dask_embstab.core.matrix import graded_svd as module
from dask_embstab.core.matrix import pivoting
from dask_embstab.core.matrix.graded_svd import graded_svd, jacobi_svd

EPS = np.finfo(float).eps
Array = Any


def graded(seed: int, m: int, n: int, rows: float, columns: float) -> Array:
    """D_1 C D_2 with a random C and diagonals that fall by so many decades, in random order."""
    rng = np.random.default_rng(seed)
    left, right = (
        10.0 ** -rng.permutation(np.linspace(0, k, j)) for k, j in ((rows, m), (columns, n))
    )
    return left[:, None] * rng.standard_normal((m, n)) * right


def require_svd(A: Array, U: Array, s: Array, V: Array) -> None:
    k = min(A.shape)
    assert (U.shape, s.shape, V.shape) == ((len(A), k), (k,), (A.shape[1], k))
    assert (s[:-1] >= s[1:]).all()
    for Q in (U, V):
        np.testing.assert_allclose(Q.T @ Q, np.eye(k), atol=100 * EPS)
    assert np.linalg.norm(U * s @ V.T - A) <= 100 * EPS * np.linalg.norm(A)


@settings(max_examples=15)
@example(seed=615194, m=20, n=20, rows=7.0, columns=4.0)  # where LAPACK's gejsv is off by 7e-10
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 8),
    n=st.integers(1, 8),
    rows=st.floats(0, 8),
    columns=st.floats(0, 8),
)
def test_every_pair_of_singular_vectors_is_that_of_forty_digits(
    seed: int, m: int, n: int, rows: float, columns: float
) -> None:
    A = graded(seed, m, n, rows, columns)
    U, s, V = graded_svd(A)
    require_svd(A, U, s, V)
    with mp.workdps(40):
        parts = mp.svd_r(mp.matrix(A.tolist()))
        left, exact, right = (np.array(part.tolist(), float) for part in parts)
    lengths = np.linalg.norm(A, axis=1)[:, None]
    condition = np.linalg.cond(A / lengths / np.linalg.norm(A / lengths, axis=0))
    allowed = 20 * EPS * condition * min(m, n)
    exact = exact.ravel()
    np.testing.assert_allclose(s, exact, rtol=allowed)
    apart = np.abs(np.subtract.outer(exact, exact)) / np.add.outer(exact, exact)
    np.fill_diagonal(apart, 1.0)
    for ours, theirs in ((U, left), (V, right.T)):
        off = np.linalg.norm(ours * np.sign((ours * theirs).sum(axis=0)) - theirs, axis=0)
        assert (off <= allowed / apart.min(axis=0)).all()


def test_jacobi_is_called_where_the_diagonal_asks_for_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []

    def counted(A: Array) -> Any:
        called.append(A)
        return jacobi_svd(A)

    monkeypatch.setattr(module, "jacobi_svd", counted)
    for decades in (0.0, 2.0, 4.5):
        graded_svd(graded(1, 60, 60, decades, decades))
    assert not called
    beyond = graded(1, 60, 60, 7.0, 7.0)
    require_svd(beyond, *graded_svd(beyond))
    assert len(called) == 1


@pytest.mark.parametrize(
    "spectrum",
    [
        [1.0] * 12,
        [3.0] + [1 + 1e-9, 1.0, 1 - 1e-9] * 3 + [0.5] * 2,
        [4.0] * 4 + [1.0] * 4 + [1e-6] * 4,
        [0.0] * 12,
    ],
)
def test_repeated_singular_values_and_zeros(spectrum: list[float]) -> None:
    rng = np.random.default_rng(0)
    P, Q = (np.linalg.qr(rng.standard_normal((12, 12)))[0] for _ in range(2))
    A = P * sorted(spectrum, reverse=True) @ Q.T
    U, s, V = graded_svd(A)
    require_svd(A, U, s, V)
    np.testing.assert_allclose(
        s, sorted(spectrum, reverse=True), rtol=0, atol=20 * EPS * max(spectrum)
    )


def test_what_is_not_finite_is_no_endless_loop() -> None:
    A = np.eye(4)
    A[2, 1] = np.nan
    with pytest.raises(ValueError, match="infs or NaNs"):
        graded_svd(A)


@pytest.mark.parametrize("size", [2.0**k for k in (-950, -510, -500, 505, 520, 1000)])
@pytest.mark.parametrize("d", [1, 2, 16, 33])
def test_the_size_of_a_matrix_changes_no_bit_of_its_svd(size: float, d: int) -> None:
    """Squares of its lengths would be denormal, zero or infinite."""
    A = np.random.default_rng(0).standard_normal((d, d)) * np.logspace(0, -6, d)
    for one, other in zip(graded_svd(A), graded_svd(A * size), strict=True):
        ours = other / size if other.ndim == 1 else other
        np.testing.assert_array_equal(one, ours)


def test_columns_are_pivoted_where_sorting_them_is_not_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pivoted = []

    def counted(*given: Any, **options: Any) -> Any:
        pivoted.append(options.get("pivoting", False))
        return linalg.qr(*given, **options)

    monkeypatch.setattr(pivoting, "linalg", SimpleNamespace(qr=counted))
    A = graded(3, 30, 30, 0.0, 4.0)
    twice = A.copy()
    order = np.argsort(-np.linalg.norm(A, axis=0))
    twice[:, order[1]] = twice[:, order[0]] * (1 + 1e-9 * np.arange(30))  # nothing is left of it
    for M, pivots in ((A, [False]), (twice, [False, True])):
        pivoted.clear()
        reflectors, r, columns = pivoting.sorted_qr(M)
        assert pivoted == pivots
        Q = linalg.lapack.dorgqr(*reflectors)[0]
        np.testing.assert_allclose(Q @ r, M[:, columns], rtol=0, atol=1e-14 * np.abs(M).max())
        assert (np.abs(r).max(axis=1) <= 4 * np.abs(np.diag(r)) * (1 + 1e-12)).all()
