"""A real cluster: what travels, who may die, what differs, and one clear error for each thing that
is not as it must be.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from distributed.comm import tcp
from oracle import hidden, snapshot, world

import dask_embstab as es
from dask_embstab.passes.engine import cluster as cluster_module
from dask_embstab.passes.engine.cluster import loaded_family

# A cluster's own goodbye: sockets and event loops that distributed closes a moment after it was
# asked to.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
]
MakeRun = Callable[..., es.Run]
T, W = world(41, 900, 400, 6)
B = world(42, 900, 400, 6)[0]


@contextlib.contextmanager
def two_workers() -> Iterator[LocalCluster]:
    """Two worker processes of one thread."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with two_workers() as made:
        yield made


@pytest.fixture
def client(shared: LocalCluster, small_tasks: None) -> Iterator[Client]:  # noqa: ARG001
    """Of workers that other tests of this module use too."""
    with Client(shared, set_as_default=False) as connected, connected.as_current():
        yield connected


@pytest.fixture
def own_client(small_tasks: None) -> Iterator[Client]:  # noqa: ARG001
    """Of workers for this test alone, which may kill them."""
    with (
        two_workers() as made,
        Client(made, set_as_default=False) as connected,
        connected.as_current(),
    ):
        yield connected


@pytest.fixture
def runs(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    """A reference and a run with string ids for the users, both of many chunks."""
    options = {"dtype": "float32", "chunk_rows": 32, "user_ids": [f"u{i}" for i in range(400)]}
    return make_run("reference", B, W, **options), make_run("in", T, W, **options)


# --- what travels


def _received(dask_worker: Any) -> list[int]:
    return [entry["total"] for entry in dask_worker.transfer_incoming_log]


@pytest.mark.parametrize("order", ["equal", "shuffled"])
def test_no_table_travels(
    make_run: MakeRun, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Bytes through client and scheduler (they share this process), and between workers from the
    transfer log.
    """
    n, d = 1 << 16, 64
    rows = np.random.default_rng(0).standard_normal((n, d), np.float32)
    ids = np.random.default_rng(1).permutation(n) if order == "shuffled" else np.arange(n)
    settings = {"dtype": "float32", "chunk_rows": 1 << 14}
    with dask.config.set(scheduler="threads"):
        reference = make_run("reference", rows, item_ids=np.arange(n), **settings)
        run = make_run("in", rows, rows[: n // 2], item_ids=ids, **settings)
    through: list[int] = []
    write, read = tcp.TCP.write, tcp.from_frames

    async def counted_write(*arguments: Any, **options: Any) -> int:
        through.append(n_bytes := await write(*arguments, **options))
        return n_bytes

    async def counted_read(frames: Any, *arguments: Any, **options: Any) -> Any:
        through.append(
            sum(
                memoryview(frame).nbytes
                for frame in (frames if isinstance(frames, list) else [frames])
            )
        )
        return await read(frames, *arguments, **options)

    monkeypatch.setattr(tcp.TCP, "write", counted_write)
    monkeypatch.setattr(tcp, "from_frames", counted_read)
    (scratch := tmp_path / "scratch").mkdir()
    transformed = es.stabilize(
        run, tmp_path / "out.zarr", reference=reference, join_memory="1MiB", scratch=scratch
    )
    assert transformed.transform is not None
    diagnostics = transformed.transform.diagnostics["items"]
    assert diagnostics["vectors"] == {"equal": "positional", "shuffled": "shuffle"}[order]
    between = [size for sizes in client.run(_received).values() for size in sizes]
    small = 8 * 8 * d * d
    assert max(between, default=0) <= small
    assert sum(between) <= 8 * small
    assert len(through) > 20, "the counters count"
    assert sum(through) < rows.nbytes / 8
    assert max(through) <= small


# --- who may die


def _killer(module: str, function: str, call: int) -> Callable[[], None]:
    """Sent to a worker: it kills itself when it calls the function for that time."""

    def arm() -> None:
        import importlib
        import os
        import signal

        owner: Any = importlib.import_module(f"dask_embstab.{module}")
        *path, name = function.split(".")
        for part in path:
            owner = getattr(owner, part)
        original, calls = getattr(owner, name), []

        def struck(*arguments: Any, **options: Any) -> Any:
            calls.append(None)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(owner, name, struck)

    return arm


@pytest.mark.parametrize(
    "where",
    [
        ("passes.engine.reduce", "Panel", 5),
        ("tables.write.chunk_writer", "DirectWriter._complete", 3),
    ],
    ids=["fit", "apply"],
)
def test_a_worker_killed_in_mid_pass_changes_no_bit(
    runs: tuple[es.Run, es.Run], own_client: Client, tmp_path: Path, where: tuple[str, str, int]
) -> None:
    reference, run = runs
    workers = dict(own_client.run(os.getpid))
    victim = next(iter(workers))
    own_client.run(_killer(*where), workers=[victim])
    there = es.stabilize(run, tmp_path / "workers.zarr", reference=reference)
    with pytest.raises(ProcessLookupError):
        os.kill(workers[victim], 0)
    with dask.config.set(scheduler="threads"):
        here = es.stabilize(run, tmp_path / "threads.zarr", reference=reference)
    assert snapshot(Path(there.path)) == snapshot(Path(here.path))
    assert not hidden(tmp_path)


# --- what differs


def test_workers_of_another_kernel_family_are_reported_once(
    runs: tuple[es.Run, es.Run],
    small_tasks: None,  # noqa: ARG001
) -> None:
    other = "Haswell" if "Haswell" not in loaded_family() else "Nehalem"
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address=":0",
            env={"OPENBLAS_CORETYPE": other},
        ) as made,
        Client(made, set_as_default=False) as client,
        client.as_current(),
    ):
        with pytest.warns(
            es.EmbstabWarning, match=f"1 of 1 workers .* another kernel family .*{other}"
        ) as caught:
            es.fit(runs[1])
        assert len(caught) == 1
        es.fit(runs[1])


def test_workers_of_the_same_kind_are_not(runs: tuple[es.Run, es.Run], client: Client) -> None:
    es.fit(runs[1])
    assert len(cluster_module._checked[client]) == 2


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("1.0", r"zarr 1\.0 \(here "),
        pytest.param(None, r"zarr not at all \(here ", marks=pytest.mark.long),
    ],
    ids=["other", "missing"],
)
def test_other_libraries_on_a_worker(
    runs: tuple[es.Run, es.Run],
    client: Client,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    version: str | None,
    says: str,
) -> None:
    def change() -> None:
        from importlib import metadata

        original = metadata.version

        def changed(name: str) -> str:
            if name == "zarr" and version is None:
                raise metadata.PackageNotFoundError(name)
            return str(version) if name == "zarr" else original(name)

        changed.original = original  # type: ignore[attr-defined]
        metadata.version = changed

    def undo() -> None:
        from importlib import metadata

        metadata.version = metadata.version.original  # type: ignore[attr-defined]

    client.run(change, workers=[victim := next(iter(client.nthreads()))])
    request.addfinalizer(lambda: client.run(undo, workers=[victim]))
    with pytest.raises(es.InputError, match=f"one at {victim} has {says}.*same versions") as caught:
        es.stabilize(runs[1], tmp_path / "out.zarr")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    "what",
    [
        "run",
        "run through zarr",
        "output",
        pytest.param("output ids", marks=pytest.mark.long),
        "scratch",
    ],
)
def test_a_path_that_workers_cannot_see(
    make_run: MakeRun, client: Client, tmp_path: Path, what: str
) -> None:
    n, rng = 12_000, np.random.default_rng(0)
    (scratch := tmp_path / "scratch").mkdir()
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {"dtype": "f4", "chunk_rows": 4096}
    with dask.config.set(scheduler="threads"):
        if what == "run through zarr":
            group = zarr.open_group(tmp_path / "in.zarr", mode="w")
            array = group.create_array(
                "items/vectors", shape=(900, 6), chunks=(30, 6), shards=(90, 6), dtype="f4"
            )
            array[:] = T
            run = es.open_run(tmp_path / "in.zarr")
        elif what == "scratch":  # more ids than 1 MiB holds, in another order
            run = make_run("in", rng.normal(size=(n, 6)), item_ids=rng.permutation(n), **settings)
            reference = make_run(
                "reference", rng.normal(size=(n, 6)), item_ids=rng.permutation(n), **settings
            )
            options = {"join_memory": "1MiB", "scratch": scratch, "reference": reference}
        else:
            run = make_run("in", T, item_ids=[f"i{i}" for i in range(900)])
    place = {"run": run.path, "run through zarr": run.path, "scratch": str(scratch)}.get(
        what, str(tmp_path / ".out")
    )
    within = "/items/id" if what == "output ids" else ""

    def blind() -> None:
        import os

        def without(function: Any) -> Any:
            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                seen = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
                if seen.startswith(place) and within in seen:
                    raise FileNotFoundError(2, "No such file or directory", seen)
                return function(path, *arguments, **options)

            return call

        os.open, os.stat = without(os.open), without(os.stat)

    client.run(blind)
    with pytest.raises(
        es.DamageError,
        match=f"{re.escape(place)}.* is not there, as seen from .*shared file system",
    ):
        es.stabilize(run, tmp_path / "out.zarr", **options)
    assert not (tmp_path / "out.zarr").exists()
    assert list(scratch.iterdir()) == []


# --- a scheduler and workers of their own


@pytest.fixture
def address(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a ``dask scheduler`` with two ``dask worker``, all separate processes, and the
    scheduler's own.
    """
    folder = tmp_path_factory.mktemp("cluster")
    dask, file = str(Path(sys.executable).with_name("dask")), folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    flags = ["--scheduler-file", str(file), "--no-dashboard"]
    started = [
        subprocess.Popen([dask, "scheduler", "--port", "0", "--host", "127.0.0.1", *flags], **quiet)
    ]
    try:
        worker = [dask, "worker", "--nthreads", "1", "--death-timeout", "20", *flags]
        started += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        with Client(scheduler_file=str(file), timeout="30s", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=30)
            scheduler = client.scheduler.address
        yield scheduler, started[0]
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program(*arguments: Any) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("embstab")), *map(str, arguments)]
    environment = {**os.environ, "DASK_EMBSTAB__TASK_BYTES": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_scheduler_started_elsewhere(
    runs: tuple[es.Run, es.Run], tmp_path: Path, address: tuple[str, subprocess.Popen[bytes]]
) -> None:
    reference, run = runs
    where, scheduler = address
    command = [
        "stabilize",
        run.path,
        tmp_path / "workers.zarr",
        "--reference",
        reference.path,
        "--json",
    ]
    program = _program(*command, "--scheduler", where)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert json.loads(out)["items"]["matched"] == 900
    here = es.stabilize(run, tmp_path / "threads.zarr", reference=reference)
    assert snapshot(tmp_path / "workers.zarr") == snapshot(Path(here.path))

    def slow() -> None:
        from dask_embstab.tables.write.chunk_writer import DirectWriter

        finish = DirectWriter._complete

        def later(*arguments: Any) -> None:
            time.sleep(0.5)
            finish(*arguments)

        DirectWriter._complete = later  # type: ignore[method-assign]

    with Client(where, set_as_default=False) as client:
        client.run(slow)
    program = _program(
        "stabilize", run.path, tmp_path / "lost.zarr", "--scheduler", where, "--json"
    )
    while not list(tmp_path.glob(".lost.zarr.*/run/items/vectors/c/*")):
        assert program.poll() is None, program.communicate()
        time.sleep(0.02)
    scheduler.kill()
    out, err = program.communicate(timeout=90)
    assert (program.returncode, out) == (1, "")
    assert re.fullmatch(r"error: the Dask scheduler at \S+ went away[^\n]*call again\n", err), err
    assert not (tmp_path / "lost.zarr").exists()
    program = _program("inspect", run.path)
    assert program.communicate(timeout=30)[1] == ""


@pytest.mark.parametrize("where", ["nowhere", "nowhere://at:1"])
def test_an_address_that_is_none(tmp_path: Path, where: str) -> None:
    out, err = _program(
        "stabilize", tmp_path / "a", tmp_path / "b", "--scheduler", where
    ).communicate(timeout=60)
    assert out == ""
    assert re.fullmatch(r"error: no Dask scheduler answers at nowhere[^\n]*\n", err), err
