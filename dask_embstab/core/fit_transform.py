"""From moments and roots to a transform: the paper, one step per function.

Scores mode: standardize both tables, share out the free scalar, rotate onto the reference. Geometry
mode (Maystre et al., arXiv 2510.13406): only the rotation, optionally centred, so that every cosine
and distance stays.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from dask_embstab.core.error_bounds import certificates
from dask_embstab.core.moments import Moments, Pairs
from dask_embstab.core.procrustes import FREE, Rotation, alignment, chance, narrowing, procrustes
from dask_embstab.core.square_root import Root
from dask_embstab.core.standardize import balance_factor, standardize
from dask_embstab.core.types import Matrix, Vector
from dask_embstab.errors import EmbstabWarning, InputError, TooFewMatchedError
from dask_embstab.repairs import option

Keep = Literal["scores", "geometry"]
AlignOn = Literal["items", "users", "both"]

_LEAST_SHARE, _LEAST_ROWS = 10, 4
"""A fit needs one in 10 rows of the smaller table, and to keep scores 4 rows per component."""
AT_CHANCE = 0.05
"""An alignment whose agreement beyond that of unrelated rows is less than this is none."""
_WEAK = 1e-3
"""A column with a certificate beyond this is called weakly determined (its singular value is one of
a cluster).
"""


@dataclass(frozen=True, slots=True)
class Basis:
    """Both matrices before the rotation, (d, r), with the balance in them.

    ``certificates`` are the columns' error bounds, items' and users' (scores mode; before the
    rotation mixes them).
    """

    items: Matrix
    users: Matrix | None
    singular_values: Vector
    discarded: Vector
    balance: str | None
    factor: float
    certificates: tuple[Vector, Vector] | None = None


class FittedMatrices(NamedTuple):
    """What a fit finds: ``items`` and ``users`` (d, k), the singular values, and offsets (k,) where
    it was centred; row vectors, y = x @ M + offset.
    """

    items: Matrix
    users: Matrix | None
    singular_values: Vector
    items_offset: Vector | None = None
    users_offset: Vector | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What the run is aligned to, and what the user requires of it.

    ``width`` components; aligned on the tables ``on``; ``proper`` allows rotations only; at least
    ``min_matched`` shared rows (default: 10 % of the ``smaller`` table and, where scores are kept,
    4 rows per component), of which there are ``matched`` before any selection, of ``shared`` with
    rows of zeros. ``others`` are the tables of both runs that could be aligned on instead. Where a
    list of pairs says which rows those are, its pairs are counted (``listed``).
    """

    width: int
    on: tuple[str, ...] = ()
    center: bool = False
    proper: bool = False
    unit_rows: bool = False
    min_matched: int | None = None
    matched: int = 0
    shared: int = 0
    smaller: int = 0
    max_lost_energy: float = 0.5
    others: tuple[str, ...] = ()
    listed: bool = False


def scores_basis(
    items: Root, users: Root, n_items: int, n_users: int, *, rank: int | None, balance: str
) -> Basis:
    """Steps 1 and 2: matrices that keep every score, with the free scalar shared out."""
    full = standardize(items, users)
    frame = full.truncated(rank)
    c = balance_factor(balance, n_items, n_users)
    # What is cut off disturbs what is kept, so the bounds are those of the whole frame.
    ours, theirs = certificates(full, items, users)
    bounds = ours[: len(frame.singular_values)], theirs[: len(frame.singular_values)]
    return Basis(
        frame.items * c, frame.users / c, frame.singular_values, frame.discarded, balance, c, bounds
    )


def geometry_basis(items: Moments, *, with_users: bool) -> Basis:
    """The identity for both tables: every length and angle stays; the spectrum is that of the items
    table.
    """
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(items.gramian)[::-1], 0.0))
    identity = np.eye(items.d)
    return Basis(identity, identity if with_users else None, s, np.zeros(0), None, 1.0)


def unrotated(
    basis: Basis, target: Target, items: Moments
) -> tuple[FittedMatrices, dict[str, Any]]:
    """A first run: there is no reference; zero-filled to the target's width."""
    M_items = _padded(basis.items, target.width)
    M_users = None if basis.users is None else _padded(basis.users, target.width)
    offset = None
    if target.center:
        assert items.total is not None, "a centred fit reduces the sums of the rows"
        offset = -(items.total / items.n_nonzero) @ M_items

    weak = (
        [] if basis.certificates is None else np.flatnonzero(basis.certificates[0] > _WEAK).tolist()
    )
    figures = {"alignment": None, "weakly_determined_components": weak}
    return FittedMatrices(M_items, M_users, basis.singular_values, offset), figures


def rotated(
    basis: Basis, target: Target, pairs: Pairs, means: Pairs | None = None
) -> tuple[FittedMatrices, dict[str, Any]]:
    """Step 3: onto the reference by the rotation of algorithm 2; one Q for both tables.

    ``pairs`` decide the rotation; a centred fit takes its offset from the sums in ``means``
    (default: of ``pairs``).
    """
    r, d = basis.items.shape[1], len(basis.items)
    require_matched(d, target, scores=basis.balance is not None)
    used, rotation = rotation_of(target, pairs)
    Q = rotation.Q
    cross = Q.T @ _padded(used.cross, target.width)
    free = rotation.free_directions
    # In a reference that is narrower than the run, what is padded with zeros is free by
    # construction.
    if free > max(0, r - len(used.gramian_y)):
        _warn_free(free, r, pairs.n, rotation.weak_components(FREE))
    gramian_y = _padded(_padded(used.gramian_y, target.width).T, target.width)
    gramian_x = Q.T @ used.gramian_x @ Q
    # A rotation from the left changes no singular value.
    norm = float(np.abs(rotation.singular_values).sum()) if r <= target.width else None
    figures = alignment(gramian_x, gramian_y, cross, nuclear_norm=norm)
    # The rows of every table have a mean of their own, unless a centred fit took it away.
    leading = rotation.Zh[: 0 if target.center else len(target.on)]
    by_chance = chance(
        gramian_x,
        gramian_y,
        cross,
        leading,
        rank=min(used.cross.shape) - free,
        n_pairs=pairs.n_effective,
    )
    if by_chance is not None and by_chance.beyond < AT_CHANCE:
        _warn_at_chance(figures.relative_error, by_chance.error)
    lost = _lost_energy(gramian_x, used.gramian_x, target) if r > target.width else 0.0
    offset = _offset(means or pairs, Q, target.width) if target.center else None
    matrices = FittedMatrices(
        basis.items @ Q,
        None if basis.users is None else basis.users @ Q,
        basis.singular_values,
        offset if "items" in target.on else None,
        offset if "users" in target.on else None,
    )
    return matrices, {
        "alignment": {
            **asdict(figures),
            "at_rounding": list(figures.at_rounding),
            "on": list(target.on),
            "unit_rows": target.unit_rows,
            "rows": pairs.n,
            "procrustes_gap": rotation.gap,
            "determinant": float(np.sign(np.linalg.det(Q))) if r == target.width else None,
            "free_directions": free,
            "lost_energy": lost,
            "chance_error": None if by_chance is None else by_chance.error,
            "beyond_chance": None if by_chance is None else by_chance.beyond,
        },
        "weakly_determined_components": rotation.weak_components(),
    }


def rotation_of(target: Target, pairs: Pairs) -> tuple[Pairs, Rotation]:
    """The sums that decide the rotation, scaled to a mean weight of one, and the rotation."""
    pairs = pairs.times(pairs.n / pairs.weight)  # a common factor on the weights changes nothing
    used = pairs.centred() if target.center else pairs
    if len(used.cross) > target.width:
        return used, narrowing(_padded(used.cross, target.width), used.gramian_x)
    return used, procrustes(_padded(used.cross, target.width), proper=target.proper)


def require_matched(d: int, target: Target, *, scores: bool) -> None:
    """Raise where fewer rows are shared than the user, the mode, or the tables' sizes demand.

    What the ids alone can tell is asked first, with rows of zeros among the shared ones: so a fit
    is refused by the same numbers before a read, after it, and of moments. Rows of zeros determine
    no direction: neither ``matched`` nor ``smaller`` counts them.
    """
    least = target.min_matched or max(1, _LEAST_ROWS * d if scores else 0)
    if target.shared < least:
        raise _too_few(d, target, least, target.shared)
    if target.min_matched is None:
        least = max(least, -(-target.smaller // _LEAST_SHARE))
    if target.matched < least:
        raise _too_few(d, target, least, target.matched)


def _too_few(d: int, target: Target, least: int, n: int) -> TooFewMatchedError:
    shortage = (
        f"{least} listed pairs, not of rows of zeros, with an id of run and of reference; {n} of"
        " the list are; list more pairs"
        if target.listed
        else f"{least} rows, not of zeros alone, whose id the reference also has; {n} are shared;"
        " check that both runs use the same ids"
    )
    return TooFewMatchedError(
        f"aligning {d} components needs at least {shortage}",
        *(f"{option(align_on=key)} aligns on the {key} that both have" for key in target.others),
        f"{option(min_matched=max(1, n))} accepts a rotation with free directions",
    )


def _offset(pairs: Pairs, Q: Matrix, width: int) -> Vector:
    mean_x, mean_y = (total / pairs.weight for total in pairs.sums)
    return np.asarray(_padded(mean_y[None], width)[0] - mean_x @ Q)


def _lost_energy(kept: Matrix, whole: Matrix, target: Target) -> float:
    """Share of the aligned rows' energy that a narrower space cannot hold; raises beyond what is
    allowed.
    """
    lost = 1.0 - float(np.trace(kept) / np.trace(whole))
    if lost > target.max_lost_energy:
        raise InputError(
            f"{target.width} of {len(whole)} components keep {1 - lost:.1%} of the aligned rows'"
            f" energy, and at most {target.max_lost_energy:.1%} may be lost",
            f"a larger {option('width')} keeps more",
            f"{option(max_lost_energy=math.ceil(1000 * lost) / 1000)} accepts the loss",
        )
    return lost


def _padded(M: Matrix, width: int) -> Matrix:
    """``M`` with columns of zeros up to ``width``."""
    return np.pad(M, ((0, 0), (0, width - M.shape[1])))


def _warn_at_chance(error: float, unrelated: float) -> None:
    warnings.warn(
        "the rows agree with their reference rows no better than unrelated rows would: the"
        f" relative error is {error:.3g}, and unrelated rows would give about {unrelated:.3g}."
        " Likely causes: the rows of one side are in another order (without ids row i belongs to"
        " row i), the ids of one side name other rows, or the reference is of another model",
        EmbstabWarning,
        stacklevel=3,
    )


def _warn_free(free: int, r: int, matched: int, components: list[int]) -> None:
    warning = EmbstabWarning(
        f"the {matched} matched rows determine {r - free} of {r} directions; {free} are free and"
        " are left to rounding, mostly in components"
        f" {', '.join(map(str, components))}; match more rows",
        f"{option(min_matched=matched + 1)} refuses such a fit",
    )
    warnings.warn(warning, stacklevel=3)
