"""Is an array still what it was when a verb began to read it? What its place tells of it, without reading a row.

Of an array in a folder: its metadata, and the size and time of every chunk file. Other stores tell their metadata; what no
place tells, the digests of two reads do (`tables/inputs.py`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from dask_embstab.files.regular import read_regular

_MARKER = 7_777_777


@dataclass(frozen=True, slots=True, eq=False)
class ArrayIdentity:
    """What a place tells of a Zarr array: the bytes of its metadata, and a number for the size and time of each chunk file.

    ``stamps``, (n_chunks,), is 0 where a file is missing, and empty on other stores than folders.
    """

    metadata: bytes
    stamps: npt.NDArray[np.int64]

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ArrayIdentity:
        """As it is now."""
        return cls(_metadata(array), np.fromiter(map(_stamp, _chunk_paths(array)), np.int64))

    def change(self, array: zarr.Array[Any]) -> str | None:
        """What is not as it was, in words; None where everything is."""
        if self.metadata != _metadata(array):
            return "its metadata was written anew"
        for path, before in zip(_chunk_paths(array), self.stamps, strict=True):
            if _stamp(path) != before:
                return f"chunk file {path} {_when(path)}"
        return None

    def opened_before(self, array: zarr.Array[Any]) -> bool:
        """Whether the array was opened before its place was given another shape."""
        shape = json.loads(self.metadata).get("shape") if self.metadata else None
        return shape is not None and tuple(shape) != array.shape


def tells_by_place(array: Any) -> bool:
    """Whether the identity of an array says all: digests of what was read of it need not be compared."""
    return isinstance(array, zarr.Array) and isinstance(array.store, LocalStore)


def _metadata(array: zarr.Array[Any]) -> bytes:
    """Empty where they cannot be read: whoever reads rows then says why."""
    store, name = array.store, ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
    with contextlib.suppress(Exception):
        if isinstance(store, LocalStore):
            return read_regular(f"{store.root}/{array.path}/{name}")
        found = sync(store.get(f"{array.path}/{name}".lstrip("/"), default_buffer_prototype()))
        return b"" if found is None else found.to_bytes()
    return b""


def _chunk_paths(array: zarr.Array[Any]) -> Any:
    """Files of the chunks (or shards) of whole rows, in order; none on other stores than folders."""
    if not isinstance(array.store, LocalStore) or not array.ndim:
        return ()
    key = array.metadata.encode_chunk_key((_MARKER,) + (0,) * (array.ndim - 1))
    before, _, after = key.partition(str(_MARKER))
    root, rows = f"{array.store.root}/{array.path}/{before}", (array.shards or array.chunks)[0]
    return (f"{root}{number}{after}" for number in range(-(-array.shape[0] // rows)))


def _stamp(path: str) -> int:
    try:
        found = os.stat(path)  # noqa: PTH116 (once per chunk)
    except OSError:
        return 0
    return hash((found.st_size, found.st_mtime_ns))


def _when(path: str) -> str:
    try:
        written = os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return "is gone"
    at = dt.datetime.fromtimestamp(written, dt.UTC).isoformat(timespec="milliseconds")
    return f"was written anew ({at})"
