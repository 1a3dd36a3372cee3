"""A QR of columns that are in descending order, pivoted only where sorting them is not enough.

Pivoting takes the longest remainder of all columns at every step, by products of a matrix and a
vector. Where columns are sorted by length first, a triangle by blocks is mostly as graded: each
entry of the diagonal is at least a share of all in its row and below. Its own entries tell.
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
    """Whether no entry of the diagonal is much smaller than any in its row or below."""
    largest = np.abs(triangle).max(axis=1, initial=0.0)
    below = np.maximum.accumulate(largest[::-1])[::-1]
    return bool((np.abs(np.diag(triangle)) >= _LEAST_SHARE * below).all())
