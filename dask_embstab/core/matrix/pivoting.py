"""A QR of columns that are in descending order, pivoted only where sorting them is not enough.

Pivoting takes the longest remainder of all columns at every step, by products of a matrix and a
vector. Where columns are sorted by length first, a triangle by blocks is mostly as graded: each
diagonal entry at least a share of every remainder that it could have been. Its own entries say so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import linalg

from dask_embstab.core.types import Matrix, Vector

_LEAST_SHARE = 0.25


def sorted_qr(
    A: Matrix,
) -> tuple[tuple[Matrix, Vector], Matrix, npt.NDArray[np.intp]]:
    """Reflectors, triangle r (min(m, n), n) and ``pivots`` (n,) of A[:, pivots] = Q r, A (m, n)."""
    order = np.argsort(-np.linalg.norm(A, axis=0), kind="stable")
    reflectors, r = linalg.qr(A[:, order], mode="raw")
    k = min(A.shape)
    if not _is_graded(r[:k]):
        reflectors, r, order = linalg.qr(A, mode="raw", pivoting=True)
    return reflectors, r[:k], order


def _is_graded(triangle: Matrix) -> bool:
    """Whether no entry of the diagonal is much shorter than what was left of another column."""
    squares = (triangle / np.abs(triangle).max(initial=np.finfo(np.float64).tiny)) ** 2
    left = np.cumsum(squares[::-1], axis=0)[::-1].max(axis=1, initial=0.0)
    return bool((np.diag(squares) >= _LEAST_SHARE**2 * left).all())
