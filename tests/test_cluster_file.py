"""A command starts and ends a cluster of Dask's own; what else a file describes is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from oracle import snapshot

import dask_embstab as es
from dask_embstab.cli.clusters import read_cluster_file, started
from dask_embstab.cli.main import main

LOCAL = """class: distributed.LocalCluster
arguments: {n_workers: 1, threads_per_worker: 2, processes: false, dashboard_address: ":0"}
"""
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def run(folder: Path) -> es.Run:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(n, 8)).astype(np.float32) for n in (400, 200))
    return es.create_run(folder / "run", *rows, chunk_rows=64)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(run(tmp_path_factory.mktemp("stored")).path)


def described(folder: Path, text: str) -> str:
    (folder / "dask.yaml").write_text(text)
    return str(folder / "dask.yaml")


def test_a_command_on_its_own_cluster_gives_the_bits_of_threads(tmp_path: Path) -> None:
    made = run(tmp_path)
    file = described(tmp_path, LOCAL)
    call = ["fit", str(made.path), str(tmp_path / "t.npz"), "--cluster", file, "--json"]
    ended = CliRunner().invoke(main, call)
    assert ended.exit_code == 0, ended.stderr
    ours, theirs = es.load_transform(tmp_path / "t.npz"), es.fit(made)
    np.testing.assert_array_equal(ours.items, theirs.items)
    np.testing.assert_array_equal(ours.users, theirs.users)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class: os.system", "class of a cluster"),
        ("class: distributed.Client", "is none"),
        ("class: distributed.utils.os.system", "is none"),
        ("class: distributed.LocalCluster\narguments: {n_wrokers: 1}", "could not be started"),
        ("class: dask_jobqueue.SLURMCluster", r"dask_embstab[jobqueue]"),
        ("class: dask_kubernetes.operator.KubeCluster", r"dask_embstab[kubernetes]"),
        ("class: coiled.Cluster", r"dask_embstab[coiled]"),
        ("class: [", "is no YAML"),
        ("class: 2020-13-45", "is no YAML"),
        ("class: !!int abc", "is no YAML"),
        ("- 1", "is described by"),
        ("class: distributed.LocalCluster\nadapt: {minimum: 3, maximum: 1}", "at most the second"),
        ("class: distributed.LocalCluster\nmore: 1", "is described by"),
        ("class: distributed.LocalCluster\nscale: 0", "scale is a number"),
        ("class: distributed.LocalCluster\nscale: 1\nadapt: {maximum: 2}", "without adapt"),
        ("class: distributed.LocalCluster\nadapt: 3", "names and values"),
        ("class: distributed.LocalCluster\nwait: -1", "number of seconds"),
        ("class: !!python/object/apply:os.system [ls]", "is no YAML"),
    ],
)
def test_what_no_cluster_can_be_made_of_is_one_clear_error(
    text: str, says: str, stored: str, tmp_path: Path
) -> None:
    package = text.partition(": ")[2].partition(".")[0]
    if "[" in says and package in ("dask_jobqueue", "dask_kubernetes", "coiled"):
        try:
            __import__(package)
        except ImportError:
            pass
        else:
            pytest.skip(f"{package} is installed")
    call = ["fit", stored, str(tmp_path / "t.npz")]
    ended = CliRunner().invoke(main, [*call, "--cluster", described(tmp_path, text)])
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert says in ended.stderr


def test_one_place_to_compute_is_enough(tmp_path: Path) -> None:
    call = ["fit", str(tmp_path / "run"), str(tmp_path / "t.npz"), "--scheduler", "tcp://x:1"]
    ended = CliRunner().invoke(main, [*call, "--cluster", described(tmp_path, LOCAL)])
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert "--cluster" in ended.stderr
    missing = CliRunner().invoke(main, [*call[:3], "--cluster", str(tmp_path / "none.yaml")])
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)


def test_a_pass_that_no_worker_can_hold_is_refused(tmp_path: Path) -> None:
    """Before anything is read; the limit is the worker's, none was given."""
    made = run(tmp_path)
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=":0", memory_limit="2MB"
        ) as cluster,
        Client(cluster),
        pytest.raises(es.InputError, match=r"in a worker with .* threads"),
    ):
        es.fit(made)


def test_a_cluster_without_workers_is_waited_for_and_then_refused(stored: str) -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster),
        dask.config.set({"embstab.worker-wait": "20ms"}),
        pytest.raises(es.InputError, match=r"must have a worker; .* has none"),
    ):
        es.fit(stored)


@pytest.mark.long
def test_the_limit_is_that_of_the_worker_that_an_adaptive_cluster_starts_for_the_pass(
    stored: str,
) -> None:
    """There is none before: it is asked anew, and so is that of the next one."""
    never = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
    with (
        dask.config.set(never),
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=False,
            dashboard_address=":0",
            memory_limit="2MB",
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="50ms", wait_count=10)
        for _ in range(2):
            with pytest.raises(es.InputError, match=r"in a worker with 1 threads"):
                es.fit(stored)
            while client.nthreads():
                client.run_on_scheduler(lambda: None)


@pytest.mark.long
def test_workers_that_come_and_are_retired_in_the_midst_of_a_job_change_no_bit(
    tmp_path: Path,
) -> None:
    """While jobs of 400 tasks for each table run, one of two workers leaves and another comes,
    again and again.
    """
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(400 * 16, 8)).astype(np.float32) for _ in range(3)]
    made = es.create_run(tmp_path / "run", rows[0], rows[1], chunk_rows=16)
    reference = es.create_run(tmp_path / "reference", rows[2], chunk_rows=16)
    retired: list[str] = []
    ended = threading.Event()
    there: list[es.Run] = []
    with (
        dask.config.set({"embstab.task-bytes": 1}),
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        ExitStack() as workers,
    ):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address]
        flags = ["--nthreads", "1", "--no-dashboard", "--no-nanny"]

        def come(n: int) -> None:
            quiet = subprocess.DEVNULL
            started = subprocess.Popen([*command, *flags], stdout=quiet, stderr=quiet)
            workers.callback(started.wait)
            workers.callback(started.kill)  # told to end, some took more than 20 seconds
            client.wait_for_workers(n, timeout=60)

        def change() -> None:
            while not ended.is_set():
                come(3)
                oldest = next(one for one in client.nthreads() if one not in retired)
                client.retire_workers([oldest])
                retired.append(oldest)

        come(1)
        come(2)
        thread = threading.Thread(target=change)
        thread.start()
        try:
            while len(retired) < 2:
                out = tmp_path / f"there-{len(there)}"
                there.append(es.stabilize(made, out, reference=reference))
        finally:
            ended.set()
            thread.join()
    here = es.stabilize(made, tmp_path / "here", reference=reference)
    for one in there:
        assert snapshot(Path(one.path)) == snapshot(Path(here.path))


def test_a_worker_that_leaves_while_it_is_asked_ends_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of an adaptive cluster do."""
    made = run(tmp_path)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        stays = client.nthreads()
        gone = "tcp://127.0.0.1:9"
        asked = client.run

        def answered(*given: object, workers: list[str], **more: object) -> dict[str, object]:
            assert gone in workers
            left = {gone: OSError("the worker is closed")}
            return asked(*given, workers=list(stays), **more) | left

        monkeypatch.setattr(client, "nthreads", lambda: {**stays, gone: 1})
        monkeypatch.setattr(client, "run", answered)
        fitted = es.fit(made)
    np.testing.assert_array_equal(fitted.items, es.fit(made).items)


@pytest.mark.long
def test_an_adaptive_cluster_grows_and_shrinks_in_a_run(tmp_path: Path) -> None:
    """From none to three workers and back, and the bits are those of threads."""
    made = run(tmp_path)
    file = read_cluster_file(
        described(
            tmp_path,
            "class: distributed.LocalCluster\n"
            "arguments: {n_workers: 0, threads_per_worker: 1, dashboard_address: ':0'}\n"
            "adapt: {minimum: 1, maximum: 3, interval: 100ms, wait_count: 1,"
            " target_duration: 10ms}\n",
        )
    )
    seen, fitted = [], []
    with started(file) as client:
        for _ in range(8):
            fitted.append(es.fit(made))
            seen.append(len(client.nthreads()))
            client.gather(client.map(lambda n: sum(range(10**6)) + n, range(40), pure=False))
            seen.append(len(client.nthreads()))
        assert max(seen) > 1
        while len(client.nthreads()) > 1:
            client.run_on_scheduler(lambda: None)
        fitted.append(es.fit(made))
    expected = es.fit(made)
    for one in fitted:
        np.testing.assert_array_equal(one.items, expected.items)


def test_the_options_of_a_command_name_both() -> None:
    text = CliRunner().invoke(main, ["fit", "--help"]).stdout
    assert "--cluster FILE" in text
