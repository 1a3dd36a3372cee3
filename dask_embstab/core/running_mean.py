"""The running mean of every id's unit rows, with weights that decay from run to run."""

from __future__ import annotations

import numpy as np

from dask_embstab.core.moments import unit
from dask_embstab.core.types import Matrix, Vector


def update_mean(rows: Matrix, mean: Matrix, weight: Vector, decay: float) -> tuple[Matrix, Vector]:
    """Mean (n, d) and weight (n,) once ``rows`` (n, d) have been seen; ``mean`` and ``weight`` are
    those from before.

    The new mean is (decay weight mean + unit(row)) / (decay weight + 1). A row of zeros has no
    direction: it only ages.
    """
    known = weight * decay
    seen = rows.any(axis=1)
    total = known + seen
    share = np.divide(seen, total, out=np.zeros(len(rows)), where=total > 0)
    return mean + share[:, None] * (unit(rows) - mean), total


def consensus_target(rows: Matrix, *, head_weight: float) -> Matrix:
    """Alignment targets (n, d): decayed sums of past unit rows, from [mean weight head] in the
    rows, (n, 2 d + 1).

    weight mean is the sum of the id's unit rows, older ones decayed: aligning unit rows x_i to
    these sums S_i by C = sum x_i' S_i maximizes the sum of the cosines with all earlier runs at
    once, so an id is weighted by the runs that contain it. ``head_weight`` is added to the weight
    of the last run (unit rows; zeros for ids that it does not have).
    """
    d = rows.shape[1] // 2
    return rows[:, :d] * rows[:, d : d + 1] + head_weight * rows[:, d + 1 :]


def sums(rows: Matrix) -> Matrix:
    """The same without the last run, (n, d), from [mean weight] in the rows, (n, d + 1)."""
    return rows[:, :-1] * rows[:, -1:]


def decay_of(half_life: float | None) -> float:
    """What a run's weight is multiplied by with every run that follows it."""
    return 1.0 if half_life is None else float(0.5 ** (1.0 / half_life))
