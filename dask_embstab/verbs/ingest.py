"""The verb that brings tables in files of other formats into the house."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dask_embstab.errors import IdError, InputError, first_few, verb
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.files.swap import made_parents
from dask_embstab.options import require_each
from dask_embstab.passes.apply import copy_table, float_dtype
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.engine.write import LinearMap
from dask_embstab.passes.join.distinct import may_repeat, repeated
from dask_embstab.passes.join.options import join_options
from dask_embstab.repairs import option
from dask_embstab.tables.coerce import TableLike, open_table
from dask_embstab.tables.ids.ids import as_ids
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.read.source import default_chunk_rows
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.table import Table, require_one_width
from dask_embstab.tables.write.run_writer import begin_run
from dask_embstab.verbs.given import name_at, paths_of


@verb()
def ingest(
    source: TableLike,
    out: Any,
    *,
    id: Any = None,
    vector: Any = None,
    users: TableLike | None = None,
    where: Any = None,
    dtype: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    shard_rows: int | None = None,
    storage_options: StorageOptions | None = None,
) -> Run:
    """Write a table of items (and one of users) that lies in files of another format as a run: one
    read and one write each, out of core.

    Parameters
    ----------
    source
        A file, a folder, a pattern (``emb/*.parquet``) or a list of files. Parquet (of a folder,
        names such as ``day=2026-01-02`` below it are columns), Arrow IPC (file, stream, Feather),
        ``.npy``, ``.npz``, HDF5, safetensors, word2vec and GloVe (text or binary), CSV; a Zarr
        array, a frame, or whatever else stands for a table (`docs/formats.md`). Of several files
        rows follow in the order of their names.
    out
        Where the run appears, whole or not at all.
    id
        The column (or array) of ids: whole numbers, texts, binary values or UUIDs. By default the
        only one that can be, or ``id``, ``item_id`` (``user_id``); the row number where there is
        none. A dict ``{"items": ..., "users": ...}`` names one for each table.
    vector
        The column of vectors: lists, fixed-size lists or fixed-size binary values (float32;
        ``"emb:float16"`` says otherwise); or one column per component, by a pattern (``"emb_*"``,
        in the order of the numbers that end the names) or a list of names or positions. By default
        the only one that can be. A dict names one for each table.
    users
        The table of users, as ``source``.
    where
        Which rows: a text such as ``'day = "2026-01-02" and score > 0.5'``, or an expression of
        ``pyarrow.compute``, which Parquet is asked by; or a dict of these.
    dtype
        Of the vectors; by default as they are.
    name
        Recorded name of the run; by default the last part of ``out``.
    overwrite, resume, sync, shard_rows
        As in `apply`; ``resume`` takes over the chunks of files that are what they were by size and
        time.

    Raises
    ------
    InputError
        Where it is not clear which columns are meant, the same ones would be items and users, or a
        row has no vector of the common length:
        the row and its file are named. `IdError` where an id is missing, repeats or is of another
        kind. Nothing is left behind, and no row is left out or shifted.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from pyarrow import parquet
    >>> table = pa.table({"id": ["a", "b"], "emb": [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]})
    >>> parquet.write_table(table, folder / "items.parquet")
    >>> es.ingest(folder / "items.parquet", folder / "ingested.zarr").items.vectors.shape
    (2, 3)
    """
    source, users, out = bound(storage_options, source, users, out)
    given = {"items": source, "users": users}
    tables = {
        key: open_table(one, key, id=_of(id, key), vector=_of(vector, key), where=_of(where, key))
        for key, one in given.items()
        if one is not None
    }
    if not tables:
        raise InputError(
            f"a run holds items, users or both; neither came; give {option('source')} or"
            f" {option('users')}"
        )
    if not any(isinstance(one, Mapping) for one in (id, vector, where)):
        _require_two(tables, is_one=source is users)
    require_one_width(tables.get("items"), tables.get("users"))
    require_each("ingest", {"shard_rows": shard_rows})
    inputs = paths_of(*given.values(), *tables.values())
    require_output(out, inputs, overwrite=overwrite)
    stored = None if dtype is None else float_dtype(dtype)
    with (
        made_parents(local_path(out)),
        begin_run(
            out,
            name=name or name_at(out),
            fingerprint=_fingerprint(tables, stored, shard_rows),
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            inputs=inputs,
        ) as writer,
        unchanged(*tables.values()),
    ):
        passes = {}
        for key, table in tables.items():
            made = table.dtype.newbyteorder("=") if stored is None else stored
            rows = default_chunk_rows(table.d, made.itemsize)
            passes[key] = copy_table(
                writer,
                key,
                table,
                LinearMap(),
                dtype=made,
                width=table.d,
                chunk_rows=rows,
                label="importing",
                shard_rows=shard_rows,
            )
        run_all(passes)
        for key, table in tables.items():
            if table.stored_ids is not None:
                _require_distinct(table, writer.group[f"{key}/id"])
    return open_run(out)


def _require_two(tables: Mapping[str, Table], *, is_one: bool) -> None:
    """Raise where the same rows would be items and users: one file that holds both is easily named
    twice.
    """
    items, users = (paths_of(tables.get(key)) for key in ("items", "users"))
    if is_one or (items and items == users):
        raise InputError(
            f"items and users must be two tables; the same columns of {tables['items'].where} came"
            " for both; give each a file of its own, or name the columns of each by"
            f" {option(vector={'items': 'A', 'users': 'B'})}"
        )


def _of(given: Any, key: str) -> Any:
    """One option for one table."""
    return given.get(key) if isinstance(given, Mapping) else given


def _fingerprint(
    tables: Mapping[str, Table], dtype: np.dtype[Any] | None, shard_rows: int | None
) -> str:
    """What must be equal for a write to be resumed: the inputs, and how the output is stored."""
    named = [(key, t.where, t.n_rows, t.d, str(t.dtype), t.written) for key, t in tables.items()]
    return hashlib.sha256(repr((named, str(dtype), shard_rows)).encode()).hexdigest()[:32]


def _require_distinct(table: Table, written: Any) -> None:
    """Raise unless every row has an id of its own; they are read from where they were written."""
    ids = as_ids(written, table.n_rows, where=table.where)
    with join_options() as join:
        if not may_repeat(ids, table.key, join):
            return
        duplicates = repeated(ids, join)
    if duplicates.n:
        place = getattr(table.source, "place", None)
        shown = (
            f"row {first_few(duplicates.rows)} of {table.where}"
            if place is None
            else place(duplicates.rows[0])
        )
        raise IdError(
            f"every row must have an id of its own; {shown} has one that an earlier row has, and"
            f" {duplicates.n} such rows there are; leave the repeated ones out"
        )
