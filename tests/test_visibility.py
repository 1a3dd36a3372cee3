"""An output is there whole or not at all, whatever stops the writer."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from oracle import Stop, data_of, hidden, snapshot, stop_at, vectors_of, world

import dask_embstab as es
from dask_embstab.passes.engine import write as engine
from dask_embstab.tables.write import table_layout
from dask_embstab.tables.write.sink import Sink

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(5)
MakeRun = Callable[..., es.Run]
Writing = Callable[..., contextlib.AbstractContextManager[None]]


@pytest.fixture
def run(make_run: MakeRun) -> es.Run:
    return make_run(
        "in", T, W, dtype="float32", item_ids=np.arange(60), user_ids=[f"u{i}" for i in range(90)]
    )


@pytest.fixture
def transform(run: es.Run) -> es.Transform:
    return es.fit(run)


# --- in one process


def test_nothing_is_visible_before_the_end(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing
) -> None:
    out, seen = tmp_path / "out.zarr", []

    def look(_: int) -> None:
        seen.append(out.exists())
        (folder,) = hidden(tmp_path)
        with pytest.raises(es.NotARunError, match="not finished"):
            es.open_run(folder / "run")

    with writing(look):
        es.apply(transform, run, out)
    assert len(seen) == 10, "4 chunks of items and 6 of users"
    assert not any(seen)
    assert es.open_run(out).items is not None
    assert not hidden(tmp_path)


@pytest.mark.parametrize("write", ["create_run", "apply", "stabilize"])
def test_a_write_that_fails_leaves_nothing(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing, write: str
) -> None:
    before = snapshot(tmp_path)
    calls: dict[str, Callable[[], Any]] = {
        "create_run": lambda: es.create_run(tmp_path / "out.zarr", T, W, chunk_rows=16),
        "apply": lambda: es.apply(transform, run, tmp_path / "out.zarr"),
        "stabilize": lambda: es.stabilize(run, tmp_path / "out.zarr"),
    }
    with writing(stop_at(3)), pytest.raises(Stop):
        calls[write]()
    assert snapshot(tmp_path) == before


def test_tasks_that_outlive_a_failure_leave_nothing(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread fails while the others write on for a while."""
    run = make_run("in", T, W, item_ids=[str(i) for i in range(60)])
    transform, before = es.fit(run), snapshot(tmp_path)
    original, block, failed = Sink.writer, engine.write_block, threading.Event()
    ended: list[threading.Event] = []

    def task(*arguments: Any) -> Any:
        ended.append(end := threading.Event())
        try:
            return block(*arguments)
        finally:
            end.set()

    def writer(self: Sink, start: int, stop: int) -> Any:
        if self.shape[0] == 90 and start == 48:
            failed.set()
            raise Stop
        made = original(self, start, stop)
        failed.wait(10)
        time.sleep(
            start / 200
        )  # some write on before the folder is removed, some while it is, some after
        return made

    with monkeypatch.context() as patched, dask.config.set(scheduler="threads", num_workers=8):
        patched.setattr(Sink, "writer", writer)
        patched.setattr(engine, "write_block", task)
        with pytest.raises(Stop):
            es.apply(transform, run, tmp_path / "out.zarr")
        assert snapshot(tmp_path) == before
        assert all(end.wait(60) for end in ended)
    assert len(ended) > 1
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("table", ["vectors", "id"])
def test_a_folder_that_is_removed_while_zarr_writes_never_comes_back(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Between the look at the folder and the write: the narrowest place."""
    run = make_run("in", T, W, item_ids=[str(i) for i in range(60)])
    before = snapshot(tmp_path)

    def look(array: Any) -> None:
        if str(array.path).endswith(table):
            root = Path(array.store.root)
            root.parent.rename(root.parent.with_suffix(".trash"))

    monkeypatch.setattr("dask_embstab.tables.write.sink._require_folder", look)
    monkeypatch.setattr(
        "dask_embstab.tables.write.sink.chunk_files", lambda _: None
    )  # all through Zarr
    with pytest.raises(OSError, match="cannot be written"):
        es.create_run(tmp_path / "out.zarr", run)
    left = {name for name in snapshot(tmp_path) if name not in before}
    assert not {name for name in left if ".partial/" in name}


def test_half_a_run_is_refused_wherever_it_stands(run: es.Run, tmp_path: Path) -> None:
    node = zarr.open_group(run.path, mode="a")
    node.attrs.put({"embstab": {**node.attrs["embstab"], "incomplete": True}})
    with pytest.raises(es.NotARunError, match=r"not finished.*resume"):
        es.open_run(run.path)
    with pytest.raises(es.NotARunError, match="not finished"):
        es.stabilize(run.path, tmp_path / "out.zarr")
    with pytest.raises(es.NotARunError, match="not finished"):
        es.fit(T, W, reference=run.path)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("stopped_at", [1, 3, 6, 10])
def test_resume_goes_on_and_ends_in_equal_bits(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing, stopped_at: int
) -> None:
    whole = es.apply(transform, run, tmp_path / "whole.zarr")
    out, written = tmp_path / "out.zarr", []
    with writing(stop_at(stopped_at)), pytest.raises(Stop):
        es.apply(transform, run, out, resume=True)
    assert not out.exists()
    (folder,) = hidden(tmp_path)
    with pytest.raises(es.NotARunError, match="not finished"):
        es.open_run(folder / "run")
    with writing(written.append):
        es.apply(transform, run, out, resume=True)
    assert len(written) == 10 - (stopped_at - 1), "chunks that are there are not written again"
    assert data_of(out) == data_of(whole.path)
    assert dict(zarr.open_group(out)["transform"].attrs) == dict(
        zarr.open_group(whole.path)["transform"].attrs
    )
    assert not hidden(tmp_path)


def test_resume_starts_anew_where_the_leftover_is_of_another_call(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing
) -> None:
    out, written = tmp_path / "out.zarr", []
    with writing(stop_at(5)), pytest.raises(Stop):
        es.apply(transform, run, out, dtype="float64", resume=True)
    with writing(written.append):
        es.apply(transform, run, out, resume=True)
    assert len(written) == 10
    assert not hidden(tmp_path)


def test_resume_does_not_mix_two_inputs(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing
) -> None:
    """The run was trained anew, in the same shape and at the same place, before the write was
    resumed.
    """
    out = tmp_path / "out.zarr"
    with writing(stop_at(5)), pytest.raises(Stop):
        es.apply(transform, run.path, out, resume=True)
    shutil.rmtree(run.path)
    again = (2 * table.astype("float32") for table in (T, W))
    es.create_run(
        run.path,
        *again,
        item_ids=np.arange(60),
        user_ids=[f"u{i}" for i in range(90)],
        chunk_rows=16,
    )
    whole = es.apply(transform, run.path, tmp_path / "whole.zarr")
    assert data_of(es.apply(transform, run.path, out, resume=True).path) == data_of(whole.path)


@pytest.mark.parametrize("array", ["items/vectors", "items/id", "users/vectors"])
def test_resume_makes_up_for_arrays_that_were_never_made(
    run: es.Run,
    transform: es.Transform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    array: str,
) -> None:
    whole = es.apply(transform, run, tmp_path / "whole.zarr")
    original = table_layout.make_array

    def make(group: zarr.Group, name: str, **options: Any) -> Any:
        if f"{group.path}/{name}" == array:
            raise Stop
        return original(group, name, **options)

    with monkeypatch.context() as patched:
        patched.setattr(table_layout, "make_array", make)
        with pytest.raises(Stop):
            es.apply(transform, run, tmp_path / "out.zarr", resume=True)
    es.apply(transform, run, tmp_path / "out.zarr", resume=True)
    assert data_of(tmp_path / "out.zarr") == data_of(whole.path)


def test_two_writers_do_not_disturb_each_other(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing
) -> None:
    out, inner = tmp_path / "out.zarr", []

    def write_the_same(count: int) -> None:
        if count == 2 and not inner:
            inner.append(True)
            es.apply(transform, run, out)

    with writing(write_the_same), pytest.raises(es.OutputExistsError):
        es.apply(transform, run, out)  # the second one was quicker
    assert es.open_run(out).transform is not None
    assert not hidden(tmp_path)


@pytest.mark.parametrize("name", ["run", "day[1]"])
def test_a_leftover_is_known_by_its_whole_name(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing, name: str
) -> None:
    with writing(stop_at(3)), pytest.raises(Stop):
        es.apply(transform, run, tmp_path / f"{name}.zarr", resume=True)
    es.apply(
        transform, run, tmp_path / name
    )  # a neighbour whose name is the beginning of the other
    assert len(hidden(tmp_path)) == 1
    es.apply(transform, run, tmp_path / f"{name}.zarr", resume=True)
    assert not hidden(tmp_path)


# --- another process, killed


WRITER = """
import os, sys, time, dask, dask_embstab as es
count = 0
def slow(original):
    def rename(source, target, **more):
        global count
        count += "vectors/c/" in str(target)
        if count == 4:
            print("writing", flush=True)
            time.sleep(60)
        return original(source, target, **more)
    return rename
os.rename, os.replace = slow(os.rename), slow(os.replace)
with dask.config.set({"embstab.task-bytes": 1}, scheduler="synchronous"):
    es.apply(sys.argv[1], sys.argv[2], sys.argv[3], overwrite=True)
"""


def test_kill_9_leaves_nothing_at_the_place(
    run: es.Run, transform: es.Transform, tmp_path: Path
) -> None:
    transform.save(tmp_path / "t.npz")
    whole = es.apply(transform, run, tmp_path / "whole.zarr")
    free, taken = tmp_path / "free.zarr", tmp_path / "taken.zarr"
    es.create_run(taken, T, chunk_rows=16)
    old = snapshot(taken)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "t.npz"), run.path]
    writers = [
        subprocess.Popen([*command, str(out)], stdout=subprocess.PIPE) for out in (free, taken)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert not free.exists()
    assert snapshot(taken) == old
    assert len(hidden(tmp_path)) == 2
    for leftover in hidden(tmp_path):
        assert data_of(leftover), "it was in the midst of it"
        with pytest.raises(es.NotARunError, match="not finished"):
            es.open_run(leftover / "run")
    es.apply(transform, run, free, resume=True)
    es.apply(transform, run, taken, overwrite=True)
    assert data_of(free) == data_of(taken) == data_of(whole.path)
    assert not hidden(tmp_path)


# --- a store without renames


def test_on_another_store_the_mark_is_taken_away_last(run: es.Run, writing: Writing) -> None:
    store = zarr.storage.MemoryStore()

    def look(_: int) -> None:
        with pytest.raises(es.NotARunError, match="not finished"):
            es.open_run(store)

    with writing(look):
        transformed = es.stabilize(run, store)
    assert transformed.transform is not None
    assert es.open_run(store).items.ids.compute().tolist() == list(range(60))
    np.testing.assert_array_equal(vectors_of(es.open_run(store)), vectors_of(transformed))
    assert "incomplete" not in json.dumps(dict(transformed.attrs))
    assert es.stabilize(store, zarr.storage.MemoryStore(), reference=transformed).items.n_rows == 60


def test_on_another_store_half_a_run_is_refused_until_it_is_written_anew(
    run: es.Run, writing: Writing
) -> None:
    store = zarr.storage.MemoryStore()
    with writing(stop_at(4)), pytest.raises(Stop):
        es.stabilize(run, store)
    with pytest.raises(es.NotARunError, match="not finished"):
        es.open_run(store)
    assert es.stabilize(run, store).items is not None, "the next call takes its place"
    with pytest.raises(es.InputError, match="no local folder"):
        es.stabilize(run, zarr.storage.MemoryStore(), resume=True)
    with pytest.raises(es.OutputExistsError, match="cannot be replaced in one step"):
        es.stabilize(run, store, overwrite=True)
