"""How far may the rotation that a sample of rows decides lie from that of all rows? A bound from the sample's own scatter.

With C = sum of x_i y_i' = P S Z' (row vectors, x landed in the basis), a change dC turns the polar factor Q = P Z' by

    dQ = P (K + L) ,  K = ((P' dC Z - Z' dC' P) / (s_j + s_k)) Z' ,  L = S^-1 P' dC (I - Z Z') ,

to first order (Kenney & Laub 1991). The influence of row i is that of dC = x_i y_i'; influences sum to zero, and the
variance of a sum of N of n exchangeable rows follows from their squares (a sandwich estimate with the finite
population's correction). |dQ|^2 is then a weighted sum of chi-square variables with a known mean; whatever the weights,
its upper 1 % lies highest where one weight holds all (Szekely & Bakirov 2003), so the quantile of a single squared
Student variable bounds it. Its degrees of freedom are those of the variance estimate (Satterthwaite): few where a few rows
hold most of the influence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from dask_embstab.core.moments import unit
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Matrix, Vector

_LEVEL = 0.99


@dataclass(frozen=True, slots=True)
class Scatter(Sums):
    """Over ``n`` rows the sum of |K|^2 + |L|^2, and the sum of its squares."""

    n: int
    total: float
    squares: float

    @property
    def freedom(self) -> float:
        """Degrees of freedom of ``total`` as an estimate: n for Gaussian influences, fewer where tails are heavy."""
        variance = self.squares * self.n - self.total**2
        return 2 * self.n * self.total**2 / variance if variance > 0 else float(self.n)


@dataclass(frozen=True, slots=True)
class Influence:
    """What a panel of rows and reference rows adds to the `Scatter`; a function that can be sent to a worker.

    ``M`` (d, r) lands the rows; ``left`` = P (r, r), ``right`` = Z (D, r), ``s`` (r,) of the mean of x y'; means are taken
    away and rows made unit rows where the alignment did so.
    """

    M: Matrix
    left: Matrix
    right: Matrix
    s: Vector
    mean_x: Vector | None
    mean_y: Vector | None
    unit: bool

    def __call__(self, rows: Matrix, partners: Matrix) -> Scatter:
        """The sums over these pairs."""
        x, y = rows @ self.M, partners
        if self.unit:
            x, y = unit(x), unit(y)
        if self.mean_x is not None and self.mean_y is not None:
            x, y = x - self.mean_x, y - self.mean_y[: y.shape[1]]
        a, b = x @ self.left, y @ self.right[: y.shape[1]]
        with np.errstate(all="ignore"):  # a free direction has no bound
            turning = np.add.outer(self.s, self.s) ** -2.0
            np.fill_diagonal(turning, 0.0)
            squares, products = a * a, a * b
            turned = ((squares @ turning) * (b * b) - (products @ turning) * products).sum(axis=1)
            outside = np.maximum((y * y).sum(axis=1) - (b * b).sum(axis=1), 0.0)
            beyond = outside * (squares @ self.s**-2.0) if len(self.right) > len(self.s) else 0.0
            influence = 2 * turned + beyond
            return Scatter(len(x), float(influence.sum()), float(influence @ influence))


def anchor_bound(r: int, weight: float, scatters: Sequence[tuple[Scatter, int]]) -> float:
    """99 % bound on |Q_N - Q| (Frobenius) of rotations of ``r`` directions, at most the farthest that two can be apart.

    ``weight`` is the number of rows that all anchors stand for; each table's scatter comes with its share of it.
    """
    farthest = 2 * float(np.sqrt(r))
    variance, spread = 0.0, 0.0
    for scatter, population in scatters:
        rest = max(1, scatter.n - r)
        factor = (population / scatter.n / weight) ** 2 * (1 - scatter.n / population) * scatter.n / rest
        variance += factor * scatter.total
        spread += (factor * scatter.total) ** 2 / max(1.0, min(rest, scatter.freedom))
    if not np.isfinite(variance):
        return farthest
    freedom = variance**2 / spread if spread else 1.0
    return min(float(special.stdtrit(freedom, (1 + _LEVEL) / 2) * np.sqrt(variance)), farthest)
