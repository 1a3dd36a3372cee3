"""Which route a condition number and a dtype lead to: one read where the Gramian serves, another
where it does not.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.core.tree import micro_block_rows

D = 4
MANY = micro_block_rows(D) + 1000
USERS = np.random.default_rng(1).normal(size=(500, D))


def of_condition(kappa: float, n: int, dtype: str) -> np.ndarray:
    """Rows whose equilibrated table has about this condition number, columns of one length."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0]
    rows = np.linalg.qr(rng.normal(size=(n, D)))[0] * [1, 1, 1, 1 / kappa] @ axes
    return np.asarray(rows * np.sqrt(n)).astype(dtype)


# What a column of a Gramian's root is off by is 2.2e-16 kappa^2: 1e-13 is allowed where another
# read is cheap or the dtype says more, 5e-8 of a float32 table of several panels.
ROUTES = [
    (5, MANY, "float64", "gram"),
    (100, MANY, "float64", "preconditioned"),
    (5, 500, "float32", "gram"),
    (100, 500, "float32", "preconditioned"),
    (5000, MANY, "float32", "gram"),
    (60_000, MANY, "float32", "preconditioned"),
]


@pytest.mark.parametrize(("kappa", "n", "dtype", "route"), ROUTES)
def test_a_route_follows_the_condition_number_the_dtype_and_the_size(
    kappa: float, n: int, dtype: str, route: str
) -> None:
    rows = of_condition(kappa, n, dtype)
    by_auto, by_qr = (
        es.fit(rows, USERS, method=method, balance="gramians") for method in ("auto", "qr")
    )
    figures = by_auto.diagnostics["items"]
    assert (figures["route"], figures["reads"]) == (route, 1 if route == "gram" else 2)
    assert kappa / 3 < figures["condition"] < 3 * kappa
    exact, ours = (rows.astype(np.float64) @ transform.items for transform in (by_qr, by_auto))
    error = np.linalg.norm(exact - ours, axis=0) / np.linalg.norm(exact, axis=0)
    assert error.max() <= (5e-8 if dtype == "float32" and n == MANY else 2e-13)
    assert error.max() <= figures["certificate"] + by_qr.diagnostics["items"]["certificate"]


@pytest.mark.parametrize(("kappa", "served"), [(1e5, True), (3e6, False)])
def test_the_gramian_alone_serves_up_to_an_error_of_one_in_ten_thousand(
    kappa: float, served: bool
) -> None:
    rows = of_condition(kappa, 500, "float64")
    if served:
        assert es.fit(rows, USERS, method="gram").diagnostics["items"]["route"] == "gram"
        return
    for fit in (
        lambda: es.fit(rows, USERS, method="gram"),
        lambda: es.fit(es.moments(rows), es.moments(USERS, key="users"), method="gram"),
    ):
        with pytest.raises(es.ConditionError, match="condition number below 7e\\+05"):
            fit()


def test_moments_are_no_table_that_could_be_read_again() -> None:
    rows = of_condition(100, 500, "float64")
    moments = es.moments(rows), es.moments(USERS, key="users")
    with pytest.raises(es.ConditionError, match="too ill-conditioned"):
        es.fit(*moments)
    assert es.fit(*moments, method="gram").diagnostics["items"]["certificate"] < 1e-9


@pytest.mark.parametrize("kappa", [1e4, 1e8, 1e11])
def test_one_more_read_is_enough_for_one_weak_direction(kappa: float) -> None:
    figures = es.fit(of_condition(kappa, 500, "float64"), USERS).diagnostics["items"]
    assert (figures["route"], figures["reads"]) == ("preconditioned", 2)
    assert kappa / 3 < figures["condition"] < 3 * kappa


@pytest.mark.parametrize("method", ["auto", "qr"])
@pytest.mark.parametrize("size", [1e150, 1e-140, 1e-150, 1e-160, 1e-170, 1e-300])
def test_values_of_any_size_are_fitted_or_refused(size: float, method: str) -> None:
    rows = of_condition(5, 500, "float64")
    if size < 1e-147:
        with pytest.raises(es.InputError, match="squares underflow float64; rescale"):
            es.fit(rows * size, USERS, method=method)
        with pytest.raises(es.InputError, match="squares underflow float64; rescale"):
            es.fit(rows * size, reference=rows)
        one = rows * [1, 1, 1, size]
        with (
            pytest.raises(es.InputError, match="squares underflow")
            if size > 1e-162
            else contextlib.nullcontext()
        ):
            es.fit(one, USERS, method=method)
        with pytest.warns(es.EmbstabWarning, match="1 are free"):  # a rotation needs nothing of it
            fitted = es.fit(one, reference=one)
        np.testing.assert_allclose(fitted.items[:3, :3], np.eye(3), atol=1e-12)
        return
    fitted = es.fit(rows * size, USERS, method=method)
    scores = (rows * size @ fitted.items) @ (USERS @ fitted.users).T
    np.testing.assert_allclose(scores / size, rows @ USERS.T, rtol=0, atol=1e-12)


def test_a_table_of_zeros_is_an_error_that_says_so() -> None:
    with pytest.raises(es.ConditionError, match="is zero, so it spans no space"):
        es.fit(np.zeros((500, D)), USERS)


@pytest.mark.parametrize("factor", [1e-200, 1e-150, 1e-100, 1e100, 1e150, 1e200])
def test_weights_of_any_size_are_used_or_refused(factor: float) -> None:
    rows, reference = of_condition(5, 500, "float64"), of_condition(7, 500, "float64")
    weights = np.random.default_rng(2).random(500)
    if 1e-140 < factor < 1e140:
        result, expected = (
            es.fit(rows, reference=reference, weights=by * weights) for by in (factor, 1.0)
        )
        np.testing.assert_allclose(result.items, expected.items, atol=1e-12)
        return
    with pytest.raises(es.InputError, match="weights of items must lie within"):
        es.fit(rows, reference=reference, weights=factor * weights)
