"""Where do the chunks of one array lie, and how are they encoded?"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import DamageError, EmbstabError, InputError
from dask_embstab.files.objects import submit
from dask_embstab.tables.read.recorded import Recorded
from dask_embstab.tables.read.stored.checksums import appended, repeated
from dask_embstab.tables.read.stored.files import OpenChunk, require_visible_dir
from dask_embstab.tables.read.stored.objects import (
    AHEAD_BYTES,
    PART_BYTES,
    OpenObject,
    ReadAhead,
    fetch,
    fetch_ranges,
)
from dask_embstab.tables.read.stored.shards import OpenShard, Shards
from dask_embstab.tables.store_errors import reading, writing
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES, stored_checksum
from dask_embstab.tables.stores.sending import Abandonable

Compression = Literal["blosc", "zstd", "gzip", "zlib", "pcodec"]
"""As numcodecs calls them."""


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """Where the chunks of one array lie and how they are encoded; picklable and small.

    Of an array in ``shards`` a chunk here is a shard, and its inner chunks are what is encoded.

    Zarr leaves out a chunk of nothing but ``fill``, and a missing one reads so: never where the
    fill is not finite, and of ``unique`` values only a chunk of one row. Where digests were
    ``recorded``, by the path ``within`` the run, every chunk must be there.
    """

    root: str
    keys: tuple[str, str]
    n_rows: int
    d: int
    chunk_rows: int
    dtype: np.dtype[Any]
    checksummed: bool
    compression: Compression | None
    fill: int | float
    unique: bool
    within: str = ""
    recorded: Recorded | None = None
    shards: Shards | None = None
    store: ObjectStore[Any] | None = None

    @property
    def by_panels(self) -> bool:
        """Whether rows are stored as they are, so that some of a chunk can be read alone."""
        return self.compression is None if self.shards is None else self.shards.whole_rows

    @property
    def unit_rows(self) -> int:
        """Rows that are decoded at a time: of a chunk, or of an inner chunk."""
        return self.chunk_rows if self.shards is None else self.shards.rows

    @property
    def is_written_here(self) -> bool:
        """Whether chunks are written without Zarr: rows as they are, of shards as this library lays
        them out.
        """
        shards = self.shards
        return self.by_panels and (shards is None or (self.checksummed and shards.index_first))

    @property
    def written_bytes(self) -> int:
        """Bytes of a chunk's file as this library writes it; the last one too is of full length."""
        if self.shards is None:
            return self.data_bytes + CHECKSUM_BYTES * self.checksummed
        n_chunks = self.shards.grid[0]
        return self.shards.index_bytes + self.data_bytes + CHECKSUM_BYTES * (n_chunks + 1)

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of a chunk's file; None where its contents decide."""
        if self.compression is not None or self.shards is not None:
            return None
        return self.data_bytes + CHECKSUM_BYTES * self.checksummed

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.d * self.dtype.itemsize

    @property
    def data_bytes(self) -> int:
        """Bytes of a decoded chunk; the last one too is stored at full length."""
        return self.chunk_rows * self.d * self.dtype.itemsize

    def path(self, chunk: int) -> str:
        """The file of one chunk."""
        before, after = self.keys
        return f"{self.root}/{before}{chunk}{after}".lstrip("/" if self.store is not None else "")

    def name(self, chunk: int) -> str:
        """What messages call the bytes of a chunk."""
        path = self.path(chunk)
        return f"chunk file {path}" if self.store is None else f"chunk {self.store}/{path}"

    @property
    def ahead_bytes(self) -> int:
        """Most bytes that a reader has on their way and works on, besides its buffer."""
        if self.store is None:
            return 0
        is_cut = self.shards is not None or self.stored_bytes is not None
        part = PART_BYTES if is_cut else max(PART_BYTES, self.data_bytes)
        return AHEAD_BYTES + 2 * part  # what is worked on, and the last one asked for

    def ahead(self, start: int, stop: int) -> ReadAhead | None:
        """What fetches the objects of these rows in order; None on a local disk, where the system
        does.
        """
        if self.store is None:
            return None
        chunks = range(start // self.chunk_rows, -(-stop // self.chunk_rows))
        return ReadAhead(
            self.store.store,
            [self.path(chunk) for chunk in chunks],
            size=self.stored_bytes,
            index=self.index_range,
            guess=self.data_bytes,
        )

    @property
    def index_range(self) -> tuple[int, int | None] | None:
        """Where the index of a shard lies in it, as `fetch` takes a range."""
        if self.shards is None:
            return None
        size = self.shards.index_bytes
        return (0, size) if self.shards.index_first else (-size, None)

    def last_checksums(self, chunks: list[int]) -> list[int] | None:
        """The checksums that are stored with the rows of these objects, by small requests side by
        side; None where there are none, or an object is not there.
        """
        assert self.store is not None
        if not (self.by_panels and self.checksummed):
            return None
        ask = self._last_checksum if self.shards is None else partial(stored_checksum_of, self)
        asked = [submit(ask, chunk) for chunk in chunks]
        try:
            with reading(self.name(chunks[0])):
                return [one.result() for one in asked]
        except EmbstabError:
            return None  # reading tells

    def _last_checksum(self, chunk: int) -> int:
        assert self.store is not None
        part = fetch(self.store.store, self.path(chunk), -CHECKSUM_BYTES, None)
        return int.from_bytes(part.data, "little")

    def require_open(self) -> None:
        """Raise where the store is that of a write which was given up."""
        store: Any = self.store
        if isinstance(store, Abandonable):
            store.sending.require_open()

    def put(self, chunk: int, data: Any, **options: Any) -> None:
        """Store all bytes of a chunk (or what gives them, part by part) as one object; large ones
        in parts, side by side. Who gives the write up waits for it.
        """
        import obstore

        store: Any = self.store
        guard = store.sending.one() if isinstance(store, Abandonable) else contextlib.nullcontext()
        with guard, writing(self.name(chunk)):
            obstore.put(store.store, self.path(chunk), data, **options)

    def require_ours(self) -> None:
        """Raise where the place of a write is not its own any more."""
        store: Any = self.store
        if isinstance(store, Abandonable):
            store.require_ours()

    def ranges(self, chunk: int, offsets: RowNumbers) -> list[Any]:
        """The bytes of a row at each of these offsets of an object."""
        if not len(offsets):
            return []
        assert self.store is not None
        with reading(self.name(chunk)):
            return fetch_ranges(
                self.store.store, self.path(chunk), offsets.tolist(), self.row_bytes
            )

    def require_visible(self) -> None:
        """Raise where this process does not see the array at all: every chunk would read as left
        out.
        """
        if self.store is None:
            require_visible_dir(self.root)
        elif not any(
            sync(self.store.exists(f"{self.root}/{name}".lstrip("/")))
            for name in ("zarr.json", ".zarray")
        ):
            raise InputError(
                f"{self.store}/{self.root} must be seen by every process that computes; this one,"
                f" on {socket.gethostname()}, sees nothing there; give a URL that all of them"
                " share"
            )

    def require_recorded(self, chunk: int, checksum: int) -> None:
        """Raise unless this is the digest that was recorded of a chunk, where any was."""
        if self.recorded is not None:
            key = f"{self.within}/{self.keys[0]}{chunk}{self.keys[1]}"
            self.recorded.require_chunk(key, checksum, self.name(chunk))

    def rows_of(self, chunk: int) -> int:
        """Rows of the table in a chunk."""
        return min(self.chunk_rows, self.n_rows - chunk * self.chunk_rows)

    def followed_by_fill(self, crc: int, n_rows: int) -> int:
        """The checksum of rows and so many of fill behind them, from that of the rows."""
        if not n_rows:
            return crc
        fill = np.full(self.d, self.fill, self.dtype).tobytes()
        return appended(n_rows * self.row_bytes)(crc, repeated(fill, n_rows))

    def may_be_left_out(self, n_rows: int) -> bool:
        """Whether Zarr may have stored so many rows by not storing them."""
        return self.recorded is None and may_be_left_out(
            self.fill, unique=self.unique, n_rows=n_rows
        )


def may_be_left_out(fill: Any, *, unique: bool, n_rows: int) -> bool:
    """Whether some writer stores so many rows of nothing but the fill value by not storing them."""
    is_number = not isinstance(fill, float | np.floating) or bool(np.isfinite(fill))
    return is_number and (n_rows == 1 or not unique)


def open_chunk(
    files: ChunkFiles, number: int, ahead: ReadAhead | None = None
) -> OpenChunk | OpenObject | OpenShard | None:
    """The chunk, or the shard with its index; None where Zarr left out a chunk of nothing but a
    finite fill value.

    Raises `DamageError` where it is missing, not the one that was recorded, or uncompressed and not
    as long as its rows (and checksum) are.
    """
    path, name = files.path(number), files.name(number)
    chunk: OpenChunk | OpenObject
    try:
        if files.store is None:
            chunk = OpenChunk.at(path, name)
        else:
            chunk = OpenObject(files.store.store, path, name, ahead, index=files.index_range)
    except FileNotFoundError:
        files.require_visible()
        if files.may_be_left_out(files.rows_of(number)):
            return None
        raise DamageError(
            f"{name} is missing; restore it from its source, or write the table again"
        ) from None

    try:
        if files.recorded is not None:
            files.require_recorded(number, chunk.stored_checksum())
        if files.shards is not None:
            fill = np.asarray(files.fill, files.dtype)
            n_rows = files.rows_of(number)
            shard = OpenShard(chunk, files.shards, n_rows, fill, files.may_be_left_out)
            if files.recorded is not None and files.store is None and files.is_written_here:
                files.require_recorded(number, shard.stored_checksum())
            return shard
        if files.stored_bytes not in (None, chunk.size):
            raise DamageError(
                f"{chunk.name} should have {files.stored_bytes} bytes and has {chunk.size}; restore"
                " it from its source"
            )
    except BaseException:
        chunk.close()
        raise
    return chunk


def stored_checksum_of(files: ChunkFiles, number: int) -> int:
    """Of all rows of a chunk that are stored as they are, with checksums."""
    if files.shards is None:
        return stored_checksum(files.path(number))
    chunk = open_chunk(files, number)
    if not isinstance(chunk, OpenShard):
        raise FileNotFoundError(files.path(number))
    try:
        return chunk.stored_checksum()
    finally:
        chunk.close()
