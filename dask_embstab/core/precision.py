"""In which precision must rows be multiplied so that the apply keeps what the fit earned? (step 9 of the design)

With m_k the column actually multiplied, r_j the columns of R and a_k = |(|r_j| m_jk)_j| / |R m_k|, column k of a float32
product is off by about 2^-24 a_k, and scores by 2^-24 max_k a_k |R_T m_k| |R_W w_k| / s_1. (|R| |m_k| in place of the
products of the components' own lengths would be far too large where the columns of table and M spread along the axes.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.core.types import Matrix, Vector

FLOAT32 = 2.0**-24
TARGET = 1e-5
"""Largest error of a column, and of a score relative to the largest, that a float32 product may leave."""


@dataclass(frozen=True, slots=True)
class ProductErrors:
    """What float32 products are estimated to leave: relative error of the worst column, and of scores (or None)."""

    columns: float
    scores: float | None

    @property
    def product(self) -> str:
        """``"float32"`` where both stay below the target, else ``"float64"``."""
        return "float32" if max(self.columns, self.scores or 0.0) <= TARGET else "float64"


def product_errors(
    R: Matrix, M: Matrix, other_R: Matrix | None = None, other_M: Matrix | None = None, s_1: float = 1.0
) -> ProductErrors:
    """Estimates for the table with root ``R`` (r, d) multiplied by ``M`` (d, k); the other table's give the scores'."""
    landed = _lengths(R @ M)
    used = landed > 0
    growth = _lengths(_lengths(R)[:, None] * M)[used] / landed[used]
    if not used.any():
        return ProductErrors(0.0, None)
    scores = None
    if other_R is not None and other_M is not None:
        scores = float(FLOAT32 * np.max(growth * landed[used] * _lengths(other_R @ other_M)[used]) / s_1)
    return ProductErrors(float(FLOAT32 * growth.max()), scores)


def _lengths(columns: Matrix) -> Vector:
    return np.asarray(np.linalg.norm(columns, axis=0))
