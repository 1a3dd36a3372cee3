"""Which rotation brings one set of rows nearest to another? (Schonemann 1966; algorithm 2 of arXiv
2508.07574)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from dask_embstab.core.types import Matrix, Vector

_MOST_ITERATIONS, _SETTLED = 300, 1e-14
"""Steps of the unbalanced problem, and the share of |X|^2 below which a step's gain ends them."""

FREE = 1e-10
"""A singular value of the cross-product below this share of the first leaves its direction free."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """``Q`` (r, D) with orthonormal rows (r <= D) or columns (r > D), and the singular values that
    decided it.

    ``proper``: mirrors were left out of the choice; the smallest singular value then has the sign
    of what that cost.
    """

    Q: Matrix
    singular_values: Vector
    Zh: Matrix
    proper: bool = False

    @property
    def gap(self) -> float:
        """How well determined Q is: the two smallest singular values over twice the largest, 1 at
        best, 0 if free.

        A single direction without a singular value is free to be mirrored, unless only rotations
        were allowed.
        """
        s = self.singular_values
        if s[0] == 0.0 or (not self.proper and s[-1] <= FREE * s[0]):
            return 0.0
        smallest = s[-1] + (s[-2] if len(s) > 1 else s[-1])
        return float(max(smallest, 0.0) / (2 * s[0]))

    @property
    def free_directions(self) -> int:
        """Directions that the cross-product says nothing about."""
        return int(np.sum(np.abs(self.singular_values) <= FREE * self.singular_values[0]))

    def weak_components(self, below: float = 1e-3) -> list[int]:
        """Components of the reference in which the weakly determined directions mostly lie."""
        weak = np.abs(self.singular_values) <= below * self.singular_values[0]
        return sorted({int(np.abs(direction).argmax()) for direction in self.Zh[weak]})


def procrustes(cross: Matrix, *, proper: bool = False) -> Rotation:
    """Q that minimizes |X Q - Y| over matrices with orthonormal rows, from ``cross`` = X'Y, (r, D)
    with r <= D.

    Row vectors: landed rows are ``x @ Q``. ``proper`` allows rotations only (determinant +1): where
    r < D every Q is part of one, and it changes nothing.
    """
    P, s, Zh = linalg.svd(cross, full_matrices=False)
    proper = proper and cross.shape[0] == cross.shape[1]
    if proper and linalg.det(P @ Zh) < 0:
        P[:, -1] = -P[:, -1]
        s = np.append(s[:-1], -s[-1])
    Q = P @ Zh
    if s[-1] > FREE * s[0]:  # what the reference leaves empty stays empty, to the last bit
        Q[:, ~cross.any(axis=0)] = 0.0
    return Rotation(Q, s, Zh, proper)


def narrowing(cross: Matrix, gramian_x: Matrix) -> Rotation:
    """Q (r, D), r > D, with orthonormal columns that minimizes |X Q - Y|: unbalanced Procrustes.

    No closed form is known. Y is padded with X Qc, Qc the complement of Q, and the balanced problem
    is solved again (Park 1991; Gower & Dijksterhuis 2004, section 5.3.2): no step increases the
    error. ``cross`` = X'Y (r, D), ``gramian_x`` = X'X (r, r); an iteration costs one (r, r) svd.
    """
    D = cross.shape[1]
    P, s, Zh = linalg.svd(cross, full_matrices=True)
    Q, complement = P[:, :D] @ Zh, P[:, D:]
    size = float(np.trace(gramian_x))
    best = _unbalanced_error(Q, gramian_x, cross)

    for _ in range(_MOST_ITERATIONS):
        P, _, Wh = linalg.svd(np.hstack([cross, gramian_x @ complement]))
        full = P @ Wh
        error = _unbalanced_error(full[:, :D], gramian_x, cross)
        if not error < best - _SETTLED * size:
            break
        Q, complement, best = full[:, :D], full[:, D:], error
    return Rotation(Q, s, Zh)


def _unbalanced_error(Q: Matrix, gramian_x: Matrix, cross: Matrix) -> float:
    """|X Q - Y|^2 less |Y|^2, which does not depend on Q."""
    return float(np.sum((gramian_x @ Q) * Q) - 2 * np.sum(cross * Q))
