"""A table from whatever a user holds: the one place that asks what kind of thing it was given."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import zarr
from zarr.storage import LocalStore, MemoryStore

from dask_embstab.arguments import is_a
from dask_embstab.errors import IdError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import StorageOptions, Url, options_of
from dask_embstab.repairs import option
from dask_embstab.tables.column import by_label
from dask_embstab.tables.formats.places import files_at, is_in_files
from dask_embstab.tables.ids.ids import as_ids
from dask_embstab.tables.layout import CODES, TABLES, run_attributes
from dask_embstab.tables.read.arrays import as_array
from dask_embstab.tables.read.labels import is_frame, labelled_rows, labelled_values
from dask_embstab.tables.read.recorded import RunStore
from dask_embstab.tables.run import Run, open_run, run_in
from dask_embstab.tables.store import (
    is_place,
    of_one_folder,
    open_node,
    place_name,
    reading_metadata,
)
from dask_embstab.tables.stores.url_store import zarr_place
from dask_embstab.tables.table import Table, make_table, require_one_width, table_of

TableLike: TypeAlias = Any
"""A path, `Table`, `zarr.Array`, `xarray.DataArray`, a frame, Dask array or NumPy array (or memory
map).
"""


def as_table(table: TableLike, *, key: str = "items", where: str | None = None) -> Table:
    """A table from whatever stands for one; a path may name a run (its ``key`` table), a group of
    one or an array.

    The labels that an object has for its rows are the ids. ``where`` is what messages call an
    array.
    """
    if isinstance(table, Table):
        return table if table.key == key else replace(table, key=key)
    if isinstance(table, Run) or _holds_tables(table):
        return run_of(table).table(key)
    if (in_files := _table_in_files(table, key)) is not None:
        return in_files
    if is_place(table):
        return of_one_folder(table, partial(_from_place, table, key))

    where = where or f"the {key} {'DataArray' if is_a(table, 'xarray', 'DataArray') else 'array'}"
    if isinstance(table, zarr.Array):
        return make_table(table, _sibling_ids(table), where=where, key=key)
    rows = labelled_rows(table, key, where)
    return make_table(rows.array, rows.labels, where=where, key=key)


def open_table(
    source: TableLike, key: str, *, id: Any = None, vector: Any = None, where: Any = None
) -> Table:
    """The table that ``source`` is or names: of its columns ``id`` and ``vector``, the rows that
    ``where`` keeps.
    """
    opened = _table_in_files(source, key, id=id, vector=vector, where=where)
    if opened is not None:
        return opened
    if is_frame(source) and where is None:
        what = f"the {key} frame"
        rows = labelled_rows(source, key, what, id=id, vector=vector)
        return make_table(rows.array, rows.labels, where=what, key=key)
    table = as_table(source, key=key)  # where nothing is at a path, this says so
    if given := [n for n, v in (("id", id), ("vector", vector), ("where", where)) if v is not None]:
        raise InputError(
            f"{option(given[-1])} is about columns and named arrays of files (and columns of"
            f" frames); {place_name(source)} came; leave it out"
        )
    return table


def _table_in_files(source: Any, key: str, **columns: Any) -> Table | None:
    """The table that a file, a folder, a pattern or a list of these holds; None where none of these
    formats is meant, whose readers are imported for them alone.
    """
    if (place := files_at(source)) is None:
        return None
    from dask_embstab.tables.formats.opened import table_of_files

    return table_of_files(place, key, **columns)


def with_ids(table: Table, ids: Any) -> Table:
    """The table with these ids in place of its labels; where both are labelled, they meet by label
    as columns do.
    """
    if ids is None:
        return table

    given, what = labelled_values(ids), f"the ids of {table.where}"
    array = given.array
    if given.labels is not None and table.stored_ids is not None:
        array = as_array(array, what=what, error=IdError)
        array = by_label(
            array, as_ids(given.labels, array.shape[0], where=what), table.stored_ids, what
        )

    return replace(table, stored_ids=as_ids(array, table.n_rows, where=table.where))


def as_run(given: Any) -> Run | None:
    """The run that ``given`` is or is the path of, or a dict of its tables; None for
    anything else.
    """
    if _holds_tables(given):
        return _in_memory(**given)
    if is_place(given):
        return None if is_in_files(given) else of_one_folder(given, partial(_run_at, given))
    return given if isinstance(given, Run) else None


def _run_at(place: Any) -> Run | None:
    node, where = open_node(place), place_name(place)
    with reading_metadata(where):
        is_run = isinstance(node, zarr.Group) and any(key in node for key in TABLES)
    return run_in(node, where) if is_run else None


def run_of(given: Any, users: TableLike | None = None) -> Run:
    """The run that ``given`` is, names or holds as a dict, or one of that table of items; with
    these ``users``.
    """
    if isinstance(given, str | os.PathLike):
        run = None if is_in_files(given) else open_run(given)
    else:
        run = as_run(given)
    if run is None:
        return _in_memory(given, users)
    return run if users is None else replace(run, users=as_table(users, key="users"))


def tables_at(path: str | os.PathLike[str]) -> dict[str, Table]:
    """The tables of the run at ``path`` by name; one table where a Zarr array or the group of one
    table stands there.
    """
    run = as_run(path)
    if run is None:
        return {"items": as_table(path)}
    return {key: run.table(key) for key in TABLES if getattr(run, key) is not None}


def _holds_tables(given: Any) -> bool:
    """Whether this is a dict with items, users or both: a run in memory."""
    return isinstance(given, dict) and bool(given) and set(given) <= set(TABLES)


def _in_memory(items: TableLike | None = None, users: TableLike | None = None) -> Run:
    given = {"items": items, "users": users}
    tables = {key: as_table(table, key=key) for key, table in given.items() if table is not None}
    if not tables:
        raise InputError(
            "a run holds items, users or both; the dict that came has neither; give at least one"
            " table"
        )

    require_one_width(tables.get("items"), tables.get("users"))
    name = next(iter(tables.values())).where
    return Run(
        None,
        tables.get("items"),
        tables.get("users"),
        run_attributes(name),
        zarr.group(MemoryStore()),
    )


def _from_place(place: Any, key: str) -> Table:
    name, node = place_name(place), open_node(place)
    if isinstance(node, zarr.Array):
        ids = _sibling_ids(str(local_path(place) or place), options_of(place))
        return make_table(node, ids, where=name, key=key)
    with reading_metadata(name):
        if "vectors" in node or CODES in node:
            folder, _, last = name.rstrip("/").rpartition("/")
            return table_of(node, last, folder or ".")
    return open_run(place).table(key)


def _sibling_ids(vectors: zarr.Array[Any] | str, options: StorageOptions | None = None) -> Any:
    """The ids that belong to an array of vectors (or to its path, or its URL with these
    ``options``) in a table's group; None where none do.
    """
    whole = (
        isinstance(vectors, zarr.Array)
        and not vectors.path
        and isinstance(vectors.store, LocalStore)
    )
    place = str(vectors.store.root) if whole else vectors  # type: ignore[union-attr]
    group, _, name = (place if isinstance(place, str) else place.path).rpartition("/")
    if name != "vectors":
        return None

    with contextlib.suppress(FileNotFoundError):
        if isinstance(place, str):
            local = local_path(f"{group}/id")
            sibling = zarr_place(Url(f"{group}/id", options))
            store = sibling if local is None else RunStore(local, read_only=True)
            return zarr.open_array(store, mode="r")
        return zarr.open_array(place.store, path=f"{group}/id", mode="r")

    return None
