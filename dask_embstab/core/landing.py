"""From moments and roots to a transform: the paper, one step per function.

Scores mode: standardize both tables, share out the free scalar, rotate onto the reference. Geometry mode (Maystre et
al., arXiv 2510.13406): only the rotation, optionally centred, so that every cosine and distance stays.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from dask_embstab.core.alignment import alignment
from dask_embstab.core.errors import EmbstabWarning, InputError
from dask_embstab.core.moments import Moments, Pairs
from dask_embstab.core.procrustes import procrustes
from dask_embstab.core.root import Root
from dask_embstab.core.standardize import balance_factor, standardize
from dask_embstab.core.transform import Transform
from dask_embstab.core.types import Matrix, Vector

Keep = Literal["scores", "geometry"]
AlignOn = Literal["items", "users", "both"]

_FREE = 1e-10
"""A singular value of the cross-product below this share of the first leaves its direction free."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Both matrices before the rotation, (d, r), with the balance in them."""

    items: Matrix
    users: Matrix | None
    singular_values: Vector
    discarded: Vector
    balance: str | None
    factor: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where the run shall land: ``width`` components, aligned on which table, and what the user demands of it."""

    width: int
    align_on: AlignOn
    center: bool = False
    proper: bool = False
    min_matched: int | None = None


def scores_basis(items: Root, users: Root, n_items: int, n_users: int, *, rank: int | None, balance: str) -> Basis:
    """Steps 1 and 2: matrices that keep every score, with the free scalar shared out."""
    frame = standardize(items, users, rank=rank)
    factor = balance_factor(balance, n_items, n_users)
    return Basis(frame.items * factor, frame.users / factor, frame.singular_values, frame.discarded, balance, factor)


def geometry_basis(items: Moments, *, with_users: bool) -> Basis:
    """The identity for both tables: every length and angle stays; the spectrum is that of the items table."""
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(items.gramian)[::-1], 0.0))
    identity = np.eye(items.d)
    return Basis(identity, identity if with_users else None, s, np.zeros(0), None, 1.0)


def landed_pairs(basis: Basis, items: Pairs | None, users: Pairs | None) -> Pairs:
    """The pairs that the alignment uses, in the basis: sums over one table, or over both stacked."""
    parts = [
        _in_basis(pairs, M)
        for pairs, M in ((items, basis.items), (users, basis.users))
        if pairs is not None and M is not None
    ]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def unrotated(basis: Basis, target: Target, items: Moments) -> tuple[Transform, dict[str, Any]]:
    """A first run: nothing to land on; zero-filled to the target's width."""
    M_items = _padded(basis.items, target.width)
    M_users = None if basis.users is None else _padded(basis.users, target.width)
    offset = None
    if target.center:
        total = items.total
        assert total is not None, "a centred fit reduces the sums of the rows"
        offset = -(total / items.n) @ M_items
    return Transform(M_items, M_users, basis.singular_values, offset), {"alignment": None}


def rotated(basis: Basis, target: Target, pairs: Pairs) -> tuple[Transform, dict[str, Any]]:
    """Step 3: onto the reference by the rotation of algorithm 2; one Q for both tables."""
    r = basis.items.shape[1]
    _require_matched(pairs.n, r, target, scores=basis.balance is not None)
    used = pairs.centred() if target.center else pairs
    cross = _padded(used.cross, target.width)
    rotation = procrustes(cross, proper=target.proper)
    Q = rotation.Q
    free = int(np.sum(np.abs(rotation.singular_values) <= _FREE * rotation.singular_values[0]))
    if free:
        _warn_free(free, r, pairs.n)
    gramian_y = _padded(_padded(used.gramian_y, target.width).T, target.width)
    figures = alignment(Q.T @ used.gramian_x @ Q, gramian_y, Q.T @ cross)
    offset = None
    if target.center:
        mean_y = _padded(pairs.sum_y[None], target.width)[0] / pairs.weight
        offset = mean_y - (pairs.sum_x / pairs.weight) @ Q
    on_items, on_users = target.align_on in ("items", "both"), target.align_on in ("users", "both")
    transform = Transform(
        basis.items @ Q,
        None if basis.users is None else basis.users @ Q,
        basis.singular_values,
        offset if on_items else None,
        offset if on_users else None,
    )
    return transform, {
        "alignment": {
            **asdict(figures),
            "at_rounding": list(figures.at_rounding),
            "on": target.align_on,
            "rows": pairs.n,
            "procrustes_gap": rotation.gap,
            "free_directions": free,
        }
    }


def _in_basis(pairs: Pairs, M: Matrix) -> Pairs:
    return replace(pairs, gramian_x=M.T @ pairs.gramian_x @ M, cross=M.T @ pairs.cross, sum_x=pairs.sum_x @ M)


def _padded(M: Matrix, width: int) -> Matrix:
    """``M`` with columns of zeros up to ``width``."""
    return np.pad(M, ((0, 0), (0, width - M.shape[1])))


def _require_matched(matched: int, r: int, target: Target, *, scores: bool) -> None:
    floor = target.min_matched if target.min_matched is not None else (r if scores else 1)
    if matched < floor:
        raise InputError(
            f"aligning {r} components needs at least {floor} rows whose id the reference also has; {matched} are shared."
            " Check that both runs use the same ids, or lower min_matched= to accept a rotation with free directions"
        )


def _warn_free(free: int, r: int, matched: int) -> None:
    warnings.warn(
        f"the {matched} matched rows determine {r - free} of {r} directions; {free} are free and land as the arithmetic"
        " happens to leave them. Match more rows, or set min_matched= to refuse this",
        EmbstabWarning,
        stacklevel=3,
    )
