"""How are rows read that lie in pieces which are decoded from their start on?

A row group, a record batch or a whole file of text is a piece. Rows are taken in ascending order
through a `Cursor`, which decodes the pieces of its range a batch at a time; memory is a batch,
however large a piece is. A piece that two tasks share is decoded once where both run in one
process: whoever comes first leaves what the other needs (`SplitPieces`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError
from dask_embstab.tables.identity import StoredFile


class NotTexts(Exception):  # noqa: N818 (no error: they are decoded as objects then)
    """Ids of a batch are no texts that can be taken as bytes."""


BATCH_ROWS = 1 << 14
"""Rows that are decoded at a time."""
_SHARED_BYTES = 1 << 26
Offsets = npt.NDArray[np.int64]
Batches = Iterator[Rows]


class Pieces(Protocol):
    """The pieces of one table; it is pickled into tasks, so that it holds no open file.

    ``offsets`` are the first rows of the pieces and the number of all rows.
    """

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files, as they were when they were opened."""

    @property
    def offsets(self) -> Offsets:
        """(n_pieces + 1,)."""

    @property
    def d(self) -> int:
        """Components."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the vectors."""

    @property
    def what(self) -> str:
        """Which columns and rows of the files are read: equal texts read equal values."""

    def rows(self, piece: int) -> Batches:
        """The vectors of one piece, (m, d) at a time."""

    def ids(self, piece: int) -> Batches:
        """The ids of one piece, (m,) at a time."""

    def part(self, first: int, last: int) -> Self:
        """Pieces ``first`` up to ``last`` alone."""

    def place(self, row: int) -> str:
        """A row of the table as messages name it: in its file."""


class SplitPieces:
    """What one of two tasks leaves of a piece that both read, by (piece, row): rows before that
    row, or the reader that stands there.

    Nobody waits: who finds nothing decodes for itself. A copy in another process shares nothing.
    """

    def __init__(self, *, on: bool = True) -> None:
        self.on, self._lock = on, threading.Lock()
        self._claimed: set[tuple[int, int]] = set()
        self._left: dict[tuple[int, int], Batches] = {}

    def __reduce__(self) -> Any:
        return _split_elsewhere, ()

    def claim(self, key: tuple[int, int]) -> Batches | None:
        """What the other task left; None for the first of the two, and where it is still at it."""
        with self._lock:
            if key in self._left:
                return self._left.pop(key)
            if key in self._claimed:
                self._claimed.discard(key)
            elif self.on:
                self._claimed.add(key)
            return None

    def leave(self, key: tuple[int, int], batches: Batches) -> None:
        """For the other task, unless it has come by already; what nobody asked for goes first."""
        with self._lock:
            if key in self._claimed:
                self._claimed.discard(key)
                while len(self._left) >= _MOST_LEFT:
                    del self._left[next(iter(self._left))]
                self._left[key] = batches


_MOST_LEFT = 8


def _split_elsewhere() -> SplitPieces:
    return SplitPieces(on=False)


class Cursor:
    """Values of rows in ascending order; where a range lies before the last one, its piece is
    opened again.

    What was taken is valid until the next call. ``stop`` ends a task's rows: only there and where
    they begin can a piece be shared.
    """

    def __init__(
        self,
        pieces: Pieces,
        decode: Callable[[int], Iterator[Any]],
        empty: Any,
        *,
        joined: Callable[[list[Any]], Any] = np.concatenate,
        stop: int = -1,
        shared: SplitPieces | None = None,
        first_piece: int = 0,
    ) -> None:
        self._pieces, self._offsets, self._decode, self._empty = (
            pieces,
            pieces.offsets,
            decode,
            empty,
        )
        self._joined = joined
        self._stop, self._shared, self._first_piece = stop, shared, first_piece
        self._piece = -1
        self._batches: Batches = iter(())
        self._at, self._batch = -1, empty

    def take(self, start: int, stop: int) -> Any:
        """Values of rows ``start`` to ``stop``."""
        if start >= stop:
            return self._empty
        if not self._at <= start < self._end:
            self._seek(start)
        taken = self._batch[start - self._at : stop - self._at]
        if start + len(taken) < stop:
            parts = [taken]
            while self._end < stop:
                self._next()
                parts.append(self._batch[: stop - self._at])
            taken = self._joined(parts)
        if stop == self._stop:
            self._leave_rest()
        return taken

    @property
    def _end(self) -> int:
        return self._at + len(self._batch)

    def _seek(self, row: int) -> None:
        piece = int(np.searchsorted(self._offsets, row, side="right")) - 1
        is_ahead = piece == self._piece and row >= self._end
        passed: list[Rows] | None = None
        if not is_ahead:
            self._open(piece)
            first = int(self._offsets[piece])
            if self._shared is not None and row > first:
                key = self._first_piece + piece, row - first
                if (rest := self._shared.claim(key)) is not None:
                    self._batches, self._at = rest, row
                elif (row - first) * self._pieces.d * self._pieces.dtype.itemsize <= _SHARED_BYTES:
                    passed = [] if self._shared.on else None
        while self._end <= row:
            self._next()
            if passed is not None:
                passed.append(self._batch[: max(0, row - self._at)])
        if passed is not None and self._shared is not None:  # these belong to the task before
            self._shared.leave(key, iter(passed))

    def _open(self, piece: int) -> None:
        self._piece = piece
        self._at, self._batch = int(self._offsets[piece]), self._empty
        is_last = self._shared is not None and self._at < self._stop < self._offsets[piece + 1]
        head = self._shared.claim(self._split) if is_last and self._shared is not None else None
        self._headed = head is not None
        self._batches = self._decode(piece) if head is None else head

    @property
    def _split(self) -> tuple[int, int]:
        """The key of the piece that the task ends in."""
        return self._first_piece + self._piece, self._stop - int(self._offsets[self._piece])

    def _next(self) -> None:
        """The next batch, of this piece or of a later one."""
        if self._end == self._offsets[self._piece + 1]:
            piece = self._piece + 1
            while self._offsets[piece + 1] == self._end:
                piece += 1
            self._open(piece)
        self._at = self._end
        batch = next(self._batches, None)
        if batch is None or self._at + len(batch) > self._offsets[self._piece + 1]:
            raise DamageError(
                f"{self._pieces.place(int(self._offsets[self._piece]))} begins a piece that must"
                f" have {np.diff(self._offsets)[self._piece]} rows, as it had when it was opened;"
                " it has others; open the table again"
            )
        self._batch = batch

    def _leave_rest(self) -> None:
        """The reader goes to the task behind, where that has not come by already."""
        ends = int(self._offsets[self._piece + 1])
        if self._shared is not None and self._stop < ends and not self._headed:
            rest = self._batch[self._stop - self._at :]
            self._shared.leave(self._split, chain([rest] if len(rest) else [], self._batches))
