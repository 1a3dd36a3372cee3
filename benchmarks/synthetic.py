"""Does a fit cost the same per row at 1e9 rows as at 1e7, and what does the scheduler take of it?

    python benchmarks/synthetic.py --rows 1e7 1e9 --d 64 --markdown docs/synthetic.md
    # the same figures for your own data
    python benchmarks/synthetic.py --table RUN_OR_ARRAY --scheduler ADDRESS

The rows of the synthetic table are computed and not stored: a panel is a slice of one pool of
random rows, at an offset that follows from its number, so a table of 256 GB needs no disk.
Everything else is the real fit, checksums included; only the file read is missing, and the pool
lies in the processor's cache. *Overhead* is the time of the same graph with empty task bodies
(built, scheduled, joined) over that of the fit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import common
import numpy as np
from common import command_line, machine, parser, peak_bytes, publish, scheduler

import dask_embstab as es
from dask_embstab.core.tree import Node, micro_block_rows
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.passes.digest import nothing_reduction
from dask_embstab.passes.engine import reduce
from dask_embstab.passes.engine.graph import TASK, compute
from dask_embstab.passes.engine.reduce import Partial
from dask_embstab.tables.coerce import as_table
from dask_embstab.tables.read.source import Access, Digests, checksum, default_chunk_rows

_STRIDE = 2654435761
"""Knuth's multiplier: neighbouring panels start far apart in the pool."""

_HEADER = (
    *("rows", "d", "GB", "seconds", "GB/s", "ns per row", "of the first", "generator", "overhead"),
    *("read tasks per chunk", "tree tasks per chunk", "peak MB"),
)


@cache
def pool(d: int) -> Rows:
    """Random rows that all panels are slices of, twice a panel long; every process makes
    its own.
    """
    rows = np.random.default_rng(d).standard_normal((2 * micro_block_rows(d), d))
    return (rows * np.linspace(2, 0.5, d)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """A table of float32 whose rows are computed when they are read."""

    shape: tuple[int, int]
    chunk_rows: int
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009 (a dtype is immutable)
    array: None = None
    access: Access = "computed"

    def block(self, start: int, stop: int) -> SyntheticBlock:  # noqa: ARG002 (its reader is told what to take)
        """These rows, computed when the task runs."""
        return SyntheticBlock(self.shape[1], self.chunk_rows)

    def gather(self, rows: RowNumbers) -> SyntheticBlock:
        """Not needed: nothing is joined."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SyntheticBlock:
    """Any rows of a table with ``d`` components."""

    d: int
    chunk_rows: int

    def open(self) -> SyntheticReader:
        """Start computing."""
        return SyntheticReader(self)


class SyntheticReader:
    """Slices of the pool, with the running checksum that a reader of files has."""

    def __init__(self, block: SyntheticBlock) -> None:
        self._chunk_rows, self._pool = block.chunk_rows, pool(block.d)
        self._digests: Digests = {}

    def rows(self, start: int, stop: int) -> Rows:
        """The generator: a slice."""
        offset = start * _STRIDE % (len(self._pool) - (stop - start))
        return self._pool[offset : offset + stop - start]

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``, which lie in one chunk: chunks are whole panels."""
        rows, chunk = self.rows(start, stop), start // self._chunk_rows
        self._digests[chunk] = checksum(rows, self._digests.get(chunk, 0))
        return rows

    def digests(self) -> Digests:
        """The digests of what was taken."""
        return self._digests


def synthetic_table(n: int, d: int) -> es.Table:
    """A table of ``n`` computed rows in chunks of 64 MiB, or in eight chunks where it is small."""
    panel = micro_block_rows(d)
    rows = min(default_chunk_rows(d, 4), -(-n // 8 // panel) * panel)
    return es.Table(SyntheticSource((n, d), rows), None, f"{n:,} synthetic rows")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("synthetic", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    tables = (
        [as_table(options.table)]
        if options.table
        else [synthetic_table(int(n), options.d) for n in options.rows]
    )
    with scheduler(options.scheduler, options.threads) as client:
        for file in (common.__file__, __file__) if client else ():
            client.upload_file(file)
        es.fit(
            synthetic_table(10_000, tables[0].d), keep="geometry"
        )  # imports and the first graph are not the fit's
        for number, table in enumerate(tables):
            first = results["rows"][0] if number else None
            results["rows"].append(measure(table, 1 if number else options.repeats, first))
            print(json.dumps(results["rows"][-1]), flush=True)
    return publish(results, markdown(results), options)


def measure(table: es.Table, repeats: int, first: dict[str, Any] | None) -> dict[str, Any]:
    """Time of the fit, of its graph with nothing in it, and of the generator; tasks of the
    graph.
    """
    seconds = statistics.median(
        _seconds(lambda: es.fit(table, keep="geometry")) for _ in range(repeats)
    )
    empty, n_reads, n_tasks = empty_graph(table)
    n, n_bytes, n_chunks = (
        table.n_rows,
        table.n_rows * table.d * table.dtype.itemsize,
        -(-table.n_rows // table.chunk_rows),
    )
    per_row = seconds / n
    return {
        "rows": n,
        "d": table.d,
        "bytes": n_bytes,
        "chunks": n_chunks,
        "seconds": seconds,
        "GB/s": n_bytes / seconds / 1e9,
        "ns per row": per_row * 1e9,
        "of the first": per_row * 1e9 / first["ns per row"] if first else 1.0,
        "generator ns per row": generator_seconds(table) / n * 1e9,
        "overhead seconds": empty,
        "overhead": empty / seconds,
        "read tasks per chunk": n_reads / n_chunks,
        "tree tasks per chunk": (n_tasks - n_reads) / n_chunks,
        "peak bytes": peak_bytes(),  # of this process: workers of a cluster have peaks of their own
    }


def empty_graph(table: es.Table) -> tuple[float, int, int]:
    """Seconds to build and run the graph of a read with empty task bodies; its tasks that read, and
    all.
    """
    began = time.perf_counter()
    with mock.patch.object(reduce, "reduce_block", _empty):
        empty = reduce.reduce_table(table, nothing_reduction(), label="empty")
    compute([empty.node], label="empty", n_tasks=empty.n_tasks)
    seconds = time.perf_counter() - began
    keys = list(empty.node.__dask_graph__())
    assert empty.n_tasks == sum(key.startswith(TASK) for key in keys)
    return seconds, empty.n_tasks, sum("shared" not in key for key in keys)


def _empty(_: Any, rows: Any, *__: Any) -> Partial[int]:
    return Partial((Node(0, rows.number, 0),))


def generator_seconds(table: es.Table) -> float:
    """Time of one thread to make all panels of a synthetic table and do nothing with them, from
    those of a few chunks.
    """
    if not isinstance(table.source, SyntheticSource):
        return 0.0
    panel, n = micro_block_rows(table.d), min(table.n_rows, 64 * table.chunk_rows)
    reader = table.source.block(0, n).open()
    return (
        table.n_rows
        / n
        * _seconds(lambda: [reader.rows(at, min(at + panel, n)) for at in range(0, n, panel)])
    )


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    lines = [
        f"Made by `{results['command']}` on {results['machine']}.",
        (
            "*generator*: what one thread needs to make the rows, within the cost per row."
            " *overhead*: the same graph"
        ),
        "with empty tasks, over the fit.",
        "",
    ]
    rows = []
    for row in results["rows"]:
        cells = [
            f"{row['rows']:,}",
            row["d"],
            f"{row['bytes'] / 1e9:.3g}",
            f"{row['seconds']:.2f}",
            f"{row['GB/s']:.2f}",
            f"{row['ns per row']:.2f}",
            f"{row['of the first']:.3f}",
            f"{row['generator ns per row']:.4f}",
            f"{row['overhead']:.2%}",
            f"{row['read tasks per chunk']:.2f}",
            f"{row['tree tasks per chunk']:.2f}",
            "-" if row["peak bytes"] is None else f"{row['peak bytes'] / 1e6:.0f}",
        ]
        rows.append(cells)
    return "\n".join([*lines, *common.table(_HEADER, rows), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, folder=False)
    options.add_argument(
        "--rows", type=float, nargs="+", default=[1e7, 1e9], help="sizes; the first is the measure"
    )
    options.add_argument("--d", type=int, default=64)
    options.add_argument("--table", help="a run or a Zarr array of your own instead")
    options.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler; threads without")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument(
        "--repeats", type=int, default=3, help="of the first size; the others run once"
    )
    return options


if __name__ == "__main__":
    import synthetic  # by its own name: that is how workers know what is sent to them

    synthetic.main()
