"""What verbs take, and how they name what they write."""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.files.place import local_path


def paths_of(*inputs: Any) -> tuple[str, ...]:
    """The inputs that are paths: no output may lie in them."""
    return tuple(str(path) for path in inputs if isinstance(path, str | os.PathLike))


def name_at(place: Any) -> str | None:
    """The name of a run that is written there, unless it is given another."""
    local = local_path(place)
    return local.name.removesuffix(".zarr") if local else None
