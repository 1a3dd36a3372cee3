"""The simulated cluster: a case that is computed by hand, and the graph is what a verb computes."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simulate
from dask.callbacks import Callback

import dask_embstab as es
from dask_embstab.passes.engine.graph import TASK


def test_two_reads_and_their_join_by_hand() -> None:
    """Both read 100 bytes at 50 a second from 0.25 s on; the scheduler hears of them at 2.75 and
    3.25 s. The join fetches 30 of 70 bytes in 3 s after 0.5 s, and joins them in 1 s.
    """
    job = simulate.Job(
        waits=[[], [], [0, 1]], priority=[0, 1, 2], reads=[100, 100, 0], left=[40, 30, 7]
    )
    cluster = simulate.Cluster(
        workers=2, threads=1, kernel=50, link=100, connection=math.inf, latency=0.25,
        gets=math.inf, puts=math.inf, handle=0.5, between=0.5, bytes_joined=70, fetch=10,
    )  # fmt: skip
    simulated = simulate.simulated(job, cluster)
    assert simulated.seconds == pytest.approx(3.25 + 0.5 + 3 + 1 + 0.5)
    assert simulated.scheduler == pytest.approx(1.5)
    assert simulated.busy == pytest.approx(2 * 2.25 + 4.5)
    assert (simulated.moved, simulated.held) == (30, 47)
    assert job.depth == 2


def test_what_is_written_takes_as_long_as_the_store_takes_its_parts() -> None:
    cluster = simulate.Cluster(workers=1, threads=1, latency=0, gets=10, puts=2, kernel=math.inf)
    assert cluster.seconds(20 * simulate.PART_BYTES, writes=False) == pytest.approx(2)
    assert cluster.seconds(20 * simulate.PART_BYTES, writes=True) == pytest.approx(10)


def test_the_simulated_graph_is_the_one_that_is_computed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(n, 64)).astype(np.float32) for n in (40 * 4096, 3 * 4096))
    run = es.create_run(tmp_path / "run", *rows, chunk_rows=4096)
    import dask

    with dask.config.set({"embstab.task-bytes": 1, "scheduler": "synchronous"}):
        graph, loads = simulate.caught(lambda: es.fit(run))
        done: list[str] = []
        with Callback(pretask=lambda key, *_: done.append(key)):
            es.fit(run)
    job = simulate.job_of(graph, loads, d=64, chunk_rows=4096, writes=False)

    def words(keys: list[str]) -> Counter[str]:
        return Counter(re.sub(r"[0-9a-f]{32}|\d+", "", key) for key in keys if "shared" not in key)

    assert words(list(graph)) == words(done)
    assert sum(key.startswith(TASK) for key in graph) == 43
    assert sum(map(bool, job.reads)) == 43
    assert sum(job.reads) == 43 * 4096 * 64 * 4
    sums = loads[0].value_bytes
    assert Counter(left // sums for left in job.left) == {1: 43 + 13, 2: 2}
    assert simulate.simulated(job, simulate.Cluster(workers=3)).seconds > 0
