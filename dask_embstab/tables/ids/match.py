"""Which records of two sides have one id? A sort of the keys on either side, and the texts compared
where keys are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.ids.keys import Keyed, chosen, sorted_keys, stable_order

_NAMED = 5
"""Offenders that a message names."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows whose id an earlier row of the same table has: how many, and the first few."""

    n: int = 0
    rows: tuple[int, ...] = ()

    def __add__(self, other: Duplicates) -> Duplicates:
        """Of both parts of a table."""
        return Duplicates(self.n + other.n, tuple(sorted(self.rows + other.rows)[:_NAMED]))

    @classmethod
    def of(cls, rows: Iterable[int]) -> Duplicates:
        """Of these rows."""
        listed = sorted(int(row) for row in rows)
        return cls(len(listed), tuple(listed[:_NAMED]))


@dataclass(frozen=True, slots=True)
class Matched:
    """Rows with one id, side by side, and what was found twice on either side (the first row
    counts).
    """

    ours: RowNumbers
    theirs: RowNumbers
    our_duplicates: Duplicates
    their_duplicates: Duplicates


def match(ours: Keyed, theirs: Keyed) -> Matched:
    """Pairs of records with one id."""
    matched = _by_key(ours, theirs)
    if matched is not None:
        return matched

    # By the texts themselves: exact whatever their keys, and slow.
    our_rows, our_again = _rows_by_text(ours)
    their_rows, their_again = _rows_by_text(theirs)
    pairs = [(row, their_rows[text]) for text, row in our_rows.items() if text in their_rows]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return Matched(both[:, 0], both[:, 1], Duplicates.of(our_again), Duplicates.of(their_again))


def distinct(records: Keyed) -> tuple[Keyed, Duplicates]:
    """The first record of every id, in row order; of texts with one key that differ, all."""
    order = stable_order(records.key)
    again = order[1:][_repeats(records, order)]
    kept = np.ones(len(records), bool)
    kept[again] = False
    return chosen(records, np.flatnonzero(kept)), Duplicates.of(records.row[again])


def _repeats(records: Keyed, order: RowNumbers) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the sorted records (from the second on) have the id of the one before."""
    keys = records.key[order]
    same: np.ndarray[tuple[int], np.dtype[np.bool_]] = keys[1:] == keys[:-1]
    if records.texts is not None:
        texts = records.texts
        for at in np.flatnonzero(same):
            same[at] = texts.at(int(order[at])) == texts.at(int(order[at + 1]))
    return same


def _by_key(ours: Keyed, theirs: Keyed) -> Matched | None:
    """The join by keys alone; None where two texts share a key."""
    n = len(ours)
    order, keys = sorted_keys(np.concatenate([ours.key, theirs.key]))
    same = np.flatnonzero(keys[1:] == keys[:-1])
    a, b = order[same], order[same + 1]
    if not ((a < n) & (b >= n)).all():  # some are repeated
        return _firsts_by_key(ours, theirs)
    # In the order of our rows, so that one side at least is read in order.
    by_row = stable_order(a)
    a, b = a[by_row], b[by_row] - n
    if not _are_equal(ours, a, theirs, b):
        return None
    return Matched(ours.row[a], theirs.row[b], Duplicates(), Duplicates())


def _are_equal(ours: Keyed, a: RowNumbers, theirs: Keyed, b: RowNumbers) -> bool:
    """Whether records that share a key share their text."""
    if ours.texts is None or theirs.texts is None:
        return True
    return ours.texts.equal_at(a, theirs.texts, b)


def _firsts_by_key(ours: Keyed, theirs: Keyed) -> Matched | None:
    """The same where ids are repeated: the first of each counts."""
    our_order, our_again = _firsts(ours)
    their_order, their_again = _firsts(theirs)
    if our_order is None or their_order is None:
        return None

    wanted, known = ours.key[our_order], theirs.key[their_order]
    at = np.searchsorted(known, wanted)
    hit = np.flatnonzero(at < len(known))
    hit = hit[known[at[hit]] == wanted[hit]]
    a, b = our_order[hit], their_order[at[hit]]
    if not _are_equal(ours, a, theirs, b):
        return None
    return Matched(ours.row[a], theirs.row[b], Duplicates.of(our_again), Duplicates.of(their_again))


def _firsts(records: Keyed) -> tuple[RowNumbers | None, RowNumbers]:
    """Positions in the order of keys, each id once, and the rows left out; None where two texts
    share a key.
    """
    order = stable_order(records.key)
    keys = records.key[order]
    again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    if not _are_equal(records, order[again - 1], records, order[again]):
        return None, again
    return (np.delete(order, again) if len(again) else order), records.row[order[again]]


def _rows_by_text(records: Keyed) -> tuple[dict[bytes, int], list[int]]:
    assert records.texts is not None, "keys without texts are exact"
    rows: dict[bytes, int] = {}
    again = []
    for i, row in enumerate(records.row.tolist()):
        if rows.setdefault(records.texts.at(i), row) != row:
            again.append(row)
    return rows, again
