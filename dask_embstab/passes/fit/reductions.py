"""The reductions that a fit is made of, as data for `reduce_table`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import add
from typing import Any

import numpy as np
from scipy import linalg

from dask_embstab.core.moments import Moments, Panel, moments, pair_sums, unit_pairs
from dask_embstab.core.products import gramian
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Matrix
from dask_embstab.passes.engine.reduce import Reduction


def moments_reduction(*, centred: bool) -> Reduction[Moments]:
    """Gramian of a table and the sums over its pairs, in float64."""
    single = not centred
    return Reduction(
        partial(moments, centred=centred), add, moments_finite_check, takes_single=single
    )


def moments_finite_check(value: Moments) -> float:
    """A sum that is finite only if every row and every partner was."""
    parts = [value.rest, value.partnered]
    if value.pairs is not None:
        parts.append(value.pairs.joint)
    return float(sum(np.trace(part) for part in parts if part is not None))


@dataclass(frozen=True, slots=True)
class WithTriangle:
    """Moments of a table, and the R factor of its QR from the same read."""

    moments: Moments
    R: Matrix

    def __add__(self, other: WithTriangle) -> WithTriangle:
        """Of the rows of both."""
        return WithTriangle(self.moments + other.moments, triangle(np.vstack([self.R, other.R])))


def triangle_reduction(*, centred: bool) -> Reduction[WithTriangle]:
    """Tall-skinny QR with the moments: R only, in float64, merged in the fixed tree; no Q
    anywhere.
    """
    return Reduction(
        partial(_with_triangle, centred=centred),
        add,
        _triangle_finite_check,
        n_squares=2,
        n_copies=2,
    )


def preconditioned_reduction(P: Matrix) -> Reduction[Matrix]:
    """Gramian of the table times ``P`` (d, k)."""
    return Reduction(partial(_preconditioned, P), add, np.trace, n_copies=1)


@dataclass(frozen=True, slots=True)
class UnitPairs(Sums):
    """Moments whose pairs are unit rows; sums of squares of the same rows, and of their partners,
    as they are.
    """

    moments: Moments
    energy_x: float
    energy_y: float


def unit_pairs_reduction(M: Matrix) -> Reduction[UnitPairs]:
    """Sums over the pairs with both rows scaled to length one, the table's once transformed by
    ``M`` (d, r).
    """
    return Reduction(
        partial(_unit_pairs, M), add, _unit_pairs_finite_check, n_squares=0, n_copies=6
    )


def pairs_reduction(*, centred: bool) -> Reduction[Moments]:
    """Sums over the pairs alone, without the table's own Gramian."""
    return Reduction(
        partial(_pairs_alone, centred=centred),
        add,
        moments_finite_check,
        n_squares=0,
        takes_single=not centred,
    )


def triangle(rows: Matrix) -> Matrix:
    """R of a QR of ``rows`` (m, d): (min(m, d), d)."""
    (R,) = linalg.qr(rows, mode="r", check_finite=False)
    return np.asarray(R[: min(rows.shape)])


def _with_triangle(panel: Panel, *, centred: bool) -> WithTriangle:
    return WithTriangle(moments(panel, centred=centred), triangle(panel.rows))


def _triangle_finite_check(value: WithTriangle) -> Any:
    return moments_finite_check(value.moments) + np.abs(value.R).sum()


def _pairs_alone(panel: Panel, *, centred: bool) -> Moments:
    n, d = panel.rows.shape
    pairs = None
    if panel.pairs:
        pairs = pair_sums(panel.pairs, d, panel.weights, centred=centred, family=panel.family)
    return Moments(n, d, pairs=pairs, zeros=panel.zeros)


def _unit_pairs(M: Matrix, panel: Panel) -> UnitPairs:
    n, d = panel.rows.shape
    energies = (float(np.sum(rows * rows)) for rows in panel.paired or (np.zeros(0), np.zeros(0)))
    return UnitPairs(Moments(n, d, pairs=unit_pairs(panel, M), zeros=panel.zeros), *energies)


def _unit_pairs_finite_check(value: UnitPairs) -> float:
    return moments_finite_check(value.moments)


def _preconditioned(P: Matrix, panel: Panel) -> Matrix:
    return gramian(panel.rows @ P, family=panel.family)
