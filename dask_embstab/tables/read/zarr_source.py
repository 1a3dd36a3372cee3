"""Vectors in any Zarr array (v2 or v3, any codec, any store): whole chunks are decoded by Zarr, one
at a time per task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import DamageError, InputError
from dask_embstab.repairs import call
from dask_embstab.tables.read.chunk_layout import require_chunks, require_visible
from dask_embstab.tables.read.source import Access, Digests, chunk_digest, grouped
from dask_embstab.tables.store_errors import reading

_GATHER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ZarrSource:
    """A Zarr array, (n, d) or (n,), whose chunks hold whole rows; ``unique`` as `chunk_files` has
    it.
    """

    array: zarr.Array[Any]
    unique: bool = False
    access: ClassVar[Access] = "zarr"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.array.shape[0], self.array.shape[1] if self.array.ndim > 1 else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.array.dtype

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk; of a shard where the array is sharded (a shard is one object in the
        store).
        """
        return int((self.array.shards or self.array.chunks)[0])

    def block(self, start: int, stop: int) -> ZarrBlock:
        """These rows, read when the task runs."""
        return ZarrBlock(self, start, stop)

    def gather(self, rows: RowNumbers) -> ZarrGather:
        """These rows, gathered when the task runs."""
        return ZarrGather(self, rows)

    def decode(self, chunk: int) -> Rows:
        """All rows of one chunk (or shard), decoded; `DamageError` where it is missing."""
        start = chunk * self.chunk_rows
        with reading(self._name(chunk)):
            require_visible(self.array)
        if self._is_no_file(chunk):
            raise DamageError(
                f"{self._name(chunk)} must be a file with bytes in it; it has none; restore it from"
                " its source"
            )
        with reading(self._name(chunk)):
            rows = np.asarray(self.array[start : start + self.chunk_rows])
            require_chunks(self.array, range(start, start + len(rows)), rows, unique=self.unique)
            return rows.reshape(len(rows), -1)

    def _is_no_file(self, chunk: int) -> bool:
        """Whether something stands at its place that holds no byte: Zarr would take it for a chunk
        that was left out.
        """
        file = self._file(chunk)
        return file is not None and file.exists() and not (file.is_file() and file.stat().st_size)

    def _file(self, chunk: int) -> Path | None:
        store = self.array.store
        if not isinstance(store, LocalStore):
            return None
        return Path(store.root) / self.array.path / self._key(chunk)

    def _name(self, chunk: int) -> str:
        return f"chunk {self._key(chunk)} of {self.array.store_path}"

    def _key(self, chunk: int) -> str:
        return self.array.metadata.encode_chunk_key((chunk,) + (0,) * (self.array.ndim - 1))


@dataclass(frozen=True, slots=True)
class ZarrBlock:
    """A range of rows of a Zarr array."""

    source: ZarrSource
    start: int
    stop: int

    def open(self) -> ZarrReader:
        """Start reading."""
        return ZarrReader(self.source)


class ZarrReader:
    """Holds the chunk that was decoded last; a panel that straddles two chunks is copied
    together.
    """

    def __init__(self, source: ZarrSource) -> None:
        self._source = source
        self._chunk, self._rows = -1, np.empty((0, 0))
        self._digests: Digests = {}

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``, decoded."""
        size = self._source.chunk_rows
        pieces = []
        while start < stop:
            chunk = start // size
            end = min(stop, (chunk + 1) * size)
            pieces.append(self._load(chunk)[start - chunk * size : end - chunk * size])
            start = end
        return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))

    def digests(self) -> Digests:
        """Of every chunk that was decoded."""
        return self._digests

    def _load(self, chunk: int) -> Rows:
        if chunk != self._chunk:
            self._rows = np.empty((0, 0))  # let go of the last chunk before the next one is decoded
            self._rows, self._chunk = self._source.decode(chunk), chunk
            self._digests[chunk] = chunk_digest(
                self._rows, self._source.chunk_rows, self._source.array.fill_value
            )
        return self._rows


@dataclass(frozen=True, slots=True)
class ZarrGather:
    """Rows gathered from a Zarr array."""

    source: ZarrSource
    rows: RowNumbers

    def open(self) -> ZarrGatherReader:
        """Start picking."""
        return ZarrGatherReader(self.source, self.rows)


class ZarrGatherReader:
    """Picks rows in batches of bounded size, so that a chunk is decoded once per batch and not once
    per panel.
    """

    def __init__(self, source: ZarrSource, rows: RowNumbers) -> None:
        self._source, self._rows = source, rows
        self._start, self._batch = 0, np.empty((0, source.shape[1]), source.dtype)
        self._size = max(1, _GATHER_BYTES // (source.shape[1] * source.dtype.itemsize))

    def take(self, start: int, stop: int) -> Rows:
        """The gathered rows ``start`` to ``stop``."""
        if stop > self._start + len(self._batch):
            self._batch = self._pick(self._rows[start : max(stop, start + self._size)])
            self._start = start
        return self._batch[start - self._start : stop - self._start]

    def digests(self) -> Digests:
        """None: chunks are not read as a whole table."""
        return {}

    def _pick(self, rows: RowNumbers) -> Rows:
        batch = np.empty((len(rows), self._source.shape[1]), self._source.dtype)
        size = self._source.chunk_rows
        for chunk, group in grouped(rows // size):
            batch[group] = self._source.decode(chunk)[rows[group] - chunk * size]

        return batch


def require_full_width(array: zarr.Array[Any], name: str) -> None:
    """Raise unless every chunk holds whole rows."""
    rows, width = (array.shards or array.chunks)[:2]
    if width < array.shape[1]:
        raise InputError(
            f"chunks must hold whole rows; {name} has chunks of {(rows, width)} but d is"
            f" {array.shape[1]}; rewrite it with {call('create_run', chunk_rows=rows)}"
        )
