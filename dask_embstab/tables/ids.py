"""The ids of a table's rows: int64 or strings, read a range at a time, never held as an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import dask
import numpy as np

from dask_embstab.core.errors import DamageError, IdError

IdKind = Literal["int64", "string"]


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids in any one-dimensional array-like that slices lazily (Zarr, Dask, NumPy)."""

    array: Any
    kind: IdKind
    where: str

    def __len__(self) -> int:
        """Rows."""
        return int(self.array.shape[0])

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Ids of rows ``start`` to ``stop``: int64, or objects that are str."""
        try:
            values = np.asarray(self.array[start:stop])
        except Exception as error:  # whatever a codec or a store raises, the ids cannot be read
            raise DamageError(f"the ids of {self.where} cannot be read back ({error}); restore them") from error
        if self.kind == "int64":
            return values.astype(np.int64, copy=False)
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        return values.astype(object)

    def block(self, start: int, stop: int) -> Any:
        """What a task is given to read these rows' ids by (`IdBlock`), or a Dask value that becomes it."""
        if hasattr(self.array, "to_delayed"):
            return delayed_ids(self.array[start:stop], self.kind, self.where)
        if isinstance(self.array, np.ndarray):
            return IdBlock(Ids(self.array[start:stop], self.kind, self.where), 0, stop - start)
        return IdBlock(self, start, stop)


@dataclass(frozen=True, slots=True)
class IdBlock:
    """The ids of one task's rows."""

    ids: Ids
    start: int
    stop: int

    def read(self) -> np.ndarray[Any, Any]:
        """All of them."""
        return self.ids.read(self.start, self.stop)


def delayed_ids(array: Any, kind: IdKind, where: str) -> Any:
    """A delayed `IdBlock` of a (slice of a) Dask array."""
    return dask.delayed(_in_memory, pure=False)(array, kind, where)


def _in_memory(array: Any, kind: IdKind, where: str) -> IdBlock:
    return IdBlock(Ids(array, kind, where), 0, len(array))


@dataclass(frozen=True, slots=True)
class RowNumberIds:
    """What stands for ids where a table has none: its row numbers."""

    n: int
    where: str
    kind: IdKind = "int64"

    def __len__(self) -> int:
        """Rows."""
        return self.n

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """The row numbers themselves."""
        return np.arange(start, min(stop, self.n), dtype=np.int64)


def as_ids(array: Any, n_rows: int, *, where: str) -> Ids:
    """Check ids against the table they belong to; lists and tuples are made arrays."""
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if array.ndim != 1 or array.shape[0] != n_rows:
        raise IdError(f"{where} needs one id per row, ({n_rows},); the ids have the shape {tuple(array.shape)}")
    return Ids(array, _kind(array, where), where)


def _kind(array: Any, where: str) -> IdKind:
    dtype = array.dtype
    if dtype.kind in "iu":
        return "int64"
    if dtype.kind in "USTO" and _looks_like_text(array, dtype):
        return "string"
    raise IdError(f"ids must be int64 or strings; those of {where} are {dtype}; convert them when the run is written")


def _looks_like_text(array: Any, dtype: Any) -> bool:
    # An object array may hold anything; in memory every element is looked at, on disk the codec has decided.
    if dtype.kind != "O" or not isinstance(array, np.ndarray):
        return True
    return all(isinstance(value, str) for value in array.tolist())
