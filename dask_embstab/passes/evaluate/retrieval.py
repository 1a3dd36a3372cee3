"""What do sampled queries find in both runs? Overlaps of top lists, recall of stale queries, and
quality by judgments: one read of each items table for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.metrics.estimates import estimate
from dask_embstab.core.metrics.rankings import (
    Counts,
    cutoffs,
    judged_figures,
    overlaps,
    places_in,
    rank_biased_overlap,
)
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.evaluate.groups import Groups
from dask_embstab.passes.evaluate.judgments import JudgedQueries, Judgments, judged_queries
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.passes.evaluate.results import (
    Judged,
    JudgedFigures,
    RankCorrelation,
    RankingAgreement,
    Retrieval,
)
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.tables.ids.row_index import RowIndex, gather
from dask_embstab.tables.table import Table

_INFORMATIVE = 10
"""Recall is quoted at this depth at most, and at most at one row in so many: where all rows are in
every top list, it is 1 whatever they are.
"""


@dataclass(frozen=True, slots=True)
class Queries:
    """The tables that queries are rows of (``name``), those that are ranked, and which rows of b
    belong to those of a in either.

    ``sample`` (ascending rows of a) was drawn of ``population`` queries that are zeros in neither
    run, and may be in ``groups``; a log of queries (``of`` so many) stands for all that are to
    come, and may be of ``vectors`` (q, d), which ask both runs. Queries ``among_themselves`` are
    ranked against the other rows of their own table.
    """

    name: str
    tables: tuple[Table, Table]
    items: tuple[Table, Table]
    partners: RowIndex
    item_partners: RowIndex
    sample: RowNumbers
    population: float
    of: int
    groups: Groups | None
    among_themselves: bool
    vectors: Matrix | None = None

    def read(self, rows: RowNumbers) -> tuple[Matrix, Matrix]:
        """These rows (2, q) of both runs."""
        wanted = [rows_of(table, own) for table, own in zip(self.tables, rows, strict=True)]
        a, b = compute(wanted, label=f"evaluate: {self.name}", n_tasks=0)
        return a, b


@dataclass(frozen=True, slots=True)
class Lists:
    """Top lists (q, k) of a's and of b's items, by the queries of a and of b."""

    a_by_a: RowNumbers
    a_by_b: RowNumbers
    b_by_a: RowNumbers
    b_by_b: RowNumbers

    def of(self, queries: RowNumbers, k: int) -> Lists:
        """Of the queries of these numbers, cut to ``k``."""
        return Lists(*(lists[queries, :k] for lists in self._all()))

    def without(self, rows: RowNumbers) -> Lists:
        """With each query's own row (2, q) left out, one place shorter."""
        own = rows[0], rows[0], rows[1], rows[1]
        return Lists(*(without_own(*both) for both in zip(self._all(), own, strict=True)))

    def _all(self) -> tuple[RowNumbers, ...]:
        return self.a_by_a, self.a_by_b, self.b_by_a, self.b_by_b


def measure_rankings(
    queries: Queries,
    judgments: Judgments | None,
    k: int,
    *,
    n_queries: int,
    seed: int,
    metric: Metric | None,
) -> tuple[RankCorrelation | None, Retrieval, Judged | None]:
    """Everything that is told from top lists of ``k`` rows.

    Reads the sampled and the judged rows of both query tables, and both items tables once; memory
    is that of `rank_tables` for twice these queries.
    """
    metric = metric or ("cosine" if queries.among_themselves else "dot")
    n, vectors = len(queries.sample), queries.vectors
    sample = queries.sample if vectors is None else queries.sample[:0]
    rows = np.stack([sample, gather(queries.partners, sample)])
    judged = None
    if judgments is not None:
        judged = judged_queries(judgments, queries.tables, queries.items).sampled(n_queries, seed)
        rows = np.hstack([rows, judged.rows])
    of_a, of_b = queries.read(rows)
    if vectors is not None:
        of_a, of_b = (np.vstack([vectors, own]) for own in (of_a, of_b))
        rows = np.hstack([np.full((2, n), -1), rows])  # they are no row of either

    itself = int(queries.among_themselves)
    deepest = min(k + itself, *(table.n_rows for table in queries.items))
    a, b = rank_tables(queries.items, np.vstack([of_a, of_b]), deepest, metric=metric)
    half = len(of_a)
    lists = Lists(a.rows[:half], a.rows[half:], b.rows[:half], b.rows[half:])
    lists = lists.without(rows) if itself else lists
    n_ranked = max(0, min(a.n_ranked, b.n_ranked) - itself)
    k = max(0, min(deepest - itself, n_ranked))

    retrieval = _retrieval(queries, lists.of(np.arange(n), k), k, metric, n_ranked)
    ranked = (
        None
        if itself or vectors is not None
        else _rank_correlation(retrieval, (a.zero_rows, b.zero_rows))
    )
    if judged is None:
        return ranked, retrieval, None
    nonzero = np.asarray(of_a[n:].any(axis=1) & of_b[n:].any(axis=1))
    kept = lists.of(n + np.flatnonzero(nonzero), k)
    return ranked, retrieval, _judged(judged.only(nonzero), kept, k)


def _rank_correlation(retrieval: Retrieval, zero_rows: tuple[int, int]) -> RankCorrelation:
    stale_table, stale_queries = retrieval.stale_table, retrieval.stale_queries
    assert stale_table is not None
    assert stale_queries is not None
    estimates = {
        "rbo": stale_table.rbo,
        "retrained_rbo": retrieval.retrained.rbo,
        "new_catalogue_rbo": stale_queries.rbo,
    }
    return RankCorrelation(
        **{name: one.mean for name, one in estimates.items()},
        k=retrieval.k,
        users=retrieval.sampled,
        zero_items_a=zero_rows[0],
        zero_items_b=zero_rows[1],
        intervals={name: (one.low, one.high) for name, one in estimates.items()},
    )


def _retrieval(queries: Queries, lists: Lists, k: int, metric: Metric, n_ranked: int) -> Retrieval:
    known = gather(queries.item_partners, lists.a_by_a)
    compared = {
        "stale_queries": (lists.b_by_a, lists.b_by_b),
        "stale_table": (lists.a_by_b, lists.a_by_a),
        "retrained": (known, lists.b_by_b),
    }
    n, population, groups = len(queries.sample), queries.population, queries.groups
    codes = None if groups is None else groups.of_rows(queries.sample)
    agreements: dict[str, Any] = {}
    for name, (ranked, other) in compared.items():
        if queries.vectors is not None and name != "retrained":
            agreements[name] = None  # nothing is stale: one vector asks both
            continue
        shared = overlaps(ranked, other)
        by_group = None
        if groups is not None and codes is not None:
            by_group = {
                group: _agreement(shared[of_it], population * len(of_it) / n)
                for number, group in enumerate(groups.names)
                if len(of_it := np.flatnonzero(codes == number))
            }
        agreements[name] = _agreement(shared, population, by_group)
    deepest = min(_INFORMATIVE, n_ranked // _INFORMATIVE)
    depth = max((one for one in cutoffs(k) if one <= deepest), default=0)
    named = queries.name if queries.vectors is None else "vectors"
    return Retrieval(named, metric, k, n, queries.of, **agreements, n_ranked=n_ranked, depth=depth)


def _agreement(
    shared: Counts, population: float, groups: dict[str, RankingAgreement] | None = None
) -> RankingAgreement:
    """Of lists that share so many rows down to each depth, (q, k)."""
    k = shared.shape[1]
    overlap = rank_biased_overlap(shared) if k else np.empty(0)
    recall = {depth: estimate(shared[:, depth - 1] / depth, population) for depth in cutoffs(k)}
    return RankingAgreement(estimate(overlap, population), recall, groups)


def _judged(judged: JudgedQueries, lists: Lists, k: int) -> Judged:
    """Figures of all four rankings of the judged queries."""
    n, depths = judged.rows.shape[1], cutoffs(k)
    ideal, n_relevant = judged.ideal(k), judged.n_relevant

    def figures(ranked: RowNumbers, run: int) -> JudgedFigures:
        by_figure = judged_figures(judged.grades_of(ranked, run), ideal, n_relevant, depths)
        return JudgedFigures(
            **{
                name: {depth: estimate(values, judged.population) for depth, values in by.items()}
                for name, by in by_figure.items()
            }
        )

    missing = ((judged.items < 0) & (judged.grades > 0)).sum(axis=(1, 2))
    return Judged(
        queries=n,
        unknown_queries=judged.unknown,
        without_relevant=judged.without_relevant,
        missing_a=int(missing[0]),
        missing_b=int(missing[1]),
        a=figures(lists.a_by_a, 0),
        b=figures(lists.b_by_b, 1),
        stale_queries=figures(lists.b_by_a, 1),
        stale_table=figures(lists.a_by_b, 0),
    )


def without_own(ranked: RowNumbers, own: RowNumbers) -> RowNumbers:
    """Each list without its query's own row, or without its last place where that is not in it."""
    q, k = ranked.shape
    place = places_in(own[:, None], ranked)[:, 0]
    kept = np.arange(k) != np.where(place < 0, k - 1, place)[:, None]
    shorter: RowNumbers = ranked[kept].reshape(q, k - 1)
    return shorter
