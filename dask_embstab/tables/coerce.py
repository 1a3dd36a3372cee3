"""A table from whatever a user holds: the one place that asks what kind of thing it was given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import xarray as xr
import zarr

from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.store import open_node, reading_metadata
from dask_embstab.tables.table import Table, make_table, table_of

TableLike: TypeAlias = Any
"""A path, `Table`, `zarr.Array`, `xarray.DataArray`, Dask array or NumPy array (or memory map)."""


def as_table(table: TableLike, *, key: str = "items") -> Table:
    """A table from whatever stands for one; a path may name a run (its ``key`` table), a group of one or an array."""
    if isinstance(table, Table):
        return table
    if isinstance(table, str | os.PathLike):
        return _from_path(Path(table), key)
    if isinstance(table, xr.DataArray):
        ids = table.coords["id"].variable.data if "id" in table.coords else None
        return make_table(table, ids, where=f"the {key} DataArray", key=key)
    if isinstance(table, zarr.Group):
        return table_of(table, key, str(table.store_path))
    return make_table(table, where=f"the {key} array", key=key)


def as_run(given: Any) -> Run | None:
    """The run that ``given`` is or is the path of; None for anything else."""
    if isinstance(given, str | os.PathLike):
        node = open_node(given)
        return open_run(given) if isinstance(node, zarr.Group) and any(key in node for key in TABLES) else None
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


def _from_path(path: Path, key: str) -> Table:
    node = open_node(path)
    if isinstance(node, zarr.Array):
        return make_table(node, where=str(path), key=key)
    with reading_metadata(str(path)):
        if "vectors" in node:
            return table_of(node, path.name, str(path.parent))
    return open_run(path).table(key)
