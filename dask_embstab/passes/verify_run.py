"""Is a stabilized run the one that was written? Every file of it is read once and compared with
what the run records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dask_embstab.errors import InputError, NotARunError
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import is_url
from dask_embstab.passes.digest import file_digests, problem, require_none
from dask_embstab.tables.output import recorded_output, unrecorded
from dask_embstab.tables.read.recorded import Recorded
from dask_embstab.tables.run import open_run
from dask_embstab.tables.store import place_name
from dask_embstab.tables.stores.run_files import run_files


@dataclass(frozen=True, slots=True)
class VerifiedRun:
    """How many files were read, and the digests that they have."""

    files: int
    digests: Recorded


def verify_run(place: Any) -> VerifiedRun:
    """Read every file of a stabilized run, wherever it lies; `DamageError` naming those that are
    not what was written.

    Raises `InputError` where the run records no digests of itself (it was not stabilized).
    """
    folder = local_path(place)
    if folder is None and not is_url(place):
        raise InputError(
            f"a run is verified where all processes can read it; {place_name(place)} is no path or"
            " URL; give one"
        )
    if folder is not None and not folder.is_dir():
        raise NotARunError(f"there is no run at {place}; give the path of a stabilized one")

    open_run(place)  # whatever else is wrong with it
    recorded, files = recorded_output(place), run_files(place)
    chunks = recorded.files()["chunks"]
    digests = file_digests(files.blocks, list(chunks))
    damage = [
        f"{files.where(path)} {wrong}"
        for (path, crc), digest in zip(chunks.items(), digests, strict=True)
        if (wrong := problem(digest, crc, "chunks")) is not None
    ]
    damage += [f"{files.where(path)} was added since" for path in unrecorded(files, recorded)]
    require_none(damage, "Restore what is named from a copy, or stabilize the run again")
    return VerifiedRun(len(digests) + len(recorded.files()["metadata"]) + 2, recorded)
