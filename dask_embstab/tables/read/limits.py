"""Can what the metadata claims be there, and can this machine work on it? Asked before anything
grows with the claim.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.errors import DamageError, InputError
from dask_embstab.tables.read.bounded import LENGTH_BYTES

_FEW_CHUNKS = 1 << 14
"""So many may be missing: reading finds that out before anything has grown."""
_SPARSEST = 100
"""Of the chunks of a table one in so many is stored at least: others may be left out where the fill
value is finite.
"""
_FEW_TEXTS = 1 << 22
_LEAST_BYTES, _MOST_TIMES = 1 << 20, 32
_TASK_BYTES = 1 << 10
_SHARE = 0.5
_CACHED_SHARE = 0.5
"""Of memory: tables that are larger leave no pages behind, read or written."""


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def exceeds_cache(n_bytes: int) -> bool:
    """Whether a table is so large that its pages shall not stay in the system's cache."""
    return n_bytes > _CACHED_SHARE * physical_memory()


def require_held(array: zarr.Array[Any], what: str) -> None:
    """Raise `DamageError` where chunks hold nothing, or a local array of very many chunks has not
    as many files; its folder is listed then.
    """
    if not all(array.chunks) and all(array.shape):
        raise DamageError(
            f"chunks of {what} must hold values; by its metadata they have the shape"
            f" {array.chunks}; restore it from its source"
        )
    n_chunks = (
        math.ceil(array.shape[0] / max(1, (array.shards or array.chunks)[0])) if array.ndim else 0
    )
    if n_chunks <= _FEW_CHUNKS or not isinstance(array.store, LocalStore):
        return

    fill: Any = array.fill_value
    complete = isinstance(fill, float | np.floating) and not np.isfinite(fill)
    marker = 7_777_777
    key = array.metadata.encode_chunk_key((marker,) + (0,) * (array.ndim - 1))
    folder = Path(array.store.root, array.path, key.partition(str(marker))[0] + "0").parent
    stored = (
        sum(not entry.name.startswith(".") for entry in os.scandir(folder))
        if folder.is_dir()
        else 0
    )
    _require_chunks(stored, n_chunks, array.shape[0], what, complete=complete)


def require_dense(n_rows: int, n_chunks: int, stored: Callable[[], int], what: str) -> None:
    """Raise `DamageError` where so few of very many chunks are stored of a file's array; they are
    counted then.
    """
    if n_chunks > _FEW_CHUNKS:
        _require_chunks(stored(), n_chunks, n_rows, what)


def _require_chunks(
    stored: int, n_chunks: int, n_rows: int, what: str, *, complete: bool = False
) -> None:
    if stored < (n_chunks if complete else n_chunks / _SPARSEST):
        raise DamageError(
            f"{what} must be all there; its metadata claims {n_rows} rows in {n_chunks}"
            f" chunks, and {stored} are stored; restore it from its source, or write the table"
            " again"
        )


def require_stored(array: zarr.Array[Any], what: str) -> None:
    """Raise `DamageError` where a small array, to be read as a whole, claims far more bytes than
    are stored of it.
    """
    stored = array.nbytes_stored()
    if array.nbytes > _LEAST_BYTES + _MOST_TIMES * stored:
        raise DamageError(
            f"{what} must hold what its metadata claims; {array.nbytes} bytes are claimed, and"
            f" {stored} are stored; restore it from its source"
        )


def decoded_rows(array: zarr.Array[Any]) -> int:
    """Rows that Zarr decodes together: those of a chunk, or of all inner chunks of a shard that its
    rows reach into.
    """
    inner = array.chunks[0]
    if array.shards is None:
        return inner
    return min(array.shards[0], max(1, -(-array.shape[0] // inner)) * inner)


def require_texts(array: zarr.Array[Any], what: str) -> None:
    """Raise where a chunk of millions of texts is longer than its table (`InputError`), or a local
    array claims more of them than its stored bytes can hold (`DamageError`).
    """
    n_rows, chunk_rows = array.shape[0], decoded_rows(array)
    if chunk_rows <= _FEW_TEXTS:
        return
    if array.chunks[0] > n_rows:
        raise InputError(
            f"chunks of {what} must be no longer than the table, since they are decoded whole; they"
            f" have {array.chunks[0]} texts each and the table has {n_rows} rows; write it again in"
            " smaller chunks"
        )
    stored = array.nbytes_stored() if isinstance(array.store, LocalStore) else n_rows
    if LENGTH_BYTES * n_rows > _LEAST_BYTES + _MOST_TIMES * stored:
        raise DamageError(
            f"{what} must hold what their metadata claims; {n_rows} texts are claimed, and"
            f" {stored} bytes are stored; restore them from their source"
        )


def require_task_count(n: int, what: str) -> None:
    """Raise `InputError` where a graph of so many tasks would not fit in memory."""
    if n * _TASK_BYTES > _SHARE * physical_memory():
        raise InputError(
            f"{what} must be cut so that its tasks can be planned; {n} of them came, which this"
            " machine cannot hold; write it again in larger chunks"
        )


def require_workable(n_decoded: int, d: int, what: str) -> None:
    """Raise `InputError` where a chunk to be decoded whole (bytes), or one d x d matrix, is larger
    than memory.
    """
    memory = physical_memory()
    if n_decoded > memory:
        raise InputError(
            f"the chunks of {what} must be decoded whole; {n_decoded} bytes are more than this"
            " machine has; write it again in smaller chunks"
        )
    if 8 * d * d > memory:
        raise InputError(
            f"a {d} x {d} matrix must fit in memory; {what} has {d} components; reduce them first"
        )
