"""What do the codes of a version find of what its vectors find?"""

from __future__ import annotations

import numpy as np

from dask_embstab.core.metrics.rankings import overlaps
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.tables.run import Run

_QUERIES, _K = 200, 10


def code_recall(run: Run, coded: Run, *, k: int = _K, seed: int = 0) -> float | None:
    """Mean recall@``k`` of 200 sampled queries (users by dot product; items by cosine where there
    are no users) that search the rows which codes give back, against the ``run``'s own: one read of
    either items table. None where there are not more than ``k`` items.
    """
    own = int(run.users is None)
    table = run.table("items" if own else "users")
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(table.n_rows, min(_QUERIES, table.n_rows), replace=False))
    asked = read_rows(table, drawn, label="recall of codes: queries")
    metric: Metric = "cosine" if own else "dot"
    items = [run.table("items"), coded.table("items")]
    exact, by_codes = rank_tables(items, asked, k + own, metric=metric, label="recall of codes")
    if exact.n_ranked < k + own:
        return None
    shared = np.maximum(overlaps(exact.rows, by_codes.rows)[:, -1] - own, 0)
    return float(shared.mean()) / k
