"""Workers that share nothing but the store: each has a mount namespace of its own, in which the
folder of the test is empty.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from s3_server import Bucket

import dask_embstab as es
from dask_embstab.files.objects import objects_below
from dask_embstab.files.remote import Url

ROOT = Path(__file__).resolve().parent.parent
N, USERS, D = 6000, 900, 8
ALONE = """
mount -t tmpfs none "$1" && mkdir "$1/own" && cd "$1/own" && TMPDIR="$1/own" \
exec "$2" -m distributed.cli.dask_worker "$3" --nthreads 1 --no-dashboard --no-nanny \
--local-directory "$1/own"
"""
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def namespaces() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def apart(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of two workers; what either writes below the test's folder the others do not see."""
    if not namespaces():
        pytest.skip("this system lets nobody make mount namespaces")
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ALONE, "sh"]
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:
        address = client.scheduler.address
        workers = [
            subprocess.Popen(
                [*command, str(tmp_path), sys.executable, address],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        try:
            client.wait_for_workers(2, timeout=60)
            yield client
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def models(shuffled: bool, *, texts: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model and its retraining, whose items come in another order if they are ``shuffled``."""
    rng = np.random.default_rng(0)
    T, W, A = (rng.normal(size=shape) for shape in ((N, D), (USERS, D), (D, D)))
    order = rng.permutation(N) if shuffled else np.arange(N)
    ids = np.array([f"i{n}" for n in range(N)]) if texts else np.arange(N)
    old = {"items": T, "users": W, "item_ids": ids}
    moved = (T + 0.1 * rng.normal(size=T.shape)) @ A
    new = {"items": moved[order], "users": W @ np.linalg.inv(A).T, "item_ids": ids[order]}
    return old, new


def test_the_workers_share_no_folder(apart: Client, tmp_path: Path) -> None:
    """Else the other tests would show nothing."""
    (tmp_path / "ours").touch()
    seen = apart.run(lambda: sorted(os.listdir(tmp_path)))  # noqa: PTH208 (sent by value)
    assert list(seen.values()) == [["own"], ["own"]]
    with pytest.raises(es.DamageError, match="every process that computes must see it"):
        es.create_run(tmp_path / "run", np.ones((100, 4)))


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_main_job_has_the_bits_of_one_machine(
    shuffled: bool, apart: Client, bucket: Bucket, tmp_path: Path
) -> None:
    """Made, fitted, joined by texts, applied and compared in the store alone."""
    old, new = models(shuffled)
    places = {name: bucket.url(name) for name in ("old", "new", "first", "out")}
    for name, tables in (("old", old), ("new", new)):
        es.create_run(places[name], **tables, chunk_rows=1000)
    first = es.stabilize(places["old"], places["first"])
    out = es.stabilize(places["new"], places["out"], reference=first)
    metrics = es.evaluate(first, out, k=10)
    assert len(apart.nthreads()) == 2

    local = {name: tmp_path / name for name in places}
    import dask

    with dask.config.set(scheduler="threads"):
        for name, tables in (("old", old), ("new", new)):
            es.create_run(local[name], **tables, chunk_rows=1000)
        es.stabilize(local["old"], local["first"])
        expected = es.stabilize(local["new"], local["out"], reference=local["first"])
        same = es.evaluate(local["first"], expected, k=10)
        for key in ("items", "users"):
            ours, theirs = (np.asarray(run.table(key).vectors) for run in (out, expected))
            np.testing.assert_array_equal(ours, theirs)
    assert metrics.items is not None
    assert same.items is not None
    assert metrics.items.mean_cosine == same.items.mean_cosine
    assert metrics.items.mean_cosine > 0.9


@pytest.mark.parametrize("texts", [True, False])
def test_a_join_beyond_memory_goes_through_the_store(
    texts: bool, apart: Client, bucket: Bucket, tmp_path: Path
) -> None:
    """Ids that no worker holds, a reference in another order: spread, matched and moved through
    objects, with the bits of one machine, of which none is left. In a folder that the workers do
    not see it is one error, which names the option.
    """
    old, new = models(shuffled=True, texts=texts)
    for name, tables in (("old", old), ("new", new)):
        es.create_run(bucket.url(name), **tables, chunk_rows=1000)
    run, reference = bucket.url("new"), bucket.url("old")
    with pytest.raises(es.DamageError, match=r"is not there, as seen from .*scratch= takes"):
        es.fit(run, reference=reference, join_memory="1MiB")
    fitted = es.fit(run, reference=reference, join_memory="1MiB", scratch=bucket.url("scratch"))
    moved = es.evaluate(
        reference,
        run,
        k=10,
        join_memory="1MiB",
        scratch=bucket.url("scratch"),
        displacement=tmp_path / "there",
    )
    import dask

    with dask.config.set(scheduler="threads"):
        same = es.fit(run, reference=reference, join_memory="1MiB")
        again = es.evaluate(reference, run, k=10, displacement=tmp_path / "here")
    transform = fitted.diagnostics["items"]
    assert (transform["paired_by"], transform["vectors"]) == ("partitioned ids", "shuffle")
    np.testing.assert_array_equal(fitted.items, same.items)
    assert moved.items == again.items
    for column in ("id", "cosine", "distance"):
        ours, theirs = (
            np.asarray(zarr.open_array(tmp_path / name, path=f"items/{column}"))
            for name in ("there", "here")
        )
        np.testing.assert_array_equal(ours, theirs)
    assert objects_below(Url(bucket.url("scratch"))) == {}
    assert len(apart.nthreads()) == 2


def test_a_series_joins_beyond_memory_through_the_store(
    apart: Client, bucket: Bucket, tmp_path: Path
) -> None:
    """Fit, verify and the running mean of a consensus, all of which join."""
    import dask

    made = dict(zip(("first", "second"), models(shuffled=True, texts=False), strict=True))
    for name, tables in made.items():
        es.create_run(bucket.url(name), **tables, chunk_rows=1000)
    series = es.Series.init(bucket.url("series"), policy="consensus")
    joins = {"embstab.join-memory": "1MiB", "embstab.scratch": bucket.url("scratch")}
    with dask.config.set(joins):
        for name in made:
            assert series.add(bucket.url(name)).published
    assert len(apart.nthreads()) == 2
    with dask.config.set(scheduler="threads"):
        local = es.Series.init(tmp_path / "series", policy="consensus")
        for name in made:
            local.add(bucket.url(name))
        ours, theirs = (np.asarray(one.open(2).items.vectors) for one in (series, local))
        np.testing.assert_array_equal(ours, theirs)
    assert objects_below(Url(bucket.url("scratch"))) == {}


def test_a_series_has_the_bits_of_one_machine(
    apart: Client, bucket: Bucket, tmp_path: Path
) -> None:
    """Two deliveries, the second in another order."""
    import dask

    made = {"first": models(shuffled=True)[0], "second": models(shuffled=True)[1]}
    series = es.Series.init(bucket.url("series"))
    for name, tables in made.items():
        es.create_run(bucket.url(name), **tables, chunk_rows=1000)
        assert series.add(bucket.url(name)).published
    assert len(apart.nthreads()) == 2
    with dask.config.set(scheduler="threads"):
        local = es.Series.init(tmp_path / "series")
        for name, tables in made.items():
            es.create_run(tmp_path / name, **tables, chunk_rows=1000)
            local.add(tmp_path / name)
        for version in (1, 2):
            for key in ("items", "users"):
                ours, theirs = (one.open(version).table(key) for one in (series, local))
                np.testing.assert_array_equal(np.asarray(ours.vectors), np.asarray(theirs.vectors))
        assert series.verify()
