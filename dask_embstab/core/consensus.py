"""Where does an id stand, all in all? The running mean of its unit rows, with a weight that older runs lose."""

from __future__ import annotations

import numpy as np

from dask_embstab.core.moments import unit
from dask_embstab.core.types import Matrix, Vector


def advanced(rows: Matrix, mean: Matrix, weight: Vector, decay: float) -> tuple[Matrix, Vector]:
    """Mean (n, d) and weight (n,) once ``rows`` (n, d) have been seen; ``mean`` and ``weight`` are those from before.

    The new mean is (decay weight mean + unit(row)) / (decay weight + 1). A row of zeros has no direction: it only ages.
    """
    known = weight * decay
    seen = rows.any(axis=1)
    total = known + seen
    share = np.divide(seen, total, out=np.zeros(len(rows)), where=total > 0)
    return mean + share[:, None] * (unit(rows) - mean), total


def decay_of(half_life: float | None) -> float:
    """What a run's weight is multiplied by with every run that follows it."""
    return 1.0 if half_life is None else float(0.5 ** (1.0 / half_life))
