"""The svd of a graded matrix, with every pair of singular vectors as accurate as the scaled matrix
allows.

Rows and columns of a product of two tables' factors spread over decades. Divide and conquer (LAPACK
``gesdd``) turns singular vectors by a rounding of the *largest* singular value; one-sided Jacobi
(``gejsv``, Drmac & Veselic 2008) by one of their own, in ten times the time. Here divide and
conquer comes first and what it leaves is repaired, by products alone:

1. A = Q_1 r P' with sorted rows, and sorted or pivoted columns (`pivoting.py`), then r' = Q_2 l:
   the columns of the triangle l are graded, and its diagonal says how far;
2. l = X s Y' by divide and conquer. Every entry of Y is right to a rounding of 1, so that column k
   of B = l Y is off by roundings of s_1, all of them along stronger columns;
3. those are taken out: with C = B'B and x_ij = c_ij / (c_jj - c_ii), Y := Y (I + x + x^2 / 2) is
   Jacobi's rotation of all pairs at once (in the spirit of Ogita & Aishima 2020). Small entries of
   Y keep their digits in the sum, so B can be computed again, and the error squares each time.

Where the columns of B do not become orthogonal (a grading beyond `_MOST_GRADED`, or clusters that
first order does not see) Jacobi itself is called.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from dask_embstab.core.matrix.pivoting import sorted_qr
from dask_embstab.core.matrix.powers import power_of_two
from dask_embstab.core.types import EPS, Matrix, Vector

_MOST_GRADED = 1e-11
"""Least entry of the triangle's diagonal, over the first, from which on Jacobi is called at
once."""
_MOST_STEPS = 5
_LARGEST_ANGLE = 1e-4
"""Up to it, I + x + x^2 / 2 is orthogonal to rounding."""


def graded_svd(A: Matrix) -> tuple[Matrix, Vector, Matrix]:
    """U (m, k), s (k,) and V (n, k), k = min(m, n), with A = U diag(s) V', s descending."""
    if len(A) < A.shape[1]:
        V, s, U = graded_svd(A.T)
        return U, s, V

    # Lengths are squared below; the scaling is exact.
    scale = power_of_two(np.abs(A).max(initial=0.0))
    A = A * scale
    order = np.argsort(-np.abs(A).max(axis=1), kind="stable")
    k = A.shape[1]
    first, r, pivots = sorted_qr(A[order])
    second, triangle = linalg.qr(r.T, mode="raw")
    factors = _refined(triangle) if _is_moderate(triangle) else None
    if factors is None:
        U, s, V = jacobi_svd(A)
        return U, s / scale, V
    X, s, Y = factors
    U, V = np.empty((len(A), len(s))), np.empty((len(s), len(s)))
    U[order] = _times_left(first, np.vstack([Y, np.zeros((len(A) - k, k))]))
    V[pivots] = _times_left(second, X)
    return U, s / scale, V


def _times_left(reflectors: tuple[Matrix, Vector], M: Matrix) -> Matrix:
    """Q M, of the Q that LAPACK keeps as reflectors."""
    made, _, info = lapack.dormqr("L", "N", *reflectors, M, lwork=64 * max(1, M.shape[1]))
    assert info == 0
    return np.asarray(made)


def jacobi_svd(A: Matrix) -> tuple[Matrix, Vector, Matrix]:
    """The same by one-sided Jacobi, of A (m, n) with m >= n."""
    s, U, V, scale, _, info = lapack.dgejsv(A, joba=2, jobu=0, jobv=0, jobr=0, jobt=1, jobp=1)
    if info != 0:  # not converged in 30 sweeps
        U, s, Vh = linalg.svd(A, full_matrices=False, lapack_driver="gesvd")
        return U, s, Vh.T
    return U, s * (scale[0] / scale[1]), V


def _is_moderate(triangle: Matrix) -> bool:
    """Whether the triangle's diagonal says that it is graded no further than products repair."""
    sizes = np.abs(np.diag(triangle))
    return bool(np.isfinite(triangle).all() and sizes.min() > _MOST_GRADED * sizes.max())


def _refined(A: Matrix) -> tuple[Matrix, Vector, Matrix] | None:
    """X, s and Y with A = X diag(s) Y', of a matrix with graded columns; None where its singular
    vectors do not become orthogonal.
    """
    try:
        _, _, Yh = linalg.svd(A, overwrite_a=False)
    except linalg.LinAlgError:
        return None
    Y = Yh.T
    orthogonal = 4 * np.sqrt(len(A)) * EPS
    for step in range(_MOST_STEPS + 1):
        B = A @ Y
        C = B.T @ B
        squares = np.diag(C).copy()
        np.fill_diagonal(C, 0.0)
        lengths = np.sqrt(squares)
        cosines = np.abs(C) / lengths / lengths[:, None]
        if step and cosines.max(initial=0.0) <= orthogonal:
            order = np.argsort(-lengths, kind="stable")
            return (B / lengths)[:, order], lengths[order], Y[:, order]

        apart = squares - squares[:, None]
        x = np.divide(C, apart, out=np.zeros_like(C), where=(cosines > EPS) & (apart != 0))
        # Of a cluster only the subspace is determined: what is orthogonal there stays.
        x[(np.abs(x) > _LARGEST_ANGLE) & (cosines <= orthogonal)] = 0.0
        if not np.abs(x).max(initial=0.0) <= _LARGEST_ANGLE:
            return None
        Y = Y + Y @ (x + x @ x / 2)
    return None
