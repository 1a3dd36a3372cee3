"""What do 100 workers do with 1e11 rows in an object store? The product's own graph, on workers and
a store that are simulated.

    python benchmarks/simulate.py --rows 1e11 --workers 100 --markdown docs/scale.md
    python benchmarks/simulate_check.py --markdown docs/scale.md  # against two workers here

A run of that size is described (metadata, no rows), and `es.fit` and `es.apply` are called on it;
what they would compute is caught as it goes to Dask. Its tasks, dependencies and priorities are
scheduled on the workers as `distributed` does: rows are read by whoever is free, results are joined
where most of their bytes lie, and one scheduler handles every task. The store is a latency, a rate
of each connection, of each worker and of all of them. No time of this machine goes in.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import cloudpickle  # type: ignore[import-untyped]
import common
import numpy as np
import zarr
from common import command_line, parser, publish, table, write_between
from dask.core import get_dependencies
from dask.order import order

import dask_embstab as es
from dask_embstab.core.tree import Node, merge_forests, micro_block_rows
from dask_embstab.passes.engine import graph as engine
from dask_embstab.passes.engine.memory import Load
from dask_embstab.passes.engine.plan import RowRange
from dask_embstab.tables.read.stored.objects import AHEAD_BYTES, PART_BYTES
from dask_embstab.tables.write.object_writer import SENDING_BYTES

_SATURATION = 1.1
"""Tasks over rows that a worker is given for each thread (``worker-saturation`` of Dask)."""
_DIGEST_BYTES, _BASE_BYTES = 160, 150e6
"""A digest in a result; a process with its imports."""
MARKS = "<!-- simulated: written by benchmarks/simulate.py -->", "<!-- end of simulated -->"


@dataclass(frozen=True, slots=True)
class Job:
    """Tasks by number: what each waits for, when it comes, the bytes it reads (0: it joins), the
    bytes it leaves. Of the whole graph ``graph_bytes``, of a task ``buffers``.
    """

    waits: Sequence[Sequence[int]]
    priority: Sequence[int]
    reads: Sequence[int]
    left: Sequence[int]
    writes: bool = False
    buffers: int = 0
    graph_bytes: int = 0

    @property
    def depth(self) -> int:
        """Tasks one behind another."""
        levels = [0] * len(self.waits)
        for task in sorted(range(len(levels)), key=self.priority.__getitem__):
            levels[task] = 1 + max((levels[one] for one in self.waits[task]), default=0)
        return max(levels)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Workers, the store and the scheduler: seconds, and bytes a second. The ``link`` of a worker,
    a ``connection``, and ``gets`` and ``puts`` a second, of parts of 8 MiB, are the store's;
    ``between`` and ``fetch`` are what results of other workers take.
    """

    workers: int = 100
    threads: int = 2
    kernel: float = 1.2e9
    link: float = 1.0e9
    connection: float = 90e6
    latency: float = 0.03
    gets: float = 5500.0
    puts: float = 3500.0
    submit: float = 0.0
    handle: float = 0.9e-3
    between: float = 0.5e-3
    fetch: float = 1.0e9
    bytes_joined: float = 1.0e9

    def seconds(self, n_bytes: int, *, writes: bool) -> float:
        """Of a task that reads so many bytes: parts come ahead of the kernel and leave behind
        it.
        """
        side_by_side, share = AHEAD_BYTES // PART_BYTES, PART_BYTES / (self.workers * self.threads)
        rate = min(
            self.connection * side_by_side,
            self.link / self.threads,
            min(self.gets, self.puts if writes else math.inf) * share,
        )
        slowest = min(rate, self.kernel / self.threads)
        return self.latency * (2 if writes else 1) + n_bytes / slowest


@dataclass(slots=True)
class Simulated:
    """What happened: seconds in all and of the scheduler, bytes between workers, most bytes of
    results that a worker held, and seconds of all threads.
    """

    seconds: float = 0.0
    scheduler: float = 0.0
    moved: int = 0
    held: int = 0
    busy: float = 0.0


class _Caught(Exception):  # noqa: N818 (no error)
    """What would have been computed."""


def caught(call: Callable[[], object]) -> tuple[dict[Any, Any], list[Load]]:
    """The graph of the first passes that a verb runs, as it goes to Dask, and their loads."""
    loads: list[Load] = []
    graph: dict[Any, Any] = {}

    def instead(nodes: Sequence[Any], **_: object) -> None:
        for node in nodes:
            graph.update(node.__dask_graph__())
        raise _Caught

    with (
        mock.patch.object(engine, "compute", instead),
        mock.patch.object(engine, "require_memory", loads.extend),
        contextlib.suppress(_Caught),
    ):
        call()
    return graph, loads


def job_of(
    tasks: Mapping[Any, Any], loads: Sequence[Load], *, d: int, chunk_rows: int, writes: bool
) -> Job:
    """The same by number. What a task leaves are the sums of the complete subtrees that it covers
    (joined by the product's own tree), and a digest for each chunk.
    """
    keys = [key for key, task in tasks.items() if isinstance(task, tuple)]  # others are values
    number = {key: n for n, key in enumerate(keys)}
    waits = [
        sorted(number[one] for one in get_dependencies(tasks, key) if one in number) for key in keys
    ]
    places = order(dict(tasks))
    priority = [places[key] for key in keys]
    rows, left = [0] * len(waits), [0] * len(waits)
    forests: dict[int, Any] = {}
    covered: dict[int, int] = {}
    value_bytes, grid = max(load.value_bytes for load in loads), micro_block_rows(d)
    for n in sorted(range(len(waits)), key=priority.__getitem__):
        own = next((one for one in tasks[keys[n]] if isinstance(one, RowRange)), None)
        below = [one for one in waits[n] if one in covered]
        if own is not None:
            rows[n] = covered[n] = own.stop - own.start
            forests[n] = list(_subtrees(own.start // grid, -(-own.stop // grid)))
        elif below:
            covered[n] = sum(covered[one] for one in below)
            forests[n] = merge_forests((forests[one] for one in below), lambda *_: None)
        if n in covered:
            chunks = -(-covered[n] // chunk_rows) * (2 if writes else 1)
            left[n] = value_bytes * len(forests[n]) + _DIGEST_BYTES * chunks
    return Job(
        waits,
        priority,
        [4 * d * n for n in rows],
        left,
        writes,
        max(sum(load.buffers) for load in loads),
        len(cloudpickle.dumps(tasks)),
    )


def _subtrees(first: int, last: int) -> Iterator[Node[None]]:
    """Roots of the complete subtrees that cover these blocks of the grid."""
    while first < last:
        level = min((first & -first or last).bit_length() - 1, (last - first).bit_length() - 1)
        yield Node(level, first >> level, None)
        first += 1 << level


def simulated(job: Job, cluster: Cluster) -> Simulated:
    """What happens when the workers do the job."""
    return _Run(job, cluster).done()


class _Run:
    """Events of tasks that end, and of the scheduler that has heard of it."""

    def __init__(self, job: Job, cluster: Cluster) -> None:
        self.job, self.cluster, self.simulated, n = job, cluster, Simulated(), len(job.waits)
        self.needed_by: list[list[int]] = [[] for _ in range(n)]
        for task, waits in enumerate(job.waits):
            for one in waits:
                self.needed_by[one].append(task)
        self.missing = [len(waits) for waits in job.waits]
        self.users = [len(by) for by in self.needed_by]
        self.queued = sorted((job.priority[t], t) for t in range(n) if not job.waits[t])[::-1]
        self.given: list[list[tuple[int, int]]] = [[] for _ in range(cluster.workers)]
        self.running, self.held = [0] * cluster.workers, [0] * cluster.workers
        self.at, self.most = [-1] * n, math.ceil(_SATURATION * cluster.threads)
        self.events: list[tuple[float, int, int]] = []  # time, what (0 ended, 1 heard), the task
        self.simulated.scheduler = self.free = n * cluster.submit

    def done(self) -> Simulated:
        """Until the last task has ended."""
        now = self.free
        for most in range(1, self.most + 1):  # to whoever has least
            for worker in range(self.cluster.workers):
                self._give(worker, now, most)
        while self.events:
            now, heard, task = heapq.heappop(self.events)
            (self._heard if heard else self._ended)(task, now)
        assert min(self.at) >= 0, "every task has run"
        self.simulated.seconds = now
        return self.simulated

    def _give(self, worker: int, now: float, most: int) -> None:
        """Tasks that wait for none stay with the scheduler until a worker has few left."""
        while self.queued and len(self.given[worker]) + self.running[worker] < most:
            heapq.heappush(self.given[worker], self.queued.pop())
        self._start(worker, now)

    def _start(self, worker: int, now: float) -> None:
        cluster, job = self.cluster, self.job
        while self.given[worker] and self.running[worker] < cluster.threads:
            _, task = heapq.heappop(self.given[worker])
            waits = job.waits[task]
            away = sum(job.left[one] for one in waits if self.at[one] != worker)
            seconds = cluster.between + away / cluster.fetch if away else 0.0
            if job.reads[task]:
                seconds += cluster.seconds(job.reads[task], writes=job.writes)
            else:
                seconds += sum(job.left[one] for one in waits) / cluster.bytes_joined
            self.running[worker] += 1
            self.at[task] = worker
            self.simulated.moved += away
            self.simulated.busy += seconds
            heapq.heappush(self.events, (now + seconds, 0, task))

    def _ended(self, task: int, now: float) -> None:
        """The worker goes on with what it was given; the scheduler hears of it in turn."""
        worker, cluster = self.at[task], self.cluster
        self.running[worker] -= 1
        self.held[worker] += self.job.left[task]
        self.simulated.held = max(self.simulated.held, self.held[worker])
        self.free = max(self.free, now) + cluster.handle
        self.simulated.scheduler += cluster.handle
        heapq.heappush(self.events, (self.free, 1, task))
        self._start(worker, now)

    def _heard(self, task: int, now: float) -> None:
        """What nobody needs is let go; what can be joined is, where most of its bytes lie."""
        job = self.job
        for one in job.waits[task]:
            self.users[one] -= 1
            if not self.users[one]:
                self.held[self.at[one]] -= job.left[one]
        for one in self.needed_by[task]:
            self.missing[one] -= 1
            if not self.missing[one]:
                where = self.at[max(job.waits[one], key=lambda dep: (job.left[dep], -dep))]
                heapq.heappush(self.given[where], (job.priority[one], one))
                self._start(where, now)
        self._give(self.at[task], now, self.most)


def described(folder: Path, rows: int, d: int, chunk_rows: int) -> es.Run:
    """A run of so many items, and a hundredth of the users, without a row."""
    for key, n in (("items", rows), ("users", max(chunk_rows, rows // 100))):
        group = zarr.open_group(folder, mode="a", zarr_format=3)
        common.new_vectors(group.require_group(key), n, d, chunk_rows)
    return es.open_run(folder)


def jobs(folder: Path, rows: int, d: int, chunk_rows: int) -> dict[str, Job]:
    """A fit of such a run in scores mode, and its apply."""
    few = np.random.default_rng(0).normal(size=(2 * d, d))
    transform, jobs = es.fit(few, few), {}
    # Rows that are not there are refused when a run is opened.
    with mock.patch("dask_embstab.tables.read.arrays.require_held"):
        run = described(folder / "run", rows, d, chunk_rows)
        verbs: dict[str, Callable[[], object]] = {
            "fit": lambda: es.fit(run),
            "apply": lambda: es.apply(transform, run, folder / "out"),
        }
        for name, verb in verbs.items():
            jobs[name] = job_of(*caught(verb), d=d, chunk_rows=chunk_rows, writes=name == "apply")
    return jobs


def report(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each size of chunks, verb and store."""
    cluster = Cluster(**{one.name: getattr(options, one.name) for one in fields(Cluster)})
    rows = []
    for mib in options.chunks:
        chunk_rows = (int(mib) << 20) // (4 * options.d)
        with tempfile.TemporaryDirectory(prefix="embstab-simulate-", dir=options.dir) as folder:
            made = jobs(Path(folder), int(options.rows), options.d, chunk_rows)
        for name, job in made.items():
            for store in (cluster, replace(cluster, gets=math.inf, puts=math.inf)):
                rows.append(_row(int(mib), name, job, store, simulated(job, store)))
                print(rows[-1], flush=True)
    return rows


def _row(mib: int, name: str, job: Job, cluster: Cluster, ran: Simulated) -> dict[str, Any]:
    on_the_way = AHEAD_BYTES + (SENDING_BYTES if job.writes else 0)
    memory = _BASE_BYTES + cluster.threads * (job.buffers + on_the_way) + ran.held
    parts = sum(-(-n // PART_BYTES) for n in job.reads)
    return {
        "chunks of MiB": mib,
        "verb": name,
        "GET, PUT a second": "any"
        if math.isinf(cluster.gets)
        else f"{cluster.gets:.0f}, {cluster.puts:.0f}",
        "tasks": f"{len(job.waits):,}",
        "one behind another": job.depth,
        "graph MB": round(job.graph_bytes / 1e6, 1),
        "seconds": round(ran.seconds),
        "scheduler busy": f"{ran.scheduler / ran.seconds:.0%}",
        "threads taken": f"{ran.busy / ran.seconds / cluster.workers / cluster.threads:.0%}",
        "between workers GB": round(ran.moved / 1e9, 2),
        "memory of a worker MB": round(memory / 1e6),
        "million parts": round(parts * (2 if job.writes else 1) / 1e6, 2),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Simulate, print the table, return every figure."""
    options = _parser().parse_args(argv)
    return publish_between(MARKS, command_line("simulate", argv), report(options), options)


def publish_between(
    marks: tuple[str, str], command: str, rows: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    """Publish a table of these rows; in a page it stands between the marks."""
    text = "\n".join(
        [f"Made by `{command}`.", "", *table(rows[0], (one.values() for one in rows)), ""]
    )
    if options.markdown:
        write_between(Path(options.markdown), *marks, text)
        options.markdown = None
    return publish({"command": command, "rows": rows}, text, options)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--rows", type=float, default=1e11)
    made.add_argument("--d", type=int, default=64)
    made.add_argument("--chunks", type=float, nargs="+", default=[64, 256], help="MiB")
    for one in fields(Cluster):
        kind = int if one.type == "int" else float
        made.add_argument(f"--{one.name}", type=kind, default=one.default)
    return made


if __name__ == "__main__":
    main()
