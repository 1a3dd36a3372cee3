"""A square root R of a table's Gramian (T'T = R'R), by whatever route, and the table's numerical
rank.

Columns are equilibrated by powers of two (exact), the table is reduced to a square root, and the
scaling is undone. Rank is decided on the equilibrated table's own singular values, relative to the
precision of the input.

Routes: the Gramian (its error grows with the square of the condition number), tall-skinny QR (with
the condition number), and the preconditioned Gramian (as QR), whose preconditioner is the plain
Gramian's own eigenvectors with the eigenvalues clipped where float64 cannot see them (Garrison &
Ipsen, arXiv 2406.11751; Yamazaki, Tomov & Dongarra 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from dask_embstab.core.types import EPS, Matrix, Vector
from dask_embstab.errors import ConditionError
from dask_embstab.repairs import option

Route = Literal["gram", "qr", "preconditioned"]
_TERMS_IN_A_ROW = 384
_EXACT = (0.0, 0.0)
_FACTOR_UNITS = 200.0
"""Roundings by which R may differ from a factor of the Gramian that was read."""
_RANK_UNITS = 4
"""A singular value of the equilibrated table below this many roundings per component is a zero."""


@dataclass(frozen=True, slots=True)
class Root:
    """Square root of a Gramian: T'T = R'R with R (r, d) of full row rank (r <= d is the numerical
    rank).

    ``sigma`` (d,) are the column-equilibrated table's singular values over the largest,
    ``condition`` the ratio of the largest to the smallest that counts, ``error`` the relative error
    with which the route knows the weakest of them, ``units`` the roundings that a plain Gramian has
    gathered (`sum_units`; 0 for the other routes). ``right_inverse`` (d, r) stands only for a
    deficient table: the shortest one in equilibrated coordinates.
    """

    R: Matrix
    sigma: Vector
    condition: float
    error: float
    route: Route
    units: tuple[float, float] = _EXACT
    right_inverse: Matrix | None = None

    @property
    def rank(self) -> int:
        """Numerical rank, relative to the precision of the input."""
        return len(self.R)


def scaling(gramian: Matrix) -> Vector:
    """Powers of two that bring every column to a length near one, (d,); 0 for a column of zeros."""
    diagonal = np.diag(gramian)
    exponents = np.zeros(len(diagonal))
    np.log2(diagonal, out=exponents, where=diagonal > 0)
    return np.where(diagonal > 0, np.exp2(-np.round(exponents / 2)), 0.0)


def equilibrated(gramian: Matrix) -> tuple[Matrix, Vector]:
    """The Gramian of the column-equilibrated table, and the scaling that made it."""
    scale = scaling(gramian)
    return gramian * scale * scale[:, None], scale


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What a Gramian shows of a table: the Gramian once columns are equilibrated (those of zeros
    left out), the ``scale`` (d,) that did it, and the eigenvalues, ascending.
    """

    gramian: Matrix
    scale: Vector
    eigenvalues: Vector

    @property
    def condition(self) -> float:
        """Condition number of the equilibrated table: inf beyond what float64 can see."""
        w = self.eigenvalues
        if not len(w) or w[0] <= len(w) * EPS * w[-1]:
            return float("inf")
        return float(np.sqrt(w[-1] / w[0]))


def gramian_spectrum(gramian: Matrix) -> Spectrum:
    """The one eigenvalue problem that routes, rank and diagnostics of a Gramian share."""
    G, scale = equilibrated(gramian)
    active = scale > 0
    G = G if active.all() else G[np.ix_(active, active)]
    return Spectrum(G, scale, np.asarray(np.linalg.eigvalsh(G), np.float64))


def gramian_error(condition: float) -> float:
    """Relative error of a column of T M_T from a plain float64 Gramian: it goes with the condition
    number squared.
    """
    return EPS * condition**2


def stable_error(condition: float) -> float:
    """Relative error of a column of T M_T from QR or the preconditioned Gramian: it goes with the
    condition number.
    """
    return EPS * condition


def sum_units(n_rows: int, eps: float) -> tuple[float, float]:
    """Roundings that a Gramian has gathered over ``n_rows`` rows of precision ``eps``: of every
    entry, and of its diagonal.

    The first, with those of the Cholesky, are as good as random. BLAS adds up to a few hundred
    terms in a row, then such sums; beyond that errors average out. Terms of one sign (columns with
    a mean) gather most. The second may have one sign: squares of float32 numbers end in few bit
    patterns and are rounded down more often than up, and where a column repeats one value every
    step of a sum rounds alike (twice as much at worst; narrow tables six times). Products of
    float16 have 22 bits, so that their sums are exact. Calibrated against exact arithmetic on means
    of 0, 1, 3 and 100 standard deviations, constant and two-valued columns (12 to 12,000 rows).
    """
    if eps >= np.finfo(np.float16).eps:
        return 0.33, 0.0
    terms = min(n_rows, _TERMS_IN_A_ROW)
    return 0.45 * float(np.sqrt(1 + terms / 16)), 25.0 * terms / _TERMS_IN_A_ROW


def root_from_gramian(
    gramian: Matrix, *, n_rows: int, eps: float, spectrum: Spectrum | None = None
) -> Root:
    """Cholesky factor of the equilibrated Gramian, whose ``spectrum`` is given where it is known;
    refuses a table that the Gramian cannot resolve.
    """
    seen = spectrum or gramian_spectrum(gramian)
    if not np.isfinite(seen.condition):
        raise ConditionError(
            "the Gramian cannot see singular values below 2e-8 of the largest, and this table has"
            " some (its columns are nearly or exactly dependent)",
            f"{option(method='auto')} or {option(method='qr')} sees them",
        )

    active = seen.scale > 0
    R = np.zeros((len(seen.gramian), len(gramian)))
    R[:, active] = linalg.cholesky(seen.gramian)
    values = np.sqrt(seen.eigenvalues[::-1])
    units = sum_units(n_rows, eps)
    return _ranked(R, seen.scale, eps=eps, route="gram", units=units, values=values)


def root_from_triangle(R: Matrix, *, eps: float) -> Root:
    """From the R factor of a tall-skinny QR of the table."""
    scale = scaling(R.T @ R)
    return _ranked(R * scale, scale, eps=eps, route="qr")


@dataclass(frozen=True, slots=True)
class Preconditioner:
    """A matrix P (d, k) whose product with the table is far better conditioned than the table, and
    its inverse.
    """

    P: Matrix
    inverse: Matrix
    scale: Vector


def preconditioner(gramian: Matrix) -> Preconditioner:
    """From the plain Gramian: its eigenvectors over the roots of its eigenvalues, clipped where
    rounding hides them.
    """
    G, scale = equilibrated(gramian)
    w, V = np.linalg.eigh(G)
    root = np.sqrt(np.maximum(w, 8 * len(w) * EPS * w[-1]))
    return Preconditioner(scale[:, None] * V / root, (V * root).T, scale)


def refined(previous: Preconditioner, gramian: Matrix) -> Preconditioner:
    """A better preconditioner from the Gramian of the table times the previous one."""
    r, by = _graded_triangle(gramian, previous, floor=8 * len(gramian) * EPS)
    return Preconditioner(linalg.solve_triangular(r, by.P.T, trans="T").T, r @ by.inverse, by.scale)


def without_null_directions(gramian: Matrix, by: Preconditioner) -> tuple[Matrix, Preconditioner]:
    """The Gramian of T P and P itself, less the columns of T P that hold nothing but rounding.

    T is the sum over k of (T P)_k (P^-1)_k. A term below the cut that decides the rank is a null
    direction of the table: its column in T P is rounding of whatever is largest, looks poorly
    conditioned once it is scaled up to length one, and a preconditioner that resolved it would have
    no inverse in float64.
    """
    terms = _terms(gramian, by)
    kept = terms > _RANK_UNITS * len(by.scale) * EPS * terms.max()
    return gramian[np.ix_(kept, kept)], Preconditioner(by.P[:, kept], by.inverse[kept], by.scale)


def preconditioned_condition(gramian: Matrix) -> float:
    """Condition number of the diagonally scaled Gramian of T P: what certifies it (the unscaled one
    does not).
    """
    return gramian_spectrum(gramian).condition ** 2


def root_from_preconditioned(gramian: Matrix, by: Preconditioner, *, eps: float) -> Root:
    """From the Gramian of T P: T'T = (r P^-1)'(r P^-1) with r a triangular square root of that
    Gramian.
    """
    r, by = _graded_triangle(gramian, by, floor=0.0)
    return _ranked(r @ by.inverse, by.scale, eps=eps, route="preconditioned")


def require_factor(
    root: Root, gramian: Matrix, by: Preconditioner | None = None, *, eps: float, where: str
) -> None:
    """Raise `ConditionError` unless (R P)'(R P) is the Gramian that was read of T P (None: of T).

    Rounding of R moves column k of R P by |R| |P_k|, what the rank leaves out by its cut times as
    much.
    """
    lengths = np.sqrt(np.diag(gramian))
    unit = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    scale = scaling(gramian) if by is None else by.scale
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    if by is None:
        factor, sizes = root.R * unit, inverse
    else:
        factor = root.R @ (by.P * unit)
        sizes = np.linalg.norm(by.P * inverse[:, None], axis=0)
    moved = np.linalg.norm(root.R * scale) * sizes * unit
    off = np.abs(factor.T @ factor - gramian * unit * unit[:, None])
    cut = 0.0 if root.right_inverse is None else rank_cut(len(scale), eps)
    allowed = _FACTOR_UNITS * EPS * np.add.outer(moved, moved) + cut**2 * np.outer(moved, moved)
    if not bool((off <= allowed).all()):
        worst = np.unravel_index(np.nanargmax(off - allowed), off.shape)
        raise ConditionError(
            f"the factor R of {where} must have R'R equal to the Gramian that was read, to"
            f" {allowed[worst]:.0e}; by route {root.route!r} it is off by {off[worst]:.0e}; this is"
            " a fault of the library: please report it",
            f"{option(method='auto' if root.route == 'qr' else 'qr')} takes another route",
        )


def _terms(gramian: Matrix, by: Preconditioner) -> Vector:
    """Lengths of the terms (T P)_k (P^-1)_k that sum to the equilibrated table."""
    return np.asarray(
        np.sqrt(np.maximum(np.diag(gramian), 0.0)) * np.linalg.norm(by.inverse, axis=1)
    )


def _graded_triangle(
    gramian: Matrix, by: Preconditioner, *, floor: float
) -> tuple[Matrix, Preconditioner]:
    """Upper triangle r with r'r the Gramian of T P, whose columns are put in descending order of
    what they add to T.

    Products with r and its inverse then add weak directions to strong ones in P^-1, and strong ones
    to weak ones in P: neither loses its grading. (The eigenvectors of a Gramian near the identity
    mix all of them, and P^-1 drifts away from P.) Eigenvalues of the scaled Gramian below ``floor``
    times the largest are raised to that: only then, and where rounding has left it indefinite, are
    they asked for.
    """
    order = np.argsort(-_terms(gramian, by), kind="stable")
    G, scale = equilibrated(gramian[np.ix_(order, order)])
    r, info = lapack.dpotrf(G)
    if floor or info:
        w, V = np.linalg.eigh(G)
        root = np.sqrt(np.maximum(w, floor * w[-1]))
        (r,) = linalg.qr(root[:, None] * V.T, mode="r")
    return r / scale, Preconditioner(by.P[:, order], by.inverse[order], by.scale)


def rank_cut(d: int, eps: float) -> float:
    """Singular values of an equilibrated table of ``d`` components, stored with precision ``eps``,
    that are zeros.
    """
    return max(0.5 * eps, _RANK_UNITS * d * EPS)


def _ranked(
    R_e: Matrix,
    scale: Vector,
    *,
    eps: float,
    route: Route,
    units: tuple[float, float] = _EXACT,
    values: Vector | None = None,
) -> Root:
    """The root from the equilibrated table's square root ``R_e``, whose singular ``values`` (found
    here where they are not known) decide the rank.
    """
    d = len(scale)
    active = scale > 0
    inverse_scale = np.divide(1.0, scale, out=np.zeros(d), where=active)
    spectrum = linalg.svdvals(R_e[:, active]) if values is None else values
    if not len(spectrum) or spectrum[0] == 0.0:
        raise ConditionError(
            "the table has no non-zero value, so it spans no space; check how it was written"
        )

    sigma = np.pad(spectrum / spectrum[0], (0, d - len(spectrum)))
    rank = int(np.sum(sigma > rank_cut(d, eps)))
    condition = float(1 / sigma[rank - 1])
    error = gramian_error(condition) if route == "gram" else stable_error(condition)
    if rank == d:
        return Root(R_e * inverse_scale, sigma, condition, error, route, units)

    _, spectrum, Vh = linalg.svd(R_e[:, active], full_matrices=False, lapack_driver="gesvd")
    rows, inverse = np.zeros((rank, d)), np.zeros((d, rank))
    rows[:, active] = spectrum[:rank, None] * Vh[:rank]
    inverse[active] = Vh[:rank].T / spectrum[:rank]
    return Root(
        rows * inverse_scale, sigma, condition, error, route, units, scale[:, None] * inverse
    )
