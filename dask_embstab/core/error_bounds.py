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
from typing import NamedTuple

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
    gaps = _inverse_gaps(s)
    ours, theirs = (
        [_column_squares(P, s, gaps) for P in _perturbations(root, M, other, M_other, s)]
        for root, M, other, M_other in (
            (items, frame.items, users, frame.users),
            (users, frame.users, items, frame.items),
        )
    )
    floor = _FLOOR * EPS * np.sqrt(len(s))
    bounds = []
    for own, other in ((ours, theirs), (theirs, ours)):
        random, one_sign = (np.sqrt(P.as_own + Q.as_other) for P, Q in zip(own, other, strict=True))
        bounds.append(np.minimum(_SAFETY * random + one_sign + floor, 2.0))
    return bounds[0], bounds[1]


def _perturbations(
    root: Root, M: Matrix, other: Root, M_other: Matrix, s: Vector
) -> tuple[Matrix, Matrix]:
    """Entries of M' dG M, (k, k): their expected size under random rounding, and the most that one
    sign can add.
    """
    if root.right_inverse is not None:  # M is a pseudo-inverse: all of the table meets this
        M = other.R.T @ (other.R @ M_other) / s
    random, one_sign = root.units
    scaled = np.abs(column_lengths(root.R)[:, None] * M)
    lengths, transformed = column_lengths(scaled), np.sqrt(s)
    rounding = np.outer(lengths, transformed + random / 2 * lengths)
    signed = EPS * one_sign * (scaled.T @ scaled) if one_sign else np.zeros_like(rounding)
    return EPS * (rounding + rounding.T), signed


class _Squares(NamedTuple):
    """Squared errors of every column, (k,), by a perturbation of the table itself and of the
    other.
    """

    as_own: Vector
    as_other: Vector


def _inverse_gaps(s: Vector) -> Matrix:
    """1 / (s_i^2 - s_k^2)^2, (k, k), of singular values over the first; 0 where i is k."""
    r = s / s[0]
    gaps = np.subtract.outer(r, r) * np.add.outer(r, r)
    np.fill_diagonal(gaps, np.inf)
    return np.asarray(1 / np.maximum(gaps**2, np.finfo(np.float64).tiny))


def _column_squares(P: Matrix, s: Vector, gaps: Matrix) -> _Squares:
    """Sums over i of s_i K_ik^2 / s_k, for the entries of K that a symmetric perturbation makes."""
    r, squares = s / s[0], (P / s[0]) ** 2
    diagonal = np.diag(squares) / (4 * r) ** 2
    with np.errstate(over="ignore"):
        own, other = np.stack([r**3, r]) @ (squares * gaps)
    return _Squares(own / r + diagonal, other * r + diagonal)


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
    transformed: Vector,
    others: Vector | None = None,
    size: float = 1.0,
) -> ProductErrors:
    """Estimates for the table with root ``R`` (r, d) multiplied by ``M`` (d, k), whose columns are
    then as long as those of R M, ``transformed`` (k,).

    Those of the ``others``, with the ``size`` |T W'| of the scores (Frobenius), give the scores'.
    """
    used = transformed > EPS * transformed.max()  # zero-filled columns have no error
    if not used.any():
        return ProductErrors(0.0, None)
    rounding = FLOAT32 * np.sqrt(1 + len(M) / 12) * column_lengths(column_lengths(R)[:, None] * M)
    scores = None
    if others is not None:
        scores = float(np.linalg.norm((rounding * others)[used]) / size)
    return ProductErrors(float((rounding[used] / transformed[used]).max()), scores)


def column_lengths(columns: Matrix) -> Vector:
    """Of every column, (k,)."""
    return np.asarray(np.linalg.norm(columns, axis=0))
