"""Which labels do the rows of an object bring along? They are its ids: rows never meet by position
where they are named.

A pandas index (a default one names nothing), the index coordinate of a DataArray's rows or a
coordinate named id, the id column of a frame of pandas, Polars or Arrow or of a relation of DuckDB.
Nothing is computed but a relation, and neither Polars nor Arrow is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_embstab.arguments import is_a
from dask_embstab.errors import InputError
from dask_embstab.tables.layout import DIMENSION
from dask_embstab.tables.read.arrays import as_numpy
from dask_embstab.tables.read.column_names import known_column, named_columns

if TYPE_CHECKING:
    import pandas as pd
    from xarray import DataArray

_COMPONENT = "component"
_COLUMNAR = ("polars", "pyarrow")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An array-like and the labels of its rows; None where it has none."""

    array: Any
    labels: Any = None


def is_frame(given: Any) -> bool:
    """Whether its columns have names: `labelled_rows` takes some of them."""
    return _is_relation(given) or _column_names(given) is not None


def _is_relation(given: Any) -> bool:
    return type(given).__module__.partition(".")[0] in ("duckdb", "_duckdb") and hasattr(
        given, "to_arrow_table"
    )


def labelled_rows(
    given: Any, key: str, what: str, *, id: Any = None, vector: Any = None
) -> Labelled:
    """Vectors as (row, component) with the labels of their rows; ``key`` is "items" or "users",
    ``what`` names them, ``id`` and ``vector`` the columns of a frame that are meant.

    A DataArray that says that its rows are columns is turned. Raises `InputError` where a frame has
    columns that are neither ids nor components.
    """
    if _is_relation(given):
        given = given.to_arrow_table()
    if is_a(given, "xarray", "Dataset") and "vectors" in given.data_vars:
        ids = given.get("id")
        given = given["vectors"] if ids is None else given["vectors"].assign_coords(id=ids.variable)

    if is_a(given, "xarray", "DataArray") and given.ndim == 2:
        row = _row_dimension(given)
        return Labelled(given.transpose(row, ...), _coordinate(given, row))
    if (names := _column_names(given)) is not None:
        return _of_frame(given, names, key, what, id, vector)

    values = labelled_values(given)
    is_column = (
        is_a(given, "pandas", "Series") or type(given).__module__.partition(".")[0] in _COLUMNAR
    )
    return Labelled(_stacked(values.array, what), values.labels) if is_column else values


def labelled_values(given: Any) -> Labelled:
    """One value per row (a weight, a count, an id) with the labels of its rows."""
    if is_a(given, "pandas", "Series"):
        return Labelled(given.array, _index_labels(given.index))
    if is_a(given, "xarray", "DataArray") and given.ndim == 1:
        return Labelled(given, _coordinate(given, given.dims[0]))
    return Labelled(given)


def _index_labels(index: pd.Index) -> pd.Index | None:
    """The index, unless it does no more than count the rows."""
    import pandas as pd

    if isinstance(index, pd.RangeIndex) and (index.start, index.step, index.name) == (0, 1, None):
        return None
    return index.to_flat_index() if isinstance(index, pd.MultiIndex) else index


def _row_dimension(array: DataArray) -> Any:
    """That of an id coordinate, the one named like a row, or the other one of component; else the
    first.
    """
    first, second = array.dims
    if "id" in array.coords and array.coords["id"].dims in ((first,), (second,)):
        return array.coords["id"].dims[0]
    rows = set(DIMENSION.values())
    is_turned = (second in rows and first not in rows) or (
        first == _COMPONENT and second != _COMPONENT
    )
    return second if is_turned else first


def _coordinate(array: DataArray, row: Any) -> Any:
    if "id" in array.coords and array.coords["id"].dims == (row,):
        return array.coords["id"]
    return _index_labels(array.indexes[row].rename(None)) if row in array.indexes else None


# --- frames: one column of ids or none, and one of vectors or one per component


def _column_names(given: Any) -> list[Any] | None:
    """Names of a frame's columns; None where it is no frame, or one that is computed only when
    asked for.
    """
    if is_a(given, "pandas", "DataFrame"):
        return list(given.columns)
    if type(given).__module__.partition(".")[0] in _COLUMNAR and hasattr(given, "shape"):
        names = getattr(given, "column_names", None) or getattr(given, "columns", None)
        return None if names is None else list(names)
    return None


def _of_frame(frame: Any, names: list[Any], key: str, what: str, id: Any, vector: Any) -> Labelled:
    labels, get = None, frame.__getitem__
    if is_a(frame, "pandas", "DataFrame"):
        labels, get = _index_labels(frame.index), lambda i: frame.iloc[:, i]
    elif not hasattr(frame, "column_names"):
        get = frame.to_series

    id_names = [name for name in ("id", DIMENSION[key], f"{DIMENSION[key]}_id") if name in names]
    if id is not None:
        id_names = [known_column(names, id, what)]
    at = names.index(id_names[0]) if id_names else -1
    if at >= 0:
        labels = labelled_values(get(at)).array
    rest = [i for i in range(len(names)) if i != at]
    if vector is not None:
        rest = [names.index(name) for name in named_columns(names, vector, what)]
    if len(rest) == 1:
        values = _stacked(get(rest[0]), what)
        return Labelled(values if values.ndim > 1 else values[:, None], labels)
    if is_a(frame, "pandas", "DataFrame") and {np.dtype(np.float32), np.dtype(np.float64)} >= set(
        frame.dtypes.iloc[rest]
    ):
        return Labelled(
            (frame if len(rest) == len(names) else frame.iloc[:, rest]).to_numpy(), labels
        )  # the whole of it is not copied

    columns = [as_numpy(get(i), what=f"column {names[i]} of {what}") for i in rest]
    if others := [
        f"{names[i]} ({c.dtype})" for i, c in zip(rest, columns, strict=True) if c.dtype.kind != "f"
    ]:
        raise InputError(
            f"columns of vectors must be float16, float32 or float64, one per component; {what} has"
            f" {', '.join(others)}; convert them, or leave them out; a column of ids is named id"
        )
    return Labelled(np.stack(columns, axis=1) if columns else np.empty((len(frame), 0)), labels)


def _stacked(column: Any, what: str) -> Any:
    """A column of vectors (lists or arrays of one length) as an array of rows; one of numbers as it
    is.
    """
    values = as_numpy(column, what=what)
    if values.dtype.kind != "O" or not len(values):
        return values

    lengths = np.array([np.size(value) for value in values.tolist()])
    if other := np.flatnonzero(lengths != lengths[:1]).tolist():
        raise InputError(
            f"vectors must all have one length; {what} has {lengths[0]} values in row 0 and"
            f" {lengths[other[0]]} in row {other[0]}; drop or repair these rows"
        )
    return np.stack([np.asarray(value) for value in values])
