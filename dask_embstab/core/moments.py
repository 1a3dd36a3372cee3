"""What must be known of a table, and of its pairs with the reference, to land it? Sums that merge.

A panel is a few thousand rows in float64. One fold over the panels of a table gives its Gramian and, where a reference
row belongs to a row, the sums over those pairs: both Gramians, the cross-product, both sums. Everything afterwards is
d x d (steps 3, 4 and 8 of the design: weights act on the pairs alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dask_embstab.core.errors import InputError
from dask_embstab.core.types import Matrix, Vector

A = TypeVar("A", Matrix, Vector, "Pairs")


@dataclass(frozen=True, slots=True)
class Panel:
    """A few thousand rows in float64, (m, d), and the reference rows of those among them that have one.

    ``matched`` says which rows have a partner (None: all, or none where ``partners`` is None); ``partners`` is (p, D)
    for the p matched rows, ``weights`` (p,) or None. ``start`` is the first row's number in its table.
    """

    rows: Matrix
    start: int
    partners: Matrix | None = None
    matched: npt.NDArray[np.bool_] | None = None
    weights: Vector | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sums over the pairs (x, y) of a row and its reference row, each counted ``weight`` times.

    ``gramian_x`` (d, d) and ``gramian_y`` (D, D), ``cross`` = X'Y (d, D), ``sum_x`` (d,), ``sum_y`` (D,); the last two
    stand only where means were asked for (they cost a tenth of the read).
    """

    n: int
    weight: float
    gramian_x: Matrix
    gramian_y: Matrix
    cross: Matrix
    sum_x: Vector | None = None
    sum_y: Vector | None = None

    def __add__(self, other: Pairs) -> Pairs:
        """Sums over the pairs of both."""
        return Pairs(
            self.n + other.n,
            self.weight + other.weight,
            self.gramian_x + other.gramian_x,
            self.gramian_y + other.gramian_y,
            self.cross + other.cross,
            _plus(self.sum_x, other.sum_x),
            _plus(self.sum_y, other.sum_y),
        )

    def __sub__(self, other: Pairs) -> Pairs:
        """Sums over the pairs of this that are not in ``other``."""
        return self + other.times(-1.0, n=-other.n)

    def times(self, factor: float, *, n: int | None = None) -> Pairs:
        """The same sums with every weight multiplied by ``factor``."""
        return Pairs(
            self.n if n is None else n,
            self.weight * factor,
            self.gramian_x * factor,
            self.gramian_y * factor,
            self.cross * factor,
            None if self.sum_x is None else self.sum_x * factor,
            None if self.sum_y is None else self.sum_y * factor,
        )

    @property
    def sums(self) -> tuple[Vector, Vector]:
        """Both sums, of a fit that asked for them."""
        assert self.sum_x is not None
        assert self.sum_y is not None
        return self.sum_x, self.sum_y

    def centred(self) -> Pairs:
        """The same sums about the (weighted) means of x and of y."""
        sum_x, sum_y = self.sums
        mean_x, mean_y = sum_x / self.weight, sum_y / self.weight
        return Pairs(
            self.n,
            self.weight,
            self.gramian_x - np.outer(sum_x, mean_x),
            self.gramian_y - np.outer(sum_y, mean_y),
            self.cross - np.outer(sum_x, mean_y),
            np.zeros_like(sum_x),
            np.zeros_like(sum_y),
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """Mergeable sufficient statistics of a table: ``n`` rows, their Gramian in two parts, and the pairs.

    ``rest`` is the Gramian of the rows without a partner; the Gramian of those with one is ``pairs.gramian_x``, or
    ``partnered`` where weights make the two differ; ``total`` is the sum of all rows. None stands for a sum over no rows
    (``total``: for one that was not asked for).
    """

    n: int
    d: int
    total: Vector | None = None
    rest: Matrix | None = None
    partnered: Matrix | None = None
    pairs: Pairs | None = None

    @property
    def gramian(self) -> Matrix:
        """T'T over all rows, (d, d): without weights the sum of the two parts."""
        with_partner = self.partnered
        if with_partner is None and self.pairs is not None:
            with_partner = self.pairs.gramian_x
        total = _plus(self.rest, with_partner)
        return np.zeros((self.d, self.d)) if total is None else total

    def __add__(self, other: Moments) -> Moments:
        """Moments of the rows of both."""
        return Moments(
            self.n + other.n,
            self.d,
            _plus(self.total, other.total),
            _plus(self.rest, other.rest),
            _plus(self.partnered, other.partnered),
            _plus(self.pairs, other.pairs),
        )

    def __sub__(self, other: Moments) -> Moments:
        """Moments of the rows of this that are not in ``other`` (deleted rows, a part taken out)."""
        return Moments(
            self.n - other.n,
            self.d,
            _minus(self.total, other.total),
            _minus(self.rest, other.rest),
            _minus(self.partnered, other.partnered),
            _minus(self.pairs, other.pairs),
        )


def moments(panel: Panel, *, centred: bool = False) -> Moments:
    """Moments of one panel, with the sum of its rows where the fit will be ``centred``.

    Every product is float64: a cross-product from float32 panels moves the landed table.
    """
    rows, partners = panel.rows, panel.partners
    n, d = rows.shape
    total = np.ones(n) @ rows if centred else None
    if partners is None:
        return Moments(n, d, total, rest=gramian(rows))
    rest = None
    if panel.matched is not None:
        rest = gramian(rows[~panel.matched]) if len(partners) < n else None
        rows = rows[panel.matched]
    if panel.weights is None:
        return Moments(n, d, total, rest, None, pair_sums(rows, partners, centred=centred))
    return Moments(n, d, total, rest, gramian(rows), pair_sums(rows, partners, panel.weights, centred=centred))


def unit_pairs(panel: Panel, M: Matrix) -> Pairs | None:
    """Sums over the pairs of one panel with every row landed by ``M`` (d, r) and both sides scaled to length one.

    A pair with a row of zeros has no direction and takes no part.
    """
    if panel.partners is None:
        return None
    rows = panel.rows if panel.matched is None else panel.rows[panel.matched]
    x, y = rows @ M, panel.partners
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    weights = np.where(lengths > 0, 1.0 if panel.weights is None else panel.weights, 0.0)
    return pair_sums(unit(x), unit(y), weights, centred=True)


def unit(rows: Matrix) -> Matrix:
    """Every row scaled to length one; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def gramian(rows: Matrix) -> Matrix:
    """X'X, (d, d); NumPy sees that both operands are one array and calls SYRK."""
    return rows.T @ rows


def pair_sums(x: Matrix, y: Matrix, weights: Vector | None = None, *, centred: bool) -> Pairs:
    """Sums over the pairs of row i of ``x`` (n, d) and row i of ``y`` (n, D), each counted ``weights[i]`` times.

    A weight of 0 drops its row from the count too. Only a ``centred`` fit needs the sums of the rows themselves.
    """
    if weights is None:
        n, weight, root = len(x), float(len(x)), np.ones(len(x) if centred else 0)
    else:
        n, weight, root = int(np.count_nonzero(weights)), float(weights.sum()), np.sqrt(weights)
        x, y = x * root[:, None], y * root[:, None]
    return Pairs(n, weight, gramian(x), gramian(y), x.T @ y, *((root @ x, root @ y) if centred else ()))


def _plus(a: A | None, b: A | None) -> A | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _minus(a: A | None, b: A | None) -> A | None:
    if b is None:
        return a
    if a is None:
        raise InputError(
            "moments can only be subtracted from moments that include them; these hold rows the others lack"
        )
    return a - b
