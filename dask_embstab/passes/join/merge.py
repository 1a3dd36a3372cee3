"""Ids that ascend in both tables meet in one pass over each, a range at a time: the merge of a
merge sort.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import RowNumbers
from dask_embstab.passes.join.joined import Joined
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.tables.ids.ids import ID_RANGE, Ids, RowNumberIds, first_few
from dask_embstab.tables.ids.kinds import IdArray
from dask_embstab.tables.ids.match import Duplicates
from dask_embstab.tables.ids.row_index import ArrayIndex, FileIndex
from dask_embstab.tables.ids.scratch_files import below

_WINDOW = ID_RANGE


class Sink(Protocol):
    """Where partners go, in row order."""

    def put(self, start: int, values: RowNumbers) -> None:
        """Partners of rows from ``start`` on."""


class NotAscendingError(Exception):
    """The ids of a table do not ascend, so that they cannot be merged."""


class _Window:
    """A few ids of one side, in order; ``again`` marks those that the id before has too."""

    def __init__(self, ids: Ids | RowNumberIds, sink: Sink) -> None:
        self._reader, self._n, self._sink = ids.open(), len(ids), sink
        self.start = 0
        self._read = 0
        self.ids: IdArray = np.empty(0)
        self._again: npt.NDArray[np.bool_] = np.empty(0, bool)
        self._last: IdArray | None = None
        self.duplicates = Duplicates()
        self.fill()

    def fill(self) -> None:
        """Read on where nothing is left."""
        if len(self.ids) or self._read >= self._n:
            return

        stop = min(self._read + _WINDOW, self._n)
        ids = sortable(self._reader.take(self._read, stop))
        before = np.concatenate([ids[:1] if self._last is None else self._last, ids[:-1]])
        if bool((ids < before).any()):
            raise NotAscendingError

        self._again = np.asarray(ids == before)
        if self._last is None:
            self._again[0] = False
        self.duplicates += Duplicates.of(self._read + np.flatnonzero(self._again))
        self.ids, self._last, self._read = ids, ids[-1:], stop

    def upto(self, last: Any) -> tuple[IdArray, npt.NDArray[np.bool_]]:
        """The ids that are not beyond ``last``, and which of them repeat one."""
        n = int(np.searchsorted(self.ids, last, side="right"))
        return self.ids[:n], self._again[:n]

    def advance(self, partners: RowNumbers) -> None:
        """Write the partners of the next ids and go on behind them."""
        if len(partners):
            self._sink.put(self.start, partners)
            self.start += len(partners)
            self.ids, self._again = self.ids[len(partners) :], self._again[len(partners) :]
        self.fill()

    def finish(self) -> None:
        """What is left has no partner; its order is looked at to the end."""
        while len(self.ids):
            self.advance(np.full(len(self.ids), -1, np.int64))


def merged(
    ours: Ids | RowNumberIds, theirs: Ids | RowNumberIds, join: JoinOptions
) -> Joined | None:
    """One pass over both tables' ids; None where one of them does not ascend, which the first range
    mostly tells before anything is written.
    """
    for ids in (ours, theirs):
        if not may_ascend(ids):
            return None
        first = sortable(ids.open().take(0, min(len(ids), ID_RANGE)))
        if bool((first[1:] < first[:-1]).any()):
            return None

    n_bytes = 8 * (len(ours) + len(theirs))
    index: list[ArrayIndex] | list[FileIndex]
    if n_bytes <= join.memory // 4:
        index = [ArrayIndex(np.empty(len(ids), np.int64)) for ids in (ours, theirs)]
        n_bytes = 0
    else:
        folder = join.scratch.folder(needs=n_bytes)
        index = [FileIndex(below(folder, f"index-{name}")) for name in "ab"]
    try:
        a, b = _Window(ours, index[0]), _Window(theirs, index[1])
        matched = 0
        while len(a.ids) and len(b.ids):
            last = min(a.ids[-1], b.ids[-1])
            (mine, mine_again), (known, _) = a.upto(last), b.upto(last)
            to, back = np.full(len(mine), -1, np.int64), np.full(len(known), -1, np.int64)
            if len(known):
                at = np.minimum(np.searchsorted(known, mine), len(known) - 1)
                hit = np.flatnonzero((known[at] == mine) & ~mine_again)
                to[hit], back[at[hit]] = b.start + at[hit], a.start + hit
                matched += len(hit)
            a.advance(to)
            b.advance(back)
        a.finish()
        b.finish()
    except NotAscendingError:
        return None
    return Joined(
        index=index[0],
        inverse=index[1],
        matched=matched,
        our_duplicates=a.duplicates,
        their_duplicates=b.duplicates,
        strategy="merged ids",
        n_bytes=n_bytes,
    )


def may_ascend(ids: Ids | RowNumberIds) -> bool:
    """Whether the first few ids ascend, as far as they are read without their range."""
    few = first_few(ids)
    return few is None or all(a <= b for a, b in pairwise(few))


def sortable(ids: IdArray) -> IdArray:
    """16-byte ids compare as byte strings."""
    return ids.view("S16") if ids.dtype.kind == "V" else ids
