"""What one training of the model leaves on disk, opened lazily."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import StoreLike

from dask_embstab.arguments import shown
from dask_embstab.display import Displayed
from dask_embstab.errors import EmbstabError, InputError, NotARunError
from dask_embstab.repairs import call, option
from dask_embstab.tables.layout import (
    CODES,
    FORMAT,
    INCOMPLETE,
    TABLES,
    recorded,
    written_later,
)
from dask_embstab.tables.read.direct_source import small_array
from dask_embstab.tables.read.recorded import Recorded
from dask_embstab.tables.read.stored.nodes import child
from dask_embstab.tables.store import (
    of_one_folder,
    open_node,
    place_name,
    reading_metadata,
    table_without_group,
    without_group,
)
from dask_embstab.tables.store_errors import read_error
from dask_embstab.tables.table import Table, require_one_width, table_of
from dask_embstab.tables.transform import STORED_ARRAYS, Transform


@dataclass(frozen=True, slots=True, repr=False)
class Run(Displayed):
    """An items table and, mostly, a users table; stabilized runs also hold the transform that made
    them.

    ``path`` is the place it was opened from, None where its tables are in memory; ``attrs`` are the
    attributes of its root group. Where the tables are views of what is stored, ``then`` is the
    transform that makes them of the stored rows. ``origin`` is that of their `Space` where a series
    knows it better than the run (since a rebase).

    Examples
    --------
    >>> monday.items.d, monday.users.n_rows, monday.transform is None
    (4, 300, True)
    """

    path: str | None
    items: Table | None
    users: Table | None
    attrs: Mapping[str, Any]
    group: zarr.Group
    then: Transform | None = None
    origin: str | None = None

    @property
    def name(self) -> str:
        """Its recorded name, or the last part of its path."""
        named = recorded(self.attrs).get("name")
        return (
            named
            if isinstance(named, str) and named
            else Path(self.where).name.removesuffix(".zarr")
        )

    @property
    def where(self) -> str:
        """What messages call it."""
        return "the run in memory" if self.path is None else self.path

    @property
    def transform(self) -> Transform | None:
        """The transform that made a stabilized run (these tables, if they are views); None for one
        as training left it.
        """
        node = stored_node(self, "transform")
        if not isinstance(node, zarr.Group) or not {"direction", "diagnostics"} & set(node.attrs):
            return None  # none, or somebody else's group of that name

        try:
            stored = {name: child(node, name) for name in STORED_ARRAYS}
            arrays = {
                name: small_array(array, f"{self.path}/transform/{name}")
                for name, array in stored.items()
                if isinstance(array, zarr.Array)
            }
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("a chunk is missing: its values are not finite")
        except EmbstabError:
            raise
        except Exception as error:
            raise read_error(error, f"the transform of {self.where}") from error

        try:
            made = Transform.from_arrays(arrays, dict(node.attrs).get("diagnostics", {}))  # type: ignore[arg-type]
        except InputError as error:
            raise read_error(ValueError(str(error)), f"the transform of {self.where}") from error
        if self.then is None:
            return made
        return replace(
            made.compose(self.then),
            diagnostics={**made.diagnostics, "rebased": dict(self.then.diagnostics)},
        )

    @property
    def codes(self) -> Run:
        """The same run with the rows that its codes give back, where codes are stored beside
        vectors; a run that has codes alone is that itself.

        Raises `InputError` where a table has no codes, or where the tables are views (a rebased
        version of a series: `Series.codes` reads its codes).
        """
        if self.then is not None:
            raise InputError(
                f"the rows of {self.where} are read in another space than its codes are stored in;"
                f" {call('Series.codes')} reads both in one"
            )
        return replace(self, items=_coded(self, "items"), users=_coded(self, "users"))

    def _facts(self) -> dict[str, object]:
        tables = {
            key: None if (table := getattr(self, key)) is None else table.summary for key in TABLES
        }
        kind = "stabilized" if stored_node(self, "transform") is not None else "as trained"
        return {"name": self.name, "path": self.path, **tables, "kind": kind}

    def table(self, key: str) -> Table:
        """Its ``"items"`` or ``"users"``; an error where it has none.

        Examples
        --------
        >>> monday.table("users").n_rows
        300
        """
        if not isinstance(key, str) or key not in TABLES:
            raise InputError(f"a run holds {' and '.join(TABLES)}; it has no table {shown(key)}")

        table: Table | None = getattr(self, key)
        if table is None:
            present = " and ".join(k for k in TABLES if getattr(self, k) is not None)
            raise InputError(
                f"{key} are needed here; {self.where} holds only {present}; write them with"
                f" {call('create_run')}"
            )
        return table


def stored_node(run: Run, name: str) -> Any:
    """The array or group of this name in a run's Zarr group, or None; an error where its metadata
    cannot be read.
    """
    with reading_metadata(f"{run.where}/{name}"):
        return child(run.group, name)


def _coded(run: Run, key: str) -> Table | None:
    """The table read from its codes."""
    table: Table | None = getattr(run, key)
    if table is None or hasattr(table.source, "code"):
        return table
    group = stored_node(run, key)
    if not isinstance(group, zarr.Group) or CODES not in group:
        raise InputError(
            f"{table.where} has no codes; {call('compress')} writes a run of them, and a series"
            f" with the setting {option('code')} both"
        )
    from dask_embstab.tables.read.coded import coded_source

    return replace(table, source=coded_source(group, f"{run.where}/{key}"))


RunLike = Run | str | os.PathLike[str]
"""A run, or its path."""


def open_run(
    path: str | os.PathLike[str] | StoreLike | Run, *, digests: Recorded | None = None
) -> Run:
    """Open a run lazily: only metadata is read.

    Raises `NotARunError` where ``path`` holds no Zarr group, no table, or a run whose writing was
    not finished; `InputError` where a table is not made of full-width float rows; `DamageError`
    where its metadata cannot be read. With ``digests``, every file that is read of it is compared
    with those that were recorded.
    """
    if isinstance(path, Run):
        return path
    return of_one_folder(path, lambda: run_in(open_node(path, digests), place_name(path)))


def run_in(node: zarr.Group | zarr.Array[Any], where: str) -> Run:
    """The run that an opened node is; raises as `open_run` does."""
    if not isinstance(node, zarr.Group):
        raise NotARunError(
            f"a run is a Zarr group with items/vectors or users/vectors; {where} is a Zarr array"
        )

    attrs = dict(node.attrs)
    ours = recorded(attrs)
    if isinstance(version := ours.get("format"), int) and version > FORMAT:
        raise written_later(where, version, known=FORMAT)
    if ours.get(INCOMPLETE):
        raise NotARunError(
            f"the writing of {where} was not finished, so it is no run; write it again (a call that"
            " resumes goes on from it)"
        )

    with reading_metadata(where):
        groups = {key: group for key in TABLES if isinstance(group := child(node, key), zarr.Group)}
        tables = {key: table_of(group, key, where) for key, group in groups.items()}

    if bare := table_without_group(node.store_path, [key for key in TABLES if key not in tables]):
        raise NotARunError(without_group(where, bare))
    if not tables:
        raise NotARunError(
            f"a run is a Zarr group with items/vectors or users/vectors; {where} holds"
            f" {', '.join(sorted(name for name, _ in node.members())) or 'nothing'}"
        )
    require_one_width(tables.get("items"), tables.get("users"))
    return Run(where, tables.get("items"), tables.get("users"), attrs, node)
