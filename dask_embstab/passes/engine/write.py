"""One read and one write: transform a table's rows (or copy them), whole chunks at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from dask_embstab.core.products import multiply
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.errors import DamageError, NotFiniteError
from dask_embstab.passes.engine.blas import ensure_one_thread, product_family
from dask_embstab.passes.engine.cluster import threads_in_all
from dask_embstab.passes.engine.graph import Graph, Pass
from dask_embstab.passes.engine.memory import write_load
from dask_embstab.passes.engine.paired import require_finite
from dask_embstab.passes.engine.plan import Grid, RowRange, RowRanges, plan
from dask_embstab.repairs import option
from dask_embstab.tables.ids.ids import IdBlock
from dask_embstab.tables.inputs import ALL_IDS, ID_DIGESTS, needs_digests
from dask_embstab.tables.read.direct_source import expect, in_order, stored_digests
from dask_embstab.tables.read.source import Digests, Openable
from dask_embstab.tables.table import Table
from dask_embstab.tables.write.sink import Sink

_OBJECTS = 4
"""That one task writes at most, where all threads have two tasks all the same."""
Product = Literal["float32", "float64"]


@dataclass(frozen=True, slots=True)
class LinearMap:
    """The multiply of one table, y = x @ M + offset, in ``product`` precision; M None copies the
    rows as they are.

    ``in_range`` are the digests of chunks whose rows are known to be finite and to stay in range:
    they were read before.
    """

    M: Matrix | None = None
    offset: Vector | None = None
    product: Product = "float64"
    in_range: Digests = field(default_factory=dict)

    def needs_no_check(self, block: Openable) -> bool:
        """Whether every row of these chunks is known to stay in range; their files tell which they
        are.
        """
        if self.M is None or not self.in_range:
            return self.M is None
        digests = stored_digests(block)
        return bool(digests) and digests.items() <= self.in_range.items()


@dataclass(frozen=True, slots=True)
class Written:
    """Rows ``start`` to ``stop`` are in the output; digests of the chunks that were read for it and
    of those written.

    ``ids`` is the digest of the rows' ids, where their place does not tell whether they change.
    """

    start: int
    stop: int
    read: Digests = field(default_factory=dict)
    written: Digests = field(default_factory=dict)
    ids: int = 0

    def read_digests(self) -> tuple[Digests, Digests]:
        """Of the chunks read of the table, and of its ids (see `digest_of_ids`)."""
        return self.read, {ALL_IDS: self.ids % ID_DIGESTS}


def write_table(table: Table, linear_map: LinearMap, sink: Sink, *, label: str) -> Pass[Written]:
    """The pass that writes the whole table."""
    ranges, grid = plan(table, chunk_rows=sink.chunk_rows)
    if sink.sending_bytes and grid.anchored:  # an object's end is waited for at a task's end alone
        together = min(_OBJECTS, len(ranges) // (2 * threads_in_all()))
        ranges = RowRanges(ranges.n_rows, ranges.rows * max(1, together))
    graph = Graph(label)
    shared_map, where = graph.shared(linear_map), graph.shared(sink)
    blocks = in_order([table.source.block(rows.start, rows.stop) for rows in ranges])
    keys = [
        graph.read(
            write_block,
            block,
            rows,
            grid,
            shared_map,
            where,
            None if table.stored_ids is None else table.stored_ids.block(rows.start, rows.stop),
            table.where,
            table.chunk_rows,
        )
        for rows, block in zip(ranges, blocks, strict=True)
    ]
    itemsize = np.dtype(linear_map.product).itemsize
    width = table.d if linear_map.M is None else linear_map.M.shape[1]
    coded = sink.code is not None
    load = write_load(
        table,
        ranges,
        grid,
        width=width,
        itemsize=itemsize,
        coded=coded,
        sending=sink.sending_bytes,
    )
    finalize = partial(require_whole, n_rows=table.n_rows)
    reads = (table.source, table.stored_ids if needs_digests(table.stored_ids) else None)
    made = graph.tree(keys, join_written, finalize=finalize, load=load, reads=reads)
    expect(blocks, partial(graph.starts, keys))
    return made


def write_block(
    block: Openable,
    rows: RowRange,
    grid: Grid,
    linear_map: LinearMap,
    sink: Sink,
    ids: IdBlock | None,
    where: str,
    input_rows: int,
) -> Written:
    """One task: these rows read, multiplied panel by panel, and written as whole chunks; then their
    ids.

    Chunks of the input hold ``input_rows`` rows.
    """
    ensure_one_thread()
    ids_digest = 0 if ids is None else sink.write_ids(rows.start, rows.stop, ids)
    copies = linear_map.M is None
    if (kept := _recovered(block, rows, grid, sink, input_rows, copies=copies)) is not None:
        return replace(kept, ids=ids_digest)
    reader = block.open()
    writer = sink.writer(rows.start, rows.stop)
    multiply = _Multiply(linear_map, grid.rows)
    largest = float(np.finfo(writer.dtype).max)
    # What is encoded was not looked at by a fit, and a code holds no infinity.
    unchecked = sink.code is None and linear_map.needs_no_check(block)
    for start in range(rows.start, rows.stop, grid.rows):
        stored = reader.take(start, min(start + grid.rows, rows.stop))
        with np.errstate(all="ignore"):  # what is not finite is found below, and named
            transformed = multiply(stored)
            is_same = unchecked and (not copies or stored.dtype.itemsize <= writer.dtype.itemsize)
            in_range = is_same or math.sqrt(np.vdot(transformed, transformed)) <= largest
        if not in_range:
            raise_not_finite(stored, transformed, writer.dtype, start, where)
        writer.put(transformed)
    writer.finish()
    written = writer.checksums
    sink.record(sink.made_of(rows.start, rows.stop, reader.digests(), input_rows), *written)
    return Written(rows.start, rows.stop, reader.digests(), written[0], ids_digest)


def _recovered(
    block: Openable, rows: RowRange, grid: Grid, sink: Sink, input_rows: int, *, copies: bool
) -> Written | None:
    """What an interrupted call left of these rows: whole, and made of the input as it is
    read now. Copies of files that are known by their size and time are not read again.
    """
    kept = sink.recovered(rows.start, rows.stop)
    if kept is None:
        return None
    if copies and getattr(block, "known_by_place", False):
        return Written(rows.start, rows.stop, written=kept.digests)
    reader = block.open()
    for start in range(rows.start, rows.stop, grid.rows):
        reader.take(start, min(start + grid.rows, rows.stop))
    read = reader.digests()
    same = kept.made_of == sink.made_of(rows.start, rows.stop, read, input_rows)
    return Written(rows.start, rows.stop, read, kept.digests) if same else None


class _Multiply:
    """Multiplies panels into one reused buffer; the panel grid is fixed, so the bits do not depend
    on the chunking.
    """

    def __init__(self, linear_map: LinearMap, rows: int) -> None:
        self._M = None if linear_map.M is None else linear_map.M.astype(linear_map.product)
        self._offset = (
            None if linear_map.offset is None else linear_map.offset.astype(linear_map.product)
        )
        self._family = product_family()
        if self._M is not None:
            self._in = np.empty((rows, self._M.shape[0]), self._M.dtype)
            self._out = np.empty((rows, self._M.shape[1]), self._M.dtype)

    def __call__(self, stored: Rows) -> Rows:
        if self._M is None:
            return stored

        rows, transformed = stored, self._out[: len(stored)]
        if stored.dtype != self._M.dtype or not stored.dtype.isnative:
            rows = self._in[: len(stored)]
            np.copyto(rows, stored, casting="same_kind")

        multiply(rows, self._M, transformed, family=self._family)
        if self._offset is not None:
            transformed += self._offset
        return transformed


def join_written(parts: Sequence[Written]) -> Written:
    """What neighbouring tasks wrote: each goes on where the one before ended, so no row is left out
    or written twice.
    """
    read: Digests = {}
    written: Digests = {}
    for before, part in pairwise(parts):
        if before.stop != part.start:
            raise DamageError(
                _not_whole(f"rows {part.start} to {part.stop} follow on row {before.stop}")
            )

    for part in parts:
        read.update(part.read)
        written.update(part.written)

    return Written(parts[0].start, parts[-1].stop, read, written, sum(part.ids for part in parts))


def require_whole(written: Written, *, n_rows: int) -> Written:
    """Raise unless the tasks together wrote all rows of the table."""
    if (written.start, written.stop) != (0, n_rows):
        raise DamageError(
            _not_whole(f"rows {written.start} to {written.stop} of {n_rows} were written")
        )
    return written


def _not_whole(reason: str) -> str:
    return (
        f"every row of a table must be written once; {reason}; nothing was published; call again,"
        " and report this"
    )


def raise_not_finite(
    stored: Rows, transformed: Rows, dtype: np.dtype[Any], start: int, where: str
) -> None:
    """Raise if a row is, or becomes, out of range: the quick test (a sum of squares) also fails
    where none is.
    """
    require_finite(stored, start, where)
    with np.errstate(over="ignore"):
        kept = transformed.astype(dtype)
    if not np.isfinite(kept).all():
        row = start + int(np.flatnonzero(~np.isfinite(kept).all(axis=1))[0])
        raise NotFiniteError(
            f"row {row} of {where} goes beyond the range of {dtype}",
            f"{option(dtype='float32' if dtype.itemsize < 4 else 'float64')} holds more",
        )
