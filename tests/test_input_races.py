"""A process writes the input anew all the time while others read it: what is published is right, or
nothing is.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from oracle import Array, hidden, vectors_of, world

import dask_embstab as es

CHUNK = 8
VERSIONS = [tuple(table * (1 + 9 * seed) for table in world(40 + seed)) for seed in range(2)]
"""Of items and users, far from each other: a mixture of both gives scores that are neither's."""

_WRITER = """
import random, sys, time, numpy as np, zarr
import dask_embstab as es
place, how, *files = sys.argv[1:]
versions = [tuple(np.load(file).values()) for file in files]
sys.stdout.write("ready\\n"); sys.stdout.flush()
number = 0
while True:
    number += 1
    time.sleep(random.random() / 4)  # so that some readers are left alone
    items, users = versions[number % 2]
    if how == "replaced":
        es.create_run(place, items, users, chunk_rows=8, overwrite=True, sync=False)
    else:
        group = zarr.open_group(place, mode="r+")
        for key, rows in (("items", items), ("users", users)):
            for at in range(0, len(rows), 8):
                group[f"{key}/vectors"][at : at + 8] = rows[at : at + 8]
"""


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("rounds", [6, pytest.param(120, marks=pytest.mark.long)])
@pytest.mark.parametrize("change", ["replaced", "in place"])
def test_an_input_that_is_written_all_the_time(
    tmp_path: Path, record_property: Any, change: str, rounds: int
) -> None:
    place, ended = tmp_path / "in.zarr", Counter[str]()
    es.create_run(place, *VERSIONS[0], chunk_rows=CHUNK)
    files = [str(tmp_path / f"{number}.npz") for number in range(2)]
    for file, version in zip(files, VERSIONS, strict=True):
        np.savez(file, *version)
    command = [sys.executable, "-c", _WRITER, place, change, *files]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as writer,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(writer.kill)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for number in range(rounds):
            out = tmp_path / f"out-{number}.zarr"
            try:
                with dask.config.set(scheduler="threads" if number % 2 else "synchronous"):
                    es.stabilize(place, out, sync=False)
            except (es.InputError, es.DamageError) as error:
                ended[type(error).__name__] += 1
                assert not out.exists()
            else:
                ended["published"] += 1
                require_right(es.open_run(out, verify=True), mixed=change == "in place")
        assert writer.poll() is None, "it wrote until the end"
    assert rounds < 100 or {"InputChangedError", "published"} <= set(ended)
    assert not [path for path in hidden(tmp_path) if path.name.startswith(".out")]
    record_property("tried", rounds)
    record_property("ended", dict(ended))


def require_right(run: es.Run, *, mixed: bool) -> None:
    """Every chunk is one of a version, aligned; all are of one version, and the matrices are those
    of a fit of them all.
    """
    assert run.transform is not None
    read: list[Array] = []
    of: set[int] = set()
    for key, M in (("items", run.transform.items), ("users", run.transform.users)):
        aligned, rows = vectors_of(run, key), []
        candidates = [version[key == "users"] for version in VERSIONS]
        for at in range(0, len(aligned), CHUNK):
            part = slice(at, at + CHUNK)
            (number,) = (
                n
                for n, table in enumerate(candidates)
                if np.allclose(table[part] @ M, aligned[part])
            )
            of.add(number)
            rows.append(candidates[number][part])
        read.append(np.concatenate(rows))
    assert mixed or len(of) == 1
    again = es.fit(*(zarr.array(table, chunks=(CHUNK, 4)) for table in read))
    np.testing.assert_allclose(run.transform.items, again.items, rtol=1e-9)
    np.testing.assert_allclose(run.transform.users, again.users, rtol=1e-9)
