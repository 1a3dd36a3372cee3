"""How far may the rotation that a sample of rows decides lie from that of all rows? An estimate
from the sample's scatter.

With C = sum of x_i y_i' = P S Z' (row vectors, x transformed to the basis), a change dC turns the
polar factor Q = P Z' by

    dQ = P (K + L) ,  K = ((P' dC Z - Z' dC' P) / (s_j + s_k)) Z' ,  L = S^-1 P' dC (I - Z Z') ,

to first order (Kenney & Laub 1991). The influence of row i is that of dC = x_i y_i'; influences sum
to zero, and the variance of a sum of N of n exchangeable rows follows from their squares (a
sandwich estimate with the finite population's correction). A row that holds much of a singular
value bends the fit to itself: its influence is divided by 1 - h_i, as leaving it out would (HC3,
MacKinnon & White 1985). |dQ|^2 is then a weighted sum of chi-square variables with a known mean;
whatever the weights, its upper 1 % lies highest where one weight holds all (Szekely & Bakirov
2003), so the quantile of a single squared Student variable bounds it. Its degrees of freedom are
those of the variance estimate (Satterthwaite): few where a few rows hold most of the influence.

A weak direction is no matter of first order: where the mean of a_ij b_ij, whose sum is s_j, is not
surely positive, all rows may reverse the direction, which moves Q by 2. The mean is surely positive
if it or the mean of its values cut at a few times s_j, which is never larger, exceeds its own
error.

No estimate knows of rows that are like none in the sample. Where those hold much of the energy it
is too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dask_embstab.core.moments import unit
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Matrix, Vector

_LEVEL, _CUT = 0.99, 3.0


@dataclass(frozen=True, slots=True)
class Scatter(Sums):
    """Over ``n`` rows the sum of |K|^2 + |L|^2, and the sum of its squares.

    ``products`` (2, r) are the sums of the products a_ij b_ij, and of the same cut at a few times
    s_j; ``product_squares`` (2, r) those of their squares.
    """

    n: int
    total: float
    squares: float
    products: Matrix
    product_squares: Matrix

    @property
    def freedom(self) -> float:
        """Degrees of freedom of ``total`` as an estimate: n for Gaussian influences, fewer where
        tails are heavy.
        """
        variance = self.squares * self.n - self.total**2
        return 2 * self.n * self.total**2 / variance if variance > 0 else float(self.n)


@dataclass(frozen=True, slots=True)
class Influence:
    """What a panel of rows and reference rows adds to the `Scatter`; a function that can be sent to
    a worker.

    ``M`` (d, r) transforms the rows; ``left`` = P (r, r), ``right`` = Z (D, r), ``s`` (r,) of the
    mean of x y'; means are taken away and rows made unit rows where the alignment did so. ``share``
    is the weight of one row in that mean.
    """

    M: Matrix
    left: Matrix
    right: Matrix
    s: Vector
    share: float
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
        products = a * b

        with np.errstate(
            all="ignore"
        ):  # a free direction has no bound, and a row that decides one alone has none either
            turning = np.add.outer(self.s, self.s) ** -2.0
            np.fill_diagonal(turning, 0.0)
            squares = a * a
            turned = ((squares @ turning) * (b * b) - (products @ turning) * products).sum(axis=1)
            outside = np.maximum((y * y).sum(axis=1) - (b * b).sum(axis=1), 0.0)
            beyond = outside * (squares @ self.s**-2.0) if len(self.right) > len(self.s) else 0.0
            left_out = np.clip(1 - (products / self.s).max(axis=1) * self.share, 0.0, 1.0)
            influence = (2 * turned + beyond) / left_out**2
            both = np.stack([products, np.minimum(products, _CUT * self.s)])
            sums = both.sum(axis=1), (both * both).sum(axis=1)
            return Scatter(len(x), float(influence.sum()), float(influence @ influence), *sums)


def anchor_bound(r: int, weight: float, scatters: Sequence[tuple[Scatter, int, int]]) -> float:
    """99 % estimate of |Q_N - Q| (Frobenius) of rotations of ``r`` directions, at most the farthest
    that two can be apart.

    ``weight`` is the number of rows that all anchors stand for. Each table's scatter comes with the
    number of rows that its anchors were drawn of, and with its share of the weight.
    """
    farthest = 2 * float(np.sqrt(r))
    variance, spread = 0.0, 0.0
    mean, error = np.zeros((2, r)), np.zeros((2, r))
    for scatter, population, represented in scatters:
        rest, share = max(1, scatter.n - r), represented / scatter.n / weight
        factor = share**2 * (1 - scatter.n / population) * scatter.n / rest
        variance += factor * scatter.total
        spread += (factor * scatter.total) ** 2 / max(1.0, min(rest, scatter.freedom))
        mean += share * scatter.products
        error += factor * np.maximum(scatter.product_squares - scatter.products**2 / scatter.n, 0.0)

    if not np.isfinite(variance):
        return farthest

    freedom = variance**2 / spread if spread else 1.0
    rows = sum(scatter.n for scatter, _, _ in scatters)
    uncertain = mean < _quantile(max(1, rows - r)) * np.sqrt(error)
    reversed_ = 4 * np.count_nonzero(uncertain.all(axis=0))
    return min(float(np.sqrt(_quantile(freedom) ** 2 * variance + reversed_)), farthest)


def _quantile(freedom: float) -> float:
    """What the absolute value of a Student variable exceeds with a probability of 1 %."""
    from scipy import special  # takes longer than a small fit, which has no anchors

    return float(special.stdtrit(freedom, (1 + _LEVEL) / 2))
