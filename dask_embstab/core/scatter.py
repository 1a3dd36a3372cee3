"""How far may the rotation that a sample of rows decides lie from that of all rows? A bound from the sample's own scatter.

With C = sum of x_i y_i' = P S Z' (row vectors, x landed in the basis), a change dC turns the polar factor Q = P Z' by

    dQ = P (K + L) ,  K = ((P' dC Z - Z' dC' P) / (s_j + s_k)) Z' ,  L = S^-1 P' dC (I - Z Z') ,

to first order (Kenney & Laub 1991). The influence of row i is that of dC = x_i y_i'; influences sum to zero, and the
variance of a sum of N of n exchangeable rows follows from their squares (a sandwich estimate with the finite
population's correction). |dQ|^2 is then a weighted sum of chi-square variables with a known mean; whatever the weights,
its upper 1 % lies highest where one weight holds all (Szekely & Bakirov 2003), so the quantile of a single squared
Student variable bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dask_embstab.core.moments import unit
from dask_embstab.core.procrustes import Rotation
from dask_embstab.core.types import Matrix, Vector

_LEVEL = 0.99


@dataclass(frozen=True, slots=True)
class Scatter:
    """Sums over ``n`` rows, with a = P'x (r,), b = Z'y (r,) and c = |y - Z b|^2.

    ``squares`` of a_j^2 b_k^2, ``products`` of a_j b_j a_k b_k, ``outside`` of a_j^2 c.
    """

    n: int
    squares: Matrix
    products: Matrix
    outside: Vector

    def __add__(self, other: Scatter) -> Scatter:
        """Over the rows of both."""
        return Scatter(
            self.n + other.n,
            self.squares + other.squares,
            self.products + other.products,
            self.outside + other.outside,
        )


@dataclass(frozen=True, slots=True)
class Influence:
    """What a panel of rows and reference rows adds to the `Scatter`; a function that can be sent to a worker.

    ``M`` (d, r) lands the rows; ``left`` = P (r, r), ``right`` = Z (D, r); means are taken away and rows made unit rows
    where the alignment did so.
    """

    M: Matrix
    left: Matrix
    right: Matrix
    mean_x: Vector | None
    mean_y: Vector | None
    unit: bool

    def __call__(self, rows: Matrix, partners: Matrix) -> Scatter:
        """The sums over these pairs."""
        x, y = rows @ self.M, partners
        if self.unit:
            x, y = unit(x), unit(y)
        if self.mean_x is not None and self.mean_y is not None:
            x, y = x - self.mean_x, y - self.mean_y
        a, b = x @ self.left, y @ self.right[: y.shape[1]]
        outside = np.maximum((y * y).sum(axis=1) - (b * b).sum(axis=1), 0.0)
        squares = a * a
        return Scatter(len(x), squares.T @ (b * b), (a * b).T @ (a * b), outside @ squares)


def anchor_bound(rotation: Rotation, weight: float, scatters: Sequence[tuple[Scatter, int]]) -> float:
    """99 % bound on |Q_N - Q| (Frobenius), at most the farthest that two rotations can be apart.

    ``rotation`` is that of the mean of x y' over ``weight`` rows; each table's scatter comes with the number of rows that
    its anchors stand for.
    """
    r, n = len(rotation.Q), sum(scatter.n for scatter, _ in scatters)
    freedom = max(1, n - r)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = sum(
            _influence(scatter, rotation.singular_values[:r])
            * (population / scatter.n / weight) ** 2
            * (1 - scatter.n / population)
            for scatter, population in scatters
        )
        bound = float(stats.t.ppf((1 + _LEVEL) / 2, freedom) * np.sqrt(variance * n / freedom))
    farthest = 2 * float(np.sqrt(r))
    return min(bound, farthest) if np.isfinite(bound) else farthest


def _influence(scatter: Scatter, s: Vector) -> float:
    """Sum over the rows of |K|^2 + |L|^2."""
    turned = 2 * (scatter.squares - scatter.products) / np.add.outer(s, s) ** 2
    np.fill_diagonal(turned, 0.0)
    beyond = np.divide(scatter.outside, s**2, out=np.zeros_like(s), where=scatter.outside > 0)
    return float(turned.sum() + beyond.sum())
