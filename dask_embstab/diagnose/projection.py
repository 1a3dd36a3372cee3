"""What will fitting and applying a run cost here? The real passes over its first rows, and a line
through their times.

So a line has in it what a pass really does: bytes, products, codecs, files of chunks, ids, the
scheduler. The d x d work of a fit is done for fewer components and scaled by their cube.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr

from dask_embstab.core.fit_transform import AlignOn
from dask_embstab.core.moments import Moments, Pairs
from dask_embstab.passes.apply import transform_run
from dask_embstab.passes.engine.memory import projected_peak, read_load, small_matrices, write_load
from dask_embstab.passes.engine.plan import plan
from dask_embstab.passes.fit.aligned import aligned_rows, paired_tables
from dask_embstab.passes.fit.driver import fit_moments
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.read import read_moments
from dask_embstab.passes.fit.reference import Reference
from dask_embstab.passes.join.options import join_options
from dask_embstab.tables.inputs import unchanged, unwatched
from dask_embstab.tables.read.views import Head
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table
from dask_embstab.tables.table_moments import Shared, TableMoments
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
_FEW_COMPONENTS = 8
"""Of a fit that is not timed: modules are imported in the first one."""

Tables = Mapping[str, Table]
Job = Callable[[Tables], Any]
"""A pass over all of them; what it returns, if it can be called, tidies up."""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a pass over n rows of all tables: ``fixed + n * per_row``, found over ``sampled``
    rows of each.

    ``start`` is what the first call took more than the second: libraries are set up, buffers get
    their memory.
    """

    start: float
    fixed: float
    per_row: float
    sampled: Mapping[str, int]

    def seconds(self, n: int) -> float:
        """For ``n`` rows, without the start."""
        return self.fixed + n * self.per_row


def project_run(
    tables: Mapping[str, Table], folder: Path, *, threads: int, base: int, seconds: float
) -> dict[str, Any]:
    """Seconds and peak bytes of a first run's stabilization, and of one onto a reference with the
    same ids in order.

    Nothing of the kind may have run in this process: the first call of a pass is timed as well.
    Tables are read from the page cache. Every pass is tried on more and more rows of all tables
    together until it takes ``seconds``.
    """
    scores, d = len(tables) == 2, next(iter(tables.values())).d
    jobs: dict[str, Job] = {
        "fit": partial(_read, onto_itself=False),
        "fit_reference": partial(_read, onto_itself=True),
        "apply": partial(_apply, out=folder / "applied"),
    }
    with dask.config.set(scheduler="threads", num_workers=threads):
        lines = {name: _line(job, tables, threads, seconds) for name, job in jobs.items()}
        factor = {
            aligned: factorize_seconds(d, scores=scores, aligned=aligned)
            for aligned in (False, True)
        }

    n_rows = sum(table.n_rows for table in tables.values())
    spent = {name: line.seconds(n_rows) for name, line in lines.items()}
    start = {name: lines[name].start for name in ("fit", "apply")}
    # The files of the inputs are looked at before the first read, and after the fit and the apply.
    look = _timed(_look, tables) / 2
    for name, n_looks in {"fit": 2, "fit_reference": 2, "apply": 1}.items():
        spent[name] += n_looks * look
    spent["fit"] += factor[False] + start["fit"]
    spent["fit_reference"] += factor[True] + start["fit"]
    spent["apply"] += start["apply"]
    spent |= {"stabilize": spent["fit"] + spent["apply"]}
    spent |= {"stabilize_reference": spent["fit_reference"] + spent["apply"]}
    return {
        "seconds": spent,
        "start_seconds": start,
        "factorize_seconds": {"first": factor[False], "reference": factor[True]},
        "peak_bytes": projected_peaks(tables, threads=threads, base=base),
        "sampled_rows": {
            key: {name: line.sampled[key] for name, line in lines.items()} for key in tables
        },
    }


def projected_peaks(tables: Mapping[str, Table], *, threads: int, base: int) -> dict[str, int]:
    """Bytes of the whole process, which holds ``base`` before, while it fits, applies and
    stabilizes this run: alone, and onto a reference.
    """
    scores, first = len(tables) == 2, next(iter(tables))
    d = tables[first].d
    writes = [
        write_load(one, *plan(one), width=d, itemsize=max(4, one.dtype.itemsize))
        for one in tables.values()
    ]
    # The matrices of the transform are there while it is applied.
    apply = projected_peak(writes, threads=threads, base=base) + 8 * len(tables) * d**2
    peaks = {"apply": apply}
    for suffix, width in (("", 0), ("_reference", d)):
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
        fit = projected_peak(reads, threads=threads, base=base, small=small)
        peaks |= {f"fit{suffix}": fit, f"stabilize{suffix}": max(fit, apply)}
    return peaks


def factorize_seconds(d: int, *, scores: bool, aligned: bool) -> float:
    """Seconds of the d x d work of a fit, ``aligned``: onto a reference, from random moments of at
    most 1024 components.
    """
    m = min(d, _MEASURED_COMPONENTS)
    # What takes seconds is done once.
    repeats = _REPEATS if m <= _REPEATED_COMPONENTS else 1
    options = _fit_options(scores=scores)
    reference = Reference(None, None, {}) if aligned else None
    few, tables = (_random_moments(n, scores=scores, aligned=aligned) for n in (_FEW_COMPONENTS, m))
    fit_moments(few, reference, options)
    taken = statistics.median(
        _timed(fit_moments, tables, reference, options) for _ in range(repeats)
    )
    return taken * (d / m) ** 3


def _random_moments(m: int, *, scores: bool, aligned: bool) -> dict[str, TableMoments]:
    """Of tables of ``m`` random components."""
    rng = np.random.default_rng(0)
    x, noise, w = (rng.standard_normal((2 * m, m)) for _ in range(3))
    n = len(x)
    joint = np.hstack([x, x + 0.1 * noise])
    pairs = Pairs(n, float(n), float(n), m, joint.T @ joint) if aligned else None
    items = Moments(n, m, rest=None if aligned else x.T @ x, pairs=pairs)
    shared = Shared(n, n, m, 0, {}) if aligned else None
    sums = {"items": TableMoments(items, "float32", "a sample", shared=shared)}
    if scores:
        users = Moments(n, m, rest=w.T @ w)
        sums["users"] = TableMoments(users, "float32", "a sample")
    return sums


def _fit_options(*, scores: bool, align_on: AlignOn = "items") -> FitOptions:
    """A fit's defaults."""
    return FitOptions(
        keep="scores" if scores else "geometry",
        align_on=align_on,
        method="auto",
        rank=None,
        width=None,
        balance="rows",
        center=False,
        unit_rows=False,
        rotation_only=False,
        min_matched=1,
    )


def _line(job: Job, tables: Tables, threads: int, seconds: float) -> Line:
    """Time the job on whole tasks of the tables' first rows, ever more of them."""
    row_bytes = max(table.d * table.dtype.itemsize for table in tables.values())
    heads = _first_rows(tables, threads)
    first, taken = (_tried(job, heads, tables, threads) for _ in range(2))
    start, before, earlier, rows = max(0.0, first - taken), 0, 0.0, _n_rows(heads)
    while taken < seconds and heads != tables and rows * row_bytes < _MOST_SAMPLE_BYTES:
        before, earlier = rows, taken
        heads = _heads(tables, _GROWTH * rows / _n_rows(tables))
        _tried(job, heads, tables, threads)  # its files come into memory
        rows, taken = _n_rows(heads), _tried(job, heads, tables, threads)

    sampled = {key: head.n_rows for key, head in heads.items()}
    if heads == tables or not before:
        return Line(start, 0.0, taken / rows, sampled)
    per_row = max(0.0, taken - earlier) / (rows - before)
    return Line(start, max(0.0, taken - per_row * rows), per_row, sampled)


def _first_rows(tables: Tables, threads: int) -> Tables:
    """Of the first trial: a task for every thread, of whole tasks unless they are large or of very
    many chunks.
    """
    table = max(tables.values(), key=lambda one: one.n_rows)
    ranges, grid = plan(table)
    unit = math.lcm(table.chunk_rows, grid.rows) if grid.anchored else table.chunk_rows
    few = max(threads, _FIRST_CHUNKS * table.chunk_rows // unit) * unit
    rows = min(ranges.rows * threads, few)
    if rows * table.d * table.dtype.itemsize > _MOST_SAMPLE_BYTES:
        rows = ranges.rows
    return _heads(tables, rows / table.n_rows)


def _heads(tables: Tables, share: float) -> Tables:
    """The same share of every table's rows, the first ones, of whole chunks."""
    heads = {}
    for key, table in tables.items():
        rows = -(-math.ceil(share * table.n_rows) // table.chunk_rows) * table.chunk_rows
        whole = rows >= table.n_rows
        heads[key] = table if whole else replace(table, source=Head(table.source, rows))
    return heads


def _tried(job: Job, heads: Tables, tables: Tables, threads: int) -> float:
    """Seconds of the job on these first rows, in tasks small enough to give one to every thread
    where all of the rows do.
    """
    settings = {}
    if heads != tables:
        task_bytes = [
            min(plan(tables[key])[0].rows, max(1, head.n_rows // threads))
            * (head.d * head.dtype.itemsize)
            for key, head in heads.items()
        ]
        settings = {"embstab.task-bytes": max(task_bytes)}
    with dask.config.set(settings), unwatched(*heads.values()):
        return _timed(job, heads)


def _n_rows(tables: Tables) -> int:
    return sum(table.n_rows for table in tables.values())


def _read(heads: Tables, *, onto_itself: bool) -> None:
    """The reads of a fit; ``onto_itself``: the first table is its own reference, row by row."""
    first = next(iter(heads))
    decides: AlignOn = "users" if first == "users" else "items"
    options = _fit_options(scores=len(heads) == 2, align_on=decides)
    with join_options() as join:
        reference = None
        if onto_itself:
            heads = {**heads, first: replace(heads[first], stored_ids=None)}
            reference = Reference(heads.get("items"), heads.get("users"), {})
        pairings = paired_tables(heads, reference, options, join, whole=False)
        aligned = aligned_rows(pairings, reference, options, join)
        read_moments(heads, aligned, options)


def _look(tables: Tables) -> None:
    """At the files of all chunks, twice."""
    with unchanged(*tables.values()):
        pass


def _apply(heads: Tables, out: Path) -> Callable[[], None]:
    """The tables times the identity, written; removing them is another matter."""
    key = next(iter(heads))
    square = np.eye(heads[key].d)
    run = Run(None, heads.get("items"), heads.get("users"), {}, zarr.group({}))
    known = {"product": {"items": "float32", "users": "float32"}}
    transform_run(
        Transform(
            square, square if "users" in heads else None, np.ones(len(square)), diagnostics=known
        ),
        run,
        out,
        name=None,
        dtype=None,
        overwrite=False,
        resume=False,
        inputs=(),
    )
    return partial(shutil.rmtree, out, ignore_errors=True)


def _timed(work: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of a call; what it returns, if it can be called, tidies up after it."""
    began = time.perf_counter()
    tidy = work(*arguments)
    taken = time.perf_counter() - began
    if callable(tidy):
        tidy()
    return taken
