"""Is a stabilized run the one that was written? Every file of it is read once and compared with
what the run records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dask_embstab.errors import InputError, NotARunError
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import open_regular
from dask_embstab.passes.digest import file_digests, problem, require_none
from dask_embstab.tables.output import recorded_output, unrecorded
from dask_embstab.tables.read.recorded import Recorded
from dask_embstab.tables.run import open_run

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class VerifiedRun:
    """How many files were read, and the digests that they have."""

    files: int
    digests: Recorded


def verify_run(place: Any) -> VerifiedRun:
    """Read every file of a stabilized run on a local file system; `DamageError` naming those that
    are not what was written.

    Raises `InputError` where the run records no digests of itself (it was not stabilized).
    """
    folder = local_path(place)
    if folder is None:
        raise InputError(
            f"a run is verified where it lies on a local file system; {place} is no local path;"
            " copy it there"
        )
    if not folder.is_dir():
        raise NotARunError(f"there is no run at {place}; give the path of a stabilized one")

    open_run(place)  # whatever else is wrong with it
    recorded = recorded_output(folder)
    chunks = recorded.files()["chunks"]
    found = file_digests(partial(_blocks, str(folder)), list(chunks))
    damage = [
        f"{folder / path} {wrong}"
        for (path, crc), digest in zip(chunks.items(), found, strict=True)
        if (wrong := problem(digest, crc, "chunks")) is not None
    ]
    damage += [f"{folder / path} was added since" for path in unrecorded(folder, recorded)]
    require_none(damage, "Restore what is named from a copy, or stabilize the run again")
    return VerifiedRun(len(found) + len(recorded.files()["metadata"]) + 2, recorded)


def _blocks(folder: str, path: str) -> Iterator[bytes]:
    with os.fdopen(open_regular(Path(folder, path)), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
