"""How like are the rows of two tables that share an id? Sums that merge, and the figures they tell.

All figures are over pairs of rows of which neither is zeros: a row of zeros has no direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dask_embstab.core.metrics.estimates import QuantileSketch
from dask_embstab.core.moments import Pairs
from dask_embstab.core.procrustes import Alignment, alignment, power_near
from dask_embstab.core.products import Family
from dask_embstab.core.similarity import (
    Likeness,
    RowPairs,
    beyond_chance,
    chance_share,
    likeness_of,
)
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Vector

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_ANGLES = 1024
"""Bins of the angle between two rows, by group: a percentile of the cosine is off by 0.003 at
most.
"""
Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class GroupSums(Sums):
    """Sums over the pairs of each of g groups: counts, 1 - cosine and its squares, rows nearer to
    others, lengths of both sides, and a histogram of angles.
    """

    n: npt.NDArray[np.int64]
    distances: Vector
    far: Vector
    lengths_a: Vector
    lengths_b: Vector
    angles: npt.NDArray[np.int64]

    @classmethod
    def of(cls, codes: Vector | None, n_groups: int, pairs: RowPairs) -> GroupSums:
        """Of pairs whose groups have these numbers (n,); None where there are no groups."""
        group = np.zeros(0, np.int64) if codes is None else codes.astype(np.int64)
        kept = slice(None) if codes is not None else slice(0)
        cosines = np.clip(pairs.cosines[kept], -1.0, 1.0)
        bins = np.minimum(np.arccos(cosines) * (_ANGLES / np.pi), _ANGLES - 1).astype(np.int64)

        def total(values: Vector) -> Vector:
            return np.asarray(np.bincount(group, values[kept], minlength=n_groups), np.float64)

        angles = np.bincount(group * _ANGLES + bins, minlength=n_groups * _ANGLES)
        return cls(
            np.bincount(group, minlength=n_groups),
            total(1.0 - pairs.cosines),
            total(pairs.far),
            total(pairs.lengths[0]),
            total(pairs.lengths[1]),
            angles.reshape(n_groups, _ANGLES),
        )

    def figures(self, group: int, chance: float) -> GroupFigures | None:
        """Of one group, where any of its pairs was seen."""
        n = int(self.n[group])
        if not n:
            return None

        reached = np.cumsum(self.angles[group][::-1])
        low, median = (
            float(np.cos((_ANGLES - 0.5 - np.searchsorted(reached, share * n)) * np.pi / _ANGLES))
            for share in (0.1, 0.5)
        )
        mean = _within(1.0 - float(self.distances[group]) / n)
        return GroupFigures(
            rows=n,
            mean_cosine=mean,
            p10_cosine=low,
            median_cosine=median,
            beyond_chance=beyond_chance(mean, chance),
            share_at_chance=chance_share(float(self.far[group]), n),
            norm_ratio=float(self.lengths_b[group] / self.lengths_a[group]),
        )


@dataclass(frozen=True, slots=True)
class Agreement(Sums):
    """Sums over pairs (x, y) of rows with one id.

    ``squares`` are those of 1 - cosine, ``lengths`` sums of |x| and of |y|; the sketches tell
    quantiles of |x|, of |y| and of 1 - cosine.
    """

    likeness: Likeness
    squares: float
    lengths: Vector
    lengths_a: QuantileSketch
    lengths_b: QuantileSketch
    distances: QuantileSketch
    groups: GroupSums

    @property
    def n(self) -> int:
        """Pairs."""
        return self.likeness.n

    @property
    def mean_cosine(self) -> float:
        """NaN without a pair."""
        return _within(self.likeness.cosines / self.n) if self.n else np.nan

    @property
    def norm_ratio(self) -> float:
        """Sum of |y| over sum of |x|; NaN without a pair."""
        return float(self.lengths[1] / self.lengths[0]) if self.n else np.nan


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Same-id cosines of the rows of one group, and their lengths."""

    rows: int
    mean_cosine: float
    p10_cosine: float
    median_cosine: float
    beyond_chance: float
    share_at_chance: float
    norm_ratio: float


@dataclass(frozen=True, slots=True)
class CosineFigures:
    """Cosines of the rows with one id.

    ``histogram`` counts them in 100 equal bins from -1 to 1. ``chance`` is the mean cosine of rows
    of other ids, ``beyond_chance`` the mean counted from there (1: all alike, 0: as unrelated
    rows), ``share_at_chance`` the share of rows that have nothing to do with their partner.
    ``ceiling`` is the largest mean cosine that any rotation of the first table could reach.
    """

    std: float
    percentiles: Numbers
    histogram: list[int]
    chance: float
    beyond_chance: float
    share_at_chance: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class NormFigures:
    """Lengths of the rows with one id, the second table's over the first's."""

    ratio_of_sums: float
    ratio_of_medians: float
    median_a: float
    median_b: float


@dataclass(frozen=True, slots=True)
class ComponentFigures:
    """By component: correlation of both tables (Pearson), and the share of each table's sum of
    squares.
    """

    correlation: list[float]
    share_a: list[float]
    share_b: list[float]


def agreement_of(
    pairs: RowPairs, codes: Vector | None, n_groups: int, *, family: Family
) -> Agreement:
    """Sums over the pairs of one panel, with the number of the group of each, where they have
    any.
    """
    apart = 1.0 - pairs.cosines
    return Agreement(
        likeness_of(pairs, zero_pairs=0, family=family),
        float(apart @ apart),
        np.array([side.sum() for side in pairs.lengths]),
        QuantileSketch.of(pairs.lengths[0]),
        QuantileSketch.of(pairs.lengths[1]),
        QuantileSketch.of(apart),
        GroupSums.of(codes, n_groups, pairs),
    )


def cosine_figures(agreement: Agreement) -> CosineFigures:
    """Of at least one pair."""
    like, n = agreement.likeness, agreement.n
    apart = 1.0 - like.cosines / n
    shares = 1.0 - np.array(PERCENTILES) / 100
    percentiles = 1.0 - agreement.distances.quantiles(shares)
    ceiling = np.linalg.svd(like.unit.cross, compute_uv=False).sum() / n
    return CosineFigures(
        std=float(np.sqrt(max(agreement.squares / n - apart**2, 0.0))),
        percentiles={
            f"{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)
        },
        histogram=like.counts,
        chance=like.chance,
        beyond_chance=like.agreement,
        share_at_chance=like.chance_share,
        ceiling=_within(float(ceiling)),
    )


def norm_figures(agreement: Agreement) -> NormFigures:
    """Of at least one pair."""
    half = np.array([0.5])
    (a,), (b,) = (side.quantiles(half) for side in (agreement.lengths_a, agreement.lengths_b))
    return NormFigures(agreement.norm_ratio, float(b / a), float(a), float(b))


def component_figures(agreement: Agreement) -> ComponentFigures:
    """Of at least one pair; the correlation of a component that is constant in either table is
    NaN.
    """
    raw, centred = _near_one(agreement)
    energies = [np.diag(G) for G in (raw.gramian_x, raw.gramian_y)]
    spreads = [np.diag(G) for G in (centred.gramian_x, centred.gramian_y)]
    varies = np.all([s > _ROUNDING * e for s, e in zip(spreads, energies, strict=True)], axis=0)
    sizes = np.sqrt(np.where(varies, spreads[0] * spreads[1], 1.0))
    correlation = np.where(varies, np.diag(centred.cross) / sizes, np.nan)
    return ComponentFigures(
        np.clip(correlation, -1.0, 1.0).tolist(), *((e / e.sum()).tolist() for e in energies)
    )


def linear_cka(agreement: Agreement) -> float:
    """Centred kernel alignment with linear kernels (Kornblith et al. 2019, arXiv 1905.00414):
    |Y'X|^2 / (|X'X| |Y'Y|) of centred tables, 1 where one is a rotation and scaling of the other.
    """
    raw, centred = _near_one(agreement)
    sizes = [np.linalg.norm(G) for G in (centred.gramian_x, centred.gramian_y)]
    wholes = [np.linalg.norm(G) for G in (raw.gramian_x, raw.gramian_y)]
    if any(size <= _ROUNDING * whole for size, whole in zip(sizes, wholes, strict=True)):
        return np.nan
    return min(float(np.linalg.norm(centred.cross) ** 2 / (sizes[0] * sizes[1])), 1.0)


def _near_one(agreement: Agreement) -> tuple[Pairs, Pairs]:
    """The sums over both tables as they are and centred, each scaled to a size near 1: squares of
    Gramians overflow early.
    """
    raw = agreement.likeness.raw
    scaled = raw.scaled(*(power_near(energy) for energy in raw.energies))
    return scaled, scaled.centred()


_CAN_BE_TURNED = (
    "the upper bounds hold where no orthogonal matrix brings the first run's rows nearer to the"
    " second's; both runs are compared as they are, and one would bring these nearer"
)


def alignment_figures(agreement: Agreement) -> Alignment:
    """Exact error and bounds between both tables as they are."""
    raw = agreement.likeness.raw
    figures = alignment(raw.gramian_x, raw.gramian_y, raw.cross)
    if figures.bound_reason is None:
        return figures
    return replace(figures, bound_reason=_CAN_BE_TURNED)


_ROUNDING = 1e-14
"""What is left beside the means, relative to the whole, where nothing is."""


def _within(cosine: float) -> float:
    """Rounding may take a mean of cosines beyond 1."""
    return min(1.0, max(-1.0, cosine))
