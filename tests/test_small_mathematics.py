"""Each d x d factorization of a fit is made once, whatever asks for it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import linalg
from scipy.linalg import lapack

import dask_embstab as es
from dask_embstab.core import moments, square_root
from dask_embstab.core import procrustes as procrustes_module
from dask_embstab.core.procrustes import alignment, procrustes
from dask_embstab.core.square_root import gramian_spectrum, root_from_gramian, root_from_triangle

D = 24
COSTLY = {
    np.linalg: ("eigh", "eigvalsh", "svd", "eigvals", "eig"),
    linalg: ("svd", "svdvals", "eigh", "eigvalsh", "orth", "qr"),
    lapack: ("dgejsv",),
}


@pytest.fixture
def factorizations(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the costly factorizations of matrices of D rows and more, by their name."""
    counts: Counter[str] = Counter()

    def counted(original: Any, name: str, A: Any, *given: Any, **more: Any) -> Any:
        if min(np.shape(A)) >= D:
            counts[name] += 1
        return original(A, *given, **more)

    for module, names in COSTLY.items():
        for name in names:
            monkeypatch.setattr(module, name, partial(counted, getattr(module, name), name))
    return counts


def rows(seed: int, n: int = 400) -> Any:
    return np.random.default_rng(seed).standard_normal((n, D)).astype("float32")


def test_a_fit_to_keep_scores_has_one_problem_of_each_kind(factorizations: Counter[str]) -> None:
    T, W = rows(0, 5000), rows(1, 5000)
    es.fit(T, W)
    # Of each table its spectrum and a pivoted triangle; of the scores two triangles and one svd.
    assert factorizations == {"eigvalsh": 2, "qr": 4, "svd": 1}


def test_a_reference_adds_one_svd_and_the_bounds(factorizations: Counter[str]) -> None:
    T, W = rows(0, 5000), rows(1, 5000)
    es.fit(T, W, reference=T + rows(2, 5000) / 10)
    # The rotation; the largest singular values of both sides, and the nuclear norm of the gap.
    assert factorizations == {"eigvalsh": 2 + 3, "qr": 4, "svd": 1 + 1}


@pytest.mark.parametrize("rank", [D, D - 3])
def test_the_spectrum_of_a_gramian_is_that_of_its_factor(rank: int) -> None:
    X = rows(3).astype("float16").astype(float)
    X[:, rank:] = X[:, : D - rank] + 1e-5 * X[:, rank:]
    G = X.T @ X
    known = root_from_gramian(G, n_rows=400, eps=1e-3, spectrum=gramian_spectrum(G))
    by_svd = root_from_triangle(np.linalg.qr(X, mode="r"), eps=1e-3)
    assert known.rank == by_svd.rank == rank
    np.testing.assert_allclose(known.sigma, by_svd.sigma, rtol=1e-4)
    np.testing.assert_allclose(known.condition, by_svd.condition, rtol=1e-9)
    np.testing.assert_allclose(known.R.T @ known.R, by_svd.R.T @ by_svd.R, atol=1e-2)


def test_columns_of_zeros_take_no_part_in_a_spectrum() -> None:
    X = rows(4).astype(float)
    X[:, 5] = 0.0
    seen = gramian_spectrum(X.T @ X)
    assert len(seen.eigenvalues) == D - 1
    assert seen.condition == pytest.approx(
        np.linalg.cond(np.delete(X, 5, axis=1) * np.delete(seen.scale, 5)), rel=1e-12
    )


def test_a_graded_triangle_is_made_without_eigenvectors(factorizations: Counter[str]) -> None:
    X = rows(5).astype(float)
    by = square_root.preconditioner(X.T @ X)
    factorizations.clear()
    root = square_root.root_from_preconditioned((X @ by.P).T @ (X @ by.P), by, eps=1e-16)
    assert factorizations == {"svdvals": 1}
    np.testing.assert_allclose(root.R.T @ root.R, X.T @ X, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e100])
def test_a_known_nuclear_norm_changes_no_figure(scale: float) -> None:
    X, Y = rows(6).astype(float) * scale, rows(7).astype(float) * scale
    solution = procrustes(X.T @ Y)
    sums = (solution.Q.T @ X.T @ X @ solution.Q, Y.T @ Y, solution.Q.T @ X.T @ Y)
    norm = float(solution.singular_values.sum())
    assert alignment(*sums, nuclear_norm=norm) == alignment(*sums)
    mirrored = (X.T @ X, Y.T @ Y, X.T @ Y)
    assert alignment(*mirrored, nuclear_norm=norm).bound_reason


def test_users_that_are_not_aligned_on_are_a_gramian_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[int] = []
    original = moments.joint_gramian

    def counted(parts: Any, **more: Any) -> Any:
        joined.append(len(parts[0]))
        return original(parts, **more)

    monkeypatch.setattr(moments, "joint_gramian", counted)
    T, W = rows(8, 300), rows(9, 200)
    fitted = es.fit({"items": T, "users": W}, reference={"items": T, "users": W}).diagnostics
    assert joined == [300]
    assert (fitted["users"]["matched"], fitted["users"]["reference_digests"]) == (None, [])


@pytest.mark.parametrize("drift", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_the_nuclear_bound_of_wide_tables_is_little_larger(
    drift: float, decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(10)
    Y = rng.standard_normal((60, D)) * np.logspace(0, -decay, D)
    X = Y + drift * rng.standard_normal(Y.shape) * np.logspace(0, -decay, D)
    X = X @ procrustes(X.T @ Y).Q
    exact = alignment(X.T @ X, Y.T @ Y, X.T @ Y)
    monkeypatch.setattr(procrustes_module, "_WIDE", D)
    wide = alignment(X.T @ X, Y.T @ Y, X.T @ Y)
    assert exact.nuclear_bound is not None
    assert wide.nuclear_bound is not None
    assert exact.error <= exact.nuclear_bound <= wide.nuclear_bound <= 1.05 * exact.nuclear_bound
    assert wide.bound is not None
    assert wide.nuclear_bound <= wide.bound


@pytest.mark.parametrize("spectrum", [[3.0] * 130, list(np.geomspace(1, 1e-9, 130))])
def test_a_largest_eigenvalue_is_not_below_the_exact_one(spectrum: list[float]) -> None:
    Q, _ = np.linalg.qr(np.random.default_rng(11).standard_normal((130, 130)))
    G = Q * spectrum @ Q.T
    exact = np.linalg.eigvalsh(G)[-1]
    assert exact <= procrustes_module._largest(G) <= exact * (1 + 1e-5)
    assert procrustes_module._largest(np.diag([1.0] * 129 + [2.0])) == pytest.approx(2.0, rel=1e-5)
