"""Verbs of indexes: search one with queries of its own space, move one into another space."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.errors import EmbstabWarning, InputError, NotFiniteError, SpaceError, verb
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.migrate.costs import asked_of
from dask_embstab.exchange.moved_index import move_index
from dask_embstab.exchange.opened_index import open_index
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import require_each
from dask_embstab.passes.join.queries import query_log_of
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.repairs import option
from dask_embstab.series.places import series_at, series_version
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.coerce import as_run, as_table, run_of
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.tables.space import Space, require_one_space, source_origin, space_of_transform
from dask_embstab.tables.transform import Transform
from dask_embstab.verbs.runs import load_transform
from dask_embstab.verbs.space import space_of

_BATCH = 4096


@verb()
def query_index(
    index: str | os.PathLike[str],
    queries: Any,
    *,
    k: int = 10,
    table: Literal["items", "users"] = "items",
    space: Any = None,
    bridge: Transform | str | os.PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> tuple[Any, Any]:
    """The nearest vectors of an exported index for every query: ``(scores, ids)``, both (q, k).

    Parameters
    ----------
    index
        The folder that `export` wrote as hnswlib, usearch or lancedb, or a file of faiss with its
        fingerprint beside it (its labels are ids where it has no file of ids).
    queries
        A run (its users, without users its items), its path, a version of a series, or a table of
        vectors (q, d).
    k
        Vectors for each query, at most as many as the index holds.
    table
        The table of the index.
    space
        Whose vectors the queries are, as `space_of` takes it. A run says it itself; vectors alone
        do not, and are refused without it.
    bridge
        A transform, or its saved file, that leads from the queries' space into the index's (that of
        `upgrade_plan` from the old run to the new one): queries pass through it first, by its
        matrix of users where it has one.

    Notes
    -----
    Reads the queries a batch at a time. Approximate: `search` of the run is exact.

    Raises
    ------
    SpaceError
        Where queries and index are of two spaces, or queries of another than ``space`` says.
    InputError
        Where the space of the queries is not known, or there is no index.

    Examples
    --------
    >>> done = es.export(series, folder / "index", format="usearch")
    >>> scores, ids = es.query_index(folder / "index", series.open(), k=5)
    >>> ids.shape
    (300, 5)
    """
    queries, space, bridge = bound(storage_options, queries, space, bridge)
    require_each("query_index", {"k": k, "table": table})
    opened = open_index(local_index(index), table)
    asked, theirs = _queries(queries)
    if space is not None:
        given = space_of(space)
        if theirs is not None:
            require_one_space(
                theirs, given, "the queries", f"the {option('space')} given with them"
            )
        theirs = given
    if theirs is None:
        raise InputError(
            "vectors alone do not say of which space they are, and those of another must not meet"
            f" the index; say it with {option('space')}, such as the series or transform that made"
            " them"
        )
    through = None
    if bridge is not None:
        made = bridge if isinstance(bridge, Transform) else load_transform(bridge)
        _require_source(made, theirs, "the queries")
        theirs = space_of_transform(made)
        through = made.transform_items if made.users is None else made.transform_users
        if made.d != asked.d:
            raise InputError(
                f"the bridge takes vectors of {made.d} components; the queries have {asked.d}"
            )
    require_one_space(theirs, opened.space, "the queries", str(index))
    if (asked.d if through is None else made.width) != opened.d or k > opened.rows:
        raise InputError(
            f"queries have {asked.d} components and {k} neighbours are asked for; the index holds"
            f" {opened.rows} vectors of {opened.d} components"
        )
    answers = []
    for start in range(0, asked.n_rows, _BATCH):
        numbers = np.arange(start, min(start + _BATCH, asked.n_rows))
        rows = read_rows(asked, numbers, label="index: queries")
        if not np.isfinite(rows).all():
            raise NotFiniteError(f"rows of {asked.where} are not finite; mend them")
        answers.append(opened.search(rows if through is None else through(rows), k))
    scores, ids = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    return scores, ids


@verb()
def upgrade_index(
    index: str | os.PathLike[str],
    out: str | os.PathLike[str],
    transform: Transform | str | os.PathLike[str],
    *,
    table: Literal["items", "users"] = "items",
    space: Any = None,
    new: RunLike | None = None,
    queries: Any = None,
    k: int = 10,
    users: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
    sync: bool = True,
    storage_options: StorageOptions | None = None,
) -> dict[str, Any]:
    """Move the stored vectors of an index by one matrix into another space, at ``out``; nothing but
    the index is read, and the ``new`` run where one is given.

    Parameters
    ----------
    index
        The folder that `export` wrote as hnswlib, usearch, lancedb or pgvector, or a file of faiss
        (flat, IVFFlat or HNSWFlat) with its fingerprint beside it.
    out
        Where the new index appears, whole or not at all.
    transform
        From the index's space into the other, or its saved file: of the `upgrade_plan` from the new
        run to the indexed one, or `fit` of the indexed run with a reference that keeps the same.
    table
        The table of the index.
    space
        The space into which the transform leads, where that is not its own reference's.
    new
        The run of the retrained model: then the record says what each way costs, as the ``recall``
        at ``k`` of its own queries against exact search of its items. ``leave`` asks the old index
        as it is, ``bridge`` sends queries through the inverse matrix into it, ``moved`` asks the
        new index.
    queries, k, users, seed
        As in `upgrade_plan`: a log of queries of the new model, or a sample of ``users``.
    overwrite, sync
        As in `export`.

    Notes
    -----
    Graphs (hnswlib, usearch) and lists (IVF) are built anew. Returns the record of the new index.

    Examples
    --------
    >>> done = es.export(monday, folder / "index", format="usearch", table="items")
    >>> matrix = es.upgrade_plan(tuesday, monday, k=5).transform
    >>> moved = es.upgrade_index(folder / "index", folder / "new", matrix)
    >>> es.space_of(folder / "new").origin == es.space_of(tuesday).origin
    True
    """
    transform, space, new, queries = bound(storage_options, transform, space, new, queries)
    require_each("upgrade_index", {"table": table, "k": k, "users": users, "seed": seed})
    if queries is not None and new is None:
        raise InputError(
            f"{option('queries')} are asked of the retrained model's run; give {option('new')} too"
        )
    opened = open_index(local_index(index), table)
    made = transform if isinstance(transform, Transform) else load_transform(transform)
    _require_source(made, opened.space, str(index))
    into = space_of_transform(made) if space is None else space_of(space)
    place = local_index(out)
    export = Export(made, place, opened.engine, {}, {}, overwrite=overwrite, sync=sync)
    if new is None:
        return move_index(opened, made, into, export)
    run = series_version(new) or run_of(new)
    log = query_log_of(queries, run)
    asked = asked_of(opened, made, into, run, log, k=k, n=users, seed=seed)
    record = move_index(opened, made, into, export)
    return {**record, "recall": asked.recall(open_index(place, table))}


def _require_source(transform: Transform, space: Space, what: str) -> None:
    """Raise `SpaceError` where a transform takes vectors of another space; warn where it does not
    say of which.
    """
    taken = source_origin(transform)
    if taken is None:
        warnings.warn(
            EmbstabWarning(
                f"the transform does not say of which space the vectors are that it takes; those of"
                f" {what} are of {space.origin}; fit it on a run, which says so"
            ),
            stacklevel=4,
        )
    elif taken != space.origin:
        raise SpaceError(
            f"the transform must take vectors of the space of {what}, {space.origin}; it was fitted"
            f" on vectors of {taken}; fit it on the run that they are of"
        )


def local_index(place: Any) -> Path:
    """The folder of an index."""
    folder = local_path(place)
    if folder is None:
        raise InputError(f"an index lies in a local folder; {shown(place)} came; give its path")
    return folder


def _queries(given: Any) -> tuple[Any, Space | None]:
    """The table of the queries, and the space of a run."""
    series = given if isinstance(given, SeriesReader) else series_at(given)
    run = series.open() if series is not None else series_version(given) or as_run(given)
    if isinstance(run, Run):
        return run.users or run.table("items"), space_of_run(run)
    return as_table(given, where="the queries"), None
