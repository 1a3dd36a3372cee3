"""Jobs that overwrite one place at once: every call ends well, every reader finds a whole run,
nothing is left behind.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hosts import elsewhere, tell
from oracle import hidden, world

import dask_embstab as es
from dask_embstab.files import swap as swapping
from dask_embstab.tables.write import run_writer

T, W = world(3)
MakeRun = Callable[..., es.Run]

_JOB = """
import sys, dask, numpy as np, dask_embstab as es
from dask_embstab.files import swap
kind, place, transform, run, rounds, renameat2 = sys.argv[1:]
if renameat2 == "no":
    swap._renameat2 = lambda *_: False
transform = es.Transform.load(transform)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
with dask.config.set(scheduler="synchronous"):
    for _ in range(int(rounds)):
        if kind == "writer":
            es.apply(transform, run, place, overwrite=True, sync=False)
        else:
            assert es.open_run(place).items.n_rows == 60
"""


@pytest.mark.parametrize(("n", "rounds"), [(3, 5), pytest.param(8, 100, marks=pytest.mark.long)])
@pytest.mark.parametrize("renameat2", ["yes", "no"])
def test_writers_and_readers_of_one_place(
    make_run: MakeRun, tmp_path: Path, record_property: Any, n: int, rounds: int, renameat2: str
) -> None:
    run = make_run("in", T, W)
    es.fit(run).save(tmp_path / "t.npz")
    es.apply(tmp_path / "t.npz", run, tmp_path / "out.zarr")
    kinds = ["writer"] * n + ["reader"] * 2
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                _JOB,
                kind,
                *map(str, (tmp_path / "out.zarr", tmp_path / "t.npz", run.path, rounds)),
                renameat2,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for kind in kinds
    ]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == b"ready\n"
    ended = []
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write(b"go\n")
        job.stdin.flush()
    for job in jobs:
        _, errors = job.communicate(timeout=600)
        ended.append((job.returncode, errors.decode()[-500:]))
    record_property("tried", n * rounds)
    assert ended == [(0, "")] * len(jobs)
    assert es.open_run(tmp_path / "out.zarr", verify=True).items.n_rows == 60
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    "meanwhile", ["removed", "removed and made again", "taken out by another writer"]
)
@pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "two renames"])
def test_a_folder_that_vanished_is_no_error_of_the_loser(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: str,
    renameat2: bool,
) -> None:
    """It happens between the end of the write and its swap, at the worst moment."""
    run, out = make_run("in", T, W), tmp_path / "out.zarr"
    transform = es.fit(run)
    es.apply(transform, run, out)
    original, calls = swapping._renameat2, []

    def late(source: Path, target: Path, flags: int) -> bool:
        calls.append(flags)
        if len(calls) == 1:
            if meanwhile == "taken out by another writer":
                out.rename(tmp_path / "elsewhere")
            else:
                __import__("shutil").rmtree(out)
            if meanwhile == "removed and made again":
                calls.append(0)
                es.create_run(out, 2 * T, sync=False)
        return original(source, target, flags) if renameat2 else False

    monkeypatch.setattr(swapping, "_renameat2", late)
    transformed = es.apply(transform, run, out, overwrite=True, dtype="float32")
    assert transformed.items.dtype == np.float32
    assert hidden(tmp_path) == []


def test_a_run_that_another_writer_swaps_while_it_is_looked_at_may_be_replaced(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its two renames neither the old run's files are at the place nor the new one's."""
    run, out, other = make_run("in", T, W), tmp_path / "out.zarr", make_run("other", T, W).path
    transform = es.fit(run)
    es.apply(transform, run, out)
    original, looks = run_writer._standing, []

    def look(place: Path) -> Any:
        looks.append(original(place))
        if len(looks) == 1:
            out.rename(tmp_path / "taken out")
        if len(looks) == 2:
            Path(str(other)).rename(out)
        return looks[-1]

    monkeypatch.setattr(run_writer, "_standing", look)
    es.apply(transform, run, out, overwrite=True, dtype="float32")
    assert len(looks) > 2
    (tmp_path / "folder").mkdir()
    with pytest.raises(es.OutputExistsError, match="no Zarr store"):
        es.apply(transform, run, tmp_path / "folder", overwrite=True)


def test_a_reader_waits_for_a_writer_that_is_between_its_renames(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """And does not put back what that one took out: the writer is alive."""
    make_run("out", T, W)
    with elsewhere("", "between", tmp_path / "out.zarr") as writer:
        assert not (tmp_path / "out.zarr").exists()
        assert len(hidden(tmp_path)) == 1
        with elsewhere("", "open", tmp_path / "out.zarr") as reader:
            tell(writer)
            assert tell(reader) == b"61\n"
    assert hidden(tmp_path) == []


def test_what_a_killed_writer_took_out_comes_back_with_the_next_reader(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("out", T, W)
    with elsewhere("", "between", tmp_path / "out.zarr") as writer:
        writer.kill()
        writer.wait()
    assert not (tmp_path / "out.zarr").exists()
    assert es.open_run(tmp_path / "out.zarr").items.n_rows == 60
    es.apply(es.fit(T, W), tmp_path / "out.zarr", tmp_path / "out.zarr", overwrite=True)
    assert hidden(tmp_path) == []
