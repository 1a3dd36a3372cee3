"""The verb that decides what a retraining means for an index."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from dask_embstab.errors import InputError, verb
from dask_embstab.exchange.migrate.backfill import Backfill, begin
from dask_embstab.exchange.migrate.plan import UpgradePlan, plan_upgrade
from dask_embstab.exchange.opened_index import open_index
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.files.swap import taken
from dask_embstab.options import require_each
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.join.queries import query_log_of
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.series.log.basis import moved_table
from dask_embstab.tables.coerce import TableLike
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.tables.space import require_one_space
from dask_embstab.tables.transform import Transform
from dask_embstab.verbs.compare import compared_runs
from dask_embstab.verbs.fit import fit
from dask_embstab.verbs.index import local_index


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
    storage_options: StorageOptions | None = None,
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
        The queries to judge by, in place of a sample of all (of a long log ``users`` are drawn):
        ids of the new run's users (without users: items), a table of vectors of the new model, or a
        file of either: Parquet, Arrow or CSV with a column of ids, or with vectors, or npy. An id
        counts as often as it was asked; ids that the new run does not have are left out with a
        warning.
    recall
        The least recall@k, its 95 % interval counted, that leaving or bridging must keep.

    Notes
    -----
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
    old, new, queries = bound(storage_options, old, new, queries)
    given = {"k": k, "users": users, "seed": seed, "metric": metric, "recall": recall}
    require_each("upgrade_plan", given)
    before, now = compared_runs(old, new)
    log = query_log_of(queries, now)
    return plan_upgrade(
        before,
        now,
        log,
        partial(_bridge, before, now),
        k=k,
        n_queries=users,
        seed=seed,
        metric=metric,
        needed=recall,
    )


@verb()
def begin_backfill(
    place: str | os.PathLike[str],
    index: str | os.PathLike[str],
    old: RunLike,
    new: RunLike,
    *,
    table: Literal["items", "users"] = "items",
    part_rows: int = 1 << 17,
    storage_options: StorageOptions | None = None,
) -> Backfill:
    """Begin to move an index to a new model part by part, while it is searched.

    Parameters
    ----------
    place
        A new folder: how far the backfill is, the bridge, and an index for every part.
    index
        The index of the ``old`` run (usearch, hnswlib or lancedb); it is never written to.
    old, new
        The run in the index, and the stored run whose vectors are to take its place.
    table
        The table of the index.
    part_rows
        Rows of the new run that are moved by one `Backfill.step`.

    Notes
    -----
    Fits the bridge (`upgrade_plan`); nothing is moved yet. `Backfill.search` asks the new model's
    queries in both spaces and merges the answers; `Backfill.roll_back` forgets what was moved.

    Raises
    ------
    SpaceError
        Where the index is not of the old run's space.

    Examples
    --------
    >>> done = es.export(monday, folder / "old", format="usearch", table="items")
    >>> moving = es.begin_backfill(folder / "moving", folder / "old", monday, tuesday, part_rows=80)
    >>> moving.step().done
    80
    """
    old, new = bound(storage_options, old, new)
    require_each("begin_backfill", {"table": table, "part_rows": part_rows})
    opened = open_index(local_index(index), table)
    before, now = compared_runs(old, new)
    require_one_space(space_of_run(before), opened.space, before.where, str(index))
    root = local_index(place)
    if os.path.lexists(root):
        raise taken(root)
    if not root.parent.is_dir():
        raise InputError(f"the folder {root.parent} does not exist; create it first")
    return begin(root, opened, now, _bridge(before, now), part_rows)


def _bridge(old: Run, new: Run) -> Transform:
    """From the new space into the old one, through the old one's standardized rows where both runs
    have users; a wider model is cut to the old width. It says that it leads into the old space.
    """
    d, wider = old.table("items").d, new.table("items").d > old.table("items").d
    made, rank = old.transform, d if wider else None
    if old.users is None or new.users is None:
        transform = fit(new, reference=old, keep="geometry", width=rank)
    elif made is not None and made.diagnostics.get("keep") == "scores":
        transform = fit(new, reference=old, rank=rank)
    else:
        standard = fit(old)
        items = moved_table(old.items, standard.items)
        users = moved_table(old.users, standard.users)
        reference = replace(old, items=items, users=users, then=standard)
        transform = fit(new, reference=reference, rank=rank).compose(standard.inverse())
    space = space_of_run(old)
    target = {"name": old.name, "path": old.path, "space": space.origin}
    known = {"composed_of": [dict(transform.diagnostics)], "reference": target}
    return replace(transform, diagnostics=known)
