"""A few rows of a table, brought into memory; and from them an identity that does not hang on a
path.
"""

from __future__ import annotations

import hashlib
from typing import Any

import dask
import numpy as np

from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.passes.engine.graph import compute
from dask_embstab.tables.read.direct_source import few_rows
from dask_embstab.tables.read.source import Openable
from dask_embstab.tables.table import Table

_SAMPLED = 64


def rows_of(table: Table, rows: RowNumbers, *, verified: bool = True) -> Any:
    """Delayed float64 rows, (len(rows), d), in this order; without their chunks' checksums where
    not ``verified``.
    """
    gather = table.source.gather(rows) if verified else few_rows(table.source, rows)
    return dask.delayed(_read, pure=False)(gather, len(rows))


def read_rows(table: Table, rows: RowNumbers, *, label: str, verified: bool = True) -> Matrix:
    """The same, read now."""
    (vectors,) = compute([rows_of(table, rows, verified=verified)], label=label, n_tasks=0)
    return np.asarray(vectors)


def rows_at_places(n: int, places: int, each: int, rng: np.random.Generator) -> RowNumbers:
    """Row numbers of ``each`` rows at each of a few places in a table of ``n``: few chunks are read
    where chunks must be decoded whole.
    """
    starts = rng.integers(0, max(1, n - each + 1), places)
    numbers: RowNumbers = np.unique(starts[:, None] + np.arange(min(n, each)))
    return numbers


def identity(table: Table) -> str:
    """A digest of the shape, the dtype and a fixed spread of rows: equal for equal tables, wherever
    they lie.
    """
    spread = np.unique(np.linspace(0, table.n_rows - 1, _SAMPLED).astype(np.int64))
    sample = read_rows(table, spread, label="identity")
    digest = hashlib.sha256(f"{table.n_rows} {table.d} {table.dtype}".encode())
    digest.update(np.ascontiguousarray(sample).tobytes())
    return digest.hexdigest()[:32]


def _read(block: Openable, n: int) -> Matrix:
    return block.open().take(0, n).astype(np.float64)
