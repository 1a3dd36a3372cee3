"""Imports that are killed, that run on worker processes, and what they hold in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from formats import vector_columns, vectors
from oracle import data_of, hidden
from pyarrow import parquet

import dask_embstab as es
from dask_embstab.tables.read import source

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
]
KILLED = """
import os, signal, sys
import dask
import dask_embstab as es
from dask_embstab.passes.engine import plan
from dask_embstab.tables.read import source
from dask_embstab.tables.write.sink import Sink

plan.micro_block_rows = lambda d: 16
source.DEFAULT_CHUNK_BYTES = 32 * 5 * 4
writer, calls = Sink.writer, 0

def killing(self, start, stop):
    global calls
    calls += 1
    if calls == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return writer(self, start, stop)

Sink.writer = killing
with dask.config.set({"scheduler": "sync", "embstab.task-bytes": 1}):
    es.ingest(sys.argv[1], sys.argv[2], resume=True)
"""
PEAK = """
import sys
import dask
import dask_embstab as es
import numpy as np

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

es.ingest(sys.argv[1], sys.argv[3], sync=False)
before = peak()
with dask.config.set(num_workers=2):
    es.ingest(sys.argv[2], sys.argv[4], sync=False)
print(peak() - before)
"""


def write(path: Path, n: int, d: int, group: int) -> Path:
    table = pa.table({"id": np.arange(n), **vector_columns(vectors(n, d, "float32"), "list")})
    parquet.write_table(table, path, row_group_size=group)
    return path


def test_a_killed_import_resumes(
    tmp_path: Path,
    small_tasks: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGKILL before the sixth chunk: nothing is seen, the next call writes the other five."""
    path = write(tmp_path / "a.parquet", 320, 5, 32)
    out = tmp_path / "a.zarr"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(out)], check=False)
    assert ended.returncode == -9
    assert not out.exists()
    (left,) = hidden(tmp_path)
    kept = [file.stat().st_ino for file in left.glob("run/items/vectors/c/*/0")]
    assert len(kept) == 5
    monkeypatch.setattr(source, "DEFAULT_CHUNK_BYTES", 32 * 5 * 4)
    run = es.ingest(path, out, resume=True)
    assert np.array_equal(run.items.vectors.compute(), vectors(320, 5, "float32"))
    assert set(kept) < {file.stat().st_ino for file in out.glob("items/vectors/c/*/0")}
    assert not hidden(tmp_path)


def test_memory_is_that_of_batches(tmp_path: Path) -> None:
    """384 MB in one row group: what is held is far less."""
    small = write(tmp_path / "small.parquet", 1000, 64, 1000)
    large = write(tmp_path / "large.parquet", 1_500_000, 64, 1_500_000)
    arguments = [str(small), str(large), str(tmp_path / "s.zarr"), str(tmp_path / "l.zarr")]
    ended = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], check=True, capture_output=True, text=True
    )
    assert int(ended.stdout) < 150_000_000


def test_worker_processes_write_the_same_bytes(
    tmp_path: Path,
    small_tasks: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pieces, readers and ids are pickled; every worker opens the files itself."""
    monkeypatch.setattr(source, "DEFAULT_CHUNK_BYTES", 32 * 5 * 4)
    path = write(tmp_path / "a.parquet", 700, 5, 45)
    rows = vectors(700, 5, "float32", 1)
    np.save(tmp_path / "v.npy", rows)
    expected = data_of(es.ingest(path, tmp_path / "t.zarr", name="a").path)
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, Client(cluster) as client:
        assert len(client.scheduler_info()["workers"]) == 2
        ingested = es.ingest(path, tmp_path / "d.zarr", users=tmp_path / "v.npy", name="a")
        fitted = es.fit(path, tmp_path / "v.npy")
    items = {
        name: data for name, data in data_of(ingested.path).items() if name.startswith("items")
    }
    assert items == {name: data for name, data in expected.items() if name.startswith("items")}
    assert np.array_equal(ingested.users.vectors.compute(), rows)
    assert np.array_equal(fitted.items, es.fit(ingested).items)
