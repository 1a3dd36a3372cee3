"""Which rotation brings one set of rows nearest to another, and how near are they then? (Schonemann
1966; algorithm 2 of arXiv 2508.07574)

How near is read off d x d matrices alone (step 6 of the design): with X the rotated rows and Y
their reference rows, only G_x = X'X, G_y = Y'Y and C = X'Y are needed. The formulas cancel, so each
has a floor relative to |X| below which its value is rounding: it is reported as 0 and named in
``at_rounding``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from dask_embstab.core.types import EPS, Matrix, Vector

_MOST_ITERATIONS, _SETTLED = 300, 1e-14
"""Steps of the unbalanced problem, and the share of |X|^2 below which a step's gain ends them."""

FREE = 1e-10
"""A singular value of the cross-product below this share of the first leaves its direction free."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """``Q`` (r, D) with orthonormal rows (r <= D) or columns (r > D), and the singular values that
    decided it.

    ``proper``: mirrors were left out of the choice; the smallest singular value then has the sign
    of what that cost.
    """

    Q: Matrix
    singular_values: Vector
    Zh: Matrix
    proper: bool = False

    @property
    def gap(self) -> float:
        """How well determined Q is: the two smallest singular values over twice the largest, 1 at
        best, 0 if free.

        A single direction without a singular value is free to be mirrored, unless only rotations
        were allowed.
        """
        s = self.singular_values
        if s[0] == 0.0 or (not self.proper and s[-1] <= FREE * s[0]):
            return 0.0
        smallest = s[-1] + (s[-2] if len(s) > 1 else s[-1])
        return float(max(smallest, 0.0) / (2 * s[0]))

    @property
    def free_directions(self) -> int:
        """Directions that the cross-product says nothing about."""
        return int(np.sum(np.abs(self.singular_values) <= FREE * self.singular_values[0]))

    def weak_components(self, below: float = 1e-3) -> list[int]:
        """Components of the reference in which the weakly determined directions mostly lie."""
        weak = np.abs(self.singular_values) <= below * self.singular_values[0]
        return sorted({int(np.abs(direction).argmax()) for direction in self.Zh[weak]})


def procrustes(cross: Matrix, *, proper: bool = False) -> Rotation:
    """Q that minimizes |X Q - Y| over matrices with orthonormal rows, from ``cross`` = X'Y, (r, D)
    with r <= D.

    Row vectors: rotated rows are ``x @ Q``. ``proper`` allows rotations only (determinant +1):
    where r < D every Q is part of one, and it changes nothing.
    """
    P, s, Zh = linalg.svd(cross, full_matrices=False)
    proper = proper and cross.shape[0] == cross.shape[1]
    if proper and linalg.det(P @ Zh) < 0:
        P[:, -1] = -P[:, -1]
        s = np.append(s[:-1], -s[-1])
    Q = P @ Zh
    if s[-1] > FREE * s[0]:  # what the reference leaves empty stays empty, to the last bit
        Q[:, ~cross.any(axis=0)] = 0.0
    return Rotation(Q, s, Zh, proper)


def narrowing(cross: Matrix, gramian_x: Matrix) -> Rotation:
    """Q (r, D), r > D, with orthonormal columns that minimizes |X Q - Y|: unbalanced Procrustes.

    No closed form is known. Y is padded with X Qc, Qc the complement of Q, and the balanced problem
    is solved again (Park 1991; Gower & Dijksterhuis 2004, section 5.3.2): no step increases the
    error. ``cross`` = X'Y (r, D), ``gramian_x`` = X'X (r, r); an iteration costs one (r, r) svd.
    """
    D = cross.shape[1]
    P, s, Zh = linalg.svd(cross, full_matrices=True)
    Q, complement = P[:, :D] @ Zh, P[:, D:]
    size = float(np.trace(gramian_x))
    best = _unbalanced_error(Q, gramian_x, cross)

    for _ in range(_MOST_ITERATIONS):
        P, _, Wh = linalg.svd(np.hstack([cross, gramian_x @ complement]))
        full = P @ Wh
        error = _unbalanced_error(full[:, :D], gramian_x, cross)
        if not error < best - _SETTLED * size:
            break
        Q, complement, best = full[:, :D], full[:, D:], error
    return Rotation(Q, s, Zh)


def _unbalanced_error(Q: Matrix, gramian_x: Matrix, cross: Matrix) -> float:
    """|X Q - Y|^2 less |Y|^2, which does not depend on Q."""
    return float(np.sum((gramian_x @ Q) * Q) - 2 * np.sum(cross * Q))


_ERROR_FLOOR, _GAP_FLOOR, _NUCLEAR_FLOOR = 6e-8, 6e-8, 2e-4
"""Floors of the three formulas in float64, relative to |X| (for the Gram gap: to |XX'|). Of equal
tables up to 3.3e-8 was seen (1 to 32 components, 100 to 50,000 rows).
"""
_EMPTY = 1e-9
"""Where this share of the energy is left besides the means, nothing is."""
_WIDE = 256
"""Components from which on the nuclear bound is of a matrix half as large."""
_NEAREST = 1e-9
_KRYLOV, _MOST_STEPS, _RESIDUAL, _CLOSE = 128, 89, 1e-4, 1e-6
"""Order from which on the largest eigenvalue is looked for in a Krylov space, and of how many
vectors at most; the residual, over the value, that ends it, and what the value is raised by.
"""
_NOT_NEAREST = (
    "the bounds hold for the nearest orthogonal matrix, and the rotation is another: rotation_only"
    " leaves out mirrors, or other rows decided it too"
)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Distance between rotated rows X and reference rows Y.

    ``error`` = |X - Y| exactly, ``relative_error`` over |Y|, ``gram_gap`` eps = |XX' - YY'|,
    ``bound`` the paper's (2d)^1/4 sqrt(eps), ``nuclear_bound`` sqrt(|XX' - YY'|_*) (of 256
    components and more sqrt(|(X - Y)(X + Y)'|_*), a few percent larger, more only near rounding),
    ``lower_bound`` eps / (s1(X) + s1(Y)). The upper bounds hold where no orthogonal matrix brings X
    nearer to Y; elsewhere they are None, and ``bound_reason`` says why.
    """

    error: float
    relative_error: float
    gram_gap: float
    lower_bound: float
    bound: float | None
    nuclear_bound: float | None
    bound_reason: str | None
    at_rounding: tuple[str, ...]


def alignment(
    gramian_x: Matrix, gramian_y: Matrix, cross: Matrix, *, nuclear_norm: float | None = None
) -> Alignment:
    """Exact error and all bounds from G_x (k, k), G_y (k, k) and C = X'Y (k, k), whose
    ``nuclear_norm`` is given where an svd has told it already.
    """
    # Squares of Gramians overflow early: all is of tables of a size near 1.
    scale = power_near(max(float(np.trace(gramian_x)), float(np.trace(gramian_y))))
    gramian_x, gramian_y, cross = (M * scale * scale for M in (gramian_x, gramian_y, cross))
    size_x, size_y = np.sqrt(np.trace(gramian_x)), np.sqrt(np.trace(gramian_y))
    size = max(size_x, size_y)
    error = _root(np.trace(gramian_x) + np.trace(gramian_y) - 2 * np.trace(cross))
    gap = _root(np.sum(gramian_x**2) + np.sum(gramian_y**2) - 2 * np.sum(cross**2))
    nuclear = _root(_nuclear_gap(gramian_x, gramian_y, cross))
    floors = {
        "error": (error, _ERROR_FLOOR * size),
        "gram_gap": (gap, _GAP_FLOOR * size**2),
        "nuclear_bound": (nuclear, _NUCLEAR_FLOOR * size),
    }
    noise = tuple(name for name, (value, floor) in floors.items() if value <= floor)
    # A bound may not be rounded down: both are raised by their own rounding, and by what is known
    # to lie below them.
    bound = max(
        float((2 * len(gramian_x)) ** 0.25 * np.sqrt(np.hypot(gap, floors["gram_gap"][1]))), error
    )
    nuclear = max(nuclear, floors["nuclear_bound"][1], error)
    # Nor may a lower bound be rounded up.
    least_gap = _root(gap**2 - floors["gram_gap"][1] ** 2)
    error, gap = (0.0 if name in noise else floors[name][0] for name in ("error", "gram_gap"))
    # X is as near as it can be turned where C is symmetric and positive semidefinite: its trace is
    # its nuclear norm.
    if nuclear_norm is None:
        nuclear_norm = float(np.linalg.svd(cross, compute_uv=False).sum())
    else:
        nuclear_norm *= scale * scale
    nearest = float(np.trace(cross)) >= (1 - _NEAREST) * nuclear_norm
    steepest = np.sqrt(_largest(gramian_x)) + np.sqrt(_largest(gramian_y))
    return Alignment(
        error=error / scale,
        relative_error=error / float(size_y) if size_y else 0.0,
        gram_gap=gap / scale / scale,
        lower_bound=least_gap / float(steepest) / scale if steepest else 0.0,
        bound=bound / scale if nearest else None,
        nuclear_bound=nuclear / scale if nearest else None,
        bound_reason=None if nearest else _NOT_NEAREST,
        at_rounding=noise,
    )


@dataclass(frozen=True, slots=True)
class Chance:
    """What unrelated rows would give: about this relative ``error``.

    ``beyond`` is the agreement of X and Y beyond that: 1 where X is Y, 0 where they are as near as
    unrelated rows.
    """

    error: float
    beyond: float


def chance(
    gramian_x: Matrix,
    gramian_y: Matrix,
    cross: Matrix,
    leading: Matrix,
    *,
    rank: int,
    n_pairs: float,
) -> Chance | None:
    """From G_x, G_y and C = X'Y (k, k) of rotated rows and their reference rows; None where these
    are too few to tell.

    The cross-product of rows that have nothing to do with each other is that of their means, of
    rank one, and beyond it one of random entries: C = G_x^1/2 Z G_y^1/2 / sqrt(n) with a Z of
    standard normals. A rotation gathers its nuclear norm on the diagonal: of rank k it is about 8 /
    (3 pi) sqrt(k / n) |X| |Y| (Marchenko & Pastur 1967; less where the spectrum falls off), give or
    take 0.6 / sqrt(k n) |X| |Y|, of which twice is allowed for.

    ``leading`` (m, k) are the directions that means may account for: they are taken out of both
    tables first. ``rank`` counts the directions that C determines, ``n_pairs`` the pairs (weighted
    ones by their effective number).
    """
    free = rank - len(leading)
    along_x, along_y, along = (
        np.trace(leading @ M @ leading.T) for M in (gramian_x, gramian_y, cross)
    )
    size = float(
        np.sqrt(max(np.trace(gramian_x) - along_x, 0.0) * max(np.trace(gramian_y) - along_y, 0.0))
    )
    whole = float(np.trace(gramian_x) + np.trace(gramian_y))
    if free < 1 or not size > _EMPTY * whole:
        return None

    expected = (8 / (3 * np.pi) * np.sqrt(free) + 1.2 / np.sqrt(free)) / np.sqrt(n_pairs)
    if not expected < 1.0:
        return None
    error = _root(whole - 2 * float(along) - 2 * expected * size) / np.sqrt(np.trace(gramian_y))
    agreement = (float(np.trace(cross)) - float(along)) / size
    return Chance(float(error), float((agreement - expected) / (1.0 - expected)))


def _nuclear_gap(gramian_x: Matrix, gramian_y: Matrix, cross: Matrix) -> float:
    """|XX' - YY'|_* = |R diag(I, -I) R'|_* for any R with R'R = [X Y]'[X Y]: the same eigenvalues,
    and symmetric. Of `_WIDE` tables something little larger, in a sixth of the time.

    (The design reads them off diag(I, -I) [X Y]'[X Y], which is not symmetric: ten times the work,
    and less accurate.)
    """
    if len(gramian_x) >= _WIDE:
        least = _wide_nuclear_gap(gramian_x, gramian_y, cross)
        if least is not None:
            return least
    ours, rest = lapack.dpotrf(gramian_x)
    if not rest:
        # The Cholesky factor of [X Y]'[X Y] by its blocks: [[ours, both], [0, theirs]].
        both = linalg.solve_triangular(ours, cross, trans="T", check_finite=False)
        theirs, rest = lapack.dpotrf(gramian_y - both.T @ both)
    if rest:  # indefinite to rounding: the rows of one are combinations of the other's
        return _semidefinite_nuclear_gap(gramian_x, gramian_y, cross)
    k = len(gramian_x)
    between = np.zeros((2 * k, 2 * k))  # only the lower triangle is looked at
    between[:k, :k] = ours @ ours.T - both @ both.T
    between[k:, :k] = -theirs @ both.T
    between[k:, k:] = -theirs @ theirs.T
    return float(np.abs(np.linalg.eigvalsh(between)).sum())


def _wide_nuclear_gap(gramian_x: Matrix, gramian_y: Matrix, cross: Matrix) -> float | None:
    """|(X - Y)(X + Y)'|_*, of which XX' - YY' is the symmetric part: at least |XX' - YY'|_*, and at
    most (2 k)^1/2 |XX' - YY'| where C is symmetric; None where [X + Y] has no Cholesky factor.

    It is the sum of the square roots of the eigenvalues of R (X - Y)'(X - Y) R', R'R = (X + Y)'(X +
    Y). Rounding of each is allowed for.
    """
    both = cross + cross.T
    R, indefinite = lapack.dpotrf(gramian_x + gramian_y + both)
    if indefinite:
        return None
    squares = np.linalg.eigvalsh(R @ (gramian_x + gramian_y - both) @ R.T)
    rounding = len(squares) * np.sqrt(8 * EPS * max(float(squares[-1]), 0.0))
    return float(np.sqrt(np.maximum(squares, 0.0)).sum() + rounding)


def _semidefinite_nuclear_gap(gramian_x: Matrix, gramian_y: Matrix, cross: Matrix) -> float:
    """The same of an R that is found with pivots."""
    joint, k = np.block([[gramian_x, cross], [cross.T, gramian_y]]), len(gramian_x)
    factor, pivots, rank, _ = lapack.dpstrf(joint)
    R = np.triu(factor)[:rank]
    ours, theirs = R[:, pivots <= k], R[:, pivots > k]
    return float(np.abs(np.linalg.eigvalsh(ours @ ours.T - theirs @ theirs.T)).sum())


def _largest(gramian: Matrix) -> float:
    """The largest eigenvalue of a positive semidefinite matrix: of many, that of a few Krylov
    vectors, if a Cholesky factorization proves that none is larger.
    """
    if len(gramian) >= _KRYLOV:
        raised = (1 + _CLOSE) * _ritz_value(gramian)
        if not lapack.dpotrf(raised * np.eye(len(gramian)) - gramian)[1]:
            return raised
    return max(float(np.linalg.eigvalsh(gramian)[-1]), 0.0)


def _ritz_value(gramian: Matrix) -> float:
    """The largest of the Krylov space of the longest column (Lanczos, orthogonalized in full)."""
    basis = np.empty((_MOST_STEPS, len(gramian)))
    T = np.zeros((_MOST_STEPS, _MOST_STEPS))
    image, value = gramian[np.diag(gramian).argmax()], 0.0
    for step in range(_MOST_STEPS):
        for _ in range(2):
            image = image - (basis[:step] @ image) @ basis[:step]
        length = float(np.linalg.norm(image))
        if step and not step % 8:
            values, vectors = np.linalg.eigh(T[:step, :step])
            value = float(values[-1])
            if length * abs(vectors[-1, -1]) <= _RESIDUAL * value:
                break
        basis[step] = image / length if length else 0.0
        image = gramian @ basis[step]
        T[step, : step + 1] = basis[: step + 1] @ image
    return value


def power_near(square: float) -> float:
    """A power of two that brings tables of this sum of squares to a size near 1."""
    _, exponent = np.frexp(square)
    return float(np.ldexp(1.0, -int(exponent) // 2))


def _root(square: float) -> float:
    return float(np.sqrt(max(square, 0.0)))
