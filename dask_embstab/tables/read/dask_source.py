"""Vectors in a user's own Dask array (say, the output of model inference): its chunks become blocks
of the passes.

The one place below `passes/` that knows Dask, because the contract gives every table a Dask view of
its vectors.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import dask
import numpy as np
import zarr
from dask.delayed import Delayed

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import InputError
from dask_embstab.tables.read.chunk_layout import require_chunks, require_visible
from dask_embstab.tables.read.limits import require_task_count
from dask_embstab.tables.read.source import Access, ArrayBlock, default_chunk_rows


@dataclass(frozen=True, slots=True)
class DaskSource:
    """A two-dimensional Dask array with known, full-width chunks; its blocks are computed inside
    the tasks.
    """

    array: Any
    access: ClassVar[Access] = "computed"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the array."""
        return cast("np.dtype[Any]", self.array.dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows of its first chunk that has any, whatever the others hold; the default where that is
        one huge chunk.
        """
        sizes = [size for size in self.array.chunks[0] if size]
        default = default_chunk_rows(self.shape[1], self.dtype.itemsize)
        return int(sizes[0]) if len(sizes) > 1 else min([default, *sizes])

    def block(self, start: int, stop: int) -> Any:
        """A delayed `ArrayBlock` of these rows."""
        return _delayed_block(self.array[start:stop], start, self.chunk_rows, self.shape[0])

    def gather(self, rows: RowNumbers) -> Any:
        """A delayed `ArrayBlock` of these rows, numbered from 0."""
        return _delayed_block(self.array[rows])


def require_whole_rows(array: Any, where: str) -> None:
    """Raise unless the chunks of the Dask array hold whole rows."""
    if array.numblocks[1] > 1:
        raise InputError(
            f"chunks must hold whole rows; {where} is a Dask array that splits its {array.shape[1]}"
            f" components into {array.numblocks[1]} chunks; call .rechunk({{1: -1}}) on it first"
        )


def as_dask(array: Any, chunk_rows: int, *, unique: bool = False) -> Any:
    """A lazy Dask array over anything that slices, one chunk per ``chunk_rows`` rows; a Dask array
    stays as it is. ``unique`` as `chunk_files` has it.

    Named anew at each call: a name made from the path would outlive what is overwritten there.
    """
    if hasattr(array, "to_delayed"):
        return array
    import dask.array as da

    require_task_count(-(-array.shape[0] // chunk_rows), "a Dask view of the table")
    chunks = (chunk_rows, *array.shape[1:])
    seen = Visible(array, unique) if isinstance(array, zarr.Array) else array
    return da.from_array(seen, chunks=chunks, name=f"embstab-{uuid.uuid4().hex}", asarray=True)


@dataclass(frozen=True, slots=True)
class Visible:
    """A Zarr array that raises where the process which slices it does not see its store, or a chunk
    of it is missing.
    """

    array: zarr.Array[Any]
    unique: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """Axes."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.array.dtype

    def __getitem__(self, item: Any) -> Any:
        """Decoded values."""
        require_visible(self.array)
        values = self.array[item]
        of_rows = item[0] if isinstance(item, tuple) else item
        if isinstance(of_rows, slice):
            rows: Any = range(self.shape[0])[of_rows]
        else:
            rows = np.atleast_1d(of_rows)
        by_row = np.reshape(values, (len(rows), -1))
        require_chunks(self.array, rows, by_row, unique=self.unique)
        return values


def delayed_if_needed(make: Callable[..., Any], *arguments: Any) -> Any:
    """``make(*arguments)``; a Dask value that becomes it where an argument is one."""
    if any(isinstance(argument, Delayed) for argument in arguments):
        return dask.delayed(make, pure=False)(*arguments)
    return make(*arguments)


def _delayed_block(rows: Any, *place: int) -> Any:
    pieces = rows.to_delayed().ravel().tolist()
    return dask.delayed(_joined, pure=False)(pieces, *place)


def _joined(pieces: list[Any], *place: int) -> ArrayBlock:
    rows = (
        np.asarray(pieces[0])
        if len(pieces) == 1
        else np.concatenate([np.asarray(p) for p in pieces])
    )
    return ArrayBlock(rows, *place)
