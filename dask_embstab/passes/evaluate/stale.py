"""What do rows of before find, of what today's rows find for today's queries?"""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_embstab.core.metrics.estimates import Estimate, estimate
from dask_embstab.core.types import Matrix
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.table import Table


def best_ids(
    table: Table, queries: Matrix, k: int, metric: Metric, own: Any, *, label: str
) -> list[list[Any]]:
    """The ids of the best ``k`` rows of every query; without the query itself where it is a row, of
    which ``own`` are the ids.
    """
    (ranking,) = rank_tables([table], queries, k + (own is not None), metric=metric, label=label)
    named = [plain(ids_at(table.row_ids, rows)) for rows in ranking.rows]
    if own is None:
        return named
    return [
        [one for one in best if one != query][:k] for best, query in zip(named, own, strict=True)
    ]


def recall_of(best: list[list[Any]], fresh: list[list[Any]], k: int, population: float) -> Estimate:
    """The share of the ``fresh`` answers that were found, over queries drawn of a population."""
    shares = [len(set(wanted) & set(seen)) / k for wanted, seen in zip(fresh, best, strict=True)]
    return estimate(np.asarray(shares), population)
