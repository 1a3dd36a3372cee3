"""Which pair of matrices keeps every score and gives both tables the same diagonal Gramian?

Step 1 of the design (Zielnicki & Hsiao, arXiv 2508.07574, algorithm 1), in its accurate form: with
T = Q_T R_T and W = Q_W R_W, the svd U s Vh of R_T R_W' gives M_T = R_T^-1 U s^1/2 and M_W = R_W^-1
V s^1/2, so that T M_T = Q_T U s^1/2 and W M_W = Q_W V s^1/2 share the Gramian diag(s) and their
product is T W'.

Three things make it accurate on every hostile pair of tables. Scores do not change when a component
of the items is multiplied by 2^a and that of the users by 2^-a, so first both tables get components
of one length (exactly): else columns spread over many decades in both tables cost digits. Then both
factors are column-pivoted, so that their product is graded, and a Jacobi svd keeps its small
singular vectors. Last, M comes from solving with the pivoted triangle, not from multiplying by the
other table's factor (V is only normwise accurate).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from dask_embstab.core.matrix.graded_svd import graded_svd
from dask_embstab.core.matrix.pivoting import sorted_qr
from dask_embstab.core.square_root import Root
from dask_embstab.core.types import Matrix, Vector
from dask_embstab.errors import ConditionError

_COSINE_CUT = 1e-14
"""Cosines between two row spaces below this are rounding: the directions are orthogonal and carry
no score.
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """``items`` M_T (d, r) and ``users`` M_W (d, r), the kept ``singular_values`` (r,) and those
    cut by ``rank=``.

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

    def truncated(self, rank: int | None) -> Frame:
        """The best scores of rank ``rank`` (None: all); the values of the columns left out are kept
        as ``discarded``.
        """
        s, kept = self.singular_values, len(self.singular_values) if rank is None else rank
        return Frame(
            self.items[:, :kept],
            self.users[:, :kept],
            s[:kept],
            np.concatenate([s[kept:], self.discarded]),
        )


def standardize(items: Root, users: Root, *, rank: int | None = None) -> Frame:
    """Both matrices of algorithm 1, truncated to the best rank-``rank`` scores (Eckart & Young)
    where asked.

    The order is that of descending singular values and the largest entry of every column of M_T is
    positive, so the result depends on the tables alone; columns of clustered singular values are
    determined as a subspace only.
    """
    # Powers of two by which the items' components are multiplied (the users' divided) to have the
    # users' lengths.
    ours, theirs = (np.linalg.norm(root.R, axis=0) for root in (items, users))
    used = (ours > 0) & (theirs > 0)
    ratio = np.divide(theirs, ours, out=np.ones_like(ours), where=used)
    shift = np.asarray(np.exp2(np.round(np.log2(ratio) / 2)))

    T, W = _pivoted(items, shift), _pivoted(users, 1 / shift)
    # The rank of T W' is the smaller of the two, unless both row spaces are proper and partly
    # orthogonal.
    product_rank = min(len(T.R), len(W.R))
    if max(len(T.R), len(W.R)) < T.R.shape[1]:
        cosines = linalg.svdvals(linalg.orth(T.R.T).T @ linalg.orth(W.R.T))
        product_rank = min(product_rank, int(np.sum(cosines > _COSINE_CUT)))
    U, s, V = (factor[..., :product_rank] for factor in graded_svd(T.R @ W.R.T))
    if not product_rank or s[-1] == 0.0:
        raise ConditionError(
            "every score is zero: the items' and the users' row spaces are orthogonal"
        )
    M_T, M_W = T.solve(U * np.sqrt(s)), W.solve(V * np.sqrt(s))
    signs = column_signs(M_T)
    return Frame(M_T * signs, M_W * signs, s, np.zeros(0)).truncated(rank)


@dataclass(frozen=True, slots=True)
class _Pivoted:
    """A table's root times ``shift``, rotated so that R = r P' for a triangle r and a permutation
    P.
    """

    R: Matrix
    triangle: Matrix
    pivots: npt.NDArray[np.intp]
    shift: Vector
    right_inverse: Matrix | None

    def solve(self, rhs: Matrix) -> Matrix:
        """M (d, k) in the table's own scale with R (M / shift) = ``rhs`` (r, k)."""
        if self.right_inverse is not None:
            return np.asarray(self.right_inverse @ rhs)
        out = np.empty_like(rhs)
        out[self.pivots] = linalg.solve_triangular(self.triangle, rhs)
        return self.shift[:, None] * out


def _pivoted(root: Root, shift: Vector) -> _Pivoted:
    right_inverse = None
    if root.right_inverse is None:
        _, triangle, pivots = sorted_qr(root.R * shift)
    else:
        Q, triangle, pivots = linalg.qr(root.R * shift, mode="economic", pivoting=True)
        right_inverse = root.right_inverse @ Q
    R = np.empty_like(triangle)
    R[:, pivots] = triangle
    return _Pivoted(R, triangle, pivots, shift, right_inverse)


def column_signs(M: Matrix) -> Vector:
    """+1 or -1 for every column, whichever makes its entry of largest magnitude positive."""
    largest = M[np.abs(M).argmax(axis=0), np.arange(M.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def balance_factor(balance: str, n_items: int, n_users: int) -> float:
    """The scalar c that the scores leave free (items times c, users over c).

    ``"rows"``: the same second moment per row, diag(s) / sqrt(n_T n_W), for both tables;
    ``"gramians"``: the paper's Gramian diag(s) for both.
    """
    return (n_items / n_users) ** 0.25 if balance == "rows" else 1.0
