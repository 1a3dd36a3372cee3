"""A table without some of its rows: the rows that remain, in their order, read through the passes.

Which rows leave is held in memory, (k,) row numbers; everything else is read a bounded number of
rows at a time, whatever k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.ids.ids import IdBlock, Ids
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.read.views import View, ViewReader, view_block
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Remaining:
    """Rows 0 to ``n`` but for those in ``removed``, which are distinct and ascend; they are
    numbered anew.

    Of a ``part`` of them, ``removed`` are those in the part alone, and ``earlier`` counts those
    before it.
    """

    n: int
    removed: RowNumbers
    earlier: int = 0

    def __len__(self) -> int:
        """Rows that remain."""
        return self.n - len(self.removed)

    def part(self, start: int, stop: int) -> Remaining:
        """What a task needs to know for the remaining rows ``start`` to ``stop``."""
        low, high = np.searchsorted(self.removed, self.spans(start, stop))
        return Remaining(self.n, self.removed[low:high].copy(), self.earlier + int(low))

    def before(self, rows: RowNumbers) -> RowNumbers:
        """The old numbers of remaining rows."""
        # Remaining row i has as many rows that are gone before it as there are g_j with g_j - j <=
        # i.
        later = self.removed - np.arange(self.earlier, self.earlier + len(self.removed))
        stored_rows: RowNumbers = rows + self.earlier + np.searchsorted(later, rows, side="right")
        return stored_rows

    def now(self, rows: RowNumbers) -> RowNumbers:
        """The new numbers of old ones, without those of rows that are gone."""
        left = np.setdiff1d(rows, self.removed, assume_unique=True)
        left_rows: RowNumbers = left - np.searchsorted(self.removed, left)
        return left_rows

    def spans(self, start: int, stop: int) -> tuple[int, int]:
        """Old rows that hold the remaining rows ``start`` to ``stop``: a span goes on where the one
        before it ended.
        """
        first, last = self.before(np.array([max(start - 1, 0), stop - 1])) + 1
        return (int(first) if start else 0), int(last)

    def of(self, take: Callable[[int, int], Any], start: int, stop: int) -> Any:
        """The remaining ones of what ``take(first, last)`` gives, in pieces of at most ``stop -
        start`` old rows.
        """
        first, last = self.spans(start, stop)
        pieces = []
        for at in range(first, last, stop - start):
            end = min(at + stop - start, last)
            low, high = np.searchsorted(self.removed, [at, end])
            pieces.append(np.delete(take(at, end), self.removed[low:high] - at, axis=0))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True, slots=True)
class RemainingSource(View):
    """The vectors of the rows that remain of ``source``."""

    rows: Remaining

    @property
    def array(self) -> Any:
        """A lazy view that slices."""
        return RemainingColumn(self.source.array, self.rows, self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows that remain, d)."""
        return len(self.rows), self.source.shape[1]

    def block(self, start: int, stop: int) -> Any:
        """A block of these rows: one of the source that spans them."""
        spanning = self.source.block(*self.rows.spans(start, stop))
        return view_block(partial(_Reader, self.rows.part(start, stop)), spanning)

    def gather(self, rows: RowNumbers) -> Any:
        """These rows."""
        return self.source.gather(self.rows.before(rows))


class _Reader(ViewReader):
    def __init__(self, rows: Remaining, reader: Any) -> None:
        super().__init__(reader)
        self._rows = rows

    def take(self, start: int, stop: int) -> Any:
        """Remaining rows (or ids) ``start`` to ``stop``."""
        return self._rows.of(self._readers[0].take, start, stop)

    def digests(self) -> Digests:
        """None: the chunks are cut otherwise."""
        return {}


@dataclass(frozen=True, slots=True)
class RemainingColumn:
    """What remains of anything that slices by rows (ids, weights); it slices alike."""

    column: Any
    rows: Remaining
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows that remain, ...)."""
        return len(self.rows), *self.column.shape[1:]

    @property
    def ndim(self) -> int:
        """As the column."""
        return len(self.shape)

    def __getitem__(self, at: slice) -> Any:
        """Remaining rows of a range."""
        start, stop, _ = at.indices(len(self.rows))
        if stop <= start:
            return np.asarray(self.column[0:0])
        return self.rows.of(lambda first, last: np.asarray(self.column[first:last]), start, stop)


def without_rows(table: Table, removed: RowNumbers) -> Table:
    """The table without these rows (distinct, ascending); the table itself where there are none."""
    if not len(removed):
        return table
    rows = Remaining(table.n_rows, removed)
    ids = table.stored_ids
    left = ids and replace(ids, array=_RemainingIds(_IdColumn(ids), rows, ids.array.dtype))
    return replace(table, source=RemainingSource(table.source, rows), stored_ids=left)


@dataclass(frozen=True, slots=True)
class _RemainingIds(RemainingColumn):
    def id_block(self, start: int, stop: int) -> IdBlock:
        """What a task is given to read these rows' ids by."""
        return IdBlock(_PartIds(self.column.ids, self.rows.part(start, stop)), start, stop)


@dataclass(frozen=True, slots=True)
class _PartIds:
    ids: Ids
    rows: Remaining

    def open(self) -> _Reader:
        """Start reading."""
        return _Reader(self.rows, self.ids.open())


@dataclass(frozen=True, slots=True)
class _IdColumn:
    """Stored ids that slice as they are read elsewhere: checked, and of their kind."""

    ids: Ids

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,)."""
        return (len(self.ids),)

    def __getitem__(self, at: slice) -> Any:
        """Ids of a range."""
        return self.ids.open().take(at.start, at.stop)
