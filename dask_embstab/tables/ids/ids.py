"""The ids of a table's rows: int64, strings or 16-byte UUIDs, read a range at a time in ascending
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import dask
import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import IdError
from dask_embstab.tables.ids.keys import read_texts
from dask_embstab.tables.ids.kinds import (
    IdArray,
    IdKind,
    as_int64,
    checked_ids,
    digest_of_ids,
    kind_of,
    listed_ids,
    require_stored,
)
from dask_embstab.tables.ids.stored_texts import first_texts, stored_texts
from dask_embstab.tables.ids.texts import Texts, joined_texts
from dask_embstab.tables.inputs import compare_ids, is_watched, needs_digests
from dask_embstab.tables.read.arrays import as_array, rows_in_memory
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.direct import DirectBlock
from dask_embstab.tables.read.limits import decoded_rows, require_texts, require_workable
from dask_embstab.tables.read.recorded import require_recorded
from dask_embstab.tables.read.source import Reader

_COMPARED_BYTES = 1 << 20
_ENCODING = (
    *("shape", "data_type", "dtype", "chunk_grid", "chunks"),
    *("codecs", "filters", "compressor", "fill_value"),
)
"""What says in an array's metadata (v2 or v3) how its chunks are encoded."""
_TEXT_BYTES = 64
"""What a short text takes in memory."""
ID_RANGE = 1 << 18
"""Ids that are held at a time where they are only passed by."""
_NEAR = 4096
_FEW = 256


class IdReader(Protocol):
    """Ids of rows in ascending order."""

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""


class OpenableIds(Protocol):
    """What `IdReader` reads."""

    def open(self) -> IdReader:
        """Start reading."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids in any one-dimensional array-like that slices lazily (Zarr, Dask, NumPy); messages number
    rows from ``first``.
    """

    array: Any
    kind: IdKind
    where: str
    first: int = 0
    are_stored: ClassVar[bool] = True

    def __len__(self) -> int:
        """Rows."""
        return int(self.array.shape[0])

    @property
    def decoded_rows(self) -> int | None:
        """Ids that are decoded at a time, those of a chunk or of a shard; None where any rows are
        read by themselves.
        """
        if isinstance(self.array, zarr.Array):
            return int((self.array.shards or self.array.chunks)[0])
        return int(self.array.chunks[0]) if hasattr(self.array, "files") else None

    def open(self) -> IdReader:
        """Start reading, from the first row on or from any later one."""
        is_whole = isinstance(self.array, zarr.Array) and self.kind == "int64"
        files = chunk_files(self.array, unique=True) if is_whole else None
        if files is not None and files.store is None:
            return DirectIds(DirectBlock(files, 0, 0).open(), self.where)
        # Ids in files of another format are read on from where the last range ended.
        cursor = getattr(self.array, "cursor", None)
        return SlicedIds(self if cursor is None else replace(self, array=cursor()))

    def block(self, start: int, stop: int) -> Any:
        """What a task is given to read these rows' ids by (`IdBlock`), or a Dask value that becomes
        it.
        """
        if hasattr(self.array, "to_delayed"):
            return dask.delayed(_in_memory, pure=False)(
                self.array[start:stop], self.kind, self.where, start
            )
        if isinstance(self.array, np.ndarray):
            return _in_memory(self.array[start:stop], self.kind, self.where, start)

        part = getattr(
            self.array, "id_block", None
        )  # of a view that leaves out what only other tasks need
        return IdBlock(self, start, stop) if part is None else part(start, stop)


@dataclass(frozen=True, slots=True)
class IdBlock:
    """The ids of one task's rows."""

    ids: OpenableIds
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class DirectIds:
    """int64 ids straight from their chunk files."""

    reader: Reader
    where: str

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""
        return np.array(as_int64(self.reader.take(start, stop)[:, 0], self.where, start))


class SlicedIds:
    """Ids from an array that slices; of a Zarr array the chunk that was decoded last is kept."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._rows = ids.decoded_rows or ID_RANGE
        self._number, self._chunk = -1, np.empty(0)
        self._digest, self._at = 0, 0 if needs_digests(ids) and is_watched(ids.array) else -1
        self._texts: tuple[int, Texts | None] = -1, None
        is_text = ids.kind == "string" and (
            isinstance(ids.array, zarr.Array) or hasattr(ids.array, "texts")
        )
        self._has_texts = is_text and self._at < 0

    def texts(self, start: int, stop: int) -> Texts | None:
        """The bytes of rows ``start`` to ``stop``, if their chunks tell them as they are stored;
        the chunk that was looked into last is kept.
        """
        if not self._has_texts or start == stop:
            return None
        if not isinstance(self._ids.array, zarr.Array):
            texts: Texts | None = self._ids.array.texts(start, stop)
            self._has_texts = texts is not None
            return texts
        pieces, first = [], start
        while first < stop:
            number = first // self._rows
            at = number * self._rows
            last = min(stop, at + self._rows)
            if self._texts[0] != number:
                n, what = min(self._rows, len(self._ids) - at), f"the ids of {self._ids.where}"
                self._texts = number, stored_texts(self._ids.array, number, n, what=what)
            if self._texts[1] is None:
                return None
            pieces.append(self._texts[1].chosen(slice(first - at, last - at)))
            first = last
        return pieces[0] if len(pieces) == 1 else joined_texts([p.trimmed() for p in pieces])

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""
        pieces, first = [], start
        while first < stop:
            number = first // self._rows
            last = min(stop, (number + 1) * self._rows)
            rows = slice(first - number * self._rows, last - number * self._rows)
            pieces.append(self._load(number)[rows])
            first = last
        taken = np.concatenate(pieces) if pieces else self._load(0)[:0]

        if start == self._at:
            self._digest, self._at = self._digest + digest_of_ids(taken, start), stop
            if stop == len(self._ids):
                compare_ids(self._ids, self._digest)
        return taken

    def _load(self, number: int) -> IdArray:
        if number == self._number:
            return self._chunk

        ids, start = self._ids, number * self._rows
        what = f"the ids of {ids.where}"
        values = rows_in_memory(ids.array, start, start + self._rows, what=what)
        if isinstance(ids.array, zarr.Array):
            require_stored(values, ids.where, start, ids.array.fill_value)
        self._chunk = checked_ids(values, ids.kind, ids.where, ids.first + start)
        self._number = number
        return self._chunk


@dataclass(frozen=True, slots=True)
class RowNumberIds:
    """What stands for ids where a table has none: its row numbers."""

    n: int
    where: str
    kind: IdKind = "int64"
    are_stored: ClassVar[bool] = False
    decoded_rows: ClassVar[None] = None

    def __len__(self) -> int:
        """Rows."""
        return self.n

    def open(self) -> RowNumberIds:
        """Itself."""
        return self

    def take(self, start: int, stop: int) -> IdArray:
        """The row numbers themselves."""
        return np.arange(start, stop, dtype=np.int64)

    def block(self, start: int, stop: int) -> IdBlock:
        """What a task is given to read these rows' numbers by."""
        return IdBlock(self, start, stop)


def id_ranges(ids: Ids | RowNumberIds) -> Iterator[IdArray]:
    """All ids in order, a bounded number at a time."""
    reader, n = ids.open(), len(ids)
    for start in range(0, n, ID_RANGE):
        yield reader.take(start, min(start + ID_RANGE, n))


def ids_at(ids: Ids | RowNumberIds, rows: RowNumbers) -> IdArray:
    """Ids of single rows in any order, in their shape; what lies near is read at once."""
    wanted, places = np.unique(rows, return_inverse=True)
    reader, parts = ids.open(), []
    while len(wanted):
        start = int(wanted[0])
        n = int(np.searchsorted(wanted, start + _NEAR))
        parts.append(reader.take(start, int(wanted[n - 1]) + 1)[wanted[:n] - start])
        wanted = wanted[n:]
    ids_read = np.concatenate(parts) if parts else reader.take(0, 0)
    return np.asarray(ids_read[places].reshape(rows.shape))


def first_few(ids: Ids | RowNumberIds) -> list[bytes] | None:
    """The first texts of a table, where they are stored as such: whether they ascend, or are those
    of another table, is mostly told by these alone.
    """
    if not isinstance(ids, Ids) or ids.kind != "string" or not isinstance(ids.array, zarr.Array):
        return None
    return first_texts(ids.array, _FEW, what=f"the ids of {ids.where}")


def are_identical(a: Ids | RowNumberIds, b: Ids | RowNumberIds) -> bool:
    """Whether ``b`` begins with the ids of ``a``."""
    one, other = a.open(), b.open()
    for start in range(0, len(a), ID_RANGE):
        stop = min(start + ID_RANGE, len(a))
        texts = read_texts(one, start, stop)
        known = None if texts is None else read_texts(other, start, stop)
        if not (
            np.array_equal(one.take(start, stop), other.take(start, stop))
            if texts is None or known is None
            else texts.equal(known)
        ):
            return False
    return True


def stored_alike(a: Ids | RowNumberIds, b: Ids | RowNumberIds) -> bool:
    """Whether the ids are in equally encoded Zarr arrays whose chunk files are equal, byte for
    byte: none is decoded.
    """
    if (
        not (isinstance(a, Ids) and isinstance(b, Ids)) or a.array.dtype.kind in "SUV"
    ):  # of which Zarr warns
        return False

    arrays = a.array, b.array
    if not all(
        isinstance(array, zarr.Array) and isinstance(array.store, LocalStore) for array in arrays
    ):
        return False

    first, second = (array.metadata.to_dict() for array in arrays)
    for array in arrays:
        require_recorded(array)
    if any(first.get(name) != second.get(name) for name in _ENCODING):
        return False

    for number in range(a.array.nchunks):
        keys = ((array, array.metadata.encode_chunk_key((number,))) for array in arrays)
        if not _same_bytes(*(Path(array.store.root, array.path, key) for array, key in keys)):
            return False
    return True


def _same_bytes(a: Path, b: Path) -> bool:
    if not (a.is_file() and b.is_file()) or a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as one, b.open("rb") as other:
        while part := one.read(_COMPARED_BYTES):
            if part != other.read(_COMPARED_BYTES):
                return False
    return True


def as_ids(array: Any, n_rows: int, *, where: str) -> Ids:
    """Check ids against the table they belong to; lists and tuples are made arrays."""
    listed = listed_ids(array) if isinstance(array, list | tuple) else array
    array = as_array(listed, what=f"the ids of {where}", error=IdError)
    if array.ndim != 1 or array.shape[0] != n_rows:
        raise IdError(
            f"{where} needs one id per row, ({n_rows},); the ids have the shape"
            f" {tuple(array.shape)}"
        )

    kind = kind_of(array, where)
    if isinstance(array, zarr.Array) and kind == "string":
        require_workable(decoded_rows(array) * _TEXT_BYTES, 1, f"the ids of {where}")
        require_texts(array, f"the ids of {where}")
    if hasattr(array, "to_delayed"):
        meta = np.empty(0, array.dtype)
        array = array.map_blocks(_stored_block, where=where, dtype=array.dtype, meta=meta)
    elif isinstance(array, np.ndarray) and array.dtype.kind == "O":
        array = checked_ids(array, kind, where, 0)

    return Ids(array, kind, where)


def _stored_block(block: IdArray, *, where: str, block_info: Any) -> IdArray:
    """One chunk of a Dask array of ids: it may come from a store in which it is missing."""
    require_stored(block, where, block_info[0]["array-location"][0][0])
    return block


def _in_memory(array: Any, kind: IdKind, where: str, first: int) -> IdBlock:
    return IdBlock(Ids(np.asarray(array), kind, where, first), 0, len(array))
