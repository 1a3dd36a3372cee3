"""How far from the exact ones can the columns of T M_T be, by rounding in the fit and in the apply?
First-order bounds from the d x d factors, after the fact.

A route knows T'T up to a perturbation dG: the plain Gramian up to rounding of its entries, QR and
the preconditioned Gramian up to dG = R'dR + dR'R with dR rounding of R. In the transformed frame
the perturbation is E = M_T' dG M_T, and with s the singular values of T W' the computed matrix is
M_T (I + K) where, to first order,

    K_ik = -E_ik s_i / (s_i^2 - s_k^2),  K_kk = -E_kk / (4 s_k)  for E from the table itself,
    K_ik =  F_ik s_k / (s_k^2 - s_i^2),  K_kk =  F_kk / (4 s_k)  for F of the other table,

with F = M_W' dG_W M_W.

(Both follow from M' G M = diag(s) for either table and M_W = M_T^-T. Where a table is deficient,
its perturbation meets the other table before it meets M_T: the paper's M_T = R_W' V s^-1/2 takes
its place, which also has what the table itself does not see.) Column k of T M_T is then off by
sqrt(sum_i s_i K_ik^2 / s_k), relative to its length. Independent rounding gives the size of E; a
factor covers what first order and independence leave out. The diagonal of a Gramian may be off by
one sign as well, which is bounded apart. Columns whose singular values cluster are determined as a
subspace only: their certificate is capped at 2, the largest distance between two unit vectors.

The second question is that of step 9 of the design: in which precision must rows be multiplied so
that the apply keeps what the fit earned? With m_k the column actually multiplied and r_j the
columns of a root R of the Gramian, the terms of column k have the lengths |r_j| |m_jk|. Rounding
them, M and the running sum of d terms leaves an error of about 2^-24 b_k in float32, where b_k^2 =
(1 + d/12) sum_j |r_j|^2 m_jk^2; relative to the column that is 2^-24 b_k / |R m_k|, and relative to
the scores 2^-24 (sum_k b_k^2 |R_W w_k|^2)^1/2 / |T W'|. Measured errors were 0.1 to 6 times these
(d = 4 to 512, condition numbers 1 to 1e6, any axes). Taking |R| |m_k| instead of the terms' own
lengths is off by the condition number where both tables spread along the axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.core.square_root import Root
from dask_embstab.core.standardize import Frame
from dask_embstab.core.types import EPS, Matrix, Vector

_SAFETY = 5.0
_FLOOR = 4.0
"""Rounding of M itself and of the two products: this many units, times the square root of d."""


def certificates(frame: Frame, items: Root, users: Root) -> tuple[Vector, Vector]:
    """Relative errors of the columns of T M_T, (r,), and of W M_W (up to sign), float64 products
    taken for granted.
    """
    s = frame.singular_values
    E, E_sign = _perturbation(items, frame.items, users, frame.users, s)
    F, F_sign = _perturbation(users, frame.users, items, frame.items, s)
    floor = _FLOOR * EPS * np.sqrt(len(s))
    ours = _SAFETY * _column_errors(E, F, s) + _column_errors(E_sign, F_sign, s) + floor
    theirs = _SAFETY * _column_errors(F, E, s) + _column_errors(F_sign, E_sign, s) + floor
    return np.minimum(ours, 2.0), np.minimum(theirs, 2.0)


def _perturbation(
    root: Root, M: Matrix, other: Root, M_other: Matrix, s: Vector
) -> tuple[Matrix, Matrix]:
    """Entries of M' dG M, (k, k): their expected size under random rounding, and the most that one
    sign can add.
    """
    if root.right_inverse is not None:  # M is a pseudo-inverse: all of the table meets this
        M = other.R.T @ (other.R @ M_other) / s
    random, one_sign = root.units
    scaled = np.abs(np.linalg.norm(root.R, axis=0)[:, None] * M)
    lengths, transformed = np.linalg.norm(scaled, axis=0), np.sqrt(s)
    rounding = (
        np.outer(transformed, lengths)
        + np.outer(lengths, transformed)
        + random * np.outer(lengths, lengths)
    )
    return EPS * rounding, EPS * one_sign * (scaled.T @ scaled)


def _column_errors(own: Matrix, other: Matrix, s: Vector) -> Vector:
    difference = np.abs(np.subtract.outer(s**2, s**2))
    np.fill_diagonal(difference, np.inf)
    K = np.hypot(own * s[:, None], other * s[None, :]) / np.maximum(
        difference, np.finfo(np.float64).tiny
    )
    np.fill_diagonal(K, np.hypot(np.diag(own), np.diag(other)) / (4 * s))
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt((s[:, None] * K**2).sum(axis=0) / s))


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
