"""The same bits on worker processes as on threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, default_client
from oracle import chunk_file, snapshot, vectors_of, world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.passes.join.options import join_options

# A cluster's own goodbye: sockets and event loops that distributed closes a moment after it was
# asked to.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
]
T, W = world(31, 200, 300, 6)
B = world(32, 200, 300, 6)[0]
ORDER = np.random.default_rng(0).permutation(200)
MakeRun = Callable[..., es.Run]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as made:
        yield made


@pytest.fixture
def client(cluster: LocalCluster, small_tasks: None) -> Iterator[Client]:  # noqa: ARG001
    with Client(cluster, set_as_default=False) as made:
        yield made


@pytest.fixture
def runs(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    """A run with ids in another order than the reference's, so that the join and the gather take
    part.
    """
    reference = make_run("reference", B, dtype="float32", chunk_rows=64, item_ids=np.arange(200))
    options = {"dtype": "float32", "chunk_rows": 64, "user_ids": [f"u{i}" for i in range(300)]}
    return reference, make_run("in", T[ORDER], W, item_ids=ORDER, **options)


def equal(a: es.Transform, b: es.Transform) -> None:
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_array_equal(a.users, b.users)
    np.testing.assert_array_equal(a.singular_values, b.singular_values)
    assert a.diagnostics == b.diagnostics


@pytest.mark.parametrize(
    "options", [{}, {"keep": "geometry", "center": True}, {"method": "qr"}], ids=str
)
def test_fit_and_apply_give_the_bits_of_the_threaded_scheduler(
    runs: tuple[es.Run, es.Run], client: Client, tmp_path: Path, options: dict[str, Any]
) -> None:
    reference, run = runs
    threaded = es.fit(run, reference=reference, **options)
    here = es.apply(threaded, run, tmp_path / "threads.zarr")
    with client.as_current():
        assert default_client() is client
        equal(es.fit(run, reference=reference, **options), threaded)
        there = es.apply(threaded, run, tmp_path / "workers.zarr")
    assert snapshot(Path(there.path)) == snapshot(Path(here.path))


def test_the_work_is_done_by_the_workers(
    runs: tuple[es.Run, es.Run], client: Client, tmp_path: Path
) -> None:
    with client.as_current():
        es.stabilize(runs[1], tmp_path / "out.zarr", reference=runs[0])
    prefixes = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert {"embstab-rows-fit-reading", "embstab-join-fit-reading", "embstab-rows-apply"} <= set(
        prefixes
    )


def test_the_command_line_takes_the_address_of_a_scheduler(
    runs: tuple[es.Run, es.Run],
    cluster: LocalCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = es.stabilize(runs[1], tmp_path / "threads.zarr", reference=runs[0])
    out = str(tmp_path / "out.zarr")
    address = cluster.scheduler_address
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "stabilize",
                runs[1].path,
                out,
                "--reference",
                runs[0].path,
                "--scheduler",
                address,
                "--json",
            ]
        )
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["out"] == out
    assert snapshot(Path(out) / "items") == snapshot(Path(wanted.path) / "items")


def test_evaluate_and_create_run_too(
    runs: tuple[es.Run, es.Run], client: Client, tmp_path: Path
) -> None:
    reference, run = runs
    threaded = es.evaluate(run, run, k=5, users=50), es.evaluate(run, reference)
    lazy = da.from_array(T, chunks=(64, 6))
    with client.as_current():
        assert (es.evaluate(run, run, k=5, users=50), es.evaluate(run, reference)) == threaded
        made = es.create_run(
            tmp_path / "made.zarr", lazy, item_ids=[str(i) for i in ORDER], chunk_rows=64
        )
        fitted = es.fit(lazy, W, reference=B)
    np.testing.assert_array_equal(vectors_of(made), T)
    assert made.items.ids.compute().tolist() == [str(i) for i in ORDER]
    equal(fitted, es.fit(lazy, W, reference=B))


def test_an_error_on_a_worker_is_the_same_error(
    runs: tuple[es.Run, es.Run], client: Client, tmp_path: Path
) -> None:
    file = chunk_file(runs[1].path, "items", 3)
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(bytes(data))
    before = snapshot(tmp_path)
    with client.as_current(), pytest.raises(es.DamageError, match="c/3/0"):
        es.stabilize(runs[1], tmp_path / "out.zarr")
    assert snapshot(tmp_path) == before


def test_the_memory_of_a_join_is_shared_by_the_threads_of_one_process(client: Client) -> None:
    with join_options(join_memory="6MiB") as join:
        with dask.config.set(num_workers=6):
            assert join.per_thread == 1 << 20
            with client.as_current():
                assert join.per_thread == 6 << 20
        with LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0"
        ) as wide:
            with Client(wide):
                assert join.per_thread == 2 << 20
            with dask.config.set(num_workers=2):
                assert join.per_thread == 3 << 20


def test_a_join_out_of_core_gives_the_bits_of_the_threaded_scheduler(
    make_run: MakeRun, client: Client, tmp_path: Path
) -> None:
    """More ids and vectors than 1 MiB holds: every task of the join and of the shuffle runs on a
    worker.
    """
    n = 12_000
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 6))
    order, ids = rng.permutation(n)[: n - 50], rng.permutation(n) * 7
    reference = make_run("reference", rows, dtype="float32", chunk_rows=1024, item_ids=ids)
    run = make_run("in", rows[order] + 0.1, dtype="float32", chunk_rows=1024, item_ids=ids[order])
    (scratch := tmp_path / "scratch").mkdir()
    options: dict[str, Any] = {"reference": reference, "join_memory": "1MiB", "scratch": scratch}
    with dask.config.set(
        num_workers=1
    ):  # the threads of a worker: files are cut, and counted, alike
        threaded, plain = es.fit(run, **options), es.fit(run, reference=reference)
    assert threaded.diagnostics["items"]["paired_by"] == "partitioned ids"
    assert threaded.diagnostics["items"]["vectors"] == "shuffle"
    np.testing.assert_array_equal(threaded.items, plain.items)
    with client.as_current():
        fitted = es.fit(run, **options)
    np.testing.assert_array_equal(fitted.items, threaded.items)
    assert fitted.diagnostics == threaded.diagnostics
    assert list(scratch.iterdir()) == []
