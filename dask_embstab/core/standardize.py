"""Which pair of matrices keeps every score and gives both tables the same diagonal Gramian?

Step 1 of the design (Zielnicki & Hsiao, arXiv 2508.07574, algorithm 1), in its accurate form: with T = Q_T R_T and
W = Q_W R_W, the svd U s Vh of R_T R_W' gives M_T = R_T^-1 U s^1/2 and M_W = R_W^-1 V s^1/2, so that T M_T = Q_T U s^1/2
and W M_W = Q_W V s^1/2 share the Gramian diag(s) and their product is T W'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from dask_embstab.core.errors import ConditionError
from dask_embstab.core.root import Root
from dask_embstab.core.types import Matrix, Vector

_COSINE_CUT = 1e-14
"""Cosines between two row spaces below this are rounding: the directions are orthogonal and carry no score."""


@dataclass(frozen=True, slots=True)
class Frame:
    """``items`` M_T (d, r) and ``users`` M_W (d, r), the kept ``singular_values`` (r,) and those cut by ``rank=``.

    ``rank`` counts the product's singular values before the truncation that was asked for.
    """

    items: Matrix
    users: Matrix
    singular_values: Vector
    discarded: Vector

    @property
    def rank(self) -> int:
        """Numerical rank of the score matrix."""
        return len(self.singular_values) + len(self.discarded)


def standardize(items: Root, users: Root, *, rank: int | None = None) -> Frame:
    """Both matrices of algorithm 1, truncated to the best rank-``rank`` scores (Eckart & Young) where asked.

    The order is that of descending singular values and the largest entry of every column of M_T is positive, so the
    result depends on the tables alone; columns of clustered singular values are determined as a subspace only.
    """
    product_rank = _product_rank(items, users)
    U, s, Vh = linalg.svd(items.R @ users.R.T, full_matrices=False, lapack_driver="gesvd")
    U, s, V = U[:, :product_rank], s[:product_rank], Vh[:product_rank].T
    if not product_rank or s[-1] == 0.0:
        raise ConditionError("every score is zero: the items' and the users' row spaces are orthogonal")
    kept = min(product_rank, rank or product_rank)
    root = np.sqrt(s[:kept])
    M_T, M_W = items.solve(U[:, :kept] * root), users.solve(V[:, :kept] * root)
    signs = column_signs(M_T)
    return Frame(M_T * signs, M_W * signs, s[:kept], s[kept:])


def column_signs(M: Matrix) -> Vector:
    """+1 or -1 for every column, whichever makes its entry of largest magnitude positive."""
    largest = M[np.abs(M).argmax(axis=0), np.arange(M.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def balance_factor(balance: str, n_items: int, n_users: int) -> float:
    """The scalar c that the scores leave free (items times c, users over c).

    ``"rows"``: the same second moment per row, diag(s) / sqrt(n_T n_W), for both tables; ``"gramians"``: the paper's
    Gramian diag(s) for both.
    """
    return (n_items / n_users) ** 0.25 if balance == "rows" else 1.0


def _product_rank(items: Root, users: Root) -> int:
    """Rank of T W': the smaller of the two ranks, unless both row spaces are proper and partly orthogonal."""
    d = items.R.shape[1]
    smaller = min(items.rank, users.rank)
    if max(items.rank, users.rank) == d:
        return smaller
    V_T, V_W = linalg.orth(items.R.T), linalg.orth(users.R.T)
    cosines = linalg.svdvals(V_T.T @ V_W)
    return min(smaller, int(np.sum(cosines > _COSINE_CUT)))
