"""Mergeable sufficient statistics of a table and of its pairs with the reference.

A panel is a few thousand rows, multiplied in float64. One fold over the panels of a table gives its
Gramian and, where a reference row belongs to a row, the sums over those pairs: both Gramians, the
cross-product, both sums. Everything afterwards is d x d (steps 3, 4 and 8 of the design: weights
act on the pairs alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dask_embstab.core.products import PACKED, Family, gramian, joint_gramian
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.core.zero_rows import NO_ZEROS, ZeroRows
from dask_embstab.errors import InputError

A = TypeVar("A", Matrix, Vector, "Pairs")
LEAST_SQUARES = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
"""A sum of squares below this has lost digits, or whole rows, to underflow."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A few thousand rows, (m, d), and those among them that have a reference row, with it.

    ``matched`` says which rows have a partner (None: all, or none where there are no ``pairs``);
    ``pairs`` are the p matched rows x and their reference rows y, as one array [x y], (p, d + D),
    or as two (`are_faster_apart`); ``weights`` (p,) or None. ``start`` is the first row's number in
    its table; ``family`` says how products are computed fastest in this process (`gramian`). A
    row of zeros has no direction: a pair with one is no pair here, and ``zeros`` counts it. Rows
    are float64, or float32 where a pass takes nothing but their products (`converts`).
    """

    rows: Rows
    start: int
    pairs: tuple[Rows, ...] = ()
    matched: npt.NDArray[np.bool_] | None = None
    weights: Vector | None = None
    family: Family = PACKED
    zeros: ZeroRows = NO_ZEROS

    @property
    def paired(self) -> tuple[Rows, Rows] | None:
        """The matched rows (p, d) and their reference rows (p, D), where there are any."""
        return sides(self.pairs, self.rows.shape[1]) if self.pairs else None


def sides(pairs: Sequence[Rows], d: int) -> tuple[Rows, Rows]:
    """Rows x (p, d) and y (p, D) of one array [x y] or of two."""
    x, y = pairs if len(pairs) == 2 else (pairs[0][:, :d], pairs[0][:, d:])
    return x, y


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sums over the pairs (x, y) of a row and its reference row, each counted ``weight`` times.

    ``joint`` = [X Y]'[X Y], (d + D, d + D), and ``total``, the sum of [x y] over the pairs, (d +
    D,), where means were asked for (they cost a tenth of the read). ``weight`` and ``squares`` are
    the sums of the weights and of their squares.
    """

    n: int
    weight: float
    squares: float
    d: int
    joint: Matrix
    total: Vector | None = None

    @property
    def n_effective(self) -> float:
        """Kish's effective sample size: so many pairs of equal weight say as much."""
        return self.weight**2 / self.squares if self.squares else 0.0

    @property
    def gramian_x(self) -> Matrix:
        """X'X, (d, d)."""
        return self.joint[: self.d, : self.d]

    @property
    def gramian_y(self) -> Matrix:
        """Y'Y, (D, D)."""
        return self.joint[self.d :, self.d :]

    @property
    def cross(self) -> Matrix:
        """X'Y, (d, D)."""
        return self.joint[: self.d, self.d :]

    @property
    def energies(self) -> tuple[float, float]:
        """|X|^2 and |Y|^2."""
        return float(np.trace(self.gramian_x)), float(np.trace(self.gramian_y))

    @property
    def sums(self) -> tuple[Vector, Vector]:
        """The sums of x (d,) and of y (D,), of a fit that asked for them."""
        assert self.total is not None
        return self.total[: self.d], self.total[self.d :]

    def __add__(self, other: Pairs) -> Pairs:
        """Sums over the pairs of both."""
        return Pairs(
            self.n + other.n,
            self.weight + other.weight,
            self.squares + other.squares,
            self.d,
            self.joint + other.joint,
            _plus(self.total, other.total),
        )

    def __sub__(self, other: Pairs) -> Pairs:
        """Sums over the pairs of this that are not in ``other``."""
        return Pairs(
            self.n - other.n,
            self.weight - other.weight,
            self.squares - other.squares,
            self.d,
            self.joint - other.joint,
            _minus(self.total, other.total),
        )

    def times(self, factor: float) -> Pairs:
        """The same sums with every weight multiplied by ``factor``."""
        total = None if self.total is None else self.total * factor
        weight, squares = self.weight * factor, self.squares * factor**2
        return replace(self, weight=weight, squares=squares, joint=self.joint * factor, total=total)

    def centred(self) -> Pairs:
        """The same sums about the (weighted) means of x and of y."""
        total = np.concatenate(self.sums)
        joint = self.joint - np.outer(total, total / self.weight)
        return replace(self, joint=joint, total=np.zeros_like(total))

    def scaled(self, x: float, y: float) -> Pairs:
        """The same sums with every x multiplied by ``x`` and every y by ``y``."""
        factors = np.repeat([x, y], [self.d, len(self.joint) - self.d])
        total = None if self.total is None else self.total * factors
        return replace(self, joint=self.joint * factors * factors[:, None], total=total)

    def transformed(self, M: Matrix) -> Pairs:
        """The same sums with every x multiplied by ``M`` (d, r)."""
        cross = M.T @ self.cross
        joint = np.block([[M.T @ self.gramian_x @ M, cross], [cross.T, self.gramian_y]])
        total = None if self.total is None else np.concatenate([self.sums[0] @ M, self.sums[1]])
        return replace(self, d=M.shape[1], joint=joint, total=total)


@dataclass(frozen=True, slots=True)
class Moments:
    """Mergeable sufficient statistics of a table: ``n`` rows, their Gramian in two parts, and the
    pairs.

    ``rest`` is the Gramian of the rows without a partner; the Gramian of those with one is
    ``pairs.gramian_x``, or ``partnered`` where weights make the two differ; ``total`` is the sum of
    all rows. None stands for a sum over no rows (``total``: for one that was not asked for).
    ``zeros`` counts the rows of zeros, and the pairs left out for one.
    """

    n: int
    d: int
    total: Vector | None = None
    rest: Matrix | None = None
    partnered: Matrix | None = None
    pairs: Pairs | None = None
    zeros: ZeroRows = NO_ZEROS

    @property
    def n_nonzero(self) -> int:
        """Rows with a direction."""
        return self.n - self.zeros.rows

    @property
    def gramian(self) -> Matrix:
        """T'T over all rows, (d, d): without weights the sum of the two parts."""
        total = _plus(self.rest, self.gramian_of_pairs)
        return np.zeros((self.d, self.d)) if total is None else total

    @property
    def gramian_of_pairs(self) -> Matrix | None:
        """T'T over the rows with a partner, each counted once."""
        if self.partnered is None and self.pairs is not None:
            return self.pairs.gramian_x
        return self.partnered

    @property
    def counted_once(self) -> Moments:
        """The same with the Gramian of the rows with a partner apart: the weights of their pairs
        may then be changed.
        """
        return replace(self, partnered=self.gramian_of_pairs)

    def with_pairs(self, pairs: Pairs | None) -> Moments:
        """The same table with these sums over pairs, which are of rows that it counts already."""
        everywhere = np.zeros((self.d, self.d)) if self.partnered is None else self.partnered
        return replace(self, pairs=pairs, partnered=everywhere)

    def __add__(self, other: Moments) -> Moments:
        """Moments of the rows of both."""
        if self.pairs and other.pairs and (self.partnered is None) != (other.partnered is None):
            return self.counted_once + other.counted_once
        return Moments(
            self.n + other.n,
            self.d,
            _plus(self.total, other.total),
            _plus(self.rest, other.rest),
            _plus(self.partnered, other.partnered),
            _plus(self.pairs, other.pairs),
            self.zeros + other.zeros,
        )

    def __sub__(self, other: Moments) -> Moments:
        """Moments of the rows of this that are not in ``other`` (deleted rows, a part taken
        out).
        """
        if self.pairs and other.pairs and (self.partnered is None) != (other.partnered is None):
            return self.counted_once - other.counted_once
        return Moments(
            self.n - other.n,
            self.d,
            _minus(self.total, other.total),
            _minus(self.rest, other.rest),
            _minus(self.partnered, other.partnered),
            _minus(self.pairs, other.pairs),
            self.zeros - other.zeros,
        )


def moments(panel: Panel, *, centred: bool = False) -> Moments:
    """Moments of one panel, with the sum of its rows where the fit will be ``centred``.

    Every product is float64: a cross-product from float32 panels moves the transformed table.
    """
    rows, family = panel.rows, panel.family
    n, d = rows.shape
    total = np.ones(n) @ rows if centred else None
    if not panel.pairs:
        return Moments(n, d, total, rest=gramian(rows, family=family), zeros=panel.zeros)

    x, _ = sides(panel.pairs, d)
    rest = (
        None
        if panel.matched is None or len(x) == n
        else gramian(rows[~panel.matched], family=family)
    )
    partnered = None if panel.weights is None else gramian(x)
    pairs = pair_sums(panel.pairs, d, panel.weights, centred=centred, family=family)
    return Moments(n, d, total, rest, partnered, pairs, panel.zeros)


def unit_pairs(panel: Panel, M: Matrix) -> Pairs | None:
    """Sums over the pairs of one panel with every row transformed by ``M`` (d, r) and both sides
    scaled to length one.

    A pair with a row of zeros has no direction and takes no part.
    """
    if panel.paired is None:
        return None
    x, y = panel.paired[0] @ M, panel.paired[1]
    lengths = row_lengths(x), row_lengths(y)
    directed = (lengths[0] > 0) & (lengths[1] > 0)
    weights = np.where(directed, 1.0 if panel.weights is None else panel.weights, 0.0)
    directions = unit(x, lengths[0]), unit(y, lengths[1])
    return pair_sums(directions, x.shape[1], weights, centred=True, family=panel.family)


def unit(rows: Matrix, lengths: Vector | None = None) -> Matrix:
    """Every row scaled to length one; rows of zeros stay. Their ``lengths`` (n,) are given where
    they are known.
    """
    divisors = (row_lengths(rows) if lengths is None else lengths)[:, None]
    far = np.isinf(divisors)
    if far.any():  # a length beyond the largest number, of components within it
        rows = np.where(far, rows * rows.dtype.type(2.0**-64), rows)
        divisors = row_lengths(rows)[:, None]
    return rows / np.where(divisors > 0, divisors, 1.0)


def row_lengths(rows: Matrix) -> Vector:
    """The Euclidean length of every row, (n,), also where its squares under- or overflow."""
    limits = np.finfo(rows.dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
        least, most = 1e4 * np.sqrt(limits.tiny), 1e-4 * np.sqrt(limits.max)
        odd = np.flatnonzero(~((lengths > least) & (lengths < most)))
        if len(odd):
            sizes = np.abs(rows[odd]).max(axis=1, initial=0.0)
            sizes = np.where((sizes > 0) & np.isfinite(sizes), sizes, rows.dtype.type(1))
            lengths[odd] = np.linalg.norm(rows[odd] / sizes[:, None], axis=1) * sizes
    return np.asarray(lengths)


def pair_sums(
    pairs: Sequence[Rows],
    d: int,
    weights: Vector | None = None,
    *,
    centred: bool,
    family: Family = PACKED,
) -> Pairs:
    """Sums over the rows x (n, d) and y (n, D) of ``pairs`` ([x y], or x and y), each counted
    ``weights[i]`` times.

    Of one array, one product of twice the width gives both Gramians and the cross-product, at the
    flops of the three and in wider kernels. A weight of 0 drops its row from the count too. Only a
    ``centred`` fit needs the sums of the rows themselves.
    """
    if weights is None:
        n, root = len(pairs[0]), np.ones(len(pairs[0]) if centred else 0)
        weight = squares = float(n)
    else:
        n, root = int(np.count_nonzero(weights)), np.sqrt(weights)
        with np.errstate(over="ignore"):  # weights of such sizes are refused by their sum
            weight, squares = float(weights.sum()), float(weights @ weights)
        pairs = [rows * root[:, None] for rows in pairs]

    total = np.concatenate([root @ rows for rows in pairs]) if centred else None
    return Pairs(n, weight, squares, d, joint_gramian(pairs, family=family), total)


def _plus(a: A | None, b: A | None) -> A | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _minus(a: A | None, b: A | None) -> A | None:
    if b is None:
        return a
    if a is None:
        raise InputError(
            "moments can only be subtracted from moments that include them; these hold rows the"
            " others lack"
        )
    return a - b
