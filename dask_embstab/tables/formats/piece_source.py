"""A table in pieces, as passes see it: an array that slices, a source of blocks and gathers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.tables.formats.pieces import (
    BATCH_ROWS,
    Cursor,
    NotTexts,
    Pieces,
    SplitPieces,
)
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.ids.ids import IdBlock, Ids
from dask_embstab.tables.ids.kinds import IdKind
from dask_embstab.tables.ids.texts import Texts, joined_texts, texts_of
from dask_embstab.tables.read.source import (
    Access,
    Digests,
    GatherReader,
    RunningDigests,
    default_chunk_rows,
)

_GATHER_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class PieceArray:
    """The vectors or the ids of a table in pieces as an array that slices: every slice decodes the
    pieces that it lies in.
    """

    pieces: Pieces
    column: Literal["rows", "ids"]
    where: str = ""
    kind: IdKind = "int64"

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """As they were when they were opened."""
        return self.pieces.files

    @property
    def what(self) -> str:
        """Which values of the files these are."""
        return f"{self.column} {self.pieces.what}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d) of vectors, (n,) of ids."""
        n = int(self.pieces.offsets[-1])
        return (n, self.pieces.d) if self.column == "rows" else (n,)

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the vectors; of ids int64, objects that are str, or V16."""
        return self.pieces.dtype if self.column == "rows" else ID_DTYPE[self.kind]

    @property
    def chunks(self) -> tuple[int, ...]:
        """What is decoded at a time."""
        return (BATCH_ROWS, *self.shape[1:])

    def cursor(self) -> _CursorArray:
        """The same for ranges in ascending order: nothing is decoded twice."""
        texts = None
        if self.column == "ids" and self.kind == "string" and hasattr(self.pieces, "texts"):
            texts = Cursor(self.pieces, self.pieces.texts, texts_of([]), joined=joined_texts)
        return _CursorArray(
            self.files, self.what, self.shape, self.dtype, self.chunks, self._open(), texts
        )

    def _open(self) -> Cursor:
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        return Cursor(self.pieces, getattr(self.pieces, self.column), empty)

    def __getitem__(self, item: Any) -> Any:
        """Decoded values, by slices of rows or row numbers."""
        rows, *rest = item if isinstance(item, tuple) else (item,)
        n, columns = self.shape[0], (slice(None), *rest)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(n)
            taken = self._open().take(start, max(start, stop)) if step > 0 else self[:][rows]
            return np.array(taken[:: max(step, 1)][columns])
        numbers = np.arange(n)[rows]
        reader = _Picker(self.pieces, self.column, self.shape[1:], self.dtype)
        values = reader.pick(np.atleast_1d(numbers))
        return values[columns] if numbers.ndim else values[0][tuple(rest) if rest else ...]

    def id_block(self, start: int, stop: int) -> IdBlock:
        """What a task is given to read the ids of these rows by: the pieces that they lie in."""
        first, part = _part(self.pieces, start, stop)
        shift = int(self.pieces.offsets[first])
        array = PieceArray(part, "ids", self.where, self.kind)
        return IdBlock(Ids(array, self.kind, self.where, shift), start - shift, stop - shift)


ID_DTYPE: dict[IdKind, np.dtype[Any]] = {
    "int64": np.dtype(np.int64),
    "string": np.dtype(object),
    "uuid": np.dtype("V16"),
}


@dataclass(frozen=True, slots=True)
class _CursorArray:
    files: tuple[StoredFile, ...]
    what: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    reader: Cursor
    text_reader: Any

    def __getitem__(self, rows: slice) -> Any:
        start, stop, _ = rows.indices(self.shape[0])
        return self.reader.take(start, stop)

    def texts(self, start: int, stop: int) -> Texts | None:
        """The bytes of ids that are texts, where the files have them as such."""
        if self.text_reader is None:
            return None
        try:
            texts: Texts = self.text_reader.take(start, stop)
        except NotTexts:
            return None
        return texts


def _part(pieces: Pieces, start: int, stop: int) -> tuple[int, Any]:
    """The first piece that these rows lie in, and all of them."""
    first = int(np.searchsorted(pieces.offsets, start, side="right")) - 1
    last = int(np.searchsorted(pieces.offsets, stop, side="left"))
    return first, pieces.part(first, max(last, first + 1))


@dataclass(frozen=True, slots=True)
class PieceSource:
    """Vectors in pieces."""

    pieces: Pieces
    shared: SplitPieces = field(default_factory=SplitPieces, compare=False)
    access: ClassVar[Access] = "computed"

    @property
    def array(self) -> PieceArray:
        """Slices."""
        return PieceArray(self.pieces, "rows")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return int(self.pieces.offsets[-1]), self.pieces.d

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.pieces.dtype

    @property
    def chunk_rows(self) -> int:
        """The default, whatever the pieces: results do not depend on how the files are cut."""
        return default_chunk_rows(self.shape[1], self.dtype.itemsize)

    @property
    def task_rows(self) -> int:
        """A task covers as many rows as the longest piece, so that no piece is read by three."""
        return int(np.diff(self.pieces.offsets).max(initial=1))

    def place(self, row: int) -> str:
        """A row as messages name it: in its file."""
        return self.pieces.place(row)

    def block(self, start: int, stop: int) -> PieceBlock:
        """These rows, decoded when the task runs."""
        first, part = _part(self.pieces, start, stop)
        shift = int(self.pieces.offsets[first])
        return PieceBlock(
            part, start, stop, shift, first, self.chunk_rows, self.shape[0], self.shared
        )

    def gather(self, rows: RowNumbers) -> PieceGather:
        """These rows, each piece decoded once for many of them."""
        return PieceGather(self.pieces, rows)


@dataclass(frozen=True, slots=True)
class PieceBlock:
    """Rows ``start`` to ``stop`` of a table, in ``pieces`` whose first row is row ``shift``."""

    pieces: Pieces
    start: int
    stop: int
    shift: int
    first_piece: int
    chunk_rows: int
    n_rows: int
    shared: SplitPieces
    known_by_place: ClassVar[bool] = True

    def open(self) -> PieceReader:
        """Start reading."""
        return PieceReader(self)


class PieceReader:
    """Decoded rows, and the digests of the chunks that they would make."""

    def __init__(self, block: PieceBlock) -> None:
        pieces = block.pieces
        self._shift, self._digests = block.shift, RunningDigests(block.chunk_rows, block.n_rows)
        self._cursor = Cursor(
            pieces,
            pieces.rows,
            np.empty((0, pieces.d), pieces.dtype),
            stop=block.stop - block.shift,
            shared=block.shared,
            first_piece=block.first_piece,
        )

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` of the table."""
        rows: Rows = self._cursor.take(start - self._shift, stop - self._shift)
        self._digests.add(start, rows)
        return rows

    def digests(self) -> Digests:
        """Of the chunks that were read whole."""
        return self._digests.by_chunk


@dataclass(frozen=True, slots=True)
class PieceGather:
    """Rows gathered from pieces."""

    pieces: Pieces
    rows: RowNumbers

    def open(self) -> GatherReader:
        """Start picking, many rows at a time."""
        picker = _Picker(self.pieces, "rows", (self.pieces.d,), self.pieces.dtype)
        return _BatchedReader(picker.pick, self.rows, self.pieces.d * self.pieces.dtype.itemsize)


class _BatchedReader(GatherReader):
    """Picks many rows ahead, so that a piece is decoded once for all of them."""

    def __init__(
        self, pick: Callable[[RowNumbers], Rows], rows: RowNumbers, row_bytes: int
    ) -> None:
        super().__init__(pick, rows)
        self._ahead = max(1, _GATHER_BYTES // row_bytes)
        self._at, self._batch = 0, np.empty((0, 0))

    def take(self, start: int, stop: int) -> Rows:
        """The gathered rows ``start`` to ``stop``."""
        if start < self._at or stop > self._at + len(self._batch):
            ahead = max(stop, min(start + self._ahead, len(self._rows)))
            self._at, self._batch = start, super().take(start, ahead)
        return np.ascontiguousarray(self._batch[start - self._at : stop - self._at])


@dataclass(frozen=True, slots=True)
class _Picker:
    """Single rows, by number, in any order: they are taken in ascending order and put in place."""

    pieces: Pieces
    column: str
    tail: tuple[int, ...]
    dtype: np.dtype[Any]

    def pick(self, rows: RowNumbers) -> Rows:
        """Values of these rows."""
        empty = np.empty((0, *self.tail), self.dtype)
        values = np.empty((len(rows), *self.tail), self.dtype)
        order = np.argsort(rows, kind="stable")
        cursor = Cursor(self.pieces, getattr(self.pieces, self.column), empty)
        at = 0
        while at < len(order):
            start = int(rows[order[at]])
            end = int(np.searchsorted(rows[order], start + _NEAR))
            near = order[at:end]
            taken = cursor.take(start, int(rows[near[-1]]) + 1)
            values[near] = taken[rows[near] - start]
            at = end
        return values


_NEAR = 4096
