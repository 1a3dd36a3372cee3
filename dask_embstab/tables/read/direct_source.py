"""Vectors in a Zarr array whose chunks are plain files, shards or objects: read without Zarr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.direct import DirectBlock
from dask_embstab.tables.read.guarded import guarded
from dask_embstab.tables.read.limits import exceeds_cache, require_stored
from dask_embstab.tables.read.source import Access, Digests, Openable, Source
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.gather import DirectGather, ObjectGather
from dask_embstab.tables.read.stored.in_order import BlockQueue
from dask_embstab.tables.read.zarr_source import ZarrGather, ZarrSource

_FEW_CHUNKS = 16


@dataclass(frozen=True, slots=True)
class DirectSource:
    """A two-dimensional Zarr array with `ChunkFiles`; a chunk of a sharded one is a shard.

    Where rows are not read by panels, ``unit_rows`` of them are decoded at a time. At most
    ``ahead_bytes`` are on their way to a reader.
    """

    array: zarr.Array[Any]
    files: ChunkFiles
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk_rows: int
    access: Access
    unit_rows: int
    ahead_bytes: int

    @classmethod
    def of(cls, array: zarr.Array[Any], files: ChunkFiles) -> DirectSource:
        """The array, read from these files."""
        access: Access = "panels" if files.by_panels else "chunks"
        shape = files.n_rows, files.d
        more = files.unit_rows, files.ahead_bytes
        return cls(array, files, shape, files.dtype, files.chunk_rows, access, *more)

    def block(self, start: int, stop: int) -> DirectBlock:
        """These rows, read when the task runs."""
        drop = exceeds_cache(self.files.n_rows * self.files.row_bytes)
        return DirectBlock(self.files, start, stop, drop)

    def gather(self, rows: RowNumbers) -> DirectGather | ZarrGather:
        """These rows, gathered when the task runs."""
        if not self.files.by_panels or self.files.store is not None:
            return ZarrGather(ZarrSource(self.array, self.files.unique), rows)
        return DirectGather(self.files, rows)


def small_array(array: zarr.Array[Any], what: str) -> Any:
    """All values of a small array; read without Zarr where they are one chunk on a local disk.

    Raises `DamageError` where its metadata claims far more than is stored.
    """
    files = chunk_files(array) if array.ndim in (1, 2) else None
    if files is not None and files.store is None and 0 < files.n_rows <= files.chunk_rows:
        with contextlib.suppress(OSError):
            if Path(files.path(0)).stat().st_size == files.stored_bytes:
                rows = DirectBlock(files, 0, files.n_rows).open().take(0, files.n_rows)
                return rows.reshape(array.shape)
    require_stored(array, what)
    return guarded(array, what=what)[...]


def in_order(blocks: Sequence[Openable]) -> list[Openable]:
    """Blocks of one source that tasks open in about this order: of objects, what the next one reads
    first is on its way when it is opened.
    """
    plain = [block for block in blocks if isinstance(block, DirectBlock)]
    if len(plain) < max(2, len(blocks)) or plain[0].files.store is None:
        return list(blocks)
    queue = BlockQueue(plain[0].files, [(block.start, block.stop) for block in plain])
    return [replace(block, queue=queue) for block in plain]


def expect(blocks: Sequence[Openable], order: Callable[[], Sequence[int]]) -> None:
    """Say in which order such blocks will be opened, by their numbers, where it makes a
    difference.
    """
    queue = getattr(blocks[0], "queue", None) if blocks else None
    if queue is not None:
        queue.expect(order())


def few_rows(source: Source, rows: RowNumbers) -> Any:
    """A gather that reads these rows and no more where rows can be read by themselves; checksums
    are not compared then.
    """
    if isinstance(source, DirectSource) and source.access == "panels":
        if source.files.store is not None:
            return ObjectGather(source.files, rows)
        return DirectGather(source.files, rows, verified=False)
    return source.gather(rows)


def few_checksums(source: Source) -> list[int] | None:
    """Those of at most 16 chunks all over the table, the first and the last too, as they are stored
    with them: no row is read. None where one is not.
    """
    if not isinstance(source, DirectSource):
        return None
    rows, n = source.chunk_rows, source.shape[0]
    numbers = np.unique(np.linspace(0, -(-n // rows) - 1, _FEW_CHUNKS).astype(np.int64))
    if source.files.store is not None:
        return source.files.last_checksums(numbers.tolist())
    checksums = [
        DirectBlock(source.files, k * rows, min((k + 1) * rows, n)).stored_digests().get(k)
        for k in numbers.tolist()
    ]
    known = [one for one in checksums if one is not None]
    return known if len(known) == len(checksums) else None


def stored_digests(block: Openable) -> Digests:
    """Of every chunk of a block, known before it is read; empty where only reading tells."""
    return block.stored_digests() if isinstance(block, DirectBlock) else {}
