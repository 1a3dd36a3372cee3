"""One number per row (a weight, a count), in any one-dimensional array-like that slices lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from dask_embstab.core.types import Vector
from dask_embstab.errors import InputError
from dask_embstab.tables.read.arrays import as_array, rows_in_memory


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers of a table's rows; ``what`` names them in messages."""

    array: Any
    what: str

    def take(self, start: int, stop: int, *, first: int = 0) -> Vector:
        """Numbers ``start`` to ``stop``, checked: finite and not negative; number ``start`` is row ``first + start``."""
        values: Vector = rows_in_memory(self.array, start, stop, what=self.what).astype(np.float64)
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(bad):
            row = first + start + int(bad[0])
            raise InputError(f"{self.what} must be finite and not negative; row {row} has {values[bad[0]]}")
        return values

    def block(self, start: int, stop: int) -> Any:
        """What a task is given to read these rows' numbers by (`ColumnBlock`), or a Dask value that becomes it."""
        if hasattr(self.array, "to_delayed"):
            return dask.delayed(_in_memory, pure=False)(self.array[start:stop], self.what, start)
        if isinstance(self.array, np.ndarray):
            return ColumnBlock(Column(self.array[start:stop], self.what), start, 0, stop - start)
        return ColumnBlock(self, start, start, stop)


@dataclass(frozen=True, slots=True)
class ColumnBlock:
    """The numbers of one task's rows, the first of which is row ``row`` of the table."""

    column: Column
    row: int
    start: int
    stop: int

    def read(self) -> Vector:
        """All of them, checked."""
        return self.column.take(self.start, self.stop, first=self.row - self.start)


def as_column(array: Any, n_rows: int, *, what: str) -> Column:
    """Check numbers against the table they belong to."""
    array = as_array(array, what=what)
    if array.shape != (n_rows,) or array.dtype.kind not in "fiub":
        raise InputError(
            f"{what} must be one number per row, ({n_rows},); they have the shape {tuple(array.shape)} and are {array.dtype}"
        )
    return Column(array, what)


def _in_memory(array: Any, what: str, row: int) -> ColumnBlock:
    return ColumnBlock(Column(np.asarray(array), what), row, 0, len(array))
