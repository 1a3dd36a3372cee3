"""Verbs about one run: open it, make one, and what stands for a table or a transform."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from dask_embstab.errors import InputError, NotARunError, verb
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.files.swap import made_parents
from dask_embstab.passes.apply import copy_table
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.engine.write import LinearMap
from dask_embstab.repairs import option
from dask_embstab.tables import run as runs
from dask_embstab.tables.coerce import (
    TableLike,
    as_table,
    open_table,
    with_ids,
)
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.read.source import default_chunk_rows
from dask_embstab.tables.run import Run
from dask_embstab.tables.store_errors import reading
from dask_embstab.tables.table import Table, require_one_width
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import begin_run
from dask_embstab.verbs.given import name_at, paths_of


@verb()
def open_run(
    path: Any, *, verify: bool = False, storage_options: StorageOptions | None = None
) -> Run:
    """Open a run lazily: its metadata is read, and with ``verify`` every file.

    Parameters
    ----------
    path
        A local path, a URL or a Zarr store; a run that is open already is handed on.
    verify
        Compare every file of a stabilized run with the digests that the run records of itself, in
        one read, and every chunk once more whenever it is read. A run as training left it records
        none.
    storage_options
        What reaches a URL, as in `fit`.

    Raises
    ------
    NotARunError
        Where ``path`` holds no Zarr group, no table, or a run whose writing was not finished.
    InputError
        Where a table is not made of full-width float rows, or there is nothing to ``verify`` by.
    DamageError
        Where the metadata cannot be read or, with ``verify``, any file is not what was written.

    Examples
    --------
    >>> es.open_run(folder / "monday.zarr").name
    'monday'
    """
    (path,) = bound(storage_options, path)
    if not verify:
        return runs.open_run(path)
    place = path.path if isinstance(path, Run) else path
    from dask_embstab.passes.verify_run import verify_run

    return runs.open_run(place, digests=verify_run(place).digests)


@verb()
def table(
    array: TableLike,
    *,
    ids: Any = None,
    vector: Any = None,
    where: Any = None,
    name: str | None = None,
    storage_options: StorageOptions | None = None,
) -> Table:
    """Rows in memory (or lazy ones, or in files) and their ids as a table, which every verb takes
    in place of a stored one.

    Parameters
    ----------
    array
        Rows (n, d) of float16, float32 or float64: a NumPy, Dask or Zarr array, a DataArray, a
        frame of pandas, Polars or Arrow, a relation of DuckDB; or files, as `ingest` takes them
        (Parquet, Arrow, npy and others, read where they lie: `docs/formats.md`). Nothing is read
        or copied but a relation.
    ids
        One int64, string or UUID per row, or the name of their column. By default the labels of
        ``array``, if it has any: a pandas index, an id column or coordinate; else the rows are
        known by their number.
    vector, where
        Of frames and files: the column of vectors, or the columns of components; of files: which
        rows. As in `ingest`.
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
    (array,) = bound(storage_options, array)
    column = ids if isinstance(ids, str) else None
    if column is None and vector is None and where is None:
        return with_ids(as_table(array, where=name or "the table"), ids)
    opened = open_table(array, "items", id=column, vector=vector, where=where)
    opened = opened if name is None else replace(opened, where=name)
    return opened if column is not None else with_ids(opened, ids)


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
    shard_rows: int | None = None,
    overwrite: bool = False,
    sync: bool = True,
    storage_options: StorageOptions | None = None,
) -> Run:
    """Write tables as a run, one read and one write each, and open it.

    Parameters
    ----------
    path
        Where the run is written (a local path, or any store that Zarr opens); missing folders above
        it are made.
    items, users
        Tables (n, d) of float16, float32 or float64; at least one. Arrays, Dask arrays and Zarr
        arrays are streamed.
    item_ids, user_ids
        One int64 or string per row; without them the rows are known by their number.
    name
        Recorded name of the run; by default the last part of the path.
    chunk_rows
        Rows of a chunk; near 64 MiB by default, of a shard's inner chunk near 1 MiB.
    shard_rows
        Write vectors as shards of so many rows, a multiple of ``chunk_rows``: one file or object
        per task, whose inner chunks can be read alone.
    overwrite
        Replace a run that stands at ``path``: it stays whole until the new one takes its place.
    sync
        Sync the run to the disk before it becomes visible; False leaves that to the system, for
        scratch work.

    Raises
    ------
    InputError
        Where the tables cannot make a run; nothing is left behind.
    OutputExistsError
        Where ``path`` exists already and is not to be replaced.

    Examples
    --------
    >>> run = es.create_run(folder / "new.zarr", np.eye(3), item_ids=["a", "b", "c"])
    >>> run.items.n_rows, run.users
    (3, None)
    """
    path, items, users = bound(storage_options, path, items, users)
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
    for what, rows in (("chunk_rows", chunk_rows), ("shard_rows", shard_rows)):
        if rows is not None and rows < 1:
            raise InputError(f"{what} must be at least 1; it is {rows}")
    if chunk_rows is not None and shard_rows is not None and shard_rows % chunk_rows:
        raise InputError(
            f"shard_rows must be a multiple of chunk_rows; they are {shard_rows} and {chunk_rows}"
        )
    require_one_width(tables.get("items"), tables.get("users"))
    if local_path(path) is None:
        require_output(path, overwrite=overwrite)
    naming = name or name_at(path)
    with (
        made_parents(local_path(path)),
        begin_run(
            path,
            name=naming,
            fingerprint="",
            overwrite=overwrite,
            sync=sync,
            inputs=paths_of(*tables.values()),
        ) as writer,
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
                shard_rows=shard_rows,
                inner_rows=chunk_rows,
            )
        run_all(passes)
    return open_run(path)


@verb()
def load_transform(
    path: str | os.PathLike[str], *, storage_options: StorageOptions | None = None
) -> Transform:
    """The transform saved at ``path`` (or URL): a file of `Transform.save`, or a stabilized run.

    Examples
    --------
    >>> es.fit(tuesday, reference=monday).save(folder / "tuesday.npz")
    >>> es.load_transform(folder / "tuesday.npz").diagnostics["items"]["matched"]
    200
    """
    (path,) = bound(storage_options, path)
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
        return Transform.load(url)
