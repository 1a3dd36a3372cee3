"""One streaming read of a table, with its reference rows where there are any, into one small value.

A reduction is data: ``map`` of a panel, ``merge`` of two neighbours, ``finite_check`` of a value
(not finite if any row was not). One task folds it over the panels of its rows and hands on the
complete subtree roots it covers; a tree of tasks joins them, and the pass's result is folded from
what is left. Memory: a few panels and a few small values per thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Literal, NoReturn, TypeVar

import numpy as np

from dask_embstab.core.moments import Panel
from dask_embstab.core.tree import Forest, Node, Roots, fold, merge_forests
from dask_embstab.core.zero_rows import ZeroRows, zero_rows
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.passes.engine.blas import ensure_one_thread, product_family
from dask_embstab.passes.engine.graph import Graph, Pass
from dask_embstab.passes.engine.memory import read_load
from dask_embstab.passes.engine.paired import (
    Buffer,
    PairedRows,
    PairReader,
    Partners,
    Weights,
    reference_of,
    require_finite,
)
from dask_embstab.passes.engine.plan import Grid, RowRange, common_rows, plan
from dask_embstab.tables.column import Column, ColumnBlock
from dask_embstab.tables.read.direct_source import expect, in_order
from dask_embstab.tables.read.source import Digests, Openable, Reader
from dask_embstab.tables.table import Table

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Reduction(Generic[V]):
    """What is done with a panel, with two neighbouring results, and how a result shows a row that
    is not finite.

    For the projection of memory: a result has ``n_squares`` (d, d) matrices, and a joint one of (d
    + D, d + D) where ``joint`` and reference rows of D components stand in the panel; ``n_copies``
    of a panel are made on the way. ``takes_single``: only products of rows are taken, so that
    float32 need not be copied into float64 where the kernel converts it.
    """

    map: Callable[[Panel], V]
    merge: Callable[[V, V], V]
    finite_check: Callable[[V], float]
    n_squares: int = 1
    joint: bool = True
    n_copies: int = 0
    takes_single: bool = False


@dataclass(frozen=True, slots=True)
class Partial(Generic[V]):
    """What one task (or one join of tasks) hands on."""

    forest: Forest[V]
    digests: Digests = field(default_factory=dict)
    partner_digests: Digests = field(default_factory=dict)

    def read_digests(self) -> tuple[Digests, Digests]:
        """Of the chunks read of the table and of its reference."""
        return self.digests, self.partner_digests


@dataclass(frozen=True, slots=True)
class Reduced(Generic[V]):
    """The value of a whole table, and the digests of the chunks that were read for it, its own and
    its reference's.
    """

    value: V
    digests: Digests
    partner_digests: Digests


def reduce_table(
    table: Table,
    reduction: Reduction[V],
    *,
    label: str,
    pairs: PairedRows | None = None,
    weights: Weights = None,
) -> Pass[Reduced[V]]:
    """The pass that reduces the whole table, with its reference rows where ``pairs`` are given."""
    width = 0 if pairs is None else pairs.reference.shape[1]
    reference_chunk = None if pairs is None else pairs.chunk_rows()
    chunk_rows = None if reference_chunk is None else common_rows(table, reference_chunk)
    ranges, grid = plan(table, chunk_rows=chunk_rows, reference_width=width)
    graph = Graph(label)
    folded = graph.shared(reduction)
    blocks = in_order([table.source.block(rows.start, rows.stop) for rows in ranges])
    keys = [
        graph.read(
            reduce_block,
            block,
            rows,
            folded,
            grid,
            None if pairs is None else pairs.of(rows),
            weights.block(rows.start, rows.stop) if isinstance(weights, Column) else weights,
            table.where,
        )
        for rows, block in zip(ranges, blocks, strict=True)
    ]
    # The joint matrix holds the Gramian of the matched rows already, where all of them count alike.
    spared = int(
        pairs is not None and weights is None and pairs.n_used == table.n_rows and reduction.joint
    )
    values = max(0, reduction.n_squares - spared), int(pairs is not None and reduction.joint)
    load = read_load(table, ranges, grid, width=width, values=values, copies=reduction.n_copies)
    reads = (table.source, None if pairs is None else pairs.reference)
    made = graph.tree(
        keys,
        _Join(reduction.merge),
        finalize=lambda partial: Reduced(
            fold(partial.forest, reduction.merge), partial.digests, partial.partner_digests
        ),
        load=load,
        reads=reads,
    )
    expect(blocks, partial(graph.starts, keys))
    return made


def reduce_block(
    block: Openable,
    rows: RowRange,
    reduction: Reduction[V],
    grid: Grid,
    partners: Partners | None,
    weights: ColumnBlock | Literal["norm"] | None,
    where: str,
) -> Partial[V]:
    """One task: fold the reduction over the panels of these rows."""
    ensure_one_thread()
    single = reduction.takes_single

    def opened() -> tuple[Reader, PairReader | None]:
        if partners is None:
            return block.open(), None
        return block.open(), PairReader(partners, rows, grid, weights, where, takes_single=single)

    reader, pair_reader = opened()
    panels = _panels(reader, pair_reader, rows, grid, takes_single=single)
    first = rows.start // grid.rows if grid.anchored else 0
    roots = Roots(reduction.merge)
    with np.errstate(
        all="ignore"
    ):  # what is not finite shows in the sums; then it is found and named
        for number, panel in enumerate(panels, first):
            roots.push(Node(0, number, reduction.map(panel)))
        forest = roots.forest()
        if not all(np.isfinite(reduction.finite_check(root.value)) for root in forest):
            _raise_not_finite(_panels(*opened(), rows, grid, takes_single=single), where)

    if not grid.anchored:
        forest = (Node(0, rows.number, fold(forest, reduction.merge)),)
    return Partial(
        forest, reader.digests(), {} if pair_reader is None else pair_reader.reader.digests()
    )


def _panels(
    reader: Reader,
    pair_reader: PairReader | None,
    rows: RowRange,
    grid: Grid,
    *,
    takes_single: bool,
) -> Iterator[Panel]:
    """One panel after another, each in the memory of the one before."""
    family = product_family(is_large=grid.is_large)
    buffer = Buffer(grid.rows, family, takes_single=takes_single)
    for start in range(rows.start, rows.stop, grid.rows):
        stop = min(start + grid.rows, rows.stop)
        stored = reader.take(start, stop)
        if pair_reader is None:
            taken = buffer.multiplied(stored)
            yield Panel(taken, start, family=family, zeros=ZeroRows(len(zero_rows(stored))))
        else:
            yield pair_reader.panel(stored, buffer, start, stop)


@dataclass(frozen=True, slots=True)
class _Join(Generic[V]):
    """Joins the partial results of neighbouring tasks."""

    merge: Callable[[V, V], V]

    def __call__(self, partials: Sequence[Partial[V]]) -> Partial[V]:
        digests: Digests = {}
        partner_digests: Digests = {}
        for part in partials:
            digests.update(part.digests)
            partner_digests.update(part.partner_digests)
        return Partial(
            merge_forests((p.forest for p in partials), self.merge), digests, partner_digests
        )


def underflow_of(where: str) -> InputError:
    """What is said of a table too small to be measured."""
    return InputError(
        f"the values of {where} are so small that their squares underflow float64; rescale the"
        " table"
    )


def _raise_not_finite(panels: Iterator[Panel], where: str) -> NoReturn:
    """Name the first rows that are not finite, in a second read of them."""
    for panel in panels:
        require_finite(panel.rows, panel.start, where)
        if panel.paired is not None:
            matched = (
                np.arange(len(panel.rows))
                if panel.matched is None
                else np.flatnonzero(panel.matched)
            )
            require_finite(panel.paired[1], panel.start, reference_of(where), matched)
    raise NotFiniteError(
        f"the values of {where} are so large that their squares overflow float64; rescale the table"
    )
