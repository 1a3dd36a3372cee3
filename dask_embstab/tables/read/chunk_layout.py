"""When can the chunks of a Zarr array be read and written without Zarr, and where are they?

On a local disk or in an object store (`zarr.storage.ObjectStore`), where chunks (or shards) hold
whole rows in C order, and the codecs are bytes and nothing but one compression (Blosc, Zstandard,
gzip, zlib), or Pcodec alone, and an optional crc32c: then a chunk's file or object is its rows
(compressed or not), and the last four bytes their checksum. Rounded bits need no decoding. A shard
holds many such chunks, and an index of them. Everything else goes through Zarr with the same
kernels.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore

from dask_embstab.errors import DamageError, InputError
from dask_embstab.tables.read.bounded import allowed_bytes
from dask_embstab.tables.read.stored.chunk_files import (
    ChunkFiles,
    Compression,
    may_be_left_out,
    open_chunk,
)
from dask_embstab.tables.read.stored.files import require_visible_dir
from dask_embstab.tables.read.stored.shards import Shards
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES

_V3 = 3
_ROUNDED, _NUMBERS = "bitround", "pcodec"
_MOST_REMEMBERED = 1 << 12


def chunk_files(array: zarr.Array[Any], *, unique: bool = False) -> ChunkFiles | None:
    """The layout of an array of numbers, (n, d) or (n,), whose chunks are plain files; None where
    Zarr must decode them.

    ``unique``: no value stands in two rows (ids).
    """
    store: Any = array.store
    if (
        not isinstance(store, LocalStore | ObjectStore)
        or array.dtype.kind not in "fiu"
        or (array.shards or array.chunks)[1:] != array.shape[1:]
    ):
        return None

    encoding = _encoding(array)
    if encoding is None:
        return None

    dtype, checksummed, compression, shards = encoding
    marker = 7_777_777
    key = array.metadata.encode_chunk_key((marker,) + (0,) * (array.ndim - 1))
    before, _, after = key.partition(str(marker))
    # As it is: a float64 does not hold every whole number.
    fill = np.asarray(0 if array.fill_value is None else array.fill_value, array.dtype).item()
    remote = store if isinstance(store, ObjectStore) else None
    local = "" if isinstance(store, ObjectStore) else str(Path(store.root).absolute() / array.path)
    return ChunkFiles(
        root=local or array.path,
        keys=(before, after),
        n_rows=array.shape[0],
        d=array.shape[1] if array.ndim == 2 else 1,
        chunk_rows=(array.shards or array.chunks)[0],
        dtype=dtype,
        checksummed=checksummed,
        compression=compression,
        fill=fill,
        unique=unique,
        within=array.path,
        recorded=getattr(store, "recorded", None),
        shards=shards,
        store=remote,
    )


_Encoding = tuple[np.dtype[Any], bool, Compression | None, Shards | None]


def _encoding(array: zarr.Array[Any]) -> _Encoding | None:
    """Dtype as stored, whether a checksum ends each (inner) chunk, the compression, and how shards
    are made of inner chunks; None for any other chain of codecs.
    """
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        filters = [codec.codec_id for codec in metadata.filters or ()]
        compressor = getattr(metadata.compressor, "codec_id", None)
        compression = _compression(compressor, array.dtype, rounded=filters == [_ROUNDED])
        if filters not in ([], [_ROUNDED]) or metadata.order != "C" or compressor != compression:
            return None
        return array.dtype, False, compression, None

    codecs = list(metadata.codecs)
    if len(codecs) != 1 or not isinstance(sharding := codecs[0], ShardingCodec):
        encoding = _inner_encoding(codecs, array.dtype)
        return None if encoding is None else (*encoding, None)

    encoding = _inner_encoding(sharding.codecs, array.dtype)
    index = _inner_encoding(sharding.index_codecs, np.dtype(np.uint64))
    if encoding is None or index is None or index[0].byteorder == ">" or index[2] is not None:
        return None

    dtype, checksummed, compression = encoding
    rows, width = (*sharding.chunk_shape, 1)[:2]
    shape = (*(array.shards or array.chunks), 1)[:2]
    shards = Shards(
        rows=rows,
        width=width,
        grid=(shape[0] // rows, shape[1] // width),
        chunk_bytes=rows * width * dtype.itemsize,
        most_bytes=allowed_bytes(rows * width, dtype) + CHECKSUM_BYTES,
        compressed=compression is not None,
        checksummed=checksummed,
        index_first=getattr(sharding.index_location, "value", sharding.index_location) == "start",
        index_checksummed=index[1],
    )
    return dtype, checksummed, compression, shards


def _inner_encoding(
    codecs: Sequence[Any], dtype: np.dtype[Any]
) -> tuple[np.dtype[Any], bool, Compression | None] | None:
    """The same of a chain of codecs without shards."""
    rounded = bool(codecs) and _name(codecs[0]) == _ROUNDED
    codecs = codecs[1:] if rounded else codecs
    if not codecs:
        return None
    rest = list(codecs[1:])
    checksummed = bool(rest) and isinstance(rest[-1], Crc32cCodec)
    rest = rest[:-1] if checksummed else rest

    if isinstance(codecs[0], BytesCodec):
        endian = getattr(codecs[0].endian, "value", codecs[0].endian)
        dtype = dtype.newbyteorder(">" if endian == "big" else "<")
        if not rest:
            return dtype, checksummed, None
        compression = _compression(_name(rest.pop(0)), dtype, rounded=rounded)
        is_whole = compression != _NUMBERS
    else:
        compression = _compression(_name(codecs[0]), dtype, rounded=rounded)
        is_whole = compression == _NUMBERS
    return (dtype, checksummed, compression) if compression and is_whole and not rest else None


def _name(codec: Any) -> str:
    """What numcodecs calls a codec of Zarr v3."""
    return str(codec.to_dict()["name"]).removeprefix("numcodecs.")


def _compression(name: str | None, dtype: np.dtype[Any], *, rounded: bool) -> Compression | None:
    """That which is decoded without Zarr, by its name; Pcodec keeps no order of bytes, and rounded
    bits as whole numbers.
    """
    for known in get_args(Compression):
        if name == known and (known != _NUMBERS or (dtype.isnative and not rounded)):
            compression: Compression = known
            return compression
    return None


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


def require_chunks(
    array: zarr.Array[Any], rows: range | Sequence[int], values: Any, *, unique: bool = False
) -> None:
    """Raise `DamageError` where these ``values`` of ``rows`` are the fill of a chunk that is
    missing and that no writer leaves out.

    The first of them in each (inner) chunk tells whether the store is asked for it.
    """
    size, fill = array.chunks[0], array.fill_value
    starts = [
        at
        for at in _starts(rows, size)
        if _is_fill(values[at], fill)
        and not may_be_left_out(
            fill, unique=unique, n_rows=min(size, array.shape[0] - rows[at] // size * size)
        )
    ]
    if not starts:
        return
    files = chunk_files(array, unique=unique)
    chunk_rows = (array.shards or array.chunks)[0]
    for chunk in dict.fromkeys(rows[at] // chunk_rows for at in starts):
        if files is not None:
            if (stored := open_chunk(files, chunk)) is not None:
                stored.close()
            continue
        key = array.metadata.encode_chunk_key((chunk,) + (0,) * (array.ndim - 1))
        if not sync(array.store.exists(f"{array.path}/{key}".lstrip("/"))):
            raise DamageError(
                f"chunk {key} of {array.store_path} is missing; restore it from its source, or"
                " write the table again"
            )


def _starts(rows: range | Sequence[int], size: int) -> list[int]:
    """Where rows of another chunk begin."""
    if isinstance(rows, range) and rows.step == 1:
        return [0, *range(size - rows.start % size, len(rows), size)] if rows else []
    numbers = np.asarray(rows, np.int64) // size
    return np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()


def _is_fill(row: Any, fill: Any) -> bool:
    """Whether nothing but the fill value stands in a row."""
    same = np.asarray(row == ("" if fill is None and isinstance(row, str) else fill))
    return bool(np.all(same | (np.asarray(row != row) & bool(fill != fill))))
