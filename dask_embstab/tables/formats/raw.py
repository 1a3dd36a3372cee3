"""Arrays that lie in a file as they are in memory: npy, members of an npz, safetensors.

Rows are read by `pread` from where they lie. A compressed member of an npz is read from its start
on.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy_format

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError, InputError
from dask_embstab.files.regular import read_at
from dask_embstab.tables.formats.arrays import ArrayInfo
from dask_embstab.tables.formats.pieces import BATCH_ROWS

_MOST_HEADER_BYTES = 1 << 27
_SAFE_DTYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "bfloat16",
    "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Raw:
    """Where an array lies in a file; ``half`` of the bits of a float32 are stored (bfloat16)."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False
    half: bool = False

    @property
    def info(self) -> ArrayInfo:
        """As it is read."""
        return ArrayInfo(self.shape, np.dtype(np.float32) if self.half else self.dtype)

    @property
    def row_bytes(self) -> int:
        """Of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def require_stored(self, path: str, size: int) -> None:
        """Raise unless the file is long enough for all rows."""
        needed = self.offset + self.row_bytes * (self.shape[0] if self.shape else 0)
        if needed > size:
            raise DamageError(
                f"{path} must have {needed} bytes for the shape {self.shape} of {self.dtype}; it"
                f" has {size}; restore it from its source"
            )

    def read(self, path: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows ``start`` to ``stop``."""
        if self.fortran and len(self.shape) > 1:
            mapped = np.memmap(path, self.dtype, "r", self.offset, self.shape, "F")
            for at in range(start, stop, BATCH_ROWS):
                yield np.ascontiguousarray(mapped[at : min(at + BATCH_ROWS, stop)])
            return
        with open(path, "rb") as file:  # noqa: PTH123 (its descriptor alone is used)
            for at in range(start, stop, BATCH_ROWS):
                rows = np.empty((min(BATCH_ROWS, stop - at), *self.shape[1:]), self.dtype)
                _fill(file.fileno(), rows, self.offset + at * self.row_bytes, path)
                yield _widened(rows) if self.half else rows


def _widened(rows: Rows) -> Rows:
    """bfloat16 as float32, exactly: the other half of the bits is 0."""
    return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _fill(descriptor: int, rows: Rows, offset: int, path: str) -> None:
    data = memoryview(rows.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    if read_at(descriptor, data, offset) < len(data):
        raise DamageError(f"{path} ends before its last row; restore it from its source")


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    read = (
        npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError("arrays of Python objects are not read; store numbers or texts")
    return shape, fortran, dtype


@dataclass(frozen=True, slots=True)
class Npy:
    """`ArrayFormat` of npy: one array without a name."""

    any_row: ClassVar[bool] = True

    def arrays(self, path: str) -> Mapping[str, ArrayInfo]:
        """The one."""
        return {"": self._raw(path).info}

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows of it."""
        del name
        yield from self._raw(path).read(path, start, stop)

    def _raw(self, path: str) -> Raw:
        with open(path, "rb") as file:  # noqa: PTH123
            shape, fortran, dtype = _npy_header(file)
            raw = Raw(file.tell(), shape, dtype, fortran)
            raw.require_stored(path, os.fstat(file.fileno()).st_size)
        return raw


@dataclass(frozen=True, slots=True)
class Npz:
    """`ArrayFormat` of npz. Where a member is compressed, a file is read from its start on."""

    any_row: ClassVar[bool] = False

    def arrays(self, path: str) -> Mapping[str, ArrayInfo]:
        """From the header of each member."""
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        shape, _, dtype = _npy_header(file)
                    arrays[member.removesuffix(".npy")] = ArrayInfo(shape, dtype)
        return arrays

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows of one member, decompressed on the way."""
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = _npy_header(file)
            if fortran and len(shape) > 1:
                raise InputError(
                    f"{name} of {path} is stored column by column; save it with"
                    " np.ascontiguousarray(...)"
                )
            raw = Raw(0, shape, dtype)
            file.seek(start * raw.row_bytes, 1) if start else None
            for at in range(start, stop, BATCH_ROWS):
                rows = np.empty((min(BATCH_ROWS, stop - at), *shape[1:]), dtype)
                data = memoryview(rows.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
                while len(data):
                    got = file.readinto(data)  # type: ignore[attr-defined]
                    if not got:
                        raise DamageError(f"{name} of {path} ends before its last row")
                    data = data[got:]
                yield rows


@dataclass(frozen=True, slots=True)
class Safetensors:
    """`ArrayFormat` of safetensors: a JSON header of 8 + n bytes says where each tensor lies."""

    any_row: ClassVar[bool] = True

    def arrays(self, path: str) -> Mapping[str, ArrayInfo]:
        """All tensors."""
        return {name: raw.info for name, raw in self._raws(path).items()}

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows of one tensor."""
        yield from self._raws(path)[name].read(path, start, stop)

    def _raws(self, path: str) -> dict[str, Raw]:
        with open(path, "rb") as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, _MOST_HEADER_BYTES):
                raise DamageError(
                    f"{path} is no safetensors file: its header would be {length} bytes"
                )
            header = json.loads(file.read(length))
        raws = {}
        for name, described in header.items():
            dtype = _SAFE_DTYPES.get(described.get("dtype", "")) if name != "__metadata__" else None
            if dtype is not None:
                half = dtype == "bfloat16"
                made = np.dtype("<u2" if half else dtype)
                raw = Raw(
                    8 + length + described["data_offsets"][0],
                    tuple(described["shape"]),
                    made,
                    half=half,
                )
                raw.require_stored(path, size)
                raws[name] = raw
        return raws
