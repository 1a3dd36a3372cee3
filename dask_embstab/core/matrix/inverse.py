"""What undoes a matrix, as accurately as its rows and columns are scaled? Scaling by powers of two
costs no digit.

The rows of a transform are as far apart as the columns of the table it was fitted on, its columns
as the singular values. An svd knows small singular values only relative to the largest; solving
does not see the scaling at all (van der Sluis 1970). Where the rank is smaller than both sides, the
Moore-Penrose inverse depends on the scaling, and a complete orthogonal decomposition finds it: rows
in descending order and pivoted columns make Householder QR as accurate in every row (Cox & Higham
1998).
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from dask_embstab.core.matrix.powers import power_of_two
from dask_embstab.core.types import EPS, Matrix, Vector

_ROUNDING = 8
"""Roundings of a row's largest entry below which another one is none."""


def pseudo_inverse(M: Matrix) -> Matrix:
    """Moore-Penrose inverse of ``M`` (d, k), (k, d); the inverse of a square one of full rank.

    The rank is that of the equilibrated matrix: its singular values above max(d, k) roundings of
    the largest. A column that is nothing but rounding in every row is a column of zeros.
    """
    d, k = M.shape
    out = np.zeros((k, d))
    sizes = np.abs(M)
    rows = np.flatnonzero(sizes.any(axis=1))
    shares = (sizes[rows] / sizes[rows].max(axis=1, keepdims=True)).max(axis=0, initial=0.0)
    columns = np.flatnonzero(shares > _ROUNDING * EPS)
    if not len(rows):
        return out

    kept = M[np.ix_(rows, columns)]
    balanced, by_row, by_column = _equilibrated(kept)
    s = linalg.svdvals(balanced)
    rank = int(np.sum(s > max(d, k) * EPS * s[0]))
    if rank == len(rows) == len(columns):
        solved = linalg.solve(balanced, np.eye(rank)) / by_row / by_column[:, None]
    else:
        solved = _of_rank(kept, rank)

    out[np.ix_(columns, rows)] = solved
    return out


def _of_rank(M: Matrix, rank: int) -> Matrix:
    """The pseudo-inverse of a matrix without rows or columns of zeros, of this rank."""
    order = np.argsort(-np.abs(M).max(axis=1), kind="stable")
    Q, R, pivots = linalg.qr(M[order], mode="economic", pivoting=True)
    # M P = Q R, and R' = Z L for R of full row rank, so that M^+ = P Z L^-T Q'.
    Z, L = linalg.qr(R[:rank].T, mode="economic")
    out = np.empty(M.T.shape)
    out[np.ix_(pivots, order)] = Z @ linalg.solve_triangular(L, Q[:, :rank].T, trans="T")
    return out


def _equilibrated(M: Matrix) -> tuple[Matrix, Vector, Vector]:
    """``M`` with rows and columns of lengths near one, and the powers of two that they were divided
    by.
    """
    by_row, by_column = np.ones(len(M)), np.ones(M.shape[1])
    for _ in range(4):
        by_row /= power_of_two(np.abs(M / by_row[:, None] / by_column).max(axis=1))
        by_column /= power_of_two(np.abs(M / by_row[:, None] / by_column).max(axis=0))
    return M / by_row[:, None] / by_column, by_row, by_column
