"""Scaling by powers of two, which costs no digit: products and quotients by them are exact."""

from __future__ import annotations

import numpy as np

from dask_embstab.core.types import Vector


def power_of_two(sizes: Vector) -> Vector:
    """What brings ``sizes``, of any shape, to between 1/2 and 1; 1 for what is 0 or not finite."""
    _, exponents = np.frexp(np.where(np.isfinite(sizes), sizes, 1.0))
    return np.asarray(np.ldexp(1.0, -np.clip(exponents, -1000, 1000)))
