"""Rows from the bytes of compressed chunks, whole ones and inner ones of shards."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import EmbstabError
from dask_embstab.tables.read.bounded import allowed_bytes, decode_into, require_encoded_size
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.files import OpenChunk
from dask_embstab.tables.read.stored.objects import OpenObject
from dask_embstab.tables.read.stored.shards import OpenShard
from dask_embstab.tables.read.stored.stored_bytes import without_checksum
from dask_embstab.tables.store_errors import read_error


class Scratch:
    """Memory for encoded bytes that is used again: fresh pages for every chunk take as long as
    decoding it.
    """

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    def take(self, n_bytes: int) -> memoryview:
        """So many bytes, until the next call."""
        if len(self._memory) < n_bytes:
            fresh: Any = np.empty(n_bytes, np.uint8)
            self._memory = memoryview(fresh)
        return self._memory[:n_bytes]


def decode_chunk(
    files: ChunkFiles, chunk: OpenChunk | OpenObject | None, out: Rows, scratch: Scratch
) -> None:
    """Decode a compressed chunk (None: it was left out) into ``out`` (chunk_rows, d)."""
    if chunk is None:
        out[...] = files.fill
        return

    require_encoded_size(chunk.size, allowed_bytes(out.size, files.dtype), chunk.name)
    encoded = scratch.take(chunk.size)
    chunk.read_into(encoded, 0)
    if files.checksummed:
        encoded = without_checksum(encoded, chunk.name)
    _decode(files, encoded, out, chunk.name)


def decode_band(
    files: ChunkFiles, shard: OpenShard, band: int, out: Rows, scratch: Scratch
) -> None:
    """Decode the inner chunks of the same rows into ``out`` (their rows, d)."""
    assert files.shards is not None
    columns, width = files.shards.grid[1], files.shards.width
    part = out if columns == 1 else np.empty((len(out), width), files.dtype)
    for column in range(columns):
        number = band * columns + column
        encoded = shard.encoded(number, scratch.take)
        if encoded is None:
            part[...] = files.fill
        else:
            _decode(files, encoded, part, shard.name(number))
        if columns > 1:
            out[:, column * width : (column + 1) * width] = part


def _decode(files: ChunkFiles, encoded: memoryview, out: Rows, name: str) -> None:
    """Rows from the bytes of one chunk, whose checksum is right or was none."""
    if files.compression is None:
        out.reshape(-1)[:] = np.frombuffer(encoded, files.dtype)
        return
    try:
        decode_into(files.compression, encoded, out)
    except EmbstabError:
        raise
    except Exception as error:
        raise read_error(error, name) from error
