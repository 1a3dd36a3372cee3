"""The ids of a table's rows and, behind them, those of single rows of another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.tables.ids.ids import ID_RANGE, IdReader, Ids, RowNumberIds
from dask_embstab.tables.ids.kinds import IdArray, IdKind
from dask_embstab.tables.ids.row_index import RowIndex


@dataclass(frozen=True, slots=True)
class UnionIds:
    """All ids of ``first``, then those of the ``n_others`` rows of ``second`` that ``others``
    lists, ascending.
    """

    first: Ids | RowNumberIds
    second: Ids | RowNumberIds
    others: RowIndex
    n_others: int

    @property
    def kind(self) -> IdKind:
        """Of both."""
        return self.first.kind

    def __len__(self) -> int:
        """Rows."""
        return len(self.first) + self.n_others

    def open(self) -> UnionReader:
        """Start reading."""
        return UnionReader(self)


class UnionReader:
    """Reads both in ascending order, a bounded number of ids at a time."""

    def __init__(self, ids: UnionIds) -> None:
        self._n, self._others = len(ids.first), ids.others
        self._first: IdReader = ids.first.open()
        self._second: IdReader = ids.second.open()

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""
        cut = max(start, min(stop, self._n))
        pieces = [self._first.take(start, cut)] if cut > start else []
        if stop == cut:
            return np.concatenate(pieces)

        rows = self._others.take(cut - self._n, stop - self._n)
        while len(rows):  # a window of the second one's ids after another
            n = int(np.searchsorted(rows, rows[0] + ID_RANGE))
            pieces.append(self._second.take(int(rows[0]), int(rows[n - 1]) + 1)[rows[:n] - rows[0]])
            rows = rows[n:]

        return np.concatenate(pieces)
