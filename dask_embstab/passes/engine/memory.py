"""How much memory will a pass need? Projected before it starts, from shapes alone, and refused
where it cannot fit.

The limit is the user's: ``embstab.memory-limit`` in Dask's configuration (bytes, or "400MB"), or
the option of a command. Workers of a cluster have limits of their own, which their nannies hold: a
pass that cannot fit into one of them is refused too. Without either nothing is projected. The model
is compared with measured peaks in `docs/doctor.md` (``benchmarks/projection.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import psutil
from dask.utils import format_bytes, parse_bytes

from dask_embstab.arguments import shown
from dask_embstab.core.tile_kernel import is_installed
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.cluster import threads_of_a_process, worker_limits
from dask_embstab.passes.engine.plan import FAN_IN, Grid, RowRange
from dask_embstab.tables.table import Table

_OVERHEAD_BYTES = 20 * 2**20
"""The scheduler, the threads' own heaps and BLAS buffers, and modules that only a pass imports."""
_KERNEL_BYTES = 72 * 2**20
"""The compiler of the kernel for large tables, once in a process: 68 MiB with llvmlite 0.50, nearly
all of it pages of its library.
"""
_CHUNK_BYTES, _TASK_BYTES = 160, 4096
"""Digests of a chunk on their way to the transform; a task in the graph."""
_WRITTEN = 6
"""A chunk that is written takes so many times the bytes of one that is read: its digests are
recorded and compared.
"""
_ENCODING = 3
"""Panels of float32 that encoding holds: the numbers, those of its steps, what is packed."""
_KEPT_BYTES = 32 * 2**20
"""The allocator gives larger buffers back to the system when they are freed, and keeps smaller ones
(glibc).
"""
_READ_BYTES = 2 * 2**20
_REFUSED = 1.5
"""Projections were at most 1.35 times the measured peak: only what is beyond the limit by more than
this is refused.
"""
_STANDARDIZE, _ROTATE = 16, 20
"""d x d matrices alive at a time while scores are standardized, workspace of LAPACK included, and
for the rotation (of (d + D) / 2 components, D of the reference).
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one pass holds.

    ``buffers`` are the bytes of every buffer of a task. Of partial results of ``value_bytes`` each,
    a task holds ``at_once`` at most, and ``waiting`` of them wait in the tree for their neighbours.
    ``kernel`` are the bytes of the compiler of its products.
    """

    buffers: tuple[int, ...]
    value_bytes: int
    at_once: int
    waiting: int
    n_chunks: int
    n_tasks: int
    kernel: int = 0


def read_load(
    table: Table,
    ranges: Sequence[RowRange],
    grid: Grid,
    *,
    width: int = 0,
    values: tuple[int, int] = (0, 0),
    copies: int = 0,
) -> Load:
    """The load of a reduction, with reference rows of ``width`` components with the table's.

    A result has ``values`` matrices of (d, d) and of (d + width, d + width); ``copies`` of a panel
    are made on the way.
    """
    d, rows = table.d, min(grid.rows, table.n_rows)
    own, joint = values
    value_bytes = 8 * (own * d**2 + joint * (d + width) ** 2)
    upcast = 8 * rows * (d + width) if width or table.dtype.itemsize < 8 else 0
    partners = (rows * width * table.dtype.itemsize,) if width else ()
    buffers = (*_reader_buffers(table, rows), upcast, *partners, *[8 * rows * d] * copies)
    first = ranges[0]
    panels = -(-(first.stop - first.start) // grid.rows)
    return Load(
        buffers,
        value_bytes,
        panels.bit_length(),
        most_waiting(len(ranges)),
        -(-table.n_rows // table.chunk_rows),
        len(ranges),
        _KERNEL_BYTES if grid.is_large and is_installed() else 0,
    )


def write_load(
    table: Table,
    ranges: Sequence[RowRange],
    grid: Grid,
    *,
    width: int,
    itemsize: int,
    coded: bool = False,
    sending: int = 0,
) -> Load:
    """The load of a multiply to ``width`` components, computed in numbers of ``itemsize`` bytes,
    of rows that are stored as codes too where they are ``coded``; ``sending`` bytes are on their
    way to an object store.
    """
    rows = min(grid.rows, table.n_rows)
    products = (rows * table.d * itemsize, rows * width * itemsize, table.d * width * itemsize)
    cast = rows * width * table.dtype.itemsize if itemsize != table.dtype.itemsize else 0
    numbers = (rows * width * 4,) * (_ENCODING if coded else 0)
    buffers = (*_reader_buffers(table, rows), *products, cast, *numbers, sending)
    return Load(buffers, 0, 0, 0, _WRITTEN * -(-table.n_rows // table.chunk_rows), len(ranges))


def small_matrices(d: int, width: int, *, scores: bool) -> int:
    """Bytes of the matrices that a fit factorizes after its reads; ``width`` components of the
    reference, or 0.
    """
    return 8 * (
        (_STANDARDIZE if scores else _STANDARDIZE // 4) * d**2
        + (_ROTATE * (d + width) ** 2 // 4 if width else 0)
    )


def projected_peak(loads: Sequence[Load], *, threads: int, base: int, small: int = 0) -> int:
    """Bytes of the whole process at its peak, over passes that run side by side and the ``small``
    work after them.
    """
    busy = min(threads, sum(load.n_tasks for load in loads))
    largest = max(loads, key=lambda load: sum(load.buffers))
    panels, kept = sum(largest.buffers), sum(size for size in largest.buffers if size < _KEPT_BYTES)
    # One table is read after another: of those that are done one value is left.
    values = max(
        (busy * load.at_once + 1 + load.waiting) * load.value_bytes
        + sum(other.value_bytes for other in loads if other is not load)
        for load in loads
    )
    book = sum(load.n_chunks * _CHUNK_BYTES + load.n_tasks * _TASK_BYTES for load in loads)
    kernel = max(load.kernel for load in loads)
    return base + _OVERHEAD_BYTES + kernel + book + max(busy * panels + values, busy * kept + small)


def base_bytes() -> int:
    """What this process holds now: its imports alone differ by 30 MB."""
    return int(psutil.Process().memory_info().rss)


def memory_limit() -> int | None:
    """The limit that the user gave, in bytes."""
    limit: Any = dask.config.get("embstab.memory-limit", None)
    if limit is None:
        return None
    return bytes_of(limit, "a memory limit")


def bytes_of(given: Any, what: str) -> int:
    """A number of bytes from itself, or from a text such as "400MB"."""
    try:
        return int(parse_bytes(given))
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise InputError(
            f"{what} is a number of bytes, or like '400MB'; it is {shown(given)}"
        ) from error


def require_memory(loads: Sequence[Load], *, small: int = 0) -> None:
    """Raise where even the least that the projection allows for is beyond the limit that the user
    gave, or beyond that of a worker of the cluster.
    """
    for worker in worker_limits() if loads else ():
        peak = projected_peak(loads, threads=worker.threads, base=worker.held)
        if peak > _REFUSED * worker.limit:
            raise InputError(
                f"this pass needs about {format_bytes(peak)} in a worker with {worker.threads}"
                f" threads, and the one at {worker.address} has {format_bytes(worker.limit)}; give"
                " workers more memory or fewer threads, or rewrite the table in smaller chunks"
            )
    allowed = memory_limit()
    if allowed is None or not loads:
        return

    threads = threads_of_a_process()
    peak = projected_peak(loads, threads=threads, base=base_bytes(), small=small)
    if peak > _REFUSED * allowed:
        raise InputError(
            f"this pass needs about {format_bytes(peak)} with {threads} threads and the limit is"
            f" {format_bytes(allowed)}; raise the limit, use fewer threads (num_workers of"
            " dask.config, or DASK_NUM_WORKERS), or rewrite the table in smaller chunks"
        )


def _reader_buffers(table: Table, rows: int) -> tuple[int, ...]:
    """Of one task: a panel where rows are read by panels; else the whole chunk (of a shard, an
    inner one), encoded and decoded, and a panel; and what is on its way from an object store.
    """
    ahead = min(
        getattr(table.source, "ahead_bytes", 0), table.n_rows * table.d * table.dtype.itemsize
    )
    panel = max(
        rows * table.d * table.dtype.itemsize,
        min(_READ_BYTES, table.n_rows * table.d * table.dtype.itemsize),
    )
    if table.is_direct:
        return (panel, ahead)
    unit_rows = getattr(table.source, "unit_rows", table.chunk_rows)
    chunk = unit_rows * table.d * table.dtype.itemsize
    return (chunk, chunk, ahead) if table.source.access == "chunks" else (chunk, chunk, chunk)


def most_waiting(n_tasks: int) -> int:
    """Results that wait at the same time in a tree where ``FAN_IN`` neighbours join: digits of a
    count in that base.
    """
    waiting, most, power = n_tasks - 1, 0, 1
    while waiting >= power:
        most, power = most + FAN_IN - 1, power * FAN_IN
    return min(waiting, most)
