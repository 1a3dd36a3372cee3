"""Which rows of a table must a store rewrite that has an earlier version of it?

Rows whose id is new, and those of which any bit differs, as they are written (in the exported
dtype); of these, where a least move is asked for, the ones that moved by more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dask_embstab.core.types import Rows, Vector
from dask_embstab.passes.engine.paired import Mask, PartnerRows

MovedBy = Literal["cosine", "distance"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What counts as a change of rows that are written in ``dtype``: other bits, and a move of
    ``more_than`` where it is given.
    """

    dtype: np.dtype[Any]
    more_than: float | None = None
    by: MovedBy = "cosine"

    def select(self, rows: Rows, partners: PartnerRows) -> tuple[Mask, Counter[str]]:
        """Which of these rows (in ``dtype``) are written, by their old rows; and how many there are
        of each kind.
        """
        kept = np.ones(len(rows), bool)
        if partners is None:
            return kept, Counter(new=len(rows))
        stored, matched = partners
        numbers = np.arange(len(rows)) if matched is None else np.flatnonzero(matched)
        new, old = rows[numbers], stored.astype(self.dtype, copy=False)
        differs = _differ(new, old)
        moved = differs.copy()
        if self.more_than is not None and differs.any():
            width = max(new.shape[1], old.shape[1])
            pair = (_doubles(side[differs], width) for side in (new, old))
            moved[differs] = _moves(*pair, by=self.by) > self.more_than
        kept[numbers] = moved
        n_changed, n_moved = int(differs.sum()), int(moved.sum())
        return kept, Counter(
            new=len(rows) - len(numbers),
            changed=n_moved,
            moved_less=n_changed - n_moved,
            unchanged=len(numbers) - n_changed,
        )


def _differ(a: Rows, b: Rows) -> Mask:
    """Whether any bit does, row by row; rows of another width do."""
    if a.shape[1] != b.shape[1]:
        return np.ones(len(a), bool)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    sides = (np.ascontiguousarray(side, side.dtype.newbyteorder("=")).view(bits) for side in (a, b))
    differing: Mask = np.not_equal(*sides).any(axis=1)
    return differing


def _doubles(rows: Rows, width: int) -> Rows:
    """In float64, with zeros behind narrower rows: the spaces of one series lie so."""
    return np.pad(rows.astype(np.float64), ((0, 0), (0, width - rows.shape[1])))


def _moves(a: Rows, b: Rows, *, by: MovedBy) -> Vector:
    """One minus the cosine, infinite where a row is zero; or the length of the difference."""
    if by == "distance":
        return np.asarray(np.linalg.norm(a - b, axis=1))
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    known = (lengths[0] > 0) & (lengths[1] > 0)
    moves = np.full(len(a), np.inf)
    unit = (side[known] / length[known, None] for side, length in zip((a, b), lengths, strict=True))
    # Half the squared distance of unit rows: exact to rounding where the cosine is near one.
    moves[known] = np.square(np.subtract(*unit)).sum(axis=1) / 2
    return moves
