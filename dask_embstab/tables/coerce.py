"""A table from whatever a user holds: the one place that asks what kind of thing it was given."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import xarray as xr
import zarr

from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.store import is_place, open_node, place_name, reading_metadata
from dask_embstab.tables.table import Table, make_table, table_of

TableLike: TypeAlias = Any
"""A path, `Table`, `zarr.Array`, `xarray.DataArray`, Dask array or NumPy array (or memory map)."""


def as_table(table: TableLike, *, key: str = "items") -> Table:
    """A table from whatever stands for one; a path may name a run (its ``key`` table), a group of one or an array."""
    if isinstance(table, Table):
        return table
    if is_place(table):
        return _from_place(table, key)
    if isinstance(table, xr.DataArray):
        ids = table.coords["id"].variable.data if "id" in table.coords else None
        return make_table(table, ids, where=f"the {key} DataArray", key=key)
    return make_table(table, where=f"the {key} array", key=key)


def as_run(given: Any) -> Run | None:
    """The run that ``given`` is or is the path of; None for anything else."""
    if is_place(given):
        node = open_node(given)
        with reading_metadata(place_name(given)):
            is_run = isinstance(node, zarr.Group) and any(key in node for key in TABLES)
        return open_run(given) if is_run else None
    return given if isinstance(given, Run) else None


def tables_at(path: str | os.PathLike[str]) -> dict[str, Table]:
    """The tables of the run at ``path`` by name; one table where a Zarr array or the group of one table stands there."""
    run = as_run(path)
    if run is None:
        return {"items": as_table(path)}
    return {key: run.table(key) for key in TABLES if getattr(run, key) is not None}


def item_and_user_tables(items: Any, users: TableLike | None) -> tuple[Table, Table | None]:
    """Items and users as tables; a run (or its path) given as items brings its own users."""
    run = as_run(items)
    if run is None:
        return as_table(items), None if users is None else as_table(users, key="users")
    return run.table("items"), run.users if users is None else as_table(users, key="users")


def _from_place(place: Any, key: str) -> Table:
    name, node = place_name(place), open_node(place)
    if isinstance(node, zarr.Array):
        return make_table(node, where=name, key=key)
    with reading_metadata(name):
        if "vectors" in node:
            folder, _, last = name.rstrip("/").rpartition("/")
            return table_of(node, last, folder or ".")
    return open_run(place).table(key)
