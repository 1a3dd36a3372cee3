"""How much memory will a pass need? Projected before it starts, from shapes alone, and refused where it cannot fit.

The limit is the user's: ``embstab.memory-limit`` in Dask's configuration (bytes, or "400MB"), or ``--memory-limit``.
Nothing is projected without one. Workers of a cluster have limits of their own, which their nannies hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
import psutil
from dask.utils import format_bytes, parse_bytes

from dask_embstab.core.tree import micro_block_rows
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.cluster import threads_of_a_process
from dask_embstab.tables.table import Table

_OVERHEAD_BYTES = 48 * 2**20
"""The scheduler's own state and what the allocator keeps."""
_SMALL_MATRICES = 24
"""d x d matrices alive at a time in the small factorizations, workspace of LAPACK included."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one thread holds while it works on a table: ``d`` in, ``width`` beside it (reference or output).

    ``decoded_bytes``: a chunk that must be decoded whole, 0 on the direct path; ``values``: d x d results of one panel.
    """

    d: int
    width: int
    itemsize: int
    decoded_bytes: int
    values: int


def base_bytes() -> int:
    """What this process holds now (its imports alone differ by 30 MB), and what any pass adds to that."""
    return int(psutil.Process().memory_info().rss) + _OVERHEAD_BYTES


def projected_peak(load: Load, *, threads: int, base: int) -> int:
    """Bytes of the whole process at its peak: panels, decoded chunks and partial results per thread, small matrices."""
    rows = micro_block_rows(load.d)
    panels = rows * (load.d * (load.itemsize + 8) + load.width * (load.itemsize + 8))
    square = 8 * max(load.d, load.width) ** 2
    partials = load.values * square * 6  # the roots of a task, and those waiting in the tree
    per_thread = panels + 3 * load.decoded_bytes + partials
    return base + threads * per_thread + _SMALL_MATRICES * square


def load_of(table: Table, *, width: int, values: int) -> Load:
    """The load of one task over ``table``."""
    decoded = 0 if table.is_direct else table.chunk_rows * table.d * table.dtype.itemsize
    return Load(table.d, width, table.dtype.itemsize, decoded, values)


def memory_limit() -> int | None:
    """The limit that the user gave, in bytes."""
    limit: Any = dask.config.get("embstab.memory-limit", None)
    if limit is None:
        return None
    try:
        return int(parse_bytes(limit))
    except ValueError as error:
        raise InputError(f"a memory limit is a number of bytes or like '400MB'; it is {limit!r}") from error


def require_memory(loads: list[Load]) -> None:
    """Raise where the projection of a pass is beyond the limit that the user gave."""
    allowed = memory_limit()
    if allowed is None:
        return
    base, threads = base_bytes(), threads_of_a_process()
    peak = max(projected_peak(load, threads=threads, base=base) for load in loads)
    if peak > allowed:
        raise InputError(
            f"this pass needs about {format_bytes(peak)} with {threads} threads and the limit is {format_bytes(allowed)};"
            " raise the limit, use fewer threads (dask.config num_workers), or rewrite the table in smaller chunks"
        )
