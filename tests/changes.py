"""What is done to an input while a verb reads it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import world

import dask_embstab as es

T, W = world(31)
B, A = world(32)
IDS, USER_IDS = np.arange(60) * 2, np.arange(90) * 3


def replaced(run: es.Run) -> None:
    es.create_run(
        run.path, 2 * T + 1, W, item_ids=IDS, user_ids=USER_IDS, chunk_rows=16, overwrite=True
    )


def written_in_place(run: es.Run) -> None:
    zarr.open_group(run.path, mode="r+")["items/vectors"][48:] = 7 * T[48:]
    _later(run, "vectors/c/3/0")


def with_its_old_time(run: es.Run) -> None:
    file = Path(run.path, "items/vectors/c/3/0")
    before = file.stat().st_mtime_ns
    zarr.open_group(run.path, mode="r+")["items/vectors"][48:] = 7 * T[48:]
    os.utime(file, ns=(0, before))


def appended(run: es.Run) -> None:
    for name, rows in (("vectors", T[:16]), ("id", np.arange(1000, 1016))):
        zarr.open_group(run.path, mode="r+")[f"items/{name}"].append(rows)


def other_ids(run: es.Run) -> None:
    zarr.open_group(run.path, mode="r+")["items/id"][:] = IDS[::-1]
    _later(run, "id/c/*")


def removed(run: es.Run) -> None:
    shutil.rmtree(run.path)


def _later(run: es.Run, files: str) -> None:
    """The clock of some file systems ticks every few milliseconds: two writes may fall into one
    tick.
    """
    for file in Path(run.path).glob(f"items/{files}"):
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))


CHANGES = {
    "replaced": (
        replaced,
        r"(chunk 0 had the digest|chunk file .*c/0/0 was written anew|has another)",
    ),
    "in place": (
        written_in_place,
        r"(chunk 3 had the digest|chunk file .*vectors/c/3/0 was written anew)",
    ),
    "appended": (appended, "its metadata was written anew"),
    "ids": (other_ids, r"ids of .*chunk file .*id/c/0 was written anew"),
    "removed": (removed, "its metadata|is gone"),
}


def refused(pattern: str) -> Any:
    return pytest.raises(
        es.InputChangedError, match=f"(?s)stay as it is.*{pattern}.*nothing was published"
    )
