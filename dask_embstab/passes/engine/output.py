"""Can a run be written where it is asked for, by all processes that compute? Asked before the first
pass.
"""

from __future__ import annotations

import uuid
from typing import Any

import dask
import zarr
from dask.base import get_scheduler
from zarr.core.sync import sync

from dask_embstab.errors import EmbstabError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.passes.engine.graph import compute
from dask_embstab.tables.layout import ATTRIBUTE, FORMAT, INCOMPLETE
from dask_embstab.tables.store import place_name
from dask_embstab.tables.stores.url_store import zarr_place
from dask_embstab.tables.write.run_writer import require_place

_SAME_PROCESS = (None, dask.get, dask.local.get_sync, dask.threaded.get)


def require_output(
    out: Any, inputs: tuple[str, ...] = (), *, overwrite: bool = False, for_series: bool = False
) -> None:
    """Raise unless a run may be written at ``out``, and what tasks write into its store is seen
    here.

    A pickled copy of a store may be private to a worker process: a task makes the run's root group,
    marked as unfinished, which is then looked for and removed. Not for a local folder (each task
    looks whether it is there), nor where tasks run in this process.
    """
    require_place(out, inputs, overwrite=overwrite, for_series=for_series)
    if local_path(out) is not None or get_scheduler() in _SAME_PROCESS:
        return

    name, probe = (
        place_name(out),
        {ATTRIBUTE: {"format": FORMAT, INCOMPLETE: True, "probe": uuid.uuid4().hex}},
    )
    repair = "give a path or a URL that all of them share, or compute in threads"
    try:
        compute(
            [dask.delayed(_write_probe, pure=False)(out, probe)],
            label="the output's store",
            n_tasks=0,
        )
    except EmbstabError:
        raise
    except Exception as error:
        raise InputError(
            f"the output store must be one that worker processes can write into; {name} is not"
            f" ({type(error).__name__}: {error}); {repair}"
        ) from error

    try:
        seen = zarr.open_group(zarr_place(out), mode="r+")
    except FileNotFoundError:
        raise InputError(
            "the output store must be shared by all processes that compute; what a worker writes"
            f" into {name} is not seen here, its copy of the store is its own; {repair}"
        ) from None

    if dict(seen.attrs) == probe:
        sync(seen.store.delete(f"{seen.path}/zarr.json".lstrip("/")))


def _write_probe(out: Any, attributes: dict[str, Any]) -> None:
    zarr.open_group(zarr_place(out), mode="w-", zarr_format=3, attributes=attributes)
