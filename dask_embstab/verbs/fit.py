"""Verbs that find a transform: from tables, or from their moments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from dask_embstab.core.fit_transform import AlignOn, Keep
from dask_embstab.errors import verb
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import FIT, JOIN, SELECTION, taken
from dask_embstab.passes.fit.driver import fit_moments, fit_tables, summarize
from dask_embstab.passes.fit.options import (
    Balance,
    FitOptions,
    Method,
    aligned_tables,
    resolve_keep,
    selections,
)
from dask_embstab.passes.fit.reference import as_reference, balance_for, moments_of, reference_of
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.passes.join.space import fitted_on, known_origin
from dask_embstab.tables.coerce import (
    TableLike,
    as_run,
    as_table,
)
from dask_embstab.tables.column import as_column
from dask_embstab.tables.named import read_named
from dask_embstab.tables.read.views import SideBySide, column_source, with_ones
from dask_embstab.tables.run import RunLike
from dask_embstab.tables.table import Table, require_one_width
from dask_embstab.tables.table_moments import TableMoments
from dask_embstab.tables.transform import Transform

_CHOICES = tuple(
    FIT.keys() - {"users", "reference", "keep", "balance", "storage_options", *SELECTION, *JOIN}
)
"""Options of a fit that it takes as they are."""


@verb()
def fit(
    items: TableLike | RunLike,
    users: TableLike | None = None,
    *,
    reference: RunLike | TableLike | None = None,
    keep: Keep | None = None,
    align_on: AlignOn = "items",
    method: Method = "auto",
    rank: int | None = None,
    width: int | None = None,
    balance: Balance | None = None,
    center: bool = False,
    weights: Any = None,
    min_matched: int | None = None,
    max_lost_energy: float = 0.5,
    unit_rows: bool = False,
    rotation_only: bool = False,
    only: Any = None,
    counts: Any = None,
    min_count: float | Mapping[str, float] | None = None,
    sample: int | Mapping[str, int] | None = None,
    anchors: int | Mapping[str, int] | None = None,
    seed: int | Mapping[str, int] = 0,
    pairs: Any = None,
    duplicates: KeepDuplicates = "error",
    scratch: str | os.PathLike[str] | None = None,
    join_memory: int | str | None = None,
    storage_options: StorageOptions | None = None,
) -> Transform:
    """Find the two small matrices that align a run to the reference's space.

    One read of each table that is needed (items with the reference's rows beside them, users for
    scores); where the Gramian cannot hold a table's condition number, ``method="auto"`` reads that
    table again, and the diagnostics say so. Memory: a few panels and a few (d, d) matrices per
    thread, and ``join_memory`` where ids must be joined.

    Parameters
    ----------
    items, users
        Tables (n, d); ``items`` may also be a run, its path, or a dict that holds both. Or the
        `TableMoments` of both, or their files, which carry the pairs with their reference: then no
        table is read.
    reference
        The run (or items table) to align to; None standardizes without a rotation.
    keep
        ``"scores"``: every users @ items.T stays (Zielnicki & Hsiao, arXiv 2508.07574);
        ``"geometry"``: every cosine and distance within the run stays, only a rotation is applied
        (Maystre et al., arXiv 2510.13406). Default: scores with users, geometry without.
    align_on
        The table whose shared rows decide the rotation: ``"items"``, ``"users"`` or ``"both"``.
    method
        Route to the factors: ``"gram"`` refuses what the Gramian cannot hold, ``"qr"`` is
        tall-skinny QR, ``"auto"`` takes the Gramian where it serves and a preconditioned one
        beyond.
    rank
        Keep the best scores of this rank (Eckart & Young); scores mode only.
    width
        Components of the aligned tables: by default the reference's, without one d (or ``rank``);
        zero-filled. Geometry mode takes a wider run onto a narrower reference where this says so
        (``width=`` the reference's): Q then has orthonormal columns and drops what the reference's
        components cannot hold.
    max_lost_energy
        Refuse a narrower ``width`` that loses more than this share of the aligned rows' sum of
        squares.
    balance
        Who gets the one scalar that scores leave free: ``"rows"`` gives both tables one second
        moment per row, ``"gramians"`` one Gramian (the paper's). Default: as the reference
        recorded, else rows.
    center
        Geometry mode: remove the means before rotating, add the reference's afterwards.
    weights
        Weights of the rows in the alignment, as if each row stood there that often: one number per
        row (an array, a Zarr or Dask array; the name of an array stored with the run's table, such
        as ``"events"``; a file: .npy, Zarr, or CSV or Parquet with ids and numbers), or ``"norm"``
        for the length of the reference's row. Standardizing ignores them.
    min_matched
        Refuse a fit with fewer shared rows than this, counted before any selection. Default: 10 %
        of the smaller of run and reference and, in scores mode, 4 rows per component.
    unit_rows
        Align directions: both sides' rows are scaled to length one first. One more
        read of each aligned table.
    rotation_only
        Geometry mode: allow no reflection, so that the rotation's determinant is +1 (where it is
        square). Where the nearest orthogonal matrix is a reflection, the upper bounds on the
        alignment error hold for it alone and are None.
    only, counts, min_count, sample, seed
        Rows that decide the rotation: those with these ids (or a CSV, Parquet or .npy file of
        them); those with ``counts`` (one per row, given as weights are) of at least ``min_count``;
        a random ``sample`` of them drawn with ``seed``. With ``align_on="both"`` give ``weights``,
        ``only`` and ``counts`` as a dict by table name, or by a name that both tables have; the
        others may be one, or are the same for both tables.
    anchors
        Align on that many shared rows alone, chosen by a hash of their ids and ``seed``: the same
        ones in every run. Only these rows of the reference are read, their chunks' checksums are
        not. ``diagnostics["anchor_bound"]`` is a 99 % estimate of the distance (Frobenius) from the
        rotation that all rows decide, from the anchors' own scatter: it was exceeded in at most 3.3
        % of the samples of any of 43 worlds (``docs/anchors.md``), and is too small where a few
        rows hold much of the energy and none of the anchors is like them. None with ``weights`` or
        a narrower ``width``.
    pairs
        Ids of the run and the other ids that they have in the reference (a seed dictionary, merged
        or renamed products): two columns, a list of pairs, or a CSV (with a header) or Parquet file
        of two columns. These rows alone decide the rotation; an id may stand in several pairs.
        ``align_on="both"`` takes a dict by table name.
    duplicates
        Policy for an id that a table repeats, where ids are joined: ``"error"``, or the
        ``"first"`` row counts.
    scratch, join_memory
        Folder for the files of a join that does not fit in ``join_memory`` (of each process that
        computes; bytes, or like "2GiB"; default 1 GiB) and for a reference in an unrelated order:
        up to the size of the reference. Workers of a cluster must share it: where they share no
        folder, the URL of an object store (``s3://bucket/scratch``). Defaults: ``embstab.scratch``
        and ``embstab.join-memory`` in Dask's configuration, else the system's temporary folder.
    storage_options
        What reaches the URLs (``s3://``, ``gs://``, ``az://``, ``https://``) among the places:
        names and values of obstore or of fsspec, such as ``endpoint`` and ``access_key_id``. What
        is not given comes from the environment. They are never shown nor stored.

    Raises
    ------
    InputError
        (a ValueError) with what must hold, what came and what to do.

    Examples
    --------
    >>> fitted = es.fit(tuesday, reference=monday, keep="geometry")
    >>> fitted.diagnostics["items"]["matched"]
    200
    """
    items, users, reference = bound(storage_options, items, users, reference)
    weights, only, counts, pairs = bound(storage_options, weights, only, counts, pairs)
    (scratch,) = bound(storage_options, scratch)
    arguments = locals()
    chosen, join = taken(arguments, SELECTION), taken(arguments, JOIN)
    known = moments_of(items, users)
    aligned_on = (
        as_reference(reference)
        if known is None
        else reference_of(known, aligned_tables(align_on), reference)
    )
    choices: dict[str, Any] = taken(arguments, _CHOICES) | {
        "balance": balance_for(balance, aligned_on),
        "join_options": join,
    }
    if known is not None:
        rows = selections(align_on, chosen)
        keep = resolve_keep(keep, users=users)
        return fit_moments(known, aligned_on, FitOptions(keep=keep, selections=rows, **choices))

    run = as_run(items)
    item_table = as_table(items) if run is None else run.table("items")
    user_table = None if run is None else run.users
    if users is not None:
        user_table = as_table(users, key="users")
    require_one_width(item_table, user_table)
    tables = {"items": item_table, "users": user_table}
    aligned = {key: table for key in aligned_tables(align_on) if (table := tables[key]) is not None}
    rows = selections(align_on, read_named(chosen, aligned, run))
    keep = resolve_keep(keep, users=user_table)
    options = FitOptions(keep=keep, selections=rows, **choices)
    if run is None or users is not None:
        return fit_tables(item_table, user_table, aligned_on, options)
    origin = known_origin(run, run.transform)
    return fitted_on(run, origin, fit_tables(item_table, user_table, aligned_on, options))


@verb()
def moments(
    table: TableLike,
    *,
    reference: RunLike | TableLike | None = None,
    key: Literal["items", "users"] = "items",
    weights: Any = None,
    only: Any = None,
    counts: Any = None,
    min_count: float | None = None,
    sample: int | None = None,
    anchors: int | None = None,
    seed: int = 0,
    duplicates: KeepDuplicates = "error",
    scratch: str | os.PathLike[str] | None = None,
    join_memory: int | str | None = None,
    storage_options: StorageOptions | None = None,
) -> TableMoments:
    """Reduce a table, or a part of one, to what `fit` needs of it: one read, a few (d, d) matrices.

    Moments save, load, add (a shard per region, a table in parts, which may share no row with the
    reference) and subtract (deleted rows); `fit` takes them in place of tables, and gives the same
    or refuses for the same reason. ``key`` names the reference run's table whose rows belong to
    these; the other options are those of `fit`. What is about rows is given here (weights,
    selections); directions (``unit_rows``), pairs of other ids and ``method="qr"`` need the tables.

    Examples
    --------
    >>> sums = es.moments(tuesday.items, reference=monday)
    >>> es.fit(sums, reference=monday, keep="geometry").diagnostics["items"]["matched"]
    200
    """
    table, reference = bound(storage_options, table, reference)
    weights, only, counts, scratch = bound(storage_options, weights, only, counts, scratch)
    arguments = locals()
    rows = as_table(table, key=key)
    named = read_named(taken(arguments, SELECTION), {key: rows}, as_run(table))
    choice = selections(key, named).get(key)
    run, known = as_run(reference), as_reference(reference)
    theirs = None if reference is None else as_table(reference, key=key)
    if run is not None:
        theirs = run.table(key)
    options = FitOptions(
        keep="geometry",
        balance="rows",
        center=True,
        selections={} if choice is None else {"items": choice},
        join_options=taken(arguments, JOIN),
    )
    return summarize(rows, theirs, {} if known is None else known.described, options)


@verb()
def fold_bias(items: TableLike, users: TableLike, bias: Any) -> tuple[Table, Table]:
    """Views of both tables with one more component, so that users @ items.T + ``bias`` (n_items,)
    is their dot product.

    For softmax and logistic models: ``items`` is the last layer's weight matrix (n_items, d)
    (``W.T`` where it is stored d x n; no copy), ``users`` its inputs. Left out, the bias stays what
    it is: stabilizing does not change u.w, so u.w + b is kept with the same b.

    Examples
    --------
    >>> items, users = es.fold_bias(monday.items, monday.users, np.zeros(200))
    >>> items.d, users.d
    (5, 5)
    """
    item_table, user_table = as_table(items), as_table(users, key="users")
    column = as_column(bias, item_table.row_ids, what=f"the bias of {item_table.where}")
    return (
        replace(item_table, source=SideBySide(item_table.source, column_source(column.array))),
        replace(user_table, source=with_ones(user_table.source)),
    )
