"""Scratch of processes that were killed is reclaimed by the next call, that of live ones is not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hosts import elsewhere, tell
from oracle import hidden, world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.ids import lookup

_KILLED_JOIN = """
import os, signal, sys
import dask_embstab as es
from dask_embstab.passes.join import shuffle
shuffle.stable_order = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
es.fit(sys.argv[1], reference=sys.argv[2], scratch=sys.argv[3], join_memory=1 << 20)
"""


def test_scratch_of_a_killed_join_is_reclaimed_by_the_next_call(
    make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(70_000, 2))
    run = make_run("run", rows, item_ids=np.arange(70_000), chunk_rows=8192)
    reference = make_run("reference", rows, item_ids=rng.permutation(70_000), chunk_rows=8192)
    (scratch := tmp_path / "scratch").mkdir()
    call = [sys.executable, "-c", _KILLED_JOIN, run.path, reference.path, str(scratch)]
    assert subprocess.run(call, check=False).returncode == -signal.SIGKILL
    assert len(hidden(scratch)) == 1
    with elsewhere("", "scratch", scratch, "embstab") as lives:
        es.fit(*world(0), scratch=scratch)
        assert len(hidden(scratch)) == 1, "that of the live process"
        assert tell(lives) == b""
    assert hidden(scratch) == []


def test_scratch_of_a_killed_doctor_is_reclaimed_by_the_next_one(
    make_run: Callable[..., es.Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", world(0)[0])
    with elsewhere("", "scratch", tmp_path, "embstab-doctor") as killed:
        killed.kill()
        killed.wait()
    assert len(hidden(tmp_path)) == 1
    with pytest.raises(SystemExit) as ended:
        main(["doctor", run.path, "--disk-bytes", "4kB", "--seconds", "0.001", "--json"])
    assert not ended.value.code
    capsys.readouterr()
    assert hidden(tmp_path) == []


_KILLED_LOOKUP = """
import os, signal, sys
import dask_embstab as es
from dask_embstab.tables.ids import lookup
lookup.sync_tree = lambda _: os.kill(os.getpid(), signal.SIGKILL)
es.open_run(sys.argv[1]).items.rows_of([7])
"""


def test_half_an_index_of_a_killed_lookup_is_reclaimed_by_the_next_one(
    make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    T, _ = world(0)
    run = make_run("run", T, item_ids=np.arange(60)[::-1].copy())
    call = [sys.executable, "-c", _KILLED_LOOKUP, run.path]
    assert subprocess.run(call, check=False).returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1
    assert run.items.rows_of([7]).tolist() == [T[52].tolist()]
    (index,) = hidden(tmp_path)
    assert index.name.startswith(".run.zarr.items.ids-")
    assert run.items.rows_of([7]).tolist() == [T[52].tolist()]


def test_two_lookups_that_build_one_index_at_once_both_answer(
    make_run: Callable[..., es.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    T, _ = world(0)
    run = make_run("run", T, item_ids=np.arange(60)[::-1].copy())
    original, calls = lookup.sync_tree, []

    def meanwhile(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            assert run.items.rows_of([8]).tolist() == [T[51].tolist()]
        original(folder)

    monkeypatch.setattr(lookup, "sync_tree", meanwhile)
    assert run.items.rows_of([7]).tolist() == [T[52].tolist()]
    assert len(calls) == 2
    assert len(hidden(tmp_path)) == 1
