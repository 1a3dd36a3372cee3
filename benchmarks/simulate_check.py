"""Does the simulated cluster take as long as a real one? Two workers of this machine, and objects
behind a link of known latency and rate.

    python benchmarks/simulate_check.py --markdown docs/scale.md
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import dask
import numpy as np
from common import command_line, parser
from object_server import object_server
from simulate import Cluster, caught, job_of, publish_between, simulated

import dask_embstab as es

MARKS = "<!-- validated: written by benchmarks/simulate_check.py -->", "<!-- end of validated -->"


def measured_and_simulated() -> list[dict[str, Any]]:
    """A fit on two real workers, of objects behind a link of known latency and rate, against the
    same job simulated: once the latency binds, once the rate.
    """
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as workers,
        Client(workers),
        dask.config.set({"embstab.task-bytes": 1}),
    ):
        return [_compared(*link) for link in ((0.1, 0.0, 8192, 100), (0.005, 6e7, 32768, 60))]


def _compared(latency: float, rate: float, chunk_rows: int, n_chunks: int) -> dict[str, Any]:
    """What a fit of few rows takes beside its tasks (metadata, the mathematics) is added."""
    d, access = 32, dict.fromkeys(("access_key_id", "secret_access_key"), "any")
    values = np.random.default_rng(0).normal(size=(chunk_rows * n_chunks, d)).astype(np.float32)
    link = rate / 2 if rate else math.inf
    cluster = Cluster(2, 1, math.inf, link, math.inf, latency, math.inf)
    measured, seconds = [], []
    with object_server(latency=latency, rate=rate) as endpoint:
        access |= {"endpoint": endpoint, "region": "us-east-1"}
        for n in (2 * chunk_rows, len(values)):
            with dask.config.set(scheduler="threads", num_workers=8):
                run = es.create_run(
                    f"s3://bench/{n}",
                    values[:n],
                    values[: 2 * chunk_rows],
                    chunk_rows=chunk_rows,
                    storage_options=access,
                )
            es.fit(run)  # every process has started
            graph, loads = caught(partial(es.fit, run))
            job = job_of(graph, loads, d=d, chunk_rows=chunk_rows, writes=False)
            began = time.perf_counter()
            es.fit(run)
            measured.append(time.perf_counter() - began)
            seconds.append(simulated(job, cluster).seconds)
    expected = seconds[1] + measured[0] - seconds[0]
    return {
        "latency ms": latency * 1e3,
        "MB/s": rate / 1e6 or "-",
        "tasks": len(job.waits),
        "measured s": round(measured[1], 2),
        "simulated s": round(expected, 2),
        "measured / simulated": round(measured[1] / expected, 2),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, simulate, print the table, return every figure."""
    options = parser(__doc__, folder=False).parse_args(argv)
    command = command_line("simulate_check", argv)
    return publish_between(MARKS, command, measured_and_simulated(), options)


if __name__ == "__main__":
    main()
