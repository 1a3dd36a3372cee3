"""What do queries of one version find in the table of another, or in one that is mixed of several?

A service that has new queries and old vectors (or a table of which only a part is written anew)
answers from such a mixture. Every table is read once, for the queries of all versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from dask_embstab.core.metrics.estimates import Estimate, estimate
from dask_embstab.core.metrics.rankings import overlaps
from dask_embstab.core.metrics.top_k import NO_CANDIDATES, TopKSearch
from dask_embstab.core.moments import Panel, unit
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.display import Displayed
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.engine.reduce import Reduction, reduce_table
from dask_embstab.passes.evaluate.ranked import Metric, RankedRows, Searched, require_kept
from dask_embstab.passes.evaluate.results import plain_values
from dask_embstab.passes.evaluate.retrieval import without_own
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.tables.ids.row_index import RowIndex, StepIndex, Storage, gather
from dask_embstab.tables.ids.texts import mix64
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_TRIED = 16
"""So many times the wanted queries are looked up, to find some that all versions have."""


@dataclass(frozen=True, slots=True, repr=False)
class Skew(Displayed):
    """Recall@k of queries of each of ``versions`` (ascending) on tables of each of them.

    ``recall[i][j]``: what queries of version i find in the table of version j, of what version j's
    own queries find there (1 where i is j). ``mixed[i]``: what they find in a table that holds each
    item of the newest version as one of the versions has it, by a hash of its row, of what the
    newest queries find in the newest table. Both over ``sampled`` ``queries`` that all versions
    have, with 95 % confidence intervals.
    """

    versions: tuple[int, ...]
    k: int
    queries: str
    metric: str
    sampled: int
    recall: tuple[tuple[Estimate, ...], ...]
    mixed: tuple[Estimate, ...]

    def _facts(self) -> dict[str, object]:
        oldest = self.recall[0][-1]
        return {
            "versions": f"{self.versions[0]} to {self.versions[-1]}",
            "recall": f"{oldest.mean:.4f} at {self.k}, oldest queries on the newest table",
            "queries": f"{self.sampled} {self.queries}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the command prints them with JSON."""
        return plain_values(self)


@dataclass(frozen=True, slots=True)
class MixedRows:
    """Which rows of one version's table are in the mixed one, and their row in the newest table.

    ``newest`` gives that row (None: this is the newest). An item is of version ``number`` of
    ``parts`` by a hash of its newest row; what that version lacks is of the newest, for which
    ``partners`` are its rows in every other version.
    """

    newest: RowIndex | None
    partners: tuple[RowIndex, ...]
    number: int
    parts: int
    storage: ClassVar[Storage] = "computed"

    def take(self, start: int, stop: int) -> RowNumbers:
        """Rows in the newest table; -1 where a row is not in the mixed one."""
        if self.newest is not None:
            rows = self.newest.take(start, stop)
            return np.where((rows >= 0) & (self._parts(rows) == self.number), rows, -1)
        rows = np.arange(start, stop, dtype=np.int64)
        parts = self._parts(rows)
        own = parts == self.number
        for other, index in enumerate(self.partners):
            own |= (parts == other) & (index.take(start, stop) < 0)
        return np.where(own, rows, -1)

    def _parts(self, rows: RowNumbers) -> RowNumbers:
        hashes = mix64(rows.astype(np.int64).view(np.uint64))
        return np.asarray((hashes % np.uint64(self.parts)).astype(np.int64))

    def part(self, start: int, stop: int) -> MixedRows:
        """Itself."""
        del start, stop
        return self


@dataclass(frozen=True, slots=True)
class BothRanked:
    """Two searches in one read: all rows, and those of the mixed table."""

    whole: RankedRows
    mixed: RankedRows

    def __call__(self, panel: Panel) -> tuple[Searched, Searched]:
        """Of one panel."""
        return self.whole(panel), self.mixed(panel)

    def merge(
        self, a: tuple[Searched, Searched], b: tuple[Searched, Searched]
    ) -> tuple[Searched, Searched]:
        """Of the rows of both."""
        return self.whole.merge(a[0], b[0]), self.mixed.merge(a[1], b[1])


def measure_skew(
    runs: Mapping[int, Run],
    join: JoinOptions,
    *,
    k: int,
    n_queries: int,
    seed: int,
    metric: Metric | None,
) -> Skew:
    """Of the runs of these versions (ascending), all of one width. Reads every items table once."""
    items = [run.table("items") for run in runs.values()]
    users = [run.users for run in runs.values() if run.users is not None]
    by_users = len(users) == len(items)
    pairings = [pair(table, items[-1], join) for table in items[:-1]]
    queried, query_pairs = items, pairings
    if by_users:
        queried, query_pairs = users, [pair(table, users[-1], join) for table in users[:-1]]
    rows, queries = _shared_queries(queried, query_pairs, n_queries, seed)
    metric = metric or ("dot" if by_users else "cosine")

    n, itself = rows.shape[1], int(not by_users)
    deepest = min(k + itself, *(table.n_rows for table in items))
    own = None if by_users else rows
    lists, mixed = _searched(
        items, pairings, unit(queries) if metric == "cosine" else queries, deepest, metric
    )
    by_table = [
        _lists(one, n, None if own is None else own[number]) for number, one in enumerate(lists)
    ]
    of_mixed = _lists(mixed, n, None if own is None else own[-1])
    k, versions = deepest - itself, range(len(items))
    return Skew(
        versions=tuple(runs),
        k=k,
        queries="users" if by_users else "items",
        metric=metric,
        sampled=n,
        recall=tuple(
            tuple(_recall(by_table[j][i], by_table[j][j], k) for j in versions) for i in versions
        ),
        mixed=tuple(_recall(of_mixed[i], by_table[-1][-1], k) for i in versions),
    )


def _searched(
    items: Sequence[Table], pairings: Sequence[Pairing], queries: Matrix, k: int, metric: Metric
) -> tuple[list[RowNumbers], RowNumbers]:
    """Top lists (queries, k) in every table and in the mixed one, one read of each table."""
    require_kept(2 * len(queries), k)
    mixing, mixed, lists = TopKSearch(queries, k), NO_CANDIDATES, []
    partners = tuple(_inverse(pairing) for pairing in pairings)
    for number, table in enumerate(items):
        newest = pairings[number].partners if number < len(pairings) else None
        search, part = TopKSearch(queries, k), MixedRows(newest, partners, number, len(items))
        ranked = BothRanked(RankedRows(search, metric), RankedRows(mixing, metric, part))
        reduction: Reduction[tuple[Searched, Searched]] = Reduction(
            ranked,
            ranked.merge,
            _finite_check,
            n_squares=2 * search.value_bytes // (8 * table.d**2) + 1,
            n_copies=4,
        )
        whole, added = reduce_table(table, reduction, label="skew: rankings").run().value
        lists.append(search.best(whole.candidates).rows)
        mixed = mixing.merge(mixed, added.candidates)
    return lists, mixing.best(mixed).rows


def _shared_queries(
    tables: Sequence[Table], pairings: Sequence[Pairing], size: int, seed: int
) -> tuple[RowNumbers, Matrix]:
    """Row numbers of sampled queries in every version, (versions, q), and their rows, those of one
    version behind another's, (versions q, d): none of them zeros anywhere.
    """
    n = tables[-1].n_rows
    draws = np.random.default_rng(seed)
    tried = np.arange(n) if n <= size else np.unique(draws.integers(0, n, _TRIED * size))
    tried = np.random.default_rng(seed).permutation(tried)
    rows = np.stack([*(gather(_inverse(one), tried) for one in pairings), tried])
    rows = rows[:, (rows >= 0).all(axis=0)][:, : 2 * size]
    wanted = [rows_of(table, own) for table, own in zip(tables, rows, strict=True)]
    vectors = compute(wanted, label="skew: queries", n_tasks=0)
    nonzero = reduce(np.logical_and, [one.any(axis=1) for one in vectors])
    kept = np.flatnonzero(nonzero)[:size]
    if not len(kept):
        raise InputError(
            f"versions are compared by {tables[-1].key} that all of them have;"
            f" {', '.join(table.where for table in tables)} share none that is not zeros; give"
            " fewer versions"
        )
    return rows[:, kept], np.vstack([one[kept] for one in vectors])


def _inverse(pairing: Pairing) -> RowIndex:
    """The row of every row of the reference."""
    return StepIndex(pairing.matched) if pairing.inverse is None else pairing.inverse


def _lists(lists: RowNumbers, n: int, own: RowNumbers | None) -> list[RowNumbers]:
    """Top lists of each version's ``n`` queries, without their ``own`` rows where they have any."""
    parts = np.split(lists, len(lists) // n)
    return parts if own is None else [without_own(part, own) for part in parts]


def _recall(numbers: RowNumbers, wanted: RowNumbers, k: int) -> Estimate:
    """The sample is a small part of all queries."""
    shared = overlaps(numbers, wanted)[:, -1] if k else np.empty(0)
    n_wanted = np.maximum(np.count_nonzero(wanted >= 0, axis=1), 1)
    return estimate(shared / n_wanted, np.inf)


def _finite_check(value: tuple[Searched, Searched]) -> float:
    return value[0].total
