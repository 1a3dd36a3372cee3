"""The ids of a table's rows: int64, strings or 16-byte UUIDs, read a range at a time in ascending order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID as UuidObject  # noqa: N811 (the dtype has the name)

import dask
import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.errors import DamageError, IdError
from dask_embstab.tables.read.arrays import as_array
from dask_embstab.tables.read.chunk_layout import ChunkFiles, chunk_files, require_seen
from dask_embstab.tables.read.direct import DirectBlock

IdKind = Literal["int64", "string", "uuid"]
IdArray = np.ndarray[Any, Any]
"""int64, objects that are str, or 16-byte voids."""
UUID = np.dtype("V16")

_COMPARED_BYTES = 1 << 20
ID_RANGE = 1 << 18
"""Ids that are held at a time where they are only passed by."""


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

    ids: OpenableIds
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
        if isinstance(ids.array, zarr.Array) and isinstance(ids.array.store, LocalStore):
            require_seen(Path(ids.array.store.root) / ids.array.path)
        try:
            values = np.asarray(ids.array[start:stop])
        except IdError:
            raise
        except Exception as error:  # whatever a codec or a store raises, the ids cannot be read
            raise DamageError(f"the ids of {ids.where} cannot be read back ({error}); restore them") from error
        return checked_ids(values, ids.kind, ids.where, start)


def checked_ids(values: IdArray, kind: IdKind, where: str, start: int) -> IdArray:
    """Ids from row ``start`` on in the form of their kind.

    Raises `IdError`, naming the first few rows, where one is null or of another type; `DamageError` where all are empty.
    """
    if kind == "int64":
        if values.dtype == np.uint64 and len(values) and int(values.max()) > np.iinfo(np.int64).max:
            raise IdError(f"ids must fit int64; one of {where} from row {start} on is {values.max()}; hash it to less")
        return values.astype(np.int64, copy=False)
    if kind == "uuid":
        return _as_uuids(values, where, start)
    try:
        values = (np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values).astype(object)
    except UnicodeDecodeError as error:
        raise IdError(
            f"ids that are bytes must be texts in UTF-8; {where} has others ({error}); give UUIDs as V16"
        ) from error
    bad = [i for i, value in enumerate(values.tolist()) if not isinstance(value, str)]
    if bad:
        raise IdError(_offenders(values, bad, where, start))
    if len(values) > 1 and not values.any():
        raise DamageError(
            f"the ids of {where} are empty from row {start} to {start + len(values)}: a missing chunk reads so;"
            " restore it from its source"
        )
    return values


def _as_uuids(values: IdArray, where: str, start: int) -> IdArray:
    if values.dtype == UUID:
        return values
    raw = [getattr(value, "bytes", value) for value in values.tolist()]
    bad = [i for i, value in enumerate(raw) if not isinstance(value, bytes) or len(value) != UUID.itemsize]
    if bad:
        raise IdError(_offenders(values, bad, where, start))
    return np.frombuffer(b"".join(raw), UUID)


def _offenders(values: IdArray, bad: list[int], where: str, start: int) -> str:
    named = ", ".join(f"{values[i]!r} in row {start + i}" for i in bad[:5])
    more = f" and {len(bad) - 5} more near them" if len(bad) > 5 else ""
    return f"ids must be int64 or strings, all of one type and none null; {where} has {named}{more}; give all rows such ids"


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

    def block(self, start: int, stop: int) -> IdBlock:
        """What a task is given to read these rows' numbers by."""
        return IdBlock(self, start, stop)


def id_ranges(ids: Ids | RowNumberIds) -> Iterator[IdArray]:
    """All ids in order, a bounded number at a time."""
    reader, n = ids.open(), len(ids)
    for start in range(0, n, ID_RANGE):
        yield reader.take(start, min(start + ID_RANGE, n))


def shown(ids: IdArray) -> list[str]:
    """Ids as messages show them."""
    return [str(UuidObject(bytes=value)) if ids.dtype == UUID else repr(value) for value in ids.tolist()]


def stored_alike(a: Ids | RowNumberIds, b: Ids | RowNumberIds) -> bool:
    """Whether the ids are in equally encoded Zarr arrays whose chunk files are equal, byte for byte: none is decoded."""
    if not (isinstance(a, Ids) and isinstance(b, Ids)) or a.kind == "uuid":  # Zarr warns when it describes raw bytes
        return False
    arrays = a.array, b.array
    if not all(isinstance(array, zarr.Array) and isinstance(array.store, LocalStore) for array in arrays):
        return False
    first, second = (_encoding(array) for array in arrays)
    return first == second and all(
        _same_bytes(*(_chunk_path(array, number) for array in arrays)) for number in range(a.array.nchunks)
    )


def _encoding(array: zarr.Array[Any]) -> dict[str, Any]:
    described = array.metadata.to_dict()
    return {name: described.get(name) for name in ("shape", "data_type", "dtype", "chunk_grid", "chunks", "codecs",
                                                   "filters", "compressor", "fill_value")}  # fmt: skip


def _chunk_path(array: Any, number: int) -> Path:
    return Path(array.store.root, array.path, array.metadata.encode_chunk_key((number,)))


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
    what = f"the ids of {where}"
    array = as_array(_listed(array) if isinstance(array, list | tuple) else array, what=what, error=IdError)
    if array.ndim != 1 or array.shape[0] != n_rows:
        raise IdError(f"{where} needs one id per row, ({n_rows},); the ids have the shape {tuple(array.shape)}")
    return Ids(array, _kind(array, where), where)


def _listed(values: Any) -> IdArray:
    """A list as an array: NumPy would make texts of whatever stands beside texts, and cut the zeros off raw bytes."""
    made = np.asarray(values)
    if made.dtype.kind == "U" or (made.dtype.kind == "S" and all(len(value) == UUID.itemsize for value in values)):
        return np.asarray(values, dtype=object)
    return made


def _in_memory(array: Any, kind: IdKind, where: str) -> IdBlock:
    return IdBlock(Ids(np.asarray(array), kind, where), 0, len(array))


def _kind(array: Any, where: str) -> IdKind:
    dtype = array.dtype
    if dtype.kind in "iu":
        return "int64"
    if dtype == UUID:
        return "uuid"
    if dtype.kind in "UST":
        return "string"
    if dtype.kind == "O":
        return _kind_of_objects(array, where)
    raise IdError(
        f"ids must be int64 or strings (or 16-byte UUIDs); those of {where} are {dtype}; convert them when the run is"
        " written"
    )


def _kind_of_objects(array: Any, where: str) -> IdKind:
    """By the first one; in memory every one is looked at now, elsewhere (the codec has decided) as it is read."""
    if not isinstance(array, np.ndarray):
        return "string"
    kind: IdKind = "uuid" if len(array) and isinstance(array[0], bytes | UuidObject) else "string"
    checked_ids(array, kind, where, 0)
    return kind
