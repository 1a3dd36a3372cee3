"""The verbs: open, create, fit, apply, stabilize, evaluate. Options and their defaults live here
and nowhere else.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import fsspec

from dask_embstab.core.fit_transform import AlignOn, Keep
from dask_embstab.errors import InputError, NotARunError, verb
from dask_embstab.files.place import local_path
from dask_embstab.files.swap import made_parents
from dask_embstab.options import FIT, JOIN, SELECTION, taken
from dask_embstab.passes.apply import copy_table, transform_run
from dask_embstab.passes.compress import compress_run
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.engine.write import LinearMap
from dask_embstab.passes.evaluate.driver import EvaluateOptions, measure_runs
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.results import Metrics
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
from dask_embstab.passes.frontier import Frontier, measure, resolve_codes
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.passes.search import nearest
from dask_embstab.passes.verify_run import verify_run
from dask_embstab.repairs import option
from dask_embstab.series.log.basis import of_one_width
from dask_embstab.series.series import series_version
from dask_embstab.tables import run as runs
from dask_embstab.tables.coerce import (
    TableLike,
    as_run,
    as_table,
    item_and_user_tables,
    run_of,
    with_ids,
)
from dask_embstab.tables.column import as_column
from dask_embstab.tables.inputs import one_reading, unchanged
from dask_embstab.tables.named import read_named
from dask_embstab.tables.read.source import default_chunk_rows
from dask_embstab.tables.read.views import SideBySide, column_source, with_ones
from dask_embstab.tables.run import Run
from dask_embstab.tables.store_errors import reading
from dask_embstab.tables.table import Table, require_one_width
from dask_embstab.tables.table_moments import TableMoments
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import begin_run

RunLike = Run | str | os.PathLike[str]
_CHOICES = tuple(FIT.keys() - {"reference", "keep", "balance", *SELECTION, *JOIN})
"""Options of a fit that it takes as they are."""


@verb()
def open_run(path: Any, *, verify: bool = False) -> Run:
    """Open a run lazily: its metadata is read, and with ``verify`` every file.

    Parameters
    ----------
    path
        A local path, a URL or a Zarr store; a run that is open already is handed on.
    verify
        Compare every file of a stabilized run with the digests that the run records of itself, in
        one read, and every chunk once more whenever it is read. A run as training left it records
        none.

    Raises
    ------
    NotARunError
        Where ``path`` holds no Zarr group, no table, or a run whose writing was not finished.
    InputError
        Where a table is not made of full-width float rows, or there is nothing to ``verify`` by.
    DamageError
        Where the metadata cannot be read or, with ``verify``, any file is not what was written.
    """
    if not verify:
        return runs.open_run(path)
    place = path.path if isinstance(path, Run) else path
    return runs.open_run(place, digests=verify_run(place).digests)


@verb()
def table(array: TableLike, *, ids: Any = None, name: str | None = None) -> Table:
    """Rows in memory (or lazy ones) and their ids as a table, which every verb takes in place of a
    stored one.

    Parameters
    ----------
    array
        Rows (n, d) of float16, float32 or float64: a NumPy, Dask or Zarr array, a DataArray or a
        frame of pandas, Polars or Arrow. Nothing is read or copied.
    ids
        One int64, string or UUID per row. By default the labels of ``array``, if it has any: a
        pandas index, an id column or coordinate; else the rows are known by their number.
    name
        What messages and records call the table.

    Raises
    ------
    InputError
        Where the rows cannot make a table; `IdError` where the ids do not fit them.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> monday = es.table(np.eye(3), ids=["a", "b", "c"])
    >>> tuesday = es.table(np.eye(3)[::-1], ids=["c", "b", "a"])
    >>> es.evaluate(monday, tuesday).items.mean_cosine
    1.0
    """
    return with_ids(as_table(array, where=name or "the table"), ids)


@verb()
def create_run(
    path: Any,
    items: TableLike | None = None,
    users: TableLike | None = None,
    *,
    item_ids: Any = None,
    user_ids: Any = None,
    name: str | None = None,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    sync: bool = True,
) -> Run:
    """Write tables as a run, one read and one write each, and open it.

    Parameters
    ----------
    path
        Where the run will stand (a local path, or any store that Zarr opens); missing folders above
        it are made.
    items, users
        Tables (n, d) of float16, float32 or float64; at least one. Arrays, Dask arrays and Zarr
        arrays are streamed.
    item_ids, user_ids
        One int64 or string per row; without them the rows are known by their number.
    name
        Recorded name of the run; by default the last part of the path.
    chunk_rows
        Rows of a chunk; near 64 MiB by default.
    overwrite
        Replace a run that stands at ``path``: it stays whole until the new one takes its place.
    sync
        Return when the run is on the disk, before it is seen; False leaves that to the system, for
        scratch work.

    Raises
    ------
    InputError
        Where the tables cannot make a run; nothing is left behind.
    OutputExistsError
        Where something stands at ``path`` that is not to be replaced.
    """
    given = {"items": (items, item_ids), "users": (users, user_ids)}
    for key, (table, ids) in given.items():
        if table is None and ids is not None:
            raise InputError(
                f"{option(f'{key[:-1]}_ids')} are the ids of {key}, and no {key} are given; give"
                " both"
            )
    tables = {
        key: with_ids(as_table(table, key=key), ids)
        for key, (table, ids) in given.items()
        if table is not None
    }
    if not tables:
        raise InputError("a run holds items, users or both; give at least one table")
    if chunk_rows is not None and chunk_rows < 1:
        raise InputError(f"chunk_rows must be at least 1; it is {chunk_rows}")
    require_one_width(tables.get("items"), tables.get("users"))
    if local_path(path) is None:
        require_output(path, overwrite=overwrite)
    naming = name or _name_of(path)
    with (
        made_parents(local_path(path)),
        begin_run(path, name=naming, fingerprint="", overwrite=overwrite, sync=sync) as writer,
        unchanged(*tables.values()),
    ):
        passes = {}
        for key, table in tables.items():
            rows = chunk_rows or default_chunk_rows(table.d, table.dtype.itemsize)
            passes[key] = copy_table(
                writer,
                key,
                table,
                LinearMap(),
                dtype=table.dtype,
                width=table.d,
                chunk_rows=rows,
                label="writing",
            )
        run_all(passes)
    return open_run(path)


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
) -> Transform:
    """Find the two small matrices that land a run in the reference's space.

    One read of each table that is needed (items with the reference's rows beside them, users for
    scores); where the Gramian cannot hold a table's condition number, ``method="auto"`` reads that
    table again, and the diagnostics say so. Memory: a few panels and a few (d, d) matrices per
    thread, and ``join_memory`` where ids must be joined.

    Parameters
    ----------
    items, users
        Tables (n, d); ``items`` may also be a run, its path, or a dict that holds both. Or the
        `TableMoments` of both, which carry the pairs with their reference: then no table is read.
    reference
        The run (or items table) to land on; None standardizes without a rotation.
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
        Align directions: landed rows and reference rows are scaled to length one first. One more
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
        What becomes of an id that a table repeats, where ids are joined: ``"error"``, or the
        ``"first"`` row counts.
    scratch, join_memory
        Folder for the files of a join that does not fit in ``join_memory`` (of each process that
        computes; bytes, or like "2GiB"; default 1 GiB) and for a reference in an unrelated order:
        up to the size of the reference. Workers of a cluster must share it. Defaults:
        ``embstab.scratch`` and ``embstab.join-memory`` in Dask's configuration, else the system's
        temporary folder.

    Raises
    ------
    InputError
        (a ValueError) with what must hold, what came and what to do.
    """
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

    item_table, user_table = item_and_user_tables(items, users)
    require_one_width(item_table, user_table)
    tables = {"items": item_table, "users": user_table}
    aligned = {key: table for key in aligned_tables(align_on) if (table := tables[key]) is not None}
    rows = selections(align_on, read_named(chosen, aligned, as_run(items)))
    keep = resolve_keep(keep, users=user_table)
    options = FitOptions(keep=keep, selections=rows, **choices)
    return fit_tables(item_table, user_table, aligned_on, options)


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
) -> TableMoments:
    """Reduce a table, or a part of one, to what `fit` needs of it: one read, a few (d, d) matrices.

    Moments save, load, add (a shard per region, a table in parts, which may share no row with the
    reference) and subtract (deleted rows); `fit` takes them in place of tables, and gives the same
    or refuses for the same reason. ``key`` names the reference run's table whose rows belong to
    these; the other options are those of `fit`. What is about rows is given here (weights,
    selections); directions (``unit_rows``), pairs of other ids and ``method="qr"`` need the tables.
    """
    arguments = locals()
    run, known = as_run(reference), as_reference(reference)
    theirs = None if reference is None else as_table(reference, key=key)
    if run is not None:
        theirs = run.table(key)
    options = FitOptions(
        keep="geometry",
        balance="rows",
        center=True,
        selections=selections("items", taken(arguments, SELECTION)),
        join_options=taken(arguments, JOIN),
    )
    return summarize(
        as_table(table, key=key), theirs, {} if known is None else known.described, options
    )


@verb()
def fold_bias(items: TableLike, users: TableLike, bias: Any) -> tuple[Table, Table]:
    """Views of both tables with one more component, so that users @ items.T + ``bias`` (n_items,)
    is their dot product.

    For softmax and logistic models: ``items`` is the last layer's weight matrix (n_items, d)
    (``W.T`` where it is stored d x n; no copy), ``users`` its inputs. Left out, the bias stays what
    it is: stabilizing does not change u.w, so u.w + b is kept with the same b.
    """
    item_table, user_table = as_table(items), as_table(users, key="users")
    column = as_column(bias, item_table.row_ids, what=f"the bias of {item_table.where}")
    return (
        replace(item_table, source=SideBySide(item_table.source, column_source(column.array))),
        replace(user_table, source=with_ones(user_table.source)),
    )


@verb()
def apply(
    transform: Transform | str | os.PathLike[str],
    run: RunLike | TableLike,
    out: Any,
    *,
    dtype: Any = None,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    users: TableLike | None = None,
) -> Run:
    """Land every table of ``run`` and write it as a stabilized run at ``out``: one read and one
    write per table.

    Parameters
    ----------
    transform
        A `Transform`, the path of a saved one, or of a stabilized run.
    run
        A run, or its path, with items, users or both; d components. Or tables in memory: one of
        items, or a dict with ``"items"``, ``"users"`` or both.
    out
        Where the result appears, whole or not at all.
    dtype
        float16, float32 or float64 of the output; by default each table's own.
    overwrite
        Replace a run that stands at ``out``: it stays whole until the new one takes its place.
    resume
        Go on from the chunks that an interrupted call with the same arguments left, where their
        checksums are right and they were made of the input as it is now. Tables in memory are
        written from their first row on.
    sync
        Return when the run is on the disk, before it is seen; False leaves that to the system, for
        scratch work.
    users
        The table of users, where ``run`` is a table of items.

    The product is float32 where the transform's own estimates allow it (design, step 9), float64
    otherwise.
    """
    options = taken(locals(), ("dtype", "overwrite", "resume", "sync"))
    made = transform if isinstance(transform, Transform) else load_transform(transform)
    source = run_of(run, users)
    inputs = _paths(source.path, transform, (made.diagnostics.get("reference") or {}).get("path"))
    name = source.name if source.path is not None else _name_of(out)
    return transform_run(made, source, out, name=name, inputs=inputs, **options)


@verb(fit)
def stabilize(
    run: RunLike | TableLike,
    out: Any,
    *,
    reference: RunLike | TableLike | None = None,
    dtype: Any = None,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    users: TableLike | None = None,
    **options: Any,
) -> Run:
    """`fit` a run onto the reference (``options`` are those of `fit`) and `apply` the result (with
    those of `apply`).

    ``run`` is a run, its path, a table of items (with its ``users``) or a dict with both. Two reads
    and one write per table, in all, where the Gramian serves; what was read is in the diagnostics.
    """
    source = run_of(run, users)
    aligned_on = reference.path if isinstance(reference, Run) else reference
    require_output(out, _paths(source.path, aligned_on), overwrite=overwrite)
    with one_reading():
        transform = fit(source, reference=reference, **options)
        return apply(
            transform, source, out, dtype=dtype, overwrite=overwrite, resume=resume, sync=sync
        )


@verb()
def compress(
    run: RunLike | TableLike,
    out: Any,
    *,
    code: str | None = None,
    budget: str | None = None,
    rotate: bool = False,
    rank: int | None = None,
    seed: int = 0,
    like: RunLike | None = None,
    force: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    users: TableLike | None = None,
) -> Run:
    """Write a run whose rows are stored as codes of a few bytes: one read and one write per table.

    The result opens and reads like any run: rows are decoded, to float32, by whoever reads them.
    Codes are fixed, or fitted once and frozen (``like``): one row has one code on every day, so
    that the codes of runs aligned to one space are comparable (``docs/compression.md``).

    Parameters
    ----------
    run
        A run, or its path, with items, users or both; or tables in memory, as `apply` takes them.
    out
        Where the result appears, whole or not at all.
    code
        What a component becomes: ``"float16"``, ``"bfloat16"``, or a whole number of 8, 6, 5 or 4
        bits with a float16 scale per row (``"int8"``, the default, ... ``"int4"``), or its
        ``"sign"`` with the row's length; or product quantization, ``"pq16"``: 16 parts, a byte
        each, whose codebooks are fitted to up to 65,536 rows drawn by their ids.
    budget
        ``"recall@10=0.95"``: the smallest code that keeps 95 % of the ten best items of a query;
        ``"bytes=24"``: the best one of at most so many bytes a row. Every code is measured on
        sampled queries (users, or items where there are none) and items; the choice is certified on
        other queries over all items, whose 95 % interval must reach the recall. What was measured
        is recorded in the attributes of the run (``compressed``).
    rotate
        Turn rows by a random rotation first, the same for every run with this ``seed``: components
        of very different size are then coded alike.
    rank
        Keep that many leading directions of the items: the best scores of that rank. One more read.
    seed
        Of the rotation, the sampled rows and the codebooks.
    like
        A compressed run whose code, codebooks included, is used as it is.
    force
        Fit codebooks to fewer rows than the 10,000 that they need.
    overwrite, resume, sync
        As in `apply`.
    users
        The table of users, where ``run`` is a table of items.

    Raises
    ------
    InputError
        Where the code or an option is none, or no code is within the budget; `NotFiniteError` where
        a row is not finite, or lies beyond the range of its code.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = np.random.default_rng(0).normal(size=(1000, 32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     small = es.compress({"items": items}, f"{folder}/small.zarr", code="int8")
    ...     print(small.items.dtype, round(es.evaluate(items, small).items.mean_cosine, 4))
    float32 1.0
    """
    source = run_of(run, users)
    codes, record = resolve_codes(
        source,
        code=code,
        budget=budget,
        rotate=rotate,
        rank=rank,
        seed=seed,
        like=None if like is None else run_of(like),
        force=force,
    )
    name = source.name if source.path is not None else _name_of(out)
    return compress_run(
        source,
        out,
        codes,
        record=record,
        name=name,
        overwrite=overwrite,
        resume=resume,
        sync=sync,
        inputs=_paths(source.path),
    )


@verb()
def frontier(run: RunLike | TableLike, *, k: int = 10, seed: int = 0) -> Frontier:
    """What every code that needs no training keeps of a run, by the bytes of a row.

    Up to 1,000 sampled queries (users by dot product; items by cosine where there are no users)
    search up to 65,536 sampled items, as they are and as each code gives them back, plain and
    rotated: recall at ``k`` and rank-biased overlap with 95 % intervals, the relative error of
    scores, and the slope of exact scores on coded ones. Reads the sampled rows alone.

    Raises `InputError` where there are not more than ``k`` items.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = np.random.default_rng(0).normal(size=(500, 16))
    >>> [(e.code, e.n_bytes) for e in es.frontier({"items": items}).entries if not e.rotate][:3]
    [('sign', 4), ('int4', 10), ('int5', 12)]
    """
    return measure(run_of(run), k=k, seed=seed)


@verb()
def search(
    queries: RunLike | TableLike,
    run: RunLike | TableLike,
    k: int = 10,
    *,
    metric: Metric | None = None,
) -> tuple[Any, Any]:
    """The k nearest rows of ``run``'s items for every query, exactly: ``(scores, ids)``.

    Parameters
    ----------
    queries
        A table of queries (q, d); of a run its users, or its items where it has no users.
    run
        A run, whose items are searched, or a table; d components. Compressed runs are decoded on
        the way.
    k
        Rows for each query, at most the rows that are not zero; those never are an answer.
    metric
        ``"dot"`` or ``"cosine"``. Default: dot where the queries are users, else cosine.

    Returns
    -------
    scores (q, k) in float64, descending, ties by row number; ids (q, k).

    The table is read once for every million query-row pairs to be kept (q k), in float32 products
    whose rounding is allowed for, so that the result is that of float64; memory does not grow with
    the table.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = es.table(np.eye(3), ids=["a", "b", "c"])
    >>> scores, ids = es.search(np.array([[0.1, 0.9, 0.2]]), items, 2)
    >>> ids
    array([['b', 'c']], dtype=object)
    """
    asked, of_users = _queries(queries)
    searched = run_of(run).table("items")
    return nearest(asked, searched, k, metric or ("dot" if of_users else "cosine"))


def _queries(given: RunLike | TableLike) -> tuple[Table, bool]:
    """Queries as a table, and whether they are users."""
    run = as_run(given)
    if run is None or run.users is None:
        return as_table(given) if run is None else run.table("items"), False
    return run.users, True


@verb()
def evaluate(
    a: RunLike | TableLike,
    b: RunLike | TableLike,
    *,
    k: int = 100,
    users: int = 1000,
    seed: int = 0,
    metric: Metric | None = None,
    groups: Any = None,
    judgments: Any = None,
    displacement: Any = None,
    most_moved: int = 10,
    duplicates: KeepDuplicates = "error",
    scratch: str | os.PathLike[str] | None = None,
    join_memory: int | str | None = None,
) -> Metrics:
    """How comparable two runs are: cosines and lengths of the rows with one id, overlaps of top
    lists, recall of stale queries, and quality by judgments.

    Reads the rows that match once, in both runs, and the items once more for the top lists of
    sampled queries. Memory: a few panels and (d, d) matrices per thread, and about 100 bytes per
    query and k. All figures, their formulas and sources, and what is good are in docs/metrics.md.

    Parameters
    ----------
    a, b
        Runs, their paths, tables of items (also paths of arrays), dicts with ``"items"`` and
        ``"users"``, or versions of a series by the text ``"SERIES@3"`` or ``"SERIES@head"``.
    k
        Length of the top lists. Figures by depth are given at 1, 5, 10, 20, 50, 100 and so on up to
        k, and at k.
    users
        Queries to sample of those that both runs have: users, or items where the runs have no
        users. Confidence intervals (95 %) say what the sample leaves open.
    seed
        Another sample.
    metric
        ``"dot"`` or ``"cosine"``: how items are ranked. Default: dot products for users, cosines
        among items.
    groups
        Group of each row of a's items, or a dict by table name: one value per row (an array, a
        labelled Series, the name of an array stored with the run's table, a file: .npy, Zarr, or
        CSV or Parquet with ids and values). Texts are groups; more than 20 different numbers are
        cut into quarters of the rows. Cosines are given by group, top lists by the query's group.
    judgments
        Which items are relevant to which queries: triples of query id, item id and grade (a list,
        three columns, a dict of dicts, a frame, or a file: CSV or TSV with a header, Parquet, TREC
        qrels). Adds nDCG, recall, precision and MRR of all four rankings.
    displacement
        Write a table of every matched id with its cosine, the distance of its rows and both lengths
        to this new place: a Zarr group, or a Parquet data set where the name ends with ``.parquet``
        (with pyarrow).
    most_moved
        How many ids of the smallest cosines to list.
    duplicates, scratch, join_memory
        As in `fit`. Displacements take 32 bytes of scratch per row.

    Raises
    ------
    InputError
        Where nothing can be compared, or an option does not fit the tables.
    """
    join = taken(locals(), JOIN)
    first, second = _compared(a, b)
    options = EvaluateOptions(
        k, users, seed, metric, groups, judgments, displacement, most_moved, join=join
    )
    return measure_runs(first, second, options)


@verb()
def load_transform(path: str | os.PathLike[str]) -> Transform:
    """The transform saved at ``path`` (or URL): a file of `Transform.save`, or a stabilized run."""
    local = local_path(path)
    if local is not None and not os.path.isdir(local):  # noqa: PTH112 (False for a name that is too long)
        return Transform.load(path)
    try:
        stored = open_run(path).transform
    except NotARunError:
        if local is not None or not isinstance(path, str):
            raise
        return _transform_at(path)
    if stored is None:
        raise InputError(
            f"{path} is a run as training left it, without a transform; stabilize it first"
        )
    return stored


def _transform_at(url: str) -> Transform:
    """The file of `Transform.save` at a URL of any store."""
    with reading(f"the transform at {url}"):
        try:
            data = fsspec.open(url, "rb").open().read()
        except FileNotFoundError:
            raise InputError(
                f"there is no transform at {url}; give the place of a saved one or of a"
                " stabilized run"
            ) from None
        return Transform.load(io.BytesIO(data))  # type: ignore[arg-type]


def _compared(a: Any, b: Any) -> tuple[Run, Run]:
    """Both as runs; versions of series in one space where their widths differ."""
    versions = [series_version(given) for given in (a, b)]
    first, second = (
        found or as_run(given) or run_of({"items": as_table(given)})
        for found, given in zip(versions, (a, b), strict=True)
    )
    return of_one_width(first, second) if all(versions) else (first, second)


def _paths(*inputs: Any) -> tuple[str, ...]:
    """The inputs that are paths: no output may lie in them."""
    return tuple(str(path) for path in inputs if isinstance(path, str | os.PathLike))


def _name_of(place: Any) -> str | None:
    """The name of a run that is written there, unless it is given another."""
    local = local_path(place)
    return local.name.removesuffix(".zarr") if local else None
