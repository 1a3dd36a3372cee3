"""How like are two sets of rows in one space, row by row? Sums over a sample of pairs, and figures
from them.

X are aligned rows and Y the last live run's rows with the same ids. What two rows have in common
that have nothing to do with each other (a common direction, mostly) is chance, and agreement is
counted beyond it. The mean cosine of unrelated rows is that of all pairs of an x with the y of
another row, which the sums of unit rows tell: no order of the rows comes into it.

A mean does not see a wrong minority. So every x is ranked too, with a few y of other rows beside
its own: for a row that has nothing to do with its partner (a stale one, or another's id) each rank
is as likely as any other, so half of these rows are nearer to most of the others than to their own
(Storey 2002, doi:10.1111/1467-9868.00346, with lambda 1/2). A pair with a row of zeros has no
direction and is counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dask_embstab.core.moments import Pairs, pair_sums, row_lengths, unit
from dask_embstab.core.products import PACKED, Family, cross_product
from dask_embstab.core.sums import Sums, total
from dask_embstab.core.types import Matrix, Vector

_SIGMAS = 3.0
_TINY = float(np.finfo(np.float64).tiny)
_ROUNDING = 1e-9
_BINS, _SHOWN_BINS, _LOW = 400, 100, 0.1
"""Bins of the histogram of cosines, how many of them are told, and the share of rows below the low
quantile.
"""
LEAST_PER_COMPONENT, LEAST_TO_TURN = 4, 8
"""Fewer pairs per component than this say little, and less about a free rotation."""
_EMPTY = 1e-9
"""A component with less than this share of the energy of its table is empty."""


@dataclass(frozen=True, slots=True)
class DirectionSums(Sums):
    """Over pairs of unit rows u and v: U'V, (d, d), and of each component the sums of squares and
    of values, (d,).
    """

    cross: Matrix
    squares_x: Vector
    squares_y: Vector
    sum_x: Vector
    sum_y: Vector

    @property
    def energies(self) -> tuple[float, float]:
        """|U|^2 and |V|^2."""
        return float(self.squares_x.sum()), float(self.squares_y.sum())


@dataclass(frozen=True, slots=True)
class Likeness(Sums):
    """Over pairs of rows: sums as they are and as unit rows, the sum of their cosines and how these
    are distributed.

    ``histogram`` counts cosines in equal bins from -1 to 1; ``far`` counts rows to which most of
    the others they were compared with are nearer than their own partner (a half where as many are
    nearer as farther); ``zero_pairs`` were left out.
    """

    raw: Pairs
    unit: DirectionSums
    cosines: float
    histogram: Vector
    far: float
    zero_pairs: int

    @property
    def n(self) -> int:
        """Pairs."""
        return self.raw.n

    @property
    def counts(self) -> list[int]:
        """The histogram in 100 bins."""
        return [int(count) for count in self.histogram.reshape(_SHOWN_BINS, -1).sum(axis=1)]

    @property
    def norm_ratio(self) -> float:
        """|X| / |Y|."""
        return float(
            np.sqrt(np.trace(self.raw.gramian_x) / max(np.trace(self.raw.gramian_y), _TINY))
        )

    @property
    def chance(self) -> float:
        """Mean cosine of an x with the y of another row, over all such pairs."""
        own, unrelated = self.cosines, float(self.unit.sum_x @ self.unit.sum_y)
        return (unrelated - own) / max(self.n * (self.n - 1), 1)

    @property
    def agreement(self) -> float:
        """Mean cosine beyond chance: 1 where all rows are alike, 0 where they are as alike as
        unrelated rows.
        """
        return beyond_chance(self.cosines / max(self.n, 1), self.chance)

    @property
    def low_agreement(self) -> float:
        """The same of the cosine that one row in ten does not reach."""
        reached = np.cumsum(self.histogram) >= _LOW * self.n
        return beyond_chance(2.0 * (int(reached.argmax()) + 1) / _BINS - 1.0, self.chance)

    @property
    def chance_share(self) -> float:
        """Share of the rows that have nothing to do with their partner; the lower end of what
        chance allows (2 sigma).
        """
        return chance_share(self.far, self.n)

    @property
    def lowest_correlation(self) -> float:
        """Of one component of X with the same of Y, unit rows; the upper end of what chance allows
        (3 sigma).
        """
        x, y = self.unit.squares_x, self.unit.squares_y
        used = (x > _EMPTY * x.sum()) & (y > _EMPTY * y.sum())
        correlation = np.diag(self.unit.cross)[used] / np.sqrt(x[used] * y[used])
        return float(min(correlation.min(initial=1.0) + _SIGMAS / np.sqrt(self.n), 1.0))


@dataclass(frozen=True, slots=True)
class RowPairs:
    """Row i of x with row i of y, none of them zeros: as they are, their ``lengths`` and with
    length one, and each pair's cosine.

    ``far`` says of each x how it compares its own partner with a few rows of other partners: 1
    where most of them are nearer, a half where as many are nearer as farther, else 0.
    """

    x: Matrix
    y: Matrix
    lengths: tuple[Vector, Vector]
    u: Matrix
    v: Matrix
    cosines: Vector
    far: Vector


def row_pairs(x: Matrix, y: Matrix, *, others: Matrix) -> RowPairs:
    """Of rows x (n, d) and y (n, d) that are not zero, against ``others`` (m, d) of y's table."""
    lengths = row_lengths(x), row_lengths(y)
    u, v = unit(x, lengths[0]), unit(y, lengths[1])
    cosines = np.einsum("ij,ij->i", u, v)
    unrelated = u @ unit(others[others.any(axis=1)]).T
    # The row's own partner may be among the others, a rounding apart.
    nearer, farther = (
        np.sum(sign * (unrelated - cosines[:, None]) > _ROUNDING, axis=1) for sign in (1.0, -1.0)
    )
    far = (nearer > farther) + ((nearer == farther) & (nearer > 0)) / 2
    return RowPairs(x, y, lengths, u, v, cosines, far)


def likeness(x: Matrix, y: Matrix, *, others: Matrix) -> Likeness:
    """Of row i of ``x`` (n, d) with row i of ``y`` (n, D), and with a few ``others`` (m, D) of y's
    table.

    The narrower rows are padded with zeros.
    """
    nonzero = np.asarray(x.any(axis=1) & y.any(axis=1))
    width = max(x.shape[1], y.shape[1])
    x, y, others = (
        np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
        for rows in (x[nonzero], y[nonzero], others)
    )
    return likeness_of(row_pairs(x, y, others=others), zero_pairs=int(len(nonzero) - len(x)))


def likeness_of(pairs: RowPairs, *, zero_pairs: int, family: Family = PACKED) -> Likeness:
    """Sums over pairs; ``zero_pairs`` more were left out."""
    width = pairs.x.shape[1]
    histogram, _ = np.histogram(np.clip(pairs.cosines, -1.0, 1.0), bins=_BINS, range=(-1.0, 1.0))
    return Likeness(
        pair_sums((pairs.x, pairs.y), width, centred=True, family=family),
        DirectionSums(
            cross_product(pairs.u, pairs.v, family=family),
            *(np.einsum("ij,ij->j", side, side) for side in (pairs.u, pairs.v)),
            *(np.ones(len(side)) @ side for side in (pairs.u, pairs.v)),
        ),
        float(pairs.cosines.sum()),
        histogram.astype(np.float64),
        float(pairs.far.sum()),
        zero_pairs,
    )


def beyond_chance(cosine: float, chance: float) -> float:
    """A mean cosine as 1 where all rows are alike, and 0 at the mean of unrelated rows."""
    return (cosine - chance) / max(1.0 - chance, _TINY)


def chance_share(far: float, n: int) -> float:
    """Share of ``n`` rows that have nothing to do with their partner, where ``far`` rows are nearer
    to most others; the lower end of what chance allows (2 sigma).
    """
    share = far / max(n, 1)
    sigma = np.sqrt(share * (1 - share) / max(n, 1))
    return float(np.clip(2 * (share - 2 * sigma), 0.0, 1.0))


def distances(likenesses: Sequence[Likeness], *, unit_rows: bool) -> tuple[float, float]:
    """|X - Y| / |Y| over all these tables stacked, and how much of it a free rotation of X would
    take away.
    """
    sums: Pairs | DirectionSums = total(
        likeness.unit if unit_rows else likeness.raw for likeness in likenesses
    )
    x, y = sums.energies
    transformed, best = (
        float(np.trace(sums.cross)),
        float(np.linalg.svd(sums.cross, compute_uv=False).sum()),
    )
    error, free = (
        float(np.sqrt(max(x + y - 2 * shared, 0.0) / max(y, _TINY)))
        for shared in (transformed, best)
    )
    return error, error - free


def spectrum_change(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Half the sum of |differences| of the shares of energy of each direction: 0 equal, 1 nothing
    in common.
    """
    width = max(len(ours), len(theirs))
    p, q = (
        np.pad(np.square(s), (0, width - len(s))) / np.sum(np.square(s)) for s in (ours, theirs)
    )
    return float(np.abs(p - q).sum() / 2)


def score_error(source: tuple[Matrix, Matrix], transformed: tuple[Matrix, Matrix]) -> float:
    """Largest root-mean-square difference of the scores of these rows, before and after, over that
    of the scores.
    """
    before, after = source[0] @ source[1].T, transformed[0] @ transformed[1].T
    size = float(np.linalg.norm(before))
    return float(np.linalg.norm(after - before)) / size if size else float(np.linalg.norm(after))
