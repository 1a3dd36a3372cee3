"""What the paper's matrices are to 80 digits, and hostile tables to hold the library against.

Small tables only. Gramians are summed in multiple precision, so everything after them is d x d, and
the error of a transformed column is a length in the metric of its table's Gramian: |T (m - x)|^2 =
(m - x)' T'T (m - x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import mpmath as mp
import numpy as np

Array = np.ndarray[Any, Any]
KINDS = (
    "random/random",
    "ascending/random",
    "random/ascending",
    "ascending/ascending",
    "tilted/random",
    "tilted/tilted",
    "decades/random",
    "decades/decades",
    "opposed",
)
"""Pairs of tables, items and users, as `table` and `opposed` make them."""
DIGITS = 80
UNIT = 2.2e-16
"""The unit in which accuracies are stated."""
GAP = 0.1
"""The relative gap that separates singular values; closer ones are compared as a subspace."""


def exactly(rows: Any) -> Array:
    """The same float64 numbers as multiple-precision objects."""
    return np.asarray(
        np.frompyfunc(mp.mpf, 1, 1)(np.asarray(rows, dtype=np.float64).astype(object))
    )


@dataclass(frozen=True)
class Exact:
    """The standardized pair: Gramians (d, d), matrices (d, r) and singular values (r,), all to 80
    digits.
    """

    gramians: dict[str, Array]
    matrices: dict[str, Array]
    s: Array

    @property
    def gaps(self) -> Array:
        """Relative gaps between neighbouring singular values."""
        s = self.s.astype(np.float64)
        return np.asarray((s[:-1] - s[1:]) / s[:-1])

    def column_errors(self, key: str, M: Any) -> Array:
        """Relative error of every column of table @ M, up to sign; ``M`` in float64 or exact."""
        with mp.workdps(DIGITS):
            ours = M if M.dtype == object else exactly(M)
            off = [
                min(self._length(key, m - x), self._length(key, m + x)) / mp.sqrt(s)
                for m, x, s in zip(ours.T, self.matrices[key].T, self.s, strict=True)
            ]
        return np.array(off, dtype=np.float64)

    def cluster_errors(self, key: str, M: Any) -> list[float]:
        """The same for every cluster of singular values, once its columns are rotated onto the
        exact ones.
        """
        edges = [0, *(np.flatnonzero(self.gaps >= GAP) + 1).tolist(), len(self.s)]
        with mp.workdps(DIGITS):
            return [
                self._cluster_error(key, exactly(M), start, stop) for start, stop in pairwise(edges)
            ]

    def _cluster_error(self, key: str, ours: Array, start: int, stop: int) -> float:
        X, Y = self.matrices[key][:, start:stop], ours[:, start:stop]
        U, _, Vh = mp.svd_r(mp.matrix((Y.T @ self.gramians[key] @ X).tolist()))
        rotated = Y @ _array(U * Vh)
        return float(
            max(self._length(key, off) for off in (rotated - X).T) / mp.sqrt(self.s[stop - 1])
        )

    def _length(self, key: str, m: Array) -> Any:
        return mp.sqrt(abs(m @ self.gramians[key] @ m))


def standardized(T: Any, W: Any) -> Exact:
    """Algorithm 1 of arXiv 2508.07574 for two tables of full column rank (float64, or exact
    objects).
    """
    with mp.workdps(DIGITS):
        items, users = (rows if rows.dtype == object else exactly(rows) for rows in (T, W))
        G_T, G_W = items.T @ items, users.T @ users
        L_T, L_W = (mp.cholesky(mp.matrix(G.tolist())) for G in (G_T, G_W))
        U, s, Vh = mp.svd_r(L_T.T * L_W)
        root = mp.diag([mp.sqrt(value) for value in s])
        M_T, M_W = L_T.T**-1 * U * root, L_W.T**-1 * Vh.T * root
        return Exact(
            {"items": G_T, "users": G_W},
            {"items": _array(M_T), "users": _array(M_W)},
            np.array([s[i] for i in range(len(s))], dtype=object),
        )


def score_error(T: Any, W: Any, aligned_items: Any, aligned_users: Any) -> float:
    """Largest change of a score, over the largest score; every product exact."""
    with mp.workdps(DIGITS):
        scores = exactly(T) @ exactly(W).T
        off = exactly(aligned_items) @ exactly(aligned_users).T - scores
        return float(abs(off).max() / abs(scores).max())


def condition(table: Any) -> float:
    """Condition number of a table of full rank once its columns have length one."""
    rows = np.asarray(table, dtype=np.float64)
    s = np.linalg.svd(rows / np.linalg.norm(rows, axis=0), compute_uv=False)
    return float(s[0] / s[-1])


def orthogonal(rng: np.random.Generator, d: int) -> Array:
    return np.asarray(np.linalg.qr(rng.standard_normal((d, d)))[0])


def table(n: int, d: int, kappa: float, kind: str, rng: np.random.Generator) -> Array:
    """Rows (n, d) whose d singular values fall evenly to 1 / kappa.

    ``random``: axes of their own. ``ascending``: along the components, the smallest first.
    ``tilted``: nearly so, and ill-conditioned whatever the lengths of the columns. ``decades``: as
    random, columns spread over 12 decades.
    """
    Q, s = np.linalg.qr(rng.standard_normal((n, d)))[0], np.geomspace(1, 1 / kappa, d)
    if kind == "ascending":
        return np.asarray(Q * s[::-1])
    if kind == "tilted":
        return np.asarray(
            Q * s[::-1] @ (np.eye(d) + 0.3 * np.tril(rng.standard_normal((d, d)), -1))
        )
    rows = Q * s @ orthogonal(rng, d)
    return np.asarray(
        rows * np.geomspace(1e-6, 1e6, d)[rng.permutation(d)] if kind == "decades" else rows
    )


def biased(n: int, d: int, mean: float, rng: np.random.Generator) -> Array:
    """Rows (n, d) over a decade of lengths, every component with a mean of ``mean`` of its standard
    deviations.
    """
    rows = rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d) @ orthogonal(rng, d)
    return np.asarray(rows + mean * rows.std(axis=0) * rng.choice([-1, 1], d))


def opposed(
    n: int, d: int, kappa: float, rng: np.random.Generator, s: Any = None
) -> tuple[Array, Array]:
    """T = X A and W = Z A^-T with kappa(A) = ``kappa``: each large where the other is small; scores
    have spectrum ``s``.
    """
    root = np.sqrt(0.75 ** np.arange(d) if s is None else s)
    left, right, decades = orthogonal(rng, d), orthogonal(rng, d), np.geomspace(1, 1 / kappa, d)
    X, Z = (np.linalg.qr(rng.standard_normal((rows, d)))[0] * root for rows in (n, n + 7))
    return X @ (left * decades @ right), Z @ (left / decades @ right)


def pair(kinds: str, kappa: float, seed: int, *, n: int = 40, d: int = 6) -> tuple[Array, Array]:
    """Items and users of the kinds ``"items/users"``, or ``"opposed"``."""
    rng = np.random.default_rng(seed)
    if kinds == "opposed":
        return opposed(n, d, kappa, rng)
    ours, theirs = kinds.split("/")
    return table(n, d, kappa, ours, rng), table(n + 7, d, kappa, theirs, rng)


@dataclass(frozen=True)
class Case:
    """A pair of tables as stored, the exact answer, and the larger condition number of the two."""

    items: Array
    users: Array
    exact: Exact
    kappa: float


def separated(
    kinds: str, kappa: float, n_seeds: int, *, dtype: Any = "float64", **size: int
) -> Iterator[Case]:
    """Pairs from the first seeds whose exact singular values are separated by relative gaps of 0.1
    and more.
    """
    return _separated(lambda seed: pair(kinds, kappa, seed, **size), n_seeds, dtype)


def separated_biased(
    mean: float, n_seeds: int, *, dtype: Any = "float64", n: int = 40, d: int = 4
) -> Iterator[Case]:
    """The same of two tables with means."""

    def made(seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        return biased(n, d, mean, rng), biased(n + 7, d, mean, rng)

    return _separated(made, n_seeds, dtype)


def _separated(
    make: Callable[[int], tuple[Array, Array]], n_seeds: int, dtype: Any
) -> Iterator[Case]:
    n_separated = 0
    for seed in count():
        T, W = (rows.astype(dtype) for rows in make(seed))
        exact = standardized(T, W)
        if exact.gaps.min() >= GAP:
            yield Case(T, W, exact, max(condition(T), condition(W)))
            n_separated += 1
        if n_separated == n_seeds:
            return


def _array(M: Any) -> Array:
    return np.array(M.tolist(), dtype=object).reshape(M.rows, M.cols)
