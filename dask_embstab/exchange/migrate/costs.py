"""What does each way of going on cost, once an index is moved? Recall of the new model's queries in
the old index, in the old one through the inverse matrix, and in the one that was moved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.types import Matrix
from dask_embstab.errors import InputError
from dask_embstab.exchange.opened_index import SEARCHED, Index
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.stale import best_ids, recall_of
from dask_embstab.passes.join.queries import QueryLog, asked_rows
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import Space, require_one_space
from dask_embstab.tables.transform import Transform


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries of the new model (q, d), the ids of those that are items themselves, their exact
    answers, and the recall without moving anything.
    """

    queries: Matrix
    own: Any
    exact: list[list[Any]]
    k: int
    population: float
    recalls: dict[str, Any]

    def recall(self, moved: Index) -> dict[str, Any]:
        """Plain values, those of the index that was moved with them."""
        return {**self.recalls, "moved": self.of(moved, self.queries), "k": self.k}

    def of(self, index: Index, sent: Matrix) -> dict[str, Any]:
        """The recall of an index for these queries, and its 95 % interval."""
        ids = [plain(row) for row in index.search(sent, self.k + (self.own is not None))[1]]
        if self.own is not None:
            ids = [
                [one for one in row if one != query][: self.k]
                for row, query in zip(ids, self.own, strict=True)
            ]
        one = recall_of(ids, self.exact, self.k, self.population)
        return {"mean": one.mean, "low": one.low, "high": one.high, "queries": one.n}


def asked_of(
    index: Index,
    transform: Transform,
    space: Space,
    run: Run,
    log: QueryLog | None,
    *,
    k: int,
    n: int,
    seed: int,
) -> Asked:
    """Ask the new ``run``'s queries exactly, and of the index as it is and through the inverse of
    the ``transform`` that is to move it. Reads the run's items once.

    Raises `SpaceError` where the run is of another ``space``, `InputError` where the index is not
    of items that are searched here.
    """
    if index.engine not in SEARCHED or index.table != "items":
        raise InputError(
            f"recall is told of indexes of items that are searched here ({', '.join(SEARCHED)});"
            f" {index.folder} is one of {index.table} as {index.engine}; leave the new run out"
        )
    require_one_space(space_of_run(run), space, run.where, "the index once it is moved")
    key = "items" if run.users is None else "users"
    asked, items = run.table(key), run.table("items")
    if index.metric not in ("dot", "cosine"):
        raise InputError(
            f"recall is told of dot products and cosines; {index.folder} ranks by {index.metric};"
            " leave the new run out"
        )
    metric: Metric = "cosine" if index.metric == "cosine" else "dot"
    with unchanged(asked, items, None if log is None else log.vectors):
        rows, chosen, _ = asked_rows(asked, log, n, seed, label="index: queries")
        own = None
        if run.users is None and chosen is not None:
            own = np.asarray(plain(ids_at(asked.row_ids, chosen)))
        most = min(index.rows, items.n_rows) - (own is not None)
        if 2 * k > most:
            raise InputError(
                f"recall@{k} of {most} rows says nothing: half of them are found by chance; ask for"
                f" at most {most // 2}"
            )
        exact = best_ids(items, rows, k, metric, own, label="index: rankings")
    population = asked.n_rows if log is None else math.inf
    made = Asked(rows, own, exact, k, population, {})
    back = transform.inverse()
    bridged = back.transform_items(rows) if key == "items" else back.transform_users(rows)
    made.recalls["bridge"] = made.of(index, bridged)
    made.recalls["leave"] = made.of(index, rows) if rows.shape[1] == index.d else None
    return made
