"""Single rows of chunks that are stored as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.tables.read.source import Digests, GatherReader, grouped
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles, open_chunk
from dask_embstab.tables.read.stored.plain import PlainChunk
from dask_embstab.tables.read.stored.shards import OpenShard


@dataclass(frozen=True, slots=True)
class DirectGather:
    """Rows gathered from chunks that are stored as they are.

    Where ``verified``, a chunk (of a shard, an inner chunk) is checked before its first row is
    used, which reads it whole.
    """

    files: ChunkFiles
    rows: RowNumbers
    verified: bool = True

    def open(self) -> DirectGatherReader:
        """Start picking."""
        return DirectGatherReader(self)


class DirectGatherReader:
    """Picks rows from mapped chunk files, one panel at a time."""

    def __init__(self, gather: DirectGather) -> None:
        self._files, self._rows, self._verify = gather.files, gather.rows, gather.verified

    def take(self, start: int, stop: int) -> Rows:
        """The gathered rows ``start`` to ``stop``."""
        rows, size = self._rows[start:stop], self._files.chunk_rows
        panel = np.empty((len(rows), self._files.d), self._files.dtype)
        for number, group in grouped(rows // size):
            wanted = rows[group] - number * size
            chunk = open_chunk(self._files, number)
            if chunk is None:
                panel[group] = self._files.fill
                continue
            try:
                if isinstance(chunk, OpenShard):
                    self._pick_inner(chunk, wanted, group, panel)
                else:
                    if self._verify:
                        PlainChunk(chunk, self._files.data_bytes, self._files.checksummed).verify()
                    panel[group] = self._mapped(chunk.path, 0, size)[wanted]
            finally:
                chunk.close()

        return panel

    def _pick_inner(
        self, shard: OpenShard, rows: RowNumbers, group: RowNumbers, panel: Rows
    ) -> None:
        size = self._files.unit_rows
        for number, part in grouped(rows // size):
            place = shard.place(number)
            if place is None:
                panel[group[part]] = self._files.fill
                continue
            if self._verify:
                shard.verify(number)
            mapped = self._mapped(shard.path, place, size)
            panel[group[part]] = mapped[rows[part] - number * size]

    def digests(self) -> Digests:
        """None: chunks are not read as a whole table."""
        return {}

    def _mapped(self, path: str, offset: int, n_rows: int) -> Rows:
        """Rows mapped into memory, unmapped when the panel is done."""
        shape = n_rows, self._files.d
        return np.memmap(path, self._files.dtype, "r", offset=offset, shape=shape)


@dataclass(frozen=True, slots=True)
class ObjectGather:
    """Rows gathered from objects that hold rows as they are: their bytes alone are fetched, without
    the checksum of their chunks.
    """

    files: ChunkFiles
    rows: RowNumbers

    def open(self) -> GatherReader:
        """Start picking."""
        return GatherReader(self._pick, self.rows)

    def _pick(self, rows: RowNumbers) -> Rows:
        files = self.files
        rows_read = np.empty((len(rows), files.d), files.dtype)
        for number, group in grouped(rows // files.chunk_rows):
            chunk = open_chunk(files, number)
            inside = rows[group] - number * files.chunk_rows
            if chunk is None:
                rows_read[group] = files.fill
                continue
            offsets = inside * files.row_bytes
            if isinstance(chunk, OpenShard):
                offsets = chunk.offsets(offsets)
            rows_read[group[offsets < 0]] = files.fill
            group, offsets = group[offsets >= 0], offsets[offsets >= 0]
            for row, data in zip(group, files.ranges(number, offsets), strict=True):
                rows_read[row] = np.frombuffer(data, files.dtype)
            chunk.close()
        return rows_read
