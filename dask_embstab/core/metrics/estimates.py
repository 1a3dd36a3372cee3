"""What do a few sampled values say about the mean of all, and what are the quantiles of many?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dask_embstab.core.types import Vector

CONFIDENCE = 0.95
_DROPPED_BITS = 42
"""Of the 52 bits of a fraction: a bin of a sketch is 2^-10 of its values wide."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of ``n`` sampled values, and the 95 % confidence interval of the mean of all."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Vector, population: float) -> Estimate:
    """Mean of a random sample (n,), of values in [0, 1], that was drawn without replacement.

    Student's interval with the correction for a finite ``population`` (Cochran 1977, section 2.8):
    where all of it was drawn the interval is the mean itself. NaN where one value of many was
    drawn, or none.
    """
    n = len(values)
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)

    mean = float(np.mean(values))
    if n >= population:
        return Estimate(mean, mean, mean, n)
    if n == 1:
        return Estimate(mean, np.nan, np.nan, 1)
    error = float(np.std(values, ddof=1)) * np.sqrt((1 - n / population) / n)
    half = float(special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), n)


def ratio_estimate(hits: npt.ArrayLike, of: npt.ArrayLike) -> Estimate:
    """The sum of ``hits`` (n,) over that of ``of`` (n,), not below hits, of n sampled queries, and
    the interval of that ratio over all queries: by the residuals hits - ratio of (Cochran 1977,
    section 6.4). NaN where one query was drawn.
    """
    x, n = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    ratio = float(x.sum() / n.sum())
    if len(x) < 2:
        return Estimate(ratio, np.nan, np.nan, len(x))
    error = float(np.sqrt(len(x) / (len(x) - 1) * np.sum((x - ratio * n) ** 2)) / n.sum())
    half = float(special.stdtrit(len(x) - 1, 0.5 + CONFIDENCE / 2)) * error
    return Estimate(ratio, max(0.0, ratio - half), min(1.0, ratio + half), len(x))


@dataclass(frozen=True, slots=True)
class QuantileSketch:
    """How many values (not negative) fell into each bin, bins in ascending order.

    A bin holds what agrees in the exponent and the first ten bits of its fraction, so a quantile is
    off by 0.05 % at most (as in DDSketch, Masson, Rim & Lee 2019, doi:10.14778/3352063.3352135).
    Sketches of two parts add up to that of the whole, bit by bit.
    """

    bins: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Vector) -> QuantileSketch:
        """Of values (n,) in float64."""
        positive = np.maximum(values, 0.0)
        return cls(*np.unique(positive.view(np.int64) >> _DROPPED_BITS, return_counts=True))

    def __add__(self, other: QuantileSketch) -> QuantileSketch:
        """Of the values of both."""
        bins, at = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, at, np.concatenate([self.counts, other.counts]))
        return QuantileSketch(bins, counts)

    def quantiles(self, shares: Vector) -> Vector:
        """The smallest values that these shares of all do not exceed; NaN without values."""
        if not len(self.bins):
            return np.full(len(shares), np.nan)
        reached = np.cumsum(self.counts)
        # A share such as 1 - 0.99 is off by its rounding, which may not count as one value more.
        wanted = np.ceil(np.asarray(shares) * reached[-1] * (1 - 1e-14)).clip(1)
        bins = self.bins[np.searchsorted(reached, wanted)]
        middle = np.where(bins > 0, (bins << _DROPPED_BITS) + (1 << _DROPPED_BITS - 1), 0)
        return middle.view(np.float64)
