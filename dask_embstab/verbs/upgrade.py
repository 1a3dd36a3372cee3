"""The verb that decides what a retraining means for an index."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError, verb
from dask_embstab.exchange.migrate.plan import UpgradePlan, plan_upgrade
from dask_embstab.options import require_each
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.series.log.basis import moved_table
from dask_embstab.tables.coerce import TableLike, as_table
from dask_embstab.tables.read.arrays import as_array
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform
from dask_embstab.verbs.compare import compared_runs
from dask_embstab.verbs.fit import fit


@verb()
def upgrade_plan(
    old: RunLike | TableLike,
    new: RunLike | TableLike,
    *,
    k: int = 10,
    users: int = 1000,
    seed: int = 0,
    metric: Metric | None = None,
    queries: Any = None,
    recall: float = 0.95,
) -> UpgradePlan:
    """What to do about an index of ``old`` vectors when queries come from the ``new`` model: leave
    it, bridge the queries (or move the stored vectors) by one matrix, or build it anew.

    Parameters
    ----------
    old, new
        Runs, their paths, tables of items, or versions of a series (``"SERIES@3"``). ``old`` is
        what the index holds, ``new`` what a rebuilt one would hold; n rows of d components, which
        may differ.
    k
        Recall is counted among the best ``k`` items.
    users
        Queries to sample: of the new run's users, without users of its items.
    seed
        Another sample.
    metric
        ``"dot"`` or ``"cosine"``; by default dot where the new run has users.
    queries
        The queries to judge by, in place of a sample of all: ids of the new run's users (without
        users: items), or a table of vectors of the new model.
    recall
        The least recall@k, its 95 % interval counted, that leaving or bridging must keep.

    The share of a rebuilt index's answers is measured for the same queries. A bridge is fitted on
    the ids that both runs share: with users on both sides it keeps scores (both runs are
    standardized, the new one rotated onto the old one, and the old one's own matrix undone), else
    distances. Reads each table of both runs as `fit` does, the new items once more and the old ones
    twice. Where no bridge can be fitted ``reason`` of the plan says why.

    Examples
    --------
    >>> es.upgrade_plan(monday, tuesday, k=5).to_dict()["recall"]["leave"]["mean"] < 0.9
    True
    >>> es.upgrade_plan(series.open(1), series.open(2), k=5).decision
    'leave'
    """
    given = {"k": k, "users": users, "seed": seed, "metric": metric, "recall": recall}
    require_each("upgrade_plan", given)
    before, now = compared_runs(old, new)
    asked = None if queries is None else _queries(queries, now)
    return plan_upgrade(
        before,
        now,
        asked,
        partial(_bridge, before, now),
        k=k,
        n_queries=users,
        seed=seed,
        metric=metric,
        needed=recall,
    )


def _bridge(old: Run, new: Run) -> Transform:
    """From the new space into the old one, through the old one's standardized rows where both runs
    have users.
    """
    if old.users is None or new.users is None:
        return fit(new, reference=old, keep="geometry")
    made = old.transform
    if made is not None and made.diagnostics.get("keep") == "scores":
        return fit(new, reference=old)
    standard = fit(old)
    items, users = moved_table(old.items, standard.items), moved_table(old.users, standard.users)
    reference = replace(old, items=items, users=users, then=standard)
    return fit(new, reference=reference).compose(standard.inverse())


def _queries(given: Any, new: Run) -> Table:
    """Vectors as they came, or the rows of these ids."""
    key = "items" if new.users is None else "users"
    if not isinstance(given, Table) and getattr(given, "ndim", None) != 2:
        ids = _ids(given)
        if ids is not None:
            rows = new.table(key).rows_of(ids)
            return replace(as_table(rows, key=key), where="the queries")
    found = as_table(given, key=key, where="the queries")
    if found.d != new.table(key).d:
        raise InputError(
            f"queries must be vectors of the new model, of {new.table(key).d} components; those"
            f" that came have {found.d}"
        )
    return found


def _ids(given: Any) -> Any:
    """Ids in one column; None for anything else."""
    if isinstance(given, str | bytes) or not hasattr(given, "__len__"):
        return None
    found = (
        np.asarray(given) if isinstance(given, list | tuple) else as_array(given, what="queries")
    )
    if found.ndim != 1 or not found.shape[0]:
        raise InputError(f"queries must be a column of ids or a table; {shown(given)} came")
    return found
