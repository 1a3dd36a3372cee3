"""Which reference row belongs to which row of the run? By id, in whatever order and with whatever overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dask_embstab.core.errors import IdError
from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.ids import Ids, RowNumberIds, id_ranges
from dask_embstab.tables.source import Source
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Pairing:
    """Rows of a run and their reference rows: row by row where ``index`` is None, else ``index[i]`` (-1: none).

    ``matched`` rows have a partner, ``new`` ones have none, ``gone`` reference rows have no row in the run; ``used`` of
    the matched ones take part in the alignment (None: all).
    """

    reference: Source
    index: RowNumbers | None
    matched: int
    new: int
    gone: int
    how: str
    used: int | None = None

    @property
    def n_used(self) -> int:
        """Rows that take part in the alignment: the matched ones, less those a selection left out."""
        return self.matched if self.used is None else self.used


def pair(table: Table, reference: Table) -> Pairing:
    """Pair rows by id; row by row where neither table has ids or the ids are identical in identical order.

    Raises `IdError` where the ids are of two types, where one is duplicated, or where none is shared.
    """
    if table.stored_ids is None and reference.stored_ids is None:
        return _row_by_row(table, reference, "row number")
    ours, theirs = table.row_ids, reference.row_ids
    if ours.kind != theirs.kind:
        raise IdError(
            f"ids must be of one type; those of {table.where} are {ours.kind} and those of {reference.where}"
            f" {theirs.kind}; convert one of them when its run is written"
        )
    if len(ours) == len(theirs) and _are_identical(ours, theirs):
        return _row_by_row(table, reference, "identical ids")
    return _joined(table, reference, ours, theirs)


def _row_by_row(table: Table, reference: Table, how: str) -> Pairing:
    matched = min(table.n_rows, reference.n_rows)
    return Pairing(reference.source, None, matched, table.n_rows - matched, reference.n_rows - matched, how)


def _joined(table: Table, reference: Table, ours: Ids | RowNumberIds, theirs: Ids | RowNumberIds) -> Pairing:
    """An in-memory hash join of the ids alone."""
    known, wanted = _index(theirs), _index(ours)
    index = known.get_indexer(wanted).astype(np.int64)
    matched = int(np.count_nonzero(index >= 0))
    if not matched:
        raise IdError(
            f"{table.where} and {reference.where} share no id (for example {wanted[0]!r} and {known[0]!r});"
            " a run is aligned on the rows it shares with its reference"
        )
    return Pairing(reference.source, index, matched, table.n_rows - matched, reference.n_rows - matched, "joined ids")


def _are_identical(a: Ids | RowNumberIds, b: Ids | RowNumberIds) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(id_ranges(a), id_ranges(b), strict=True))


def _index(ids: Ids | RowNumberIds) -> Any:
    values = np.concatenate(list(id_ranges(ids)))
    index = pd.Index(values)
    if not index.is_unique:
        offenders = index[index.duplicated()].unique()[:5].tolist()
        raise IdError(
            f"ids must be unique where rows are joined; {ids.where} repeats {len(index) - index.nunique()} of them, for"
            f" example {', '.join(map(repr, offenders))}; drop the duplicates and write the run again"
        )
    return index
