"""The ids of a table's rows: int64 or strings, read a range at a time in ascending order, never held as an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import dask
import numpy as np
import zarr

from dask_embstab.core.errors import DamageError, IdError
from dask_embstab.tables.chunkfile import ChunkFiles, chunk_files
from dask_embstab.tables.direct import DirectBlock

IdKind = Literal["int64", "string"]
IdArray = np.ndarray[Any, Any]
"""int64, or objects that are str."""

ID_RANGE = 1 << 18
"""Ids that are held at a time where they are only passed by."""


class IdReader(Protocol):
    """Ids of rows in ascending order."""

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids in any one-dimensional array-like that slices lazily (Zarr, Dask, NumPy)."""

    array: Any
    kind: IdKind
    where: str

    def __len__(self) -> int:
        """Rows."""
        return int(self.array.shape[0])

    def open(self) -> IdReader:
        """Start reading, from the first row on or from any later one."""
        files = chunk_files(self.array) if isinstance(self.array, zarr.Array) and self.kind == "int64" else None
        return SlicedIds(self) if files is None else DirectIds(files)

    def block(self, start: int, stop: int) -> Any:
        """What a task is given to read these rows' ids by (`IdBlock`), or a Dask value that becomes it."""
        if hasattr(self.array, "to_delayed"):
            return dask.delayed(_in_memory, pure=False)(self.array[start:stop], self.kind, self.where)
        if isinstance(self.array, np.ndarray):
            return _in_memory(self.array[start:stop], self.kind, self.where)
        return IdBlock(self, start, stop)


@dataclass(frozen=True, slots=True)
class IdBlock:
    """The ids of one task's rows."""

    ids: Ids
    start: int
    stop: int


class DirectIds:
    """int64 ids straight from their chunk files."""

    def __init__(self, files: ChunkFiles) -> None:
        self._reader = DirectBlock(files, 0, 0).open()

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""
        return np.array(self._reader.take(start, stop)[:, 0], dtype=np.int64)


class SlicedIds:
    """Ids from an array that slices; of a Zarr array the chunk that was decoded last is kept."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._rows = int(ids.array.chunks[0]) if isinstance(ids.array, zarr.Array) else ID_RANGE
        self._number, self._chunk = -1, np.empty(0)

    def take(self, start: int, stop: int) -> IdArray:
        """Ids of rows ``start`` to ``stop``."""
        pieces = []
        while start < stop:
            number = start // self._rows
            end = min(stop, (number + 1) * self._rows)
            pieces.append(self._load(number)[start - number * self._rows : end - number * self._rows])
            start = end
        return np.concatenate(pieces) if pieces else self._load(0)[:0]

    def _load(self, number: int) -> IdArray:
        if number != self._number:
            self._chunk = self._decoded(number * self._rows, (number + 1) * self._rows)
            self._number = number
        return self._chunk

    def _decoded(self, start: int, stop: int) -> IdArray:
        ids = self._ids
        try:
            values = np.asarray(ids.array[start:stop])
        except Exception as error:  # whatever a codec or a store raises, the ids cannot be read
            raise DamageError(f"the ids of {ids.where} cannot be read back ({error}); restore them") from error
        if ids.kind == "int64":
            return values.astype(np.int64, copy=False)
        values = (np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values).astype(object)
        if len(values) > 1 and not values.any():
            raise DamageError(
                f"the ids of {ids.where} are empty from row {start} to {start + len(values)}: a missing chunk reads so;"
                " restore it from its source"
            )
        return values


@dataclass(frozen=True, slots=True)
class RowNumberIds:
    """What stands for ids where a table has none: its row numbers."""

    n: int
    where: str
    kind: IdKind = "int64"

    def __len__(self) -> int:
        """Rows."""
        return self.n

    def open(self) -> RowNumberIds:
        """Itself."""
        return self

    def take(self, start: int, stop: int) -> IdArray:
        """The row numbers themselves."""
        return np.arange(start, stop, dtype=np.int64)


def id_ranges(ids: Ids | RowNumberIds) -> Iterator[IdArray]:
    """All ids in order, a bounded number at a time."""
    reader, n = ids.open(), len(ids)
    for start in range(0, n, ID_RANGE):
        yield reader.take(start, min(start + ID_RANGE, n))


def as_ids(array: Any, n_rows: int, *, where: str) -> Ids:
    """Check ids against the table they belong to; lists and tuples are made arrays."""
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if array.ndim != 1 or array.shape[0] != n_rows:
        raise IdError(f"{where} needs one id per row, ({n_rows},); the ids have the shape {tuple(array.shape)}")
    return Ids(array, _kind(array, where), where)


def _in_memory(array: Any, kind: IdKind, where: str) -> IdBlock:
    return IdBlock(Ids(np.asarray(array), kind, where), 0, len(array))


def _kind(array: Any, where: str) -> IdKind:
    dtype = array.dtype
    if dtype.kind in "iu":
        return "int64"
    if dtype.kind in "USTO" and _looks_like_text(array, dtype):
        return "string"
    raise IdError(f"ids must be int64 or strings; those of {where} are {dtype}; convert them when the run is written")


def _looks_like_text(array: Any, dtype: Any) -> bool:
    # An object array may hold anything; in memory every element is looked at, on disk the codec has decided.
    if dtype.kind != "O" or not isinstance(array, np.ndarray):
        return True
    return all(isinstance(value, str) for value in array.tolist())
