"""Ids of two tables joined: what every strategy of a join hands on."""

from __future__ import annotations

from dataclasses import dataclass

from dask_embstab.tables.ids.match import Duplicates
from dask_embstab.tables.ids.row_index import RowIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The reference row of every row (``index``) and the other way round (``inverse``), how many
    rows have one, and what was found twice on either side.

    ``strategy`` is the name of the join in diagnostics, ``n_bytes`` is what it wrote.
    """

    index: RowIndex
    inverse: RowIndex
    matched: int
    our_duplicates: Duplicates
    their_duplicates: Duplicates
    strategy: str
    n_bytes: int = 0
