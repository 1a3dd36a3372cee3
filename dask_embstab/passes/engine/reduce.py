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
from typing import Any, Generic, Literal, NoReturn, TypeVar

import numpy as np

from dask_embstab.core.moments import Panel, sides
from dask_embstab.core.products import are_faster_apart
from dask_embstab.core.tree import Forest, Node, Roots, fold, merge_forests
from dask_embstab.core.types import Matrix, RowNumbers, Rows, Vector
from dask_embstab.core.zero_rows import NO_ZEROS, ZeroRows, zero_rows
from dask_embstab.errors import NotFiniteError, first_few
from dask_embstab.passes.engine.blas import ensure_one_thread, works_in_place
from dask_embstab.passes.engine.graph import Graph, Pass
from dask_embstab.passes.engine.memory import read_load
from dask_embstab.passes.engine.plan import Grid, RowRange, common_rows, plan
from dask_embstab.passes.join.reference_rows import (
    Found,
    Mask,
    PartnerReader,
    Partners,
    ReferenceRows,
)
from dask_embstab.tables.read.column import Column, ColumnBlock
from dask_embstab.tables.read.source import Digests, Openable, Reader
from dask_embstab.tables.table import Table

V = TypeVar("V")
Weights = Column | Literal["norm"] | None
"""One number per row, or the length of the row's reference row."""


@dataclass(frozen=True, slots=True)
class Reduction(Generic[V]):
    """What is done with a panel, with two neighbouring results, and how a result shows a row that
    is not finite.

    For the projection of memory: a result has ``n_squares`` (d, d) matrices, and a joint one of (d
    + D, d + D) where ``joint`` and reference rows of D components stand in the panel; ``n_copies``
    of a panel are made on the way.
    """

    map: Callable[[Panel], V]
    merge: Callable[[V, V], V]
    finite_check: Callable[[V], float]
    n_squares: int = 1
    joint: bool = True
    n_copies: int = 0


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
    pairs: ReferenceRows | None = None,
    weights: Weights = None,
) -> Pass[Reduced[V]]:
    """The pass that reduces the whole table, with its reference rows where ``pairs`` are given."""
    width = 0 if pairs is None else pairs.pairing.reference.shape[1]
    in_step = None if pairs is None else pairs.chunk_rows()
    chunk_rows = None if in_step is None else common_rows(table, in_step)
    ranges, grid = plan(table, chunk_rows=chunk_rows, beside=width)
    graph = Graph(label)
    folded = graph.shared(reduction)
    keys = [
        graph.read(
            reduce_block,
            table.source.block(rows.start, rows.stop),
            rows,
            folded,
            grid,
            None if pairs is None else pairs.of(rows),
            weights.block(rows.start, rows.stop) if isinstance(weights, Column) else weights,
            table.where,
        )
        for rows in ranges
    ]
    # The joint matrix holds the Gramian of the matched rows already, where all of them count alike.
    spared = int(
        pairs is not None
        and weights is None
        and pairs.pairing.n_used == table.n_rows
        and reduction.joint
    )
    values = max(0, reduction.n_squares - spared), int(pairs is not None and reduction.joint)
    load = read_load(table, ranges, grid, width=width, values=values, copies=reduction.n_copies)
    finalize = partial(_reduced, merge=reduction.merge)
    reads = (table.source, None if pairs is None else pairs.pairing.reference)
    return graph.tree(keys, _Join(reduction.merge), finalize=finalize, load=load, reads=reads)


def _reduced(found: Partial[V], *, merge: Callable[[V, V], V]) -> Reduced[V]:
    return Reduced(fold(found.forest, merge), found.digests, found.partner_digests)


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
    reader = block.open()
    beside = None if partners is None else _PairReader(partners, rows, grid.rows, weights, where)
    panels = _panels(reader, beside, rows, grid)
    first = rows.start // grid.rows if grid.anchored else 0
    roots = Roots(reduction.merge)
    with np.errstate(
        all="ignore"
    ):  # what is not finite shows in the sums; then it is found and named
        for number, panel in enumerate(panels, first):
            roots.push(Node(0, number, reduction.map(panel)))
        forest = roots.forest()
        if not all(np.isfinite(reduction.finite_check(root.value)) for root in forest):
            again = (
                None if partners is None else _PairReader(partners, rows, grid.rows, weights, where)
            )
            _raise_not_finite(_panels(block.open(), again, rows, grid), where)
    if not grid.anchored:
        forest = (Node(0, rows.number, fold(forest, reduction.merge)),)
    return Partial(forest, reader.digests(), {} if beside is None else beside.digests())


def _panels(
    reader: Reader, beside: _PairReader | None, rows: RowRange, grid: Grid
) -> Iterator[Panel]:
    """One panel after another, each in the memory of the one before."""
    buffer, in_place = Buffer(grid.rows), works_in_place()
    for start in grid.cuts(rows):
        stop = min(start + grid.rows, rows.stop)
        stored = reader.take(start, stop)
        if beside is None:
            upcast = buffer.upcast(stored)
            yield Panel(upcast, start, in_place=in_place, zeros=ZeroRows(len(zero_rows(stored))))
        else:
            yield beside.panel(stored, buffer, start, stop)


class Buffer:
    """Memory for panels in float64, taken when it is first needed."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._memory: Matrix = np.empty((0, 0))

    def upcast(self, stored: Rows) -> Matrix:
        """The rows in float64: as they are, or copied."""
        if stored.dtype == np.float64 and stored.dtype.isnative:
            return stored
        rows = self.take(len(stored), stored.shape[1])
        np.copyto(rows, stored)
        return rows

    def take(self, n: int, d: int) -> Matrix:
        """``n`` rows of ``d`` components that a later call hands out anew."""
        if self._memory.shape[1] != d:
            self._memory = np.empty((self._rows, d))
        return self._memory[:n]


class _PairReader:
    """Puts the reference rows of one panel after another beside it, with their weights."""

    def __init__(
        self,
        partners: Partners,
        rows: RowRange,
        grid_rows: int,
        weights: ColumnBlock | Literal["norm"] | None,
        where: str,
    ) -> None:
        self._reader: PartnerReader = partners.open(rows.start, rows.stop)
        self._origin = rows.start
        self._weights = weights.read() if isinstance(weights, ColumnBlock) else None
        self._norms = (
            weights.column.times_norm if isinstance(weights, ColumnBlock) else weights == "norm"
        )
        self._buffers = Buffer(grid_rows), Buffer(grid_rows)
        self._in_place = works_in_place()
        self._where = where

    def panel(self, stored: Rows, buffer: Buffer, start: int, stop: int) -> Panel:
        """The panel of rows ``start`` to ``stop`` with its partners beside them."""
        found = self._reader.take(start, stop)
        pairs = None if found is None else self._pairs(stored, found)
        # Rows of zeros are looked for behind the copies, which leave what is looked at in the
        # cache.
        nonzero, zeros = self._nonzero(found, stored, start)
        if nonzero is not found:
            pairs = None if nonzero is None else self._pairs(stored, nonzero)
        if nonzero is None or pairs is None:
            return Panel(buffer.upcast(stored), start, in_place=self._in_place, zeros=zeros)
        _, matched = nonzero
        x, y = sides(pairs, stored.shape[1])
        rows = x if matched is None else buffer.upcast(stored)
        weights = self._weights_of(start, stop, matched, y)
        return Panel(rows, start, pairs, matched, weights, self._in_place, zeros)

    def _nonzero(self, found: Found, stored: Rows, start: int) -> tuple[Found, ZeroRows]:
        """The partners without the pairs of which either row is zero, and the counts of both."""
        zero = zero_rows(stored)
        counts = ZeroRows(len(zero)) if len(zero) else NO_ZEROS
        if found is None:
            return None, counts
        partners, matched = found
        zero_partners = zero_rows(partners)
        if not len(zero) and not len(zero_partners):
            return found, counts

        is_zero = np.zeros(len(stored), bool)
        is_zero[zero] = True
        numbers = np.arange(len(stored)) if matched is None else np.flatnonzero(matched)
        left_out = is_zero[numbers]
        left_out[zero_partners] = True
        if not left_out.any():
            return found, counts

        # What is left out is in no sum that would show a value that is not finite.
        rows, theirs = stored[numbers[left_out]], partners[left_out]
        require_finite(rows, start, self._where, numbers[left_out])
        require_finite(theirs, start, reference_of(self._where), numbers[left_out])
        energies = (float(np.square(side, dtype=np.float64).sum()) for side in (rows, theirs))
        counts = ZeroRows(len(zero), len(rows), len(zero_partners), *energies)
        if left_out.all():
            return None, counts
        kept = np.zeros(len(stored), bool)
        kept[numbers[~left_out]] = True
        return (partners[~left_out], kept), counts

    def _pairs(self, stored: Rows, found: tuple[Rows, Mask | None]) -> tuple[Matrix, ...]:
        """Rows and partners in float64: one array or two, whichever their products are computed
        faster from.
        """
        partners, matched = found
        rows = stored if matched is None else stored[matched]
        d, D = rows.shape[1], partners.shape[1]
        one, other = self._buffers
        if are_faster_apart(d, D, in_place=self._in_place):
            return one.upcast(rows), other.upcast(partners)
        joint = one.take(len(rows), d + D)
        np.copyto(joint[:, :d], rows)
        np.copyto(joint[:, d:], partners)
        return (joint,)

    def digests(self) -> Digests:
        """Of the reference chunks that were read whole."""
        return self._reader.digests()

    def _weights_of(self, start: int, stop: int, matched: Any, partners: Matrix) -> Vector | None:
        norms = np.asarray(np.linalg.norm(partners, axis=1)) if self._norms else None
        if self._weights is None:
            return norms
        weights = self._weights[start - self._origin : stop - self._origin]
        weights = weights if matched is None else weights[matched]
        return weights if norms is None else weights * norms


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


def reference_of(where: str) -> str:
    """The reference rows of a table, as errors call them."""
    return f"the reference of {where}, in the rows that belong to its rows,"


def require_finite(rows: Rows, start: int, where: str, numbers: RowNumbers | None = None) -> None:
    """Raise, naming the first few rows, unless every value is finite; ``rows[i]`` is row ``start +
    numbers[i]``.
    """
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not len(bad):
        return
    named = first_few(bad if numbers is None else numbers[bad], start)
    raise NotFiniteError(
        f"vectors must be finite; {where} has NaN or infinite values in row {named}; repair or drop"
        " these rows"
    )
