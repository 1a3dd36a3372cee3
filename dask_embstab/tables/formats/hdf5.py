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
        """All datasets, of all groups."""
        h5py = require_extra("h5py", "hdf5", what="HDF5")
        arrays: dict[str, ArrayInfo] = {}

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                _require_own(node, f"{name} of {path}")
                arrays[name] = ArrayInfo(tuple(node.shape or ()), node.dtype)

        with h5py.File(path, "r") as file:
            file.visititems(visit)
        return arrays

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows of one dataset; texts as bytes objects."""
        h5py = require_extra("h5py", "hdf5", what="HDF5")
        with h5py.File(path, "r") as file:
            for at in range(start, stop, BATCH_ROWS):
                yield np.asarray(file[name][at : min(at + BATCH_ROWS, stop)])


def _require_own(node: Any, what: str) -> None:
    """Whose file it is may name any other file in it, and claim any shape for what is not there."""
    if node.external or node.is_virtual:
        raise InputError(
            f"datasets must lie in the file itself; {what} is made of other files; give those, or"
            " copy it"
        )
    if node.chunks and all(node.shape):
        n_chunks = math.prod(-(-n // c) for n, c in zip(node.shape, node.chunks, strict=True))
        require_dense(node.shape[0], n_chunks, node.id.get_num_chunks, what)
    elif node.shape:  # written whole, or not at all
        n_blocks = node.nbytes // _BLOCK
        require_dense(node.shape[0], n_blocks, lambda: node.id.get_storage_size() // _BLOCK, what)
