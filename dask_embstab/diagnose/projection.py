"""What will fitting and applying a run cost here? The real passes over its first rows, and a line
through their times.

So a line has in it what a pass really does: bytes, products, codecs, files of chunks, ids, the
scheduler. The d x d work of a fit is done for fewer components and scaled by their cube.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr

from dask_embstab.core.moments import Moments, Pairs
from dask_embstab.passes.apply import transform_run
from dask_embstab.passes.engine.graph import Pass
from dask_embstab.passes.engine.memory import projected_peak, read_load, small_matrices, write_load
from dask_embstab.passes.engine.plan import plan
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.fit.driver import fit_moments
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.reductions import moments_reduction
from dask_embstab.passes.join.options import join_options
from dask_embstab.passes.join.pairing import pair
from dask_embstab.passes.join.reference_rows import plan_reference_read
from dask_embstab.tables.read.views import Head
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table
from dask_embstab.tables.table_moments import TableMoments
from dask_embstab.tables.transform import Transform

_GROWTH = 4
_MOST_SAMPLE_BYTES = 1 << 30
_FIRST_CHUNKS = 1 << 10
"""A chunk that is written is synced, which may take milliseconds: a task of 30,000 would be no
sample.
"""
_MEASURED_COMPONENTS = 1024
"""From about so many components on the d x d work of a fit goes with their cube; before, its
matrices still fit in caches.
"""
_REPEATED_COMPONENTS, _REPEATS = 512, 3


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a pass over n rows: ``fixed + n * per_row``, found over ``sampled`` rows."""

    fixed: float
    per_row: float
    sampled: int

    def seconds(self, n: int) -> float:
        """For ``n`` rows."""
        return self.fixed + n * self.per_row


def project_run(
    tables: Mapping[str, Table], folder: Path, *, threads: int, base: int, seconds: float
) -> dict[str, Any]:
    """Seconds and peak bytes of a first run's stabilization, and of one onto a reference with the
    same ids in order.

    Tables are read from the page cache. Every pass is tried on more and more rows until it takes
    ``seconds``.
    """
    scores = len(tables) == 2
    first, d = next(iter(tables)), next(iter(tables.values())).d
    lines: dict[str, dict[str, Line]] = {}
    with dask.config.set(scheduler="threads", num_workers=threads):
        for key, table in tables.items():
            jobs: dict[str, Callable[[Table], object]] = {
                "fit": _read,
                "apply": lambda head: _apply(head, folder),
            }
            if key == first:
                jobs["fit_reference"] = _read_with_itself
            lines[key] = {name: _line(job, table, threads, seconds) for name, job in jobs.items()}
        factor = {
            aligned: factorize_seconds(d, scores=scores, aligned=aligned)
            for aligned in (False, True)
        }

    # Tables are passed over side by side: few tasks of one leave threads to the other, which alone
    # would be idle.
    busy = {key: min(threads, len(plan(table)[0])) for key, table in tables.items()}
    at_once = min(threads, sum(busy.values()))

    def total(name: str) -> float:
        alone = {
            key: found.get(name, found["fit"]).seconds(tables[key].n_rows)
            for key, found in lines.items()
        }
        return sum(alone[key] * busy[key] / at_once for key in tables)

    spent = {name: total(name) for name in ("fit", "fit_reference", "apply")}
    spent["fit"] += factor[False]
    spent["fit_reference"] += factor[True]
    spent |= {"stabilize": spent["fit"] + spent["apply"]}
    spent |= {"stabilize_reference": spent["fit_reference"] + spent["apply"]}
    sampled = {
        key: {name: line.sampled for name, line in found.items()} for key, found in lines.items()
    }
    return {
        "seconds": spent,
        "factorize_seconds": {"first": factor[False], "reference": factor[True]},
        "peak_bytes": projected_peaks(tables, threads=threads, base=base),
        "sampled_rows": sampled,
    }


def projected_peaks(tables: Mapping[str, Table], *, threads: int, base: int) -> dict[str, int]:
    """Bytes of the whole process, which holds ``base`` before, while it stabilizes this run: alone,
    and onto a reference.
    """
    scores, first = len(tables) == 2, next(iter(tables))
    d = tables[first].d
    writes = [
        write_load(one, *plan(one), width=d, itemsize=max(4, one.dtype.itemsize))
        for one in tables.values()
    ]
    # The matrices of the transform are there while it is applied.
    apply = projected_peak(writes, threads=threads, base=base) + 8 * len(tables) * d**2
    peaks = {}
    for name, width in (("stabilize", 0), ("stabilize_reference", d)):
        reads = []
        for key, one in tables.items():
            reference_width = width if key == first else 0
            values = (0, 1) if reference_width else (1, 0)
            reads.append(
                read_load(
                    one,
                    *plan(one, reference_width=reference_width),
                    width=reference_width,
                    values=values,
                )
            )
        small = small_matrices(d, width, scores=scores)
        peaks[name] = max(apply, projected_peak(reads, threads=threads, base=base, small=small))
    return peaks


def factorize_seconds(d: int, *, scores: bool, aligned: bool) -> float:
    """Seconds of the d x d work of a fit, from random moments of at most 1024 components."""
    m = min(d, _MEASURED_COMPONENTS)
    rng = np.random.default_rng(0)
    x, noise, w = (rng.standard_normal((2 * m, m)) for _ in range(3))
    joint = np.hstack([x, x + 0.1 * noise])
    pairs = Pairs(len(x), float(len(x)), float(len(x)), m, joint.T @ joint) if aligned else None
    items = Moments(len(x), m, rest=None if aligned else x.T @ x, pairs=pairs)
    ours, theirs = (
        TableMoments(moments, "float32", "a sample")
        for moments in (items, Moments(len(w), m, rest=w.T @ w))
    )
    tables = {"items": ours} | ({"users": theirs} if scores else {})
    options = FitOptions(
        keep="scores" if scores else "geometry",
        align_on="items",
        method="auto",
        rank=None,
        width=None,
        balance="rows",
        center=False,
        unit_rows=False,
        rotation_only=False,
        min_matched=1,
    )
    # Other work on the machine only adds to it; what takes seconds is done once.
    repeats = _REPEATS if m <= _REPEATED_COMPONENTS else 1
    taken = min(
        _timed(fit_moments, tables, None, options, is_warm=repeats == 1) for _ in range(repeats)
    )
    return taken * (d / m) ** 3


def _line(job: Callable[[Table], object], table: Table, threads: int, seconds: float) -> Line:
    """Time the job on whole tasks of the table's first rows, ever more of them."""
    rows = _first_rows(table, threads)
    before, taken = (0, 0.0), _tried(job, table, rows, threads)
    while (
        taken < seconds
        and rows < table.n_rows
        and rows * table.d * table.dtype.itemsize < _MOST_SAMPLE_BYTES
    ):
        before = rows, taken
        rows = min(_GROWTH * rows, table.n_rows)
        taken = _tried(job, table, rows, threads)

    if rows == table.n_rows or not before[0]:
        return Line(0.0, taken / rows, rows)
    per_row = max(0.0, taken - before[1]) / (rows - before[0])
    return Line(max(0.0, taken - per_row * rows), per_row, rows)


def _first_rows(table: Table, threads: int) -> int:
    """Of the first trial: a task for every thread, of whole tasks unless they are large or of very
    many chunks.
    """
    ranges, grid = plan(table)
    unit = math.lcm(table.chunk_rows, grid.rows) if grid.anchored else table.chunk_rows
    few = max(threads, _FIRST_CHUNKS * table.chunk_rows // unit) * unit
    rows = min(ranges.rows * threads, few)
    if rows * table.d * table.dtype.itemsize > _MOST_SAMPLE_BYTES:
        rows = ranges.rows
    return min(rows, table.n_rows)


def _tried(job: Callable[[Table], object], table: Table, rows: int, threads: int) -> float:
    """Seconds of the job on the first rows, in tasks small enough to give one to every thread."""
    row_bytes = table.d * table.dtype.itemsize
    task_bytes = min(plan(table)[0].rows, max(1, rows // threads)) * row_bytes
    with dask.config.set({"embstab.task-bytes": task_bytes}):
        return _timed(job, _head(table, rows))


def _head(table: Table, rows: int) -> Table:
    return table if rows == table.n_rows else replace(table, source=Head(table.source, rows))


def _read(table: Table) -> object:
    return reduce_table(table, moments_reduction(centred=False), label="doctor").run()


def _read_with_itself(table: Table) -> object:
    """The table as its own reference, row by row."""
    alone = replace(table, stored_ids=None)
    with join_options() as join:
        pairs = plan_reference_read(pair(alone, alone, join), alone, join, label="doctor")
        read: Pass[Any] = reduce_table(
            alone, moments_reduction(centred=False), label="doctor", pairs=pairs
        )
        return read.run()


def _apply(table: Table, folder: Path) -> object:
    """The table times the identity, written and removed."""
    square, out = np.eye(table.d), folder / "applied"
    users = table.key == "users"
    run = Run(None, None if users else table, table if users else None, {}, zarr.group({}))
    known = {"product": {"items": "float32", "users": "float32"}}

    try:
        return transform_run(
            Transform(square, square, np.ones(table.d), diagnostics=known),
            run,
            out,
            name=None,
            dtype=None,
            overwrite=False,
            resume=False,
            inputs=(),
        )
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _timed(work: Callable[..., object], *arguments: Any, is_warm: bool = False) -> float:
    """Seconds of the second call (of the first one, where all ``is_warm``): in the first modules
    are imported and files come into memory.
    """
    if not is_warm:
        work(*arguments)
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began
