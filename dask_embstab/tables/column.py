"""One number per row (a weight, a count), in any one-dimensional array-like that slices lazily."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np

from dask_embstab.core.types import Vector
from dask_embstab.errors import IdError, InputError, first_few
from dask_embstab.tables.ids.ids import Ids, RowNumberIds, are_identical, as_ids, id_ranges
from dask_embstab.tables.ids.kinds import hashable, shown
from dask_embstab.tables.read.arrays import as_array, rows_in_memory
from dask_embstab.tables.read.labels import labelled_values


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers of a table's rows; ``what`` names them in messages. As weights, ``times_norm`` of the
    reference's rows.
    """

    array: Any
    what: str
    times_norm: bool = False

    def take(self, start: int, stop: int, *, first: int = 0) -> Vector:
        """Numbers ``start`` to ``stop``, checked: finite and not negative; number ``start`` is row
        ``first + start``.
        """
        values: Vector = rows_in_memory(self.array, start, stop, what=self.what).astype(np.float64)
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(bad):
            row = first + start + int(bad[0])
            raise InputError(
                f"{self.what} must be finite and not negative; row {row} has {values[bad[0]]}"
            )
        return values

    def block(self, start: int, stop: int) -> Any:
        """What a task is given to read these rows' numbers by (`ColumnBlock`), or a Dask value that
        becomes it.
        """
        if hasattr(self.array, "to_delayed"):
            return dask.delayed(_in_memory, pure=False)(self.array[start:stop], self, start)
        if isinstance(self.array, np.ndarray):
            return ColumnBlock(replace(self, array=self.array[start:stop]), start, 0, stop - start)
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


def as_column(array: Any, ids: Ids | RowNumberIds, *, what: str) -> Column:
    """Check numbers against the table of these ids that they belong to.

    Numbers that are labelled (a Series, a DataArray with coordinates) are matched by label, others
    by row. Raises `InputError` where a row has none.
    """
    values = as_values(array, ids, what=what, wanted="number", kinds="fiub")
    return Column(values, what)


def as_values(
    array: Any, ids: Ids | RowNumberIds, *, what: str, wanted: str = "value", kinds: str = ""
) -> Any:
    """One value per row of the table of these ids, in its order, of a dtype of these ``kinds``
    (empty: any).

    Values that are labelled are matched by label, others by row.
    """
    given, n_rows = labelled_values(array), len(ids)
    array = as_array(given.array, what=what)
    if (
        array.ndim != 1
        or (kinds and array.dtype.kind not in kinds)
        or (given.labels is None and array.shape[0] != n_rows)
    ):
        raise InputError(
            f"{what} must be one {wanted} per row, ({n_rows},); they have the shape"
            f" {tuple(array.shape)} and are {array.dtype}"
        )
    if given.labels is None:
        return array
    return by_label(array, as_ids(given.labels, array.shape[0], where=what), ids, what)


def by_label(values: Any, labels: Ids, ids: Ids | RowNumberIds, what: str) -> Any:
    """Values in the order of a table's rows, by their labels: as they are where these are its ids
    in its order.
    """
    import pandas as pd

    if labels.kind != ids.kind:
        raise IdError(
            f"{what} are matched by their labels, which are {labels.kind}, and the ids of"
            f" {ids.where} are {ids.kind}; label them with these ids, or give .to_numpy() to match"
            " them by row"
        )
    if len(labels) == len(ids) and are_identical(ids, labels):
        return values

    known = pd.Index(hashable(np.concatenate(list(id_ranges(labels)))))
    if known.has_duplicates:
        raise IdError(
            f"labels must be unique; {what} repeat {known[known.duplicated()][0]!r}; drop the"
            " duplicates"
        )

    values, ordered, at = np.asarray(values), np.empty(len(ids), values.dtype), 0
    for part in id_ranges(ids):
        places = known.get_indexer(pd.Index(hashable(part)))
        if len(bad := np.flatnonzero(places < 0)):
            raise InputError(
                f"{what} are matched by their labels, and {', '.join(shown(part[bad[:5]]))} in row"
                f" {first_few(bad, at)} have none; give every id one, or .to_numpy() to match them"
                " by row"
            )
        ordered[at : at + len(part)] = values[places]
        at += len(part)

    return ordered


def _in_memory(array: Any, column: Column, row: int) -> ColumnBlock:
    return ColumnBlock(replace(column, array=np.asarray(array)), row, 0, len(array))
