"""In which precision must rows be multiplied so that the apply keeps what the fit earned? (step 9
of the design)

With m_k the column actually multiplied and r_j the columns of a root R of the Gramian, the terms of
column k have the lengths |r_j| |m_jk|. Rounding them, M and the running sum of d terms leaves an
error of about 2^-24 b_k in float32, where b_k^2 = (1 + d/12) sum_j |r_j|^2 m_jk^2; relative to the
column that is 2^-24 b_k / |R m_k|, and relative to the scores 2^-24 (sum_k b_k^2 |R_W w_k|^2)^1/2 /
|T W'|. Measured errors were 0.1 to 6 times these (d = 4 to 512, condition numbers 1 to 1e6, any
axes). Taking |R| |m_k| instead of the terms' own lengths is off by the condition number where both
tables spread along the axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.core.types import EPS, Matrix, Vector

FLOAT32 = 2.0**-24
TARGET = 1e-5
"""Largest error of a column, and of a score relative to the largest, that a float32 product may
leave.
"""


@dataclass(frozen=True, slots=True)
class ProductErrors:
    """What float32 products are estimated to leave: relative error of the worst column, and of
    scores (or None).
    """

    columns: float
    scores: float | None

    @property
    def product(self) -> str:
        """``"float32"`` where both stay below half the target, else ``"float64"``."""
        return "float32" if 2 * max(self.columns, self.scores or 0.0) <= TARGET else "float64"


def product_errors(
    R: Matrix,
    M: Matrix,
    other_R: Matrix | None = None,
    other_M: Matrix | None = None,
    size: float = 1.0,
) -> ProductErrors:
    """Estimates for the table with root ``R`` (r, d) multiplied by ``M`` (d, k).

    The other table's matrices, with the ``size`` |T W'| of the scores (Frobenius), give the
    scores'.
    """
    transformed = _lengths(R @ M)
    used = transformed > EPS * transformed.max()  # zero-filled columns have no error
    if not used.any():
        return ProductErrors(0.0, None)
    rounding = FLOAT32 * np.sqrt(1 + len(M) / 12) * _lengths(_lengths(R)[:, None] * M)
    scores = None
    if other_R is not None and other_M is not None:
        scores = float(np.linalg.norm((rounding * _lengths(other_R @ other_M))[used]) / size)
    return ProductErrors(float((rounding[used] / transformed[used]).max()), scores)


def _lengths(columns: Matrix) -> Vector:
    return np.asarray(np.linalg.norm(columns, axis=0))
