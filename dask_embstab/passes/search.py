"""The nearest rows of a table for many queries: exact, a batch of queries to each read of it."""

from __future__ import annotations

import numpy as np

from dask_embstab.core.types import Matrix
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.options import require_each
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import IdArray
from dask_embstab.tables.table import Table

_BATCH_BYTES = 64 << 20
"""Candidates of one batch of queries in one thread."""


def nearest(queries: Table, table: Table, k: int, metric: Metric) -> tuple[Matrix, IdArray]:
    """Scores (q, k), descending, and the ids (q, k) of the rows that have them."""
    require_each("search", {"k": k, "metric": metric})
    if queries.d != table.d:
        raise InputError(
            f"queries and rows must have the same number of components; {queries.where} has"
            f" {queries.d} and {table.where} {table.d}"
        )
    if k > table.n_rows:
        raise InputError(
            f"{k} rows were asked for; {table.where} has {table.n_rows}; ask for fewer"
        )

    batch = max(256, _BATCH_BYTES // (60 * k))
    scores, rows = [], []
    for start in range(0, queries.n_rows, batch):
        numbers = np.arange(start, min(start + batch, queries.n_rows))
        asked = read_rows(queries, numbers, label="search: queries")
        if not np.isfinite(asked).all():
            row = start + int(np.flatnonzero(~np.isfinite(asked).all(axis=1))[0])
            raise NotFiniteError(f"row {row} of {queries.where} is not finite; mend the queries")
        (found,) = rank_tables([table], asked, k, metric=metric, label="search")
        if found.n_ranked < k:
            raise InputError(
                f"{k} rows were asked for; {table.where} has {found.n_ranked} that are"
                " not zero; ask for fewer"
            )
        scores.append(found.best.scores)
        rows.append(found.rows)

    return np.concatenate(scores), ids_at(table.row_ids, np.concatenate(rows))
