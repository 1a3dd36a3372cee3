"""When are the chunks of a Zarr array plain files that can be read and written without Zarr, and
where are they?

On a local store, in an unsharded array whose chunks hold whole rows in C order, and whose codecs
are bytes and nothing but an optional crc32c, Blosc or Zstandard: then a chunk's file is its rows
(compressed or not), and the last four bytes their checksum. Everything else goes through Zarr with
the same kernels.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import crc32c
import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore

from dask_embstab.errors import DamageError, InputError
from dask_embstab.files.regular import open_regular
from dask_embstab.tables.read.recorded import CHECKSUM_BYTES, Recorded, RunStore, last_bytes
from dask_embstab.tables.store_errors import read_error

Compression = Literal["blosc", "zstd"]
_BLOCK_BYTES = 1 << 20
_V3 = 3


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """Where the chunks of one array lie and how they are encoded; picklable and small.

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
    fill: float
    unique: bool
    within: str = ""
    recorded: Recorded | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.d * self.dtype.itemsize

    @property
    def data_bytes(self) -> int:
        """Bytes of a decoded chunk; the last one too is stored at full length."""
        return self.chunk_rows * self.row_bytes

    def path(self, chunk: int) -> str:
        """The file of one chunk."""
        before, after = self.keys
        return f"{self.root}/{before}{chunk}{after}"

    def may_be_left_out(self, chunk: int) -> bool:
        """Whether Zarr may have stored this chunk by not storing it."""
        lone = min((chunk + 1) * self.chunk_rows, self.n_rows) - chunk * self.chunk_rows == 1
        return self.recorded is None and bool(np.isfinite(self.fill)) and (lone or not self.unique)


def chunk_files(array: zarr.Array[Any], *, unique: bool = False) -> ChunkFiles | None:
    """The layout of an array of numbers, (n, d) or (n,), whose chunks are plain files; None where
    Zarr must decode them.

    ``unique``: no value stands in two rows (ids).
    """
    store = array.store
    if (
        not isinstance(store, LocalStore)
        or array.dtype.kind not in "fiu"
        or array.chunks[1:] != array.shape[1:]
    ):
        return None

    encoding = _encoding(array)
    if encoding is None:
        return None

    dtype, checksummed, compression = encoding
    marker = 7_777_777
    key = array.metadata.encode_chunk_key((marker,) + (0,) * (array.ndim - 1))
    before, _, after = key.partition(str(marker))
    fill = 0.0 if array.fill_value is None else float(array.fill_value)
    return ChunkFiles(
        root=str(Path(store.root).absolute() / array.path),
        keys=(before, after),
        n_rows=array.shape[0],
        d=array.shape[1] if array.ndim == 2 else 1,
        chunk_rows=array.chunks[0],
        dtype=dtype,
        checksummed=checksummed,
        compression=compression,
        fill=fill,
        unique=unique,
        within=array.path,
        recorded=store.recorded if isinstance(store, RunStore) else None,
    )


def _encoding(array: zarr.Array[Any]) -> tuple[np.dtype[Any], bool, Compression | None] | None:
    """Dtype as stored, whether a checksum ends the file, and the compression; None for any other
    chain of codecs.
    """
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        if metadata.filters or metadata.order != "C":
            return None
        name = None if metadata.compressor is None else metadata.compressor.codec_id
        return (array.dtype, False, name) if name in (None, "blosc", "zstd") else None

    codecs = list(metadata.codecs)
    if not codecs or not isinstance(codecs[0], BytesCodec):
        return None

    endian = getattr(codecs[0].endian, "value", codecs[0].endian)
    dtype = array.dtype.newbyteorder(">" if endian == "big" else "<")
    rest = codecs[1:]
    checksummed = bool(rest) and isinstance(rest[-1], Crc32cCodec)
    rest = rest[:-1] if checksummed else rest
    if not rest:
        return dtype, checksummed, None

    compression: Compression | None = (
        "blosc"
        if isinstance(rest[0], BloscCodec)
        else "zstd"
        if isinstance(rest[0], ZstdCodec)
        else None
    )
    return (dtype, checksummed, compression) if len(rest) == 1 and compression else None


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """One chunk's file, open for reading; `open_chunk` makes one."""

    path: str
    descriptor: int
    size: int

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on."""
        done = 0
        while done < len(target):
            try:
                got = os.preadv(self.descriptor, [target[done:]], offset + done)
            except OSError as error:
                raise read_error(error, f"chunk file {self.path}") from error
            if not got:
                raise DamageError(
                    f"chunk file {self.path} is truncated; restore it from its source"
                )
            done += got

    def checksum(self, start: int, stop: int, before: int = 0) -> int:
        """crc32c of a range of bytes, going on from ``before``; a bounded number in memory at a
        time.
        """
        buffer = memoryview(bytearray(min(_BLOCK_BYTES, stop - start)))
        for at in range(start, stop, _BLOCK_BYTES):
            part = buffer[: stop - at]
            self.read_into(part, at)
            before = crc32c.crc32c(part, before)
        return before

    def require_checksum(self, found: int) -> None:
        """Raise unless this is the checksum that ends the file."""
        if found != (stored := last_bytes(self.descriptor, self.path)):
            raise DamageError(
                f"chunk file {self.path} fails its checksum (crc32c {found:#010x}, stored"
                f" {stored:#010x}); restore it from its source"
            )

    def close(self, *, drop: bool = False) -> None:
        """Close, and tell the system to forget the pages of a table that is much larger than
        memory.
        """
        if drop:
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self.descriptor)


def open_chunk(files: ChunkFiles, number: int) -> OpenChunk | None:
    """The chunk's file; None where Zarr left out a chunk of nothing but a finite fill value.

    Raises `DamageError` where it is missing, not the one that was recorded, or uncompressed and not
    as long as its rows (and checksum) are.
    """
    path = files.path(number)
    try:
        descriptor = open_regular(path)
    except DamageError:
        raise
    except FileNotFoundError:
        require_visible_dir(files.root)
        if files.may_be_left_out(number):
            return None
        raise DamageError(
            f"chunk file {path} is missing; restore it from its source, or write the table again"
        ) from None
    except OSError as error:
        raise read_error(error, f"chunk file {path}") from error

    chunk = OpenChunk(path, descriptor, os.fstat(descriptor).st_size)
    try:
        if files.recorded is not None:
            key = f"{files.within}/{files.keys[0]}{number}{files.keys[1]}"
            files.recorded.require_chunk(key, last_bytes(descriptor, path), f"chunk file {path}")
        expected = files.data_bytes + CHECKSUM_BYTES * files.checksummed
        if files.compression is None and chunk.size != expected:
            raise DamageError(
                f"chunk file {path} should have {expected} bytes and has {chunk.size}; restore it"
                " from its source"
            )
    except DamageError:
        chunk.close()
        raise
    return chunk


def require_visible_dir(folder: str | Path) -> None:
    """Raise where a folder that should be there is not: a worker that cannot see it would read
    every chunk as missing.
    """
    if not Path(folder).is_dir():
        raise DamageError(
            f"{folder} is not there, as seen from {socket.gethostname()}; every process that"
            " computes must see it: give the workers of a cluster a shared file system, or use an"
            " object store's URL"
        )


_visible: set[tuple[str, str]] = set()


def require_visible(array: zarr.Array[Any]) -> None:
    """Raise where this process does not see the store of an array at all, as a worker does not that
    has a copy of its own.

    Every chunk would read as left out, so as the fill value. Asked once per array and process; of a
    folder each time.
    """
    store, path = array.store, array.path
    if isinstance(store, LocalStore):
        require_visible_dir(Path(store.root) / path)
        return

    known = f"{type(store).__name__} {store}", path
    if known in _visible:
        return

    key = f"{path}/{'zarr.json' if array.metadata.zarr_format == _V3 else '.zarray'}".lstrip("/")
    if not sync(store.exists(key)):
        raise InputError(
            f"{array.store_path} must be seen by every process that computes; this one, on"
            f" {socket.gethostname()}, sees nothing there, because its copy of the store is its"
            " own; give a path or a URL that all of them share, or compute in threads"
        )
    if len(_visible) >= _MOST_REMEMBERED:
        _visible.clear()
    _visible.add(known)


_verified: dict[tuple[str, int, int], None] = {}
_verified_lock = threading.Lock()
_MOST_REMEMBERED = 1 << 17


def verify_once(files: ChunkFiles, chunk: OpenChunk) -> None:
    """Check a whole chunk's checksum before parts of it are read; once per file and process, in one
    sequential read.
    """
    if not files.checksummed:
        return

    key = chunk.path, chunk.size, os.fstat(chunk.descriptor).st_ctime_ns
    if key in _verified:
        return

    chunk.require_checksum(chunk.checksum(0, files.data_bytes))
    with _verified_lock:
        if len(_verified) >= _MOST_REMEMBERED:
            _verified.clear()
        _verified[key] = None
