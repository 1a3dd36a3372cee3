"""In which group is each row, by a column of the user's? Codes of its values, read a range at a
time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import RowNumbers, Vector
from dask_embstab.errors import InputError
from dask_embstab.repairs import option
from dask_embstab.tables.column import Column, as_values
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.read.arrays import rows_in_memory
from dask_embstab.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

_MOST = 64
"""Different values of a column, each of which is a group; of numbers there may be more."""
_CUT_ABOVE = 20
"""Numbers of more different values than this are cut into quarters."""
_QUARTERS = (0.25, 0.5, 0.75)
_LOOKED_AT = 1 << 20
"""Values by which the quarters are cut."""
_REST = 100
"""Values that are left after frequent ones, one in so many at least, are searched for more."""
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Coding:
    """Values to group numbers: by ``values`` that are looked up, or by ``edges`` of numbers.

    The last group is that of missing values.
    """

    values: pd.Index | None
    edges: Vector | None

    @property
    def names(self) -> list[str]:
        """Of the groups, by number."""
        if self.values is not None:
            return [*map(str, self.values), MISSING]
        assert self.edges is not None
        edges = _distinct_texts(self.edges)
        inner = [f"{low} to {high}" for low, high in pairwise(edges)]
        return [f"below {edges[0]}", *inner, f"from {edges[-1]}", MISSING]

    def __call__(self, values: npt.NDArray[Any]) -> Vector:
        """The numbers of the groups of ``values`` (n,)."""
        import pandas as pd

        missing = np.asarray(pd.isna(values))
        if self.values is not None:
            codes = self.values.get_indexer(pd.Index(_texts(values)))
            codes[codes < 0] = len(self.values)
        else:
            assert self.edges is not None
            codes = np.searchsorted(self.edges, values.astype(np.float64), side="right")
        return np.where(missing, len(self.names) - 1, codes).astype(np.float64)


@dataclass(frozen=True, slots=True)
class CodedArray:
    """Group numbers of a stored array, made as they are read."""

    array: Any
    coding: Coding
    what: str

    @property
    def shape(self) -> tuple[int]:
        """(n,)."""
        return (int(self.array.shape[0]),)

    def __getitem__(self, rows: slice) -> Vector:
        """Of a range of rows."""
        start, stop, _ = rows.indices(self.shape[0])
        return self.coding(rows_in_memory(self.array, start, stop, what=self.what))


@dataclass(frozen=True, slots=True)
class Groups:
    """The names of the groups of a table's rows, and the number of the group of each row as a
    column.
    """

    names: list[str]
    column: Column

    def of_rows(self, rows: RowNumbers) -> RowNumbers:
        """Group numbers of single rows (ascending)."""
        labels = np.empty(len(rows), np.int64)
        for start in np.unique(rows // ID_RANGE * ID_RANGE):
            first, last = np.searchsorted(rows, (start, start + ID_RANGE))
            part = self.column.take(int(rows[first]), int(rows[last - 1]) + 1)
            labels[first:last] = part[rows[first:last] - rows[first]]
        return labels


def groups_of(given: Any, table: Table) -> Groups:
    """Groups by one value per row: texts, truth values and few different numbers are a group each,
    other numbers are cut into quarters of the rows. A number that more than a quarter of the rows
    have is a group of its own, and the others are cut. Missing values are a group of their own.

    Reads the column once; more than 64 different texts are an error.
    """
    what = f"groups of {table.where}"
    array = as_values(given, table.row_ids, what=what)
    coding = _coding(array, what)
    if hasattr(array, "to_delayed"):
        codes = array.map_blocks(coding, dtype=np.float64)
    elif isinstance(array, np.ndarray):
        codes = coding(array).astype(np.uint8)
    else:
        codes = CodedArray(array, coding, what)
    return Groups(coding.names, Column(codes, what))


def _coding(array: Any, what: str) -> Coding:
    """Looks at every value, a range at a time; of numbers at no more than a million once they are
    known to be many.
    """
    import pandas as pd

    n, seen = int(array.shape[0]), pd.Index([])
    is_number = np.dtype(array.dtype).kind in "fiu"
    for start in range(0, n, ID_RANGE):
        values = rows_in_memory(array, start, min(start + ID_RANGE, n), what=what)
        known = pd.Index(_texts(values[~np.asarray(pd.isna(values))])).unique()
        seen = known if not len(seen) else seen.union(known)
        if len(seen) > (_CUT_ABOVE if is_number else _MOST):
            break
    if not is_number and len(seen) > _MOST:
        raise InputError(
            f"{what} may have {_MOST} different values at most, each of which is a group; they have"
            f" more, for example {', '.join(map(repr, seen[:3]))}; give fewer groups, or numbers,"
            " which are cut into quarters"
        )
    if not is_number or len(seen) <= _CUT_ABOVE:
        return Coding(seen.sort_values(), None)
    step = -(-n // _LOOKED_AT)
    looked_at = [
        rows_in_memory(array, start, min(start + ID_RANGE, n), what=what)[-start % step :: step]
        for start in range(0, n, ID_RANGE)
    ]
    return Coding(None, group_edges(np.concatenate(looked_at).astype(np.float64)))


def group_edges(values: Vector) -> Vector:
    """Where the groups of numbers begin, but the first: at the quarters of all values but those
    that fill more than a quarter, which begin and end a group of their own.

    Equal values stay together, so quarters of a column that is mostly zeros would be one.
    """
    known, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    rest = counts.copy()
    while _REST * rest.sum() >= counts.sum() and (frequent := 4 * rest > rest.sum()).any():
        rest[frequent] = 0
    alone = np.flatnonzero(rest == 0)
    starts = np.union1d(alone, alone + 1)
    edges = known[starts[(starts > 0) & (starts < len(known))]]
    if not rest.any():  # and no edge where one value, or none, was looked at
        return edges if len(edges) else np.append(known, 0.0)[:1]
    return np.union1d(edges, np.quantile(np.repeat(known, rest), _QUARTERS, method="higher"))


def _distinct_texts(edges: Vector) -> list[str]:
    """In six digits, or in as many as tell them apart."""
    for digits in range(6, 18):
        texts = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(texts)) == len(texts):
            break
    return texts


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers as they are, anything else as texts."""
    return values if values.dtype.kind in "fiu" else values.astype(str).astype(object)


def by_table(given: Any, tables: Mapping[str, Any]) -> dict[str, Any]:
    """One column for the items, or columns by table name."""
    if given is None:
        return {}
    columns = dict(given) if isinstance(given, Mapping) else {"items": given}
    if unknown := set(columns) - set(tables):
        raise InputError(
            f"{option('groups')} are given by the name of a table that both runs have"
            f" ({', '.join(tables)}); they are given for {', '.join(sorted(map(str, unknown)))}"
        )
    return columns
