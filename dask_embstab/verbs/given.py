"""What verbs take, and how they name what they write."""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.files.place import local_path
from dask_embstab.tables.inputs import files_of
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


def paths_of(*inputs: Any) -> tuple[str, ...]:
    """Where these inputs lie, which no output may lie in or around: paths, runs by theirs, and the
    files that runs and tables are read from, whatever pattern or list named them.
    """
    paths: list[str] = []
    for one in inputs:
        if isinstance(one, str | os.PathLike):
            paths.append(str(one))
        elif isinstance(one, Run):
            paths += paths_of(one.path, one.items, one.users)
        elif isinstance(one, Table):
            paths += files_of(one)
    return tuple(paths)


def name_at(place: Any) -> str | None:
    """The name of a run that is written there, unless it is given another."""
    local = local_path(place)
    return local.name.removesuffix(".zarr") if local else None
