"""How like are two sets of rows in one space, row by row? Sums over a sample of pairs, and figures from them.

X are landed rows and Y the last live run's rows with the same ids. Besides the sums of `Pairs`, on the rows as they are and
on unit rows, each x is compared with the y of another pair: what two rows have in common that have nothing to do with each
other (a common direction, mostly) is chance, and agreement is counted beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dask_embstab.core.moments import Pairs, pair_sums, unit
from dask_embstab.core.sums import Sums, total
from dask_embstab.core.types import Matrix

_SIGMAS = 3.0
_TINY = float(np.finfo(np.float64).tiny)
_EMPTY = 1e-9
"""A component with less than this share of the energy of its table is empty."""


@dataclass(frozen=True, slots=True)
class Likeness(Sums):
    """Over pairs of rows: sums as they are and as unit rows, cosines of the pairs and of as many unrelated ones."""

    raw: Pairs
    unit: Pairs
    cosines: float
    chance: float

    @property
    def n(self) -> int:
        """Pairs."""
        return self.raw.n

    @property
    def norm_ratio(self) -> float:
        """|X| / |Y|."""
        return float(np.sqrt(np.trace(self.raw.gramian_x) / max(np.trace(self.raw.gramian_y), _TINY)))

    @property
    def agreement(self) -> float:
        """Mean cosine beyond chance: 1 where all rows are alike, 0 where they are as alike as unrelated rows."""
        return (self.cosines - self.chance) / max(self.n - self.chance, _TINY)

    @property
    def lowest_correlation(self) -> float:
        """Of one component of X with the same of Y, unit rows; the upper end of what chance allows (3 sigma)."""
        x, y = np.diag(self.unit.gramian_x), np.diag(self.unit.gramian_y)
        used = (x > _EMPTY * x.sum()) & (y > _EMPTY * y.sum())
        correlation = np.diag(self.unit.cross)[used] / np.sqrt(x[used] * y[used])
        return float(min(correlation.min(initial=1.0) + _SIGMAS / np.sqrt(self.n), 1.0))


def likeness(x: Matrix, y: Matrix) -> Likeness:
    """Of row i of ``x`` with row i of ``y``; the narrower is padded with zeros."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (x, y))
    u, v = unit(x), unit(y)
    return Likeness(
        pair_sums((x, y), width, centred=False),
        pair_sums((u, v), width, centred=False),
        float(np.vdot(u, v)),
        float(np.vdot(u, np.roll(v, 1, axis=0))),
    )


def distances(likenesses: Sequence[Likeness], *, unit_rows: bool) -> tuple[float, float]:
    """|X - Y| / |Y| over all these tables stacked, and how much of it a free rotation of X would take away."""
    sums: Pairs = total(found.unit if unit_rows else found.raw for found in likenesses)
    x, y = float(np.trace(sums.gramian_x)), float(np.trace(sums.gramian_y))
    landed, best = float(np.trace(sums.cross)), float(np.linalg.svd(sums.cross, compute_uv=False).sum())
    error, free = (float(np.sqrt(max(x + y - 2 * shared, 0.0) / max(y, _TINY))) for shared in (landed, best))
    return error, error - free


def spectrum_change(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Half the sum of |differences| of the shares of energy of each direction: 0 equal, 1 nothing in common."""
    width = max(len(ours), len(theirs))
    p, q = (np.pad(np.square(s), (0, width - len(s))) / np.sum(np.square(s)) for s in (ours, theirs))
    return float(np.abs(p - q).sum() / 2)


def score_error(source: tuple[Matrix, Matrix], landed: tuple[Matrix, Matrix]) -> float:
    """Largest root-mean-square difference of the scores of these rows, before and after, over that of the scores."""
    before, after = source[0] @ source[1].T, landed[0] @ landed[1].T
    size = float(np.linalg.norm(before))
    return float(np.linalg.norm(after - before)) / size if size else float(np.linalg.norm(after))
