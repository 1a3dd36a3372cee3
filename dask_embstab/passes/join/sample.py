"""A few rows: drawn from a pass over all of them, or of two tables side by side, folded into one
small value.

Where rows can be read alone, no others are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dask_embstab.core.sums import total
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.passes.engine.blas import ensure_one_thread
from dask_embstab.passes.engine.graph import Graph, Pass
from dask_embstab.tables.ids.texts import Keys, mix64
from dask_embstab.tables.read.direct_source import few_rows
from dask_embstab.tables.read.source import Openable, Source

V = TypeVar("V")
_TASK_ROWS = 1 << 15


@dataclass(frozen=True, slots=True)
class FewRows:
    """Rows of a table and, one for one, rows of another."""

    ours: Source
    rows: RowNumbers
    theirs: Source
    partners: RowNumbers


@dataclass(frozen=True, slots=True)
class RowSample:
    """The ``size`` rows with the smallest hashes (of their numbers or ids): random ones, however
    the rows were cut.
    """

    size: int
    rows: RowNumbers
    hashes: Keys

    def __post_init__(self) -> None:
        if len(self.rows) > self.size:
            smallest = np.argpartition(self.hashes, self.size)[: self.size]
            for name in ("rows", "hashes"):
                object.__setattr__(self, name, getattr(self, name)[smallest])

    @classmethod
    def of(cls, rows: RowNumbers, size: int, seed: int, keys: Keys | None = None) -> RowSample:
        """Of rows with these numbers, by the hashes of ``keys``, or of the numbers themselves."""
        salt = mix64(np.array([seed], np.int64).view(np.uint64))
        return cls(size, rows, mix64((rows.view(np.uint64) if keys is None else keys) ^ salt))

    def __add__(self, other: RowSample) -> RowSample:
        """Of the rows of both."""
        rows, hashes = (
            np.concatenate([getattr(part, name) for part in (self, other)])
            for name in ("rows", "hashes")
        )
        return RowSample(self.size, rows, hashes)


def over_few_rows(few: FewRows, function: Callable[[Matrix, Matrix], V], *, label: str) -> Pass[V]:
    """The pass that sums ``function`` over panels of these pairs (float64)."""
    graph = Graph(label)
    rows, partners = few.rows, few.partners
    keys = [
        graph.read(
            _folded,
            few_rows(few.ours, rows[at : at + _TASK_ROWS]),
            few_rows(few.theirs, partners[at : at + _TASK_ROWS]),
            len(rows[at : at + _TASK_ROWS]),
            micro_block_rows(few.ours.shape[1]),
            function,
        )
        for at in range(0, len(rows), _TASK_ROWS)
    ]
    return graph.tree(keys, total)


def _folded(
    ours: Openable, theirs: Openable, n: int, panel: int, function: Callable[[Matrix, Matrix], V]
) -> V:
    ensure_one_thread()
    a, b = ours.open(), theirs.open()
    cuts = [(start, min(start + panel, n)) for start in range(0, n, panel)]
    return total(
        function(*(reader.take(*cut).astype(np.float64) for reader in (a, b))) for cut in cuts
    )
