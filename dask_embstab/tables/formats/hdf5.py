"""HDF5: datasets, read a few thousand rows at a time by h5py, which decodes chunks itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.tables.formats.arrays import ArrayInfo
from dask_embstab.tables.formats.pieces import BATCH_ROWS
from dask_embstab.tables.read.limits import require_dense

_BLOCK = 1 << 16
"""Bytes of a dataset without chunks that are counted as one."""


@dataclass(frozen=True, slots=True)
class Hdf5:
    """`ArrayFormat` of HDF5; a dataset in a group is named by its path."""

    any_row: ClassVar[bool] = True

    def arrays(self, path: str) -> Mapping[str, ArrayInfo]:
        """All datasets of all groups that lie in the file itself: links into others are not
        followed, and datasets made of others are left out.
        """
        h5py = require_extra("h5py", "hdf5", what="HDF5")
        arrays: dict[str, ArrayInfo] = {}

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and not node.external and not node.is_virtual:
                _require_dense(node, f"{name} of {path}")
                arrays[name] = ArrayInfo(tuple(node.shape or ()), node.dtype)

        with h5py.File(path, "r") as file:
            file.visititems(visit)
        if not arrays:
            raise InputError(
                f"datasets must lie in the file itself; {path} has none, or has them in other"
                " files; give those, or copy them"
            )
        return arrays

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows of one dataset; texts as bytes objects."""
        h5py = require_extra("h5py", "hdf5", what="HDF5")
        with h5py.File(path, "r") as file:
            for at in range(start, stop, BATCH_ROWS):
                yield np.asarray(file[name][at : min(at + BATCH_ROWS, stop)])


def _require_dense(node: Any, what: str) -> None:
    """A dataset may claim any shape of which nothing is stored."""
    if node.chunks and all(node.shape):
        n_chunks = math.prod(-(-n // c) for n, c in zip(node.shape, node.chunks, strict=True))
        require_dense(node.shape[0], n_chunks, node.id.get_num_chunks, what)
    elif node.shape:  # written whole, or not at all
        n_blocks = node.nbytes // _BLOCK
        require_dense(node.shape[0], n_blocks, lambda: node.id.get_storage_size() // _BLOCK, what)
