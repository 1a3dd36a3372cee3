"""Tables of less than full rank, of every kind, on every route: the answer of tall QR, or an error,
never another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Array

import dask_embstab as es
from dask_embstab import ConditionError
from dask_embstab.core import square_root
from dask_embstab.passes.fit import reread

Make = Callable[[np.random.Generator, int, int], Array]


def rotated(rows: Array, rng: np.random.Generator) -> Array:
    return rows @ np.linalg.qr(rng.normal(size=(rows.shape[1],) * 2))[0]


def few_rows(rng: np.random.Generator, n: int, d: int) -> Array:
    rows = np.zeros((n, d))
    rows[: d - 1] = rng.normal(size=(d - 1, d))
    return rows


def one_hot_beside_a_bias(rng: np.random.Generator, n: int, d: int) -> Array:
    return np.column_stack([np.eye(d - 1)[rng.integers(0, d - 1, n)], np.ones(n)])


def counts_that_sum_up(rng: np.random.Generator, n: int, d: int) -> Array:
    rows = rng.integers(0, 5, size=(n, d)).astype(float)
    rows[:, -1] = rows[:, :-1].sum(axis=1)
    return rows


def weak_beside_null(rng: np.random.Generator, n: int, d: int) -> Array:
    """An honest direction that no Gramian sees, and a null one: their eigenvectors are mixed."""
    rows = rng.normal(size=(n, d))
    rows[:, -1], rows[:, -2] = rows[:, 0], rows[:, 1] + 1e-9 * rows[:, -2]
    return rotated(rows, rng)


def decades(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d - 1)) @ rng.normal(size=(d - 1, d)) * np.geomspace(1e-6, 1e6, d)


KINDS: dict[str, Make] = {
    "fewer rows than components": few_rows,
    "one-hot columns beside a bias": one_hot_beside_a_bias,
    "a column that is the sum of the others": counts_that_sum_up,
    "a column twice": lambda rng, n, d: rng.normal(size=(n, d))[:, [*range(d - 1), 0]],
    "a column of zeros": lambda rng, n, d: rng.normal(size=(n, d)) * (np.arange(d) > 0),
    "a constant column twice": lambda rng, n, d: np.column_stack(
        [rng.normal(size=(n, d - 2)), np.full((n, 2), 3.0)]
    ),
    "one direction": lambda rng, n, d: np.outer(rng.normal(size=n), rng.normal(size=d)),
    "half the directions": lambda rng, n, d: (
        rng.normal(size=(n, d // 2)) @ rng.normal(size=(d // 2, d))
    ),
    "all but one direction": lambda rng, n, d: (
        rng.normal(size=(n, d - 1)) @ rng.normal(size=(d - 1, d))
    ),
    "columns over twelve decades": decades,
    "a weak direction beside a null one": weak_beside_null,
    "a direction of a lone row": lambda rng, n, d: (
        rotated(rng.normal(size=(n, d)) * np.r_[np.ones(d - 1), 0.0], rng)
        + (np.arange(n) == n // 2)[:, None] * 1e-7 * rng.normal(size=d)
    ),
    "a large mean": lambda rng, n, d: (
        100.0 + rng.normal(size=(n, d - 2)) @ rng.normal(size=(d - 2, d))
    ),
}


def fitted(T: Array, W: Array, method: Any) -> es.Transform:
    return es.fit(T, W, method=method, balance="gramians")


def require_the_same(T: Array, W: Array, route: Any) -> None:
    """Rank, singular values to the certificates, and every score: as by QR."""
    qr, by_route = fitted(T, W, "qr"), fitted(T, W, route)
    assert by_route.diagnostics["rank"] == qr.diagnostics["rank"]
    for key in ("items", "users"):
        assert by_route.diagnostics[key]["rank"] == qr.diagnostics[key]["rank"]
    stated = max(
        t.diagnostics[key]["certificate"] for t in (qr, by_route) for key in ("items", "users")
    )
    # To first order a singular value moves up to twice as far as its column, and here by two
    # routes.
    np.testing.assert_allclose(by_route.singular_values, qr.singular_values, rtol=4 * stated)
    rows, others = T.astype(float), W.astype(float)
    scores = others @ rows.T
    # What the rank leaves out is one part in the table's own precision of its largest singular
    # value.
    size = np.linalg.norm(rows, 2) * np.linalg.norm(others, axis=1).max()
    cut = max(np.finfo(X.dtype).eps for X in (T, W)) + 8 * T.shape[1] * 2.2e-16
    assert (
        np.abs((others @ by_route.users) @ (rows @ by_route.items).T - scores).max()
        <= 10 * cut * size
    )


@pytest.mark.parametrize(
    ("dtype", "d"), [("float64", 4), ("float64", 16), ("float32", 8), ("float16", 8)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_deficient_table_by_auto_is_the_table_by_qr(kind: str, d: int, dtype: str) -> None:
    rng = np.random.default_rng(d)
    T = KINDS[kind](rng, 500, d)
    T = (T if dtype != "float16" else T / np.abs(T).max()).astype(dtype)
    W = rng.normal(size=(300, d)).astype(dtype)
    require_the_same(T, W, "auto")
    require_the_same(W, T, "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_both_tables_may_be_deficient(kind: str) -> None:
    rng = np.random.default_rng(3)
    require_the_same(KINDS[kind](rng, 400, 8), KINDS["half the directions"](rng, 300, 8), "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_the_gramian_alone_refuses_all_but_columns_of_zeros(kind: str) -> None:
    rng = np.random.default_rng(4)
    T, W = KINDS[kind](rng, 500, 6), rng.normal(size=(300, 6))
    if kind == "a column of zeros":
        require_the_same(T, W, "gram")
        return
    with pytest.raises(ConditionError, match="condition number"):
        fitted(T, W, "gram")


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(sorted(KINDS)),
    d=st.integers(3, 24),
    n=st.integers(24, 200),
    decades=st.integers(0, 6),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_deficient_table(
    seed: int, kind: str, d: int, n: int, decades: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    T = (KINDS[kind](rng, n, d) * np.geomspace(1, 10.0**decades, d)[rng.permutation(d)]).astype(
        dtype
    )
    require_the_same(T, rng.normal(size=(n, d)).astype(dtype), "auto")


@pytest.mark.parametrize(
    "kind", ["one-hot columns beside a bias", "a weak direction beside a null one"]
)
def test_the_inverse_of_a_preconditioner_stays_its_inverse(kind: str) -> None:
    """However often it is refined: a row of the inverse keeps the size that its direction has in
    the table.
    """
    T = KINDS[kind](np.random.default_rng(0), 500, 8)
    by = square_root.preconditioner(T.T @ T)
    for _ in range(5):
        gramian, by = square_root.without_null_directions((T @ by.P).T @ (T @ by.P), by)
        np.testing.assert_allclose(T @ by.P @ by.inverse, T * by.scale, atol=1e-13)
        by = square_root.refined(by, gramian)


@pytest.mark.parametrize("method", ["auto", "gram", "qr"])
@pytest.mark.parametrize(("row", "off"), [(0, 1e-9), (-1, 0.07)])
def test_a_factor_that_does_not_reproduce_the_gramian_is_refused(
    monkeypatch: pytest.MonkeyPatch, method: Any, row: int, off: float
) -> None:
    rng = np.random.default_rng(5)
    T, W = rng.normal(size=(200, 5)), rng.normal(size=(100, 5))
    made = {
        "gram": "root_from_gramian",
        "qr": "root_from_triangle",
        "auto": "root_from_preconditioned",
    }[method]
    original = getattr(reread, made)

    def wrong(*given: Any, **options: Any) -> square_root.Root:
        root = original(*given, **options)
        root.R[row] *= 1 + off
        return root

    monkeypatch.setattr(reread, made, wrong)
    if method == "auto":
        T[:, -1] = T[:, -2] + 1e-9 * T[:, -1]
        W[:, -1] = W[:, -2] + 1e-9 * W[:, -1]
    with pytest.raises(ConditionError, match="must have R'R equal to the Gramian"):
        fitted(T, W, method)
