"""The nearest rows of a table for many queries: a batch of queries to each read of it.

By scores, exactly, whether rows are plain or decoded on the way; by the bits in which sign codes
differ; and, of whatever is found in codes, the best anew by the scores of other rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import Code
from dask_embstab.core.codes.hamming import NONE, HammingSearch, Keys, distances_and_rows, words_of
from dask_embstab.core.moments import unit
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.options import require_each
from dask_embstab.passes.engine.graph import Graph, Pass
from dask_embstab.passes.engine.memory import read_load
from dask_embstab.passes.engine.plan import Grid, RowRange, plan
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables, require_kept
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.repairs import option
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import IdArray
from dask_embstab.tables.ids.lookup import find_rows
from dask_embstab.tables.read.coded import stored_rows
from dask_embstab.tables.read.source import Digests, Openable
from dask_embstab.tables.table import Table

SearchMetric = Literal["dot", "cosine", "hamming"]
CANDIDATES = 10
"""Rows that are rescored, for each that is wanted."""
_BATCH_BYTES = 64 << 20
"""Candidates of one batch of queries in one thread."""


def nearest(
    queries: Table,
    table: Table,
    k: int,
    metric: SearchMetric,
    *,
    rescore: Table | None = None,
    candidates: int | None = None,
    rescored_by: Metric = "dot",
) -> tuple[Matrix, IdArray]:
    """Scores (q, k), descending, and the ids (q, k) of the rows that have them.

    With ``rescore`` the best ``candidates`` of each query by ``metric`` are ranked again by the
    scores of the rows of their ids in that table, ``rescored_by`` dot product or cosine.
    """
    require_each("search", {"k": k, "metric": metric, "candidates": candidates})
    _require_searchable(queries, table, k)
    n = k if rescore is None else _n_candidates(table, rescore, k, candidates)
    scores, rows = [], []
    for asked in _batches(queries, n):
        best, numbers = _best(asked, table, n, k, metric)
        if rescore is not None:
            best, numbers = _rescored(asked, table, rescore, numbers, k, rescored_by)
        scores.append(best)
        rows.append(numbers)
    return np.concatenate(scores), ids_at(table.row_ids, np.concatenate(rows))


def _require_searchable(queries: Table, table: Table, k: int) -> None:
    if queries.d != table.d:
        raise InputError(
            f"queries and rows must have the same number of components; {queries.where} has"
            f" {queries.d} and {table.where} {table.d}"
        )
    if k > table.n_rows:
        raise InputError(
            f"{k} rows were asked for; {table.where} has {table.n_rows}; ask for fewer"
        )


def _n_candidates(table: Table, rescore: Table, k: int, candidates: int | None) -> int:
    """Rows to look for where the best are rescored."""
    if rescore.d != table.d:
        raise InputError(
            f"{option('rescore')} must have the components of what is searched; {rescore.where} has"
            f" {rescore.d} and {table.where} {table.d}"
        )
    if candidates is None:
        return min(CANDIDATES * k, table.n_rows)
    if candidates < k:
        raise InputError(
            f"{option('candidates')} must be a whole number from k, {k}, on; it is"
            f" {shown(candidates)}"
        )
    return min(int(candidates), table.n_rows)


def _batches(queries: Table, n: int) -> Iterator[Matrix]:
    """The queries (q, d), so many that their candidates fit."""
    batch = max(256, _BATCH_BYTES // (60 * n))
    for start in range(0, queries.n_rows, batch):
        numbers = np.arange(start, min(start + batch, queries.n_rows))
        asked = read_rows(queries, numbers, label="search: queries")
        if not np.isfinite(asked).all():
            row = start + int(np.flatnonzero(~np.isfinite(asked).all(axis=1))[0])
            raise NotFiniteError(f"row {row} of {queries.where} is not finite; mend the queries")
        yield asked


def _best(
    asked: Matrix, table: Table, n: int, k: int, metric: SearchMetric
) -> tuple[Matrix, RowNumbers]:
    """Scores and row numbers (q, n) of the best rows, -1 at the ends of lists that are shorter;
    `InputError` where fewer than ``k`` rows take part.
    """
    if metric == "hamming":
        scores, rows = _nearest_codes(asked, table, n)
        n_ranked = int((rows[:1] >= 0).sum())
    else:
        (best,) = rank_tables([table], asked, n, metric=metric, label="search")
        scores, rows, n_ranked = best.best.scores, best.rows, best.n_ranked
    if n_ranked < k:
        raise InputError(
            f"{k} rows were asked for; {table.where} has {n_ranked} that are not zero; ask for"
            " fewer"
        )
    return scores, rows


def _rescored(
    asked: Matrix, table: Table, exact: Table, rows: RowNumbers, k: int, metric: Metric
) -> tuple[Matrix, RowNumbers]:
    """The best ``k`` of these ``rows`` (q, n) of a table, by the rows of their ids in another."""
    asked = unit(asked) if metric == "cosine" else asked
    best = np.empty((len(asked), k)), np.empty((len(asked), k), np.int64)
    step = max(1, _BATCH_BYTES // (8 * rows.shape[1] * exact.d))
    for start in range(0, len(asked), step):
        part = slice(start, start + step)
        known, places = np.unique(rows[part], return_inverse=True)
        missing = int(np.searchsorted(known, 0))
        if table.stored_ids is None and exact.stored_ids is None:
            wanted = known[missing:]
            if len(wanted) and wanted[-1] >= exact.n_rows:
                raise InputError(
                    f"{option('rescore')} must have every row that is found; {exact.where} has"
                    f" {exact.n_rows} rows and {table.where} {table.n_rows}, and neither has ids"
                )
        else:
            ids = ids_at(table.row_ids, known[missing:])
            wanted = find_rows(exact.row_ids, ids, exact.key)
        order = np.argsort(wanted)
        vectors = np.zeros((len(known), exact.d))
        vectors[missing + order] = read_rows(exact, wanted[order], label="search: rescoring")
        if not np.isfinite(vectors).all():
            row = wanted[np.flatnonzero(~np.isfinite(vectors[missing:]).all(axis=1))[0]]
            raise NotFiniteError(f"row {row} of {exact.where} is not finite; repair or drop it")
        vectors = unit(vectors) if metric == "cosine" else vectors
        taken = vectors[places.reshape(rows[part].shape)]
        scores = np.einsum("qd,qnd->qn", asked[part], taken)
        scores[rows[part] < 0] = -np.inf
        in_order = np.lexsort((rows[part], -scores), axis=1)[:, :k]
        best[0][part] = np.take_along_axis(scores, in_order, 1)
        best[1][part] = np.take_along_axis(rows[part], in_order, 1)
    return best


@dataclass(frozen=True, slots=True)
class _Nearest:
    """The nearest codes (q, k) of some blocks, and the digests of what was read for it."""

    keys: Keys
    digests: Digests = field(default_factory=dict)

    def read_digests(self) -> tuple[Digests]:
        """Of the chunks read of the table."""
        return (self.digests,)


def _nearest_codes(asked: Matrix, table: Table, n: int) -> tuple[Matrix, RowNumbers]:
    """Minus the bits in which codes differ (q, n), and row numbers, -1 at the ends of lists that
    are shorter: one read of the codes as they are stored, rows of zeros left out.
    """
    code = getattr(table.source, "code", None)
    if not isinstance(code, Code) or code.name != "sign":
        raise InputError(
            f"{option(metric='hamming')} compares sign codes; {table.where} holds none; compress"
            f" it with {option(code='sign')}, or rank by dot product or cosine"
        )
    require_kept(len(asked), n)
    search = HammingSearch(words_of(code.encode(asked)[0]), n)
    ranges, grid = plan(table)
    graph = Graph("search")
    shared = graph.shared(search)
    keys = [
        graph.read(_search_block, table.source.block(rows.start, rows.stop), rows, grid, shared)
        for rows in ranges
    ]
    values = -(-8 * len(asked) * n // (8 * table.d**2)), 0
    load = read_load(table, ranges, grid, values=values, copies=2)
    join = partial(_joined, search)
    one: Pass[_Nearest] = graph.tree(keys, join, load=load, reads=(table.source,))
    best = one.run()
    distances, rows = distances_and_rows(best.keys)
    known = best.keys != NONE
    return np.where(known, -distances.astype(np.float64), -np.inf), np.where(known, rows, -1)


def _search_block(block: Openable, rows: RowRange, grid: Grid, search: HammingSearch) -> _Nearest:
    """One task: the nearest codes of these rows."""
    reader, known = block.open(), search.nothing()
    for start in range(rows.start, rows.stop, grid.rows):
        stop = min(start + grid.rows, rows.stop)
        codes, scales = stored_rows(reader, start, stop)
        numbers = np.arange(start, stop)
        if not scales.all():
            kept = np.flatnonzero(scales)
            codes, numbers = codes[kept], numbers[kept]
        known = search.nearest(codes, numbers, known)
    return _Nearest(known, reader.digests())


def _joined(search: HammingSearch, parts: Sequence[_Nearest]) -> _Nearest:
    keys, digests = parts[0].keys, dict(parts[0].digests)
    for part in parts[1:]:
        keys = search.merge(keys, part.keys)
        digests |= part.digests
    return _Nearest(keys, digests)
