"""Which rows does a task read? Whole chunks, enough of them to be worth a task, cut on the fixed
grid where possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import dask

from dask_embstab.core.tree import micro_block_rows
from dask_embstab.tables.read.limits import require_task_count
from dask_embstab.tables.table import Table

_TASK_BYTES = 16 * 2**20
"""Chunks smaller than this share a task (0.2 ms of scheduling each); ``embstab.task-bytes`` in
Dask's configuration.
"""
_MOST_BYTES = 8 * _TASK_BYTES
_LARGE = 2**32
"""Multiplications of a Gramian, rows times components squared, from which a kernel that takes 0.1 s
to import and to compile is worth it: a tenth of a second of one processor.
"""
FAN_IN = 4
"""Neighbouring tasks whose results are joined at a time."""


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows of one task, and its place among the tasks."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class RowRanges(Sequence[RowRange]):
    """All of them, ``rows`` rows each but for the last: made when they are asked for, however many
    there are.
    """

    n_rows: int
    rows: int

    def __len__(self) -> int:
        """Tasks."""
        return -(-self.n_rows // self.rows)

    @overload
    def __getitem__(self, at: int) -> RowRange: ...
    @overload
    def __getitem__(self, at: slice) -> list[RowRange]: ...
    def __getitem__(self, at: int | slice) -> RowRange | list[RowRange]:
        """One of them, or some."""
        numbers = range(len(self))[at]
        ranges = [
            RowRange(number, start := number * self.rows, min(start + self.rows, self.n_rows))
            for number in ([numbers] if isinstance(numbers, int) else numbers)
        ]
        return ranges[0] if isinstance(numbers, int) else ranges


@dataclass(frozen=True, slots=True)
class Grid:
    """Micro-blocks of ``rows`` rows.

    On an ``anchored`` grid every task starts on a multiple of ``rows``, so results do not depend on
    the chunking; where the chunks do not allow that, every task has a grid of its own and hands on
    one sum. Products of ``is_large`` tables are worth a kernel compiled for them.
    """

    rows: int
    anchored: bool
    is_large: bool = False


def plan(
    table: Table, *, chunk_rows: int | None = None, reference_width: int = 0
) -> tuple[RowRanges, Grid]:
    """Tasks over whole chunks of the table (or of ``chunk_rows``, those of its output), and the
    panels within them.

    ``reference_width``: components of the reference rows that stand in the same panel.
    """
    return plan_rows(
        table.n_rows,
        table.d * table.dtype.itemsize,
        table.d + reference_width,
        chunk_rows or table.chunk_rows,
        getattr(table.source, "task_rows", 1),
    )


def plan_rows(
    n_rows: int, row_bytes: int, d: int, chunk_rows: int, task_rows: int = 1
) -> tuple[RowRanges, Grid]:
    """The same for rows that are no table yet; a task covers ``task_rows`` at least."""
    grid = micro_block_rows(d)
    chunk_bytes = row_bytes * chunk_rows
    least: Any = dask.config.get("embstab.task-bytes", _TASK_BYTES)
    chunks = max(1, -(-int(least) // chunk_bytes), -(-min(task_rows, n_rows) // chunk_rows))

    # As many more as end on the grid, where a task can hold them.
    to_grid = grid // math.gcd(chunk_rows, grid)
    aligned = -(-chunks // to_grid) * to_grid
    most_bytes = max(_MOST_BYTES, chunks * chunk_bytes)
    rows = chunk_rows * (aligned if aligned * chunk_bytes <= most_bytes else chunks)
    ranges = RowRanges(n_rows, rows)
    require_task_count(len(ranges), "a table")
    anchored = rows % grid == 0 or len(ranges) == 1
    return ranges, Grid(grid, anchored, is_large=n_rows * d * d >= _LARGE)


def common_rows(table: Table, other_rows: int) -> int | None:
    """Rows in which chunks of the table and chunks of ``other_rows`` rows both end; None where a
    task cannot hold them.

    A task that covers them reads every chunk of either table to its end, so that no chunk is read
    twice.
    """
    rows = math.lcm(table.chunk_rows, other_rows)
    return rows if rows * table.d * table.dtype.itemsize <= _MOST_BYTES else None
