"""One read of a table for the best rows of many queries: a search over its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from dask.utils import format_bytes

from dask_embstab.core.metrics.top_k import Candidates, TopK, TopKSearch, candidate_bytes
from dask_embstab.core.moments import Panel, unit
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import Pass, compute, run_all
from dask_embstab.passes.engine.reduce import Reduced, Reduction, reduce_table
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.tables.ids.row_index import RowIndex
from dask_embstab.tables.read.limits import physical_memory
from dask_embstab.tables.table import Table

Metric = Literal["dot", "cosine"]
_SEED_ROWS, _SEED_SHARE = 1 << 15, 16
"""The first rows of a table are searched before all others, to know what is worth a look: so many,
and one in so many rows at most.
"""

_MEMORY_SHARE = 8
"""Top lists may take one part in so many of the machine's memory, in each thread."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best rows of a table for every query; ``n_ranked`` rows took part, ``zero_rows`` are
    zeros and did not.
    """

    best: TopK
    n_ranked: int
    zero_rows: int

    @property
    def rows(self) -> RowNumbers:
        """Row numbers, (q, k)."""
        return self.best.rows


@dataclass(frozen=True, slots=True)
class Searched:
    """Part of a search; ``total`` is not finite where a component of a row is not."""

    candidates: Candidates
    n_ranked: int
    zero_rows: int
    total: float


@dataclass(frozen=True, slots=True)
class RankedRows:
    """The search as a reduction: rows of zeros have score 0 with every query, and no place in a
    ranking.

    ``numbers`` gives the rows other numbers, and leaves out those with none (-1).
    """

    search: TopKSearch
    metric: Metric
    numbers: RowIndex | None = None

    def __call__(self, panel: Panel) -> Searched:
        """Of one panel."""
        stop = panel.start + len(panel.rows)
        rows, total = panel.rows, float(panel.rows.sum())
        numbers = np.arange(panel.start, stop)
        if self.numbers is not None:
            numbers = self.numbers.take(panel.start, stop)
        kept = numbers >= 0
        if panel.zeros.rows:
            kept &= rows.any(axis=1)
        if not kept.all():
            rows, numbers = rows[kept], numbers[kept]
        rows = unit(rows) if self.metric == "cosine" else rows
        candidates = self.search.candidates(rows, numbers)
        return Searched(candidates, len(rows), panel.zeros.rows, total)

    def merge(self, a: Searched, b: Searched) -> Searched:
        """Of the rows of both."""
        candidates = self.search.merge(a.candidates, b.candidates)
        return Searched(
            candidates, a.n_ranked + b.n_ranked, a.zero_rows + b.zero_rows, a.total + b.total
        )


def rank_tables(
    tables: Sequence[Table],
    queries: Matrix,
    k: int,
    *,
    metric: Metric,
    label: str = "evaluate: rankings",
) -> list[Ranking]:
    """The ``k`` best rows of each table for each of ``queries`` (q, d), by one read of each.

    Memory: about 100 bytes per query and k, and 8 MiB of scores, per thread.
    """
    require_kept(len(queries), k)
    queries = unit(queries) if metric == "cosine" else queries
    searches = [TopKSearch(queries, k) for _ in tables]
    _seed(searches, tables, metric, label)
    passes: list[Pass[Reduced[Searched]]] = []
    for search, table in zip(searches, tables, strict=True):
        ranked = RankedRows(search, metric)
        reduction: Reduction[Searched] = Reduction(
            ranked,
            ranked.merge,
            _finite_check,
            n_squares=-(-search.value_bytes // (8 * table.d**2)),
            n_copies=4,
        )
        passes.append(reduce_table(table, reduction, label=label))
    values = [reduced.value for reduced in run_all(dict(enumerate(passes))).values()]
    return [
        Ranking(search.best(value.candidates), value.n_ranked, value.zero_rows)
        for search, value in zip(searches, values, strict=True)
    ]


def require_kept(n_queries: int, k: int) -> None:
    """Raise where the top lists of so many queries would not fit in this machine's memory."""
    needed = candidate_bytes(n_queries, k)
    if needed > physical_memory() // _MEMORY_SHARE:
        raise InputError(
            f"the {k} best rows of {n_queries} queries take {format_bytes(needed)} per thread, and"
            f" this machine has {format_bytes(physical_memory())}; ask for fewer"
        )


def _seed(
    searches: Sequence[TopKSearch], tables: Sequence[Table], metric: Metric, label: str
) -> None:
    """Search the first rows of every table that is long enough for it."""
    long = {
        number: rows_of(table, np.arange(size), verified=False)
        for number, (search, table) in enumerate(zip(searches, tables, strict=True))
        if (size := min(_SEED_ROWS, table.n_rows // _SEED_SHARE)) > 2 * search.k
    }
    read = compute(list(long.values()), label=label, n_tasks=0)
    for number, rows in zip(long, read, strict=True):
        with np.errstate(all="ignore"):  # what is not finite is found by the pass
            searches[number].seed(unit(rows) if metric == "cosine" else rows)


def _finite_check(value: Searched) -> float:
    return value.total
