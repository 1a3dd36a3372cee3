"""One more run into a running mean: one read of the run, one of the mean so far, one write; ids are
joined out of core.

The new table holds the run's rows in the run's order, then the rows of the old one that the run
does not have. So the next run, mostly with the same ids in the same order, finds its partners row
by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import zarr

from dask_embstab.core.moments import unit
from dask_embstab.core.running_mean import update_mean
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.passes.engine.blas import ensure_one_thread
from dask_embstab.passes.engine.graph import Graph, Pass, run_all
from dask_embstab.passes.engine.memory import read_load
from dask_embstab.passes.engine.paired import Partners
from dask_embstab.passes.engine.plan import RowRange, plan_rows
from dask_embstab.passes.engine.write import (
    LinearMap,
    Written,
    join_written,
    require_whole,
    write_table,
)
from dask_embstab.passes.join.options import JoinOptions, KeepDuplicates, join_options
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.reference_rows import plan_reference_read
from dask_embstab.tables.ids.ids import ID_RANGE, IdBlock
from dask_embstab.tables.ids.row_index import ArrayIndex, FileIndex, RowIndex, ShiftedIndex
from dask_embstab.tables.ids.scratch_files import below
from dask_embstab.tables.ids.union import UnionIds
from dask_embstab.tables.read.source import Openable, Source, default_chunk_rows
from dask_embstab.tables.read.views import MappedSource
from dask_embstab.tables.store_errors import reading
from dask_embstab.tables.table import Table
from dask_embstab.tables.write.run_writer import RunWriter
from dask_embstab.tables.write.sink import Sink


@dataclass(frozen=True, slots=True)
class Mean:
    """A running mean: rows with their weight as one more component, the last run's ``live`` first.

    ``weights`` is the same column alone, where it is stored (else every row was seen once).
    """

    table: Table
    live: int | None
    weights: zarr.Array[Any] | None = None


def unit_rows(rows: Rows) -> Rows:
    """Rows scaled to length one, in the dtype of a mean."""
    return unit(rows.astype(np.float64)).astype(mean_dtype(rows.dtype))


def seen_once(rows: Rows) -> Rows:
    """The mean of one run: its unit rows with weight 1, and 0 for rows of zeros."""
    return np.hstack([unit_rows(rows), rows.any(axis=1, keepdims=True)])


def never_seen(rows: Rows) -> Rows:
    """A mean of no run: zeros, with weight 0."""
    return np.zeros((len(rows), rows.shape[1] + 1), mean_dtype(rows.dtype))


def mean_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32, and float64 where the runs are.

    float16 runs too: after n runs a new one moves the mean by 1/n of its distance, below what
    float16 resolves from a few hundred on. Beyond float32 nothing is gained: a rotation from n rows
    averages their rounding.
    """
    return np.dtype(np.float64 if dtype.itemsize == np.dtype(np.float64).itemsize else np.float32)


def view_of(table: Table, function: Any, width: int) -> Table:
    """The table through ``unit_rows`` or ``seen_once``, nothing stored."""
    source = MappedSource(table.source, function, width, mean_dtype(table.dtype))
    return Table(source, table.stored_ids, table.where, table.key)


@dataclass(frozen=True, slots=True)
class Aging:
    """``decay`` of all weights with every run; a row that is gone and weighs less than ``least``
    leaves.
    """

    decay: float
    least: float = 0.0


def advance(
    writer: RunWriter,
    tables: dict[str, tuple[Table, Mean]],
    aging: Aging,
    *,
    duplicates: KeepDuplicates = "error",
) -> None:
    """Write the means anew, once these tables of a run have been seen."""
    with join_options(duplicates=duplicates) as join:
        run_all(
            {
                key: _pass(writer, key, table, old, aging, join)
                for key, (table, old) in tables.items()
            }
        )


def rewrite_means(
    writer: RunWriter,
    tables: Mapping[str, Table],
    weights: Mapping[str, Any],
    M: Matrix | None = None,
) -> None:
    """Write stored means anew, every row times ``M`` (None: as it is), with their ids and
    ``weights``, which slice.
    """
    passes = {}
    for key, table in tables.items():
        ids = table.stored_ids
        sink = writer.table(
            key,
            shape=(table.n_rows, table.d if M is None else M.shape[1]),
            dtype=table.dtype,
            chunk_rows=table.chunk_rows,
            ids=None if ids is None else ids.kind,
            weights=True,
        )
        for start in range(0, table.n_rows, sink.chunk_rows):
            stop = min(start + sink.chunk_rows, table.n_rows)
            sink.write_weights(start, _stored(weights[key], start, stop, table))
        passes[key] = write_table(table, LinearMap(M), sink, label="consensus")

    run_all(passes)


def _stored(weights: Any, start: int, stop: int, table: Table) -> Vector:
    with reading(f"the weights of {table.where}"):
        return np.asarray(weights[start:stop])


def _pass(
    writer: RunWriter, key: str, table: Table, old: Mean, aging: Aging, join: JoinOptions
) -> Pass[Written]:
    # A run whose ids were all renamed shares none of them: every row is new, all others are gone.
    pairing = pair(table, old.table, join, live=old.live, part=True)
    reference_rows = plan_reference_read(pairing, table, join, label="consensus")
    with_ids = table.stored_ids is not None or old.table.stored_ids is not None
    unmatched, n_gone = _unmatched_reference(pairing, old, aging, join, in_place=not with_ids)
    # Without ids row i has been row i all along.
    ids = UnionIds(table.row_ids, old.table.row_ids, unmatched, n_gone) if with_ids else None
    n_rows, dtype = table.n_rows + n_gone, mean_dtype(table.dtype)
    kind = None if ids is None else ids.kind
    # A run of one chunk is cut to its own length: two chunks of that length would be half padding.
    one = table.n_rows <= table.chunk_rows
    chunk_rows = (
        max(table.chunk_rows, default_chunk_rows(table.d, dtype.itemsize))
        if one
        else table.chunk_rows
    )
    sink = writer.table(
        key, shape=(n_rows, table.d), dtype=dtype, chunk_rows=chunk_rows, ids=kind, weights=True
    )
    ranges, grid = plan_rows(n_rows, table.d * dtype.itemsize, table.d, sink.chunk_rows)
    graph = Graph("consensus")
    work = graph.shared(_Work(sink, pairing.reference, aging.decay, table.n_rows, grid.rows))
    keys = []
    for rows in ranges:
        mine = RowRange(rows.number, rows.start, min(rows.stop, table.n_rows))
        seen = mine.start < mine.stop
        block, partners = (
            (table.source.block(mine.start, mine.stop), reference_rows.of(mine))
            if seen
            else (None, None)
        )
        first, last = (max(0, row - table.n_rows) for row in (rows.start, rows.stop))
        of_rows = None if ids is None else IdBlock(ids, rows.start, rows.stop)
        keys.append(
            graph.read(
                _advance_block, work, rows, block, partners, unmatched.part(first, last), of_rows
            )
        )
    finalize = partial(require_whole, n_rows=n_rows)
    load = read_load(table, ranges, grid, width=old.table.d, copies=2)
    return graph.tree(keys, join_written, finalize=finalize, load=load)


def _unmatched_reference(
    pairing: Pairing, old: Mean, aging: Aging, join: JoinOptions, *, in_place: bool
) -> tuple[RowIndex, int]:
    """The old table's rows that the run does not have and that stay: the k-th at place k; how many.

    Rows that must stay ``in_place`` (they are known by their number) leave from the end alone.
    """
    n, n_bytes = pairing.reference.shape[0], 8 * pairing.unmatched_reference
    fading = aging.least > 0 and not (old.weights is None and aging.decay >= aging.least)
    if pairing.inverse is None and not fading:
        return ShiftedIndex(pairing.matched), pairing.unmatched_reference

    index = (
        ArrayIndex(np.empty(pairing.unmatched_reference, np.int64))
        if n_bytes <= join.memory // 4
        else FileIndex(below(join.scratch.folder(needs=n_bytes), "gone"))
    )
    at, last = 0, pairing.matched
    for start in range(0, n, ID_RANGE):
        stop = min(start + ID_RANGE, n)
        if pairing.inverse is None:
            rows = np.arange(max(start, pairing.matched), stop)
        else:
            rows = start + np.flatnonzero(pairing.inverse.take(start, stop) < 0)
        if fading and len(rows):
            ones = np.ones(stop - start, mean_dtype(pairing.reference.dtype))
            given = old.weights
            weights = ones if given is None else _stored(given, start, stop, old.table)
            rows = rows[weights[rows - start] * aging.decay >= aging.least]
        index.put(at, rows)
        at += len(rows)
        last = int(rows[-1]) + 1 if len(rows) else last

    if in_place:
        return ShiftedIndex(pairing.matched), last - pairing.matched
    return index, at


@dataclass(frozen=True, slots=True)
class _Work:
    """What all tasks of one table share: the run has ``n_seen`` rows, a panel ``panel_rows``."""

    sink: Sink
    old: Source
    decay: float
    n_seen: int
    panel_rows: int


def _advance_block(
    work: _Work,
    rows: RowRange,
    block: Openable | None,
    partners: Partners | None,
    unmatched: RowIndex,
    ids: IdBlock | None,
) -> Written:
    """One task: whole chunks of the new table, first those rows in them that the run has, then
    those that are gone.
    """
    ensure_one_thread()
    sink = work.sink
    if ids is not None:
        sink.write_ids(rows.start, rows.stop, ids)
    origin = dict.fromkeys(
        sink.chunks(rows.start, rows.stop), None if sink.journal is None else sink.journal.origin
    )
    if (kept := sink.recovered(rows.start, rows.stop)) is not None and kept.made_of == origin:
        return Written(rows.start, rows.stop)

    vectors, at = sink.writer(rows.start, rows.stop), 0
    weights = np.empty(rows.stop - rows.start)
    for mean, weight in chain(_seen(work, rows, block, partners), _aged(work, rows, unmatched)):
        vectors.put(mean.astype(vectors.dtype))
        weights[at : at + len(weight)] = weight
        at += len(weight)

    vectors.finish()
    written = sink.write_weights(rows.start, weights.astype(vectors.dtype))
    sink.record(origin, *vectors.checksums, written)
    return Written(rows.start, rows.stop)


def _seen(
    work: _Work, rows: RowRange, block: Openable | None, partners: Partners | None
) -> Iterator[tuple[Matrix, Vector]]:
    """Panels of the run's rows: their means and weights from now on."""
    if block is None:
        return

    end = min(rows.stop, work.n_seen)
    reader, partner_reader = (
        block.open(),
        None if partners is None else partners.open(rows.start, end),
    )
    for start in range(rows.start, end, work.panel_rows):
        stop = min(start + work.panel_rows, end)
        seen = reader.take(start, stop).astype(np.float64)
        mean, weight = np.zeros_like(seen), np.zeros(len(seen))
        if (
            partner_reader is not None
            and (partner_rows := partner_reader.take(start, stop)) is not None
        ):
            known, matched = partner_rows
            at: Any = slice(None) if matched is None else matched
            mean[at, : known.shape[1] - 1], weight[at] = known[:, :-1], known[:, -1]
        yield update_mean(seen, mean, weight, work.decay)


def _aged(work: _Work, rows: RowRange, unmatched: RowIndex) -> Iterator[tuple[Matrix, Vector]]:
    """Panels of the rows that are gone: the means of before, bit for bit, with weights that have
    aged by a run.
    """
    first, last = (max(0, row - work.n_seen) for row in (rows.start, rows.stop))
    if first == last:
        return
    reader, d = work.old.gather(unmatched.take(first, last)).open(), work.sink.shape[1]
    for start in range(0, last - first, work.panel_rows):
        known = reader.take(start, min(start + work.panel_rows, last - first))
        mean = np.zeros((len(known), d), known.dtype)
        mean[:, : known.shape[1] - 1] = known[:, :-1]
        yield mean, known[:, -1] * work.decay
