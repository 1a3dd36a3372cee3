"""What does a code keep of a run? Rankings and scores of sampled queries, with rows as they are and
as their codes give them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dask_embstab.core.codes.code import Code
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.metrics.estimates import Estimate, estimate, ratio_estimate
from dask_embstab.core.metrics.rankings import (
    judged_figures,
    overlaps,
    places_in,
    rank_biased_overlap,
)
from dask_embstab.core.moments import unit
from dask_embstab.core.types import Matrix, RowNumbers, Rows
from dask_embstab.errors import InputError
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.passes.evaluate.retrieval import without_own
from dask_embstab.passes.search import CANDIDATES
from dask_embstab.tables.read.source import ArraySource
from dask_embstab.tables.read.views import MappedSource
from dask_embstab.tables.table import Table

_SCORED = 1024
"""Rows whose scores with all queries are compared, of each part at most."""
_COARSE = 5
"""Codes of so many bits of a component at most are also measured with their best rescored."""


@dataclass(frozen=True, slots=True)
class PartFigures:
    """What a code keeps of a part of the items, or of the queries: the share of its places in exact
    lists that coded lists have too, with a 95 % interval over queries, and its scores.
    """

    recall: Estimate
    score_error: float
    slope: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A code and what it keeps: recall@k, nDCG@k and rank-biased overlap of exact searches (means
    and 95 % intervals over queries), the root mean square error of scores over that of the scores,
    and the slope of the exact scores on the coded ones; and of ``parts`` of the items or queries.

    ``rank`` components are kept (None: all). Of an entry with ``rescored`` so many of the best of
    each query are ranked anew by float16 rows, ``n_bytes`` being those of the row that is searched.
    """

    code: str
    rotate: bool
    n_bytes: int
    recall: Estimate
    ndcg: Estimate
    overlap: Estimate
    score_error: float
    slope: float
    rank: int | None = None
    rescored: int = 0
    parts: Mapping[str, PartFigures] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Tried:
    """A code to measure; ``rank`` and ``rotate`` say how its matrix came to be."""

    code: RowCode
    rotate: bool = False
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries of a run (users, or items among themselves): rows (q, d) of these ``numbers``."""

    rows: Matrix
    numbers: RowNumbers
    among_themselves: bool

    @property
    def metric(self) -> Metric:
        """How items are ranked."""
        return "cosine" if self.among_themselves else "dot"

    def lists(
        self, items: Table, codes: Sequence[RowCode], depth: int, own: RowNumbers
    ) -> list[RowNumbers]:
        """Top lists (q, depth) of the items, and of the items in each code, without the queries'
        ``own`` rows: one read of the items for each.
        """
        deep = min(depth + self.among_themselves, items.n_rows)
        numbers = rank_tables(
            [items, *(coded_table(items, code) for code in codes)],
            self.rows,
            deep,
            metric=self.metric,
            label="compress: measuring",
        )
        if numbers[0].n_ranked < deep or deep - self.among_themselves < depth:
            raise InputError(
                f"recall@{depth} needs more than {depth} items that are not zero; {items.where} has"
                f" {numbers[0].n_ranked}"
            )
        lists = [one.rows for one in numbers]
        return [without_own(one, own) for one in lists] if self.among_themselves else lists


@dataclass(frozen=True, slots=True)
class Sample:
    """Items that are searched, their ``numbers`` in the run's table, and who asks. ``groups`` are
    names and the group of each item, ``query_groups`` of each query.
    """

    rows: Matrix
    numbers: RowNumbers
    asked: Asked
    groups: tuple[Sequence[str], RowNumbers] | None = None
    query_groups: tuple[Sequence[str], RowNumbers] | None = None

    @property
    def own(self) -> RowNumbers:
        """Places of the queries among the items, where they are items."""
        if not self.asked.among_themselves:
            return self.numbers[:0]
        return np.searchsorted(self.numbers, self.asked.numbers)

    def entries(self, items: Table, tried: Sequence[Tried], k: int) -> Iterator[Entry]:
        """What every code keeps of lists of ``k`` rows; coarse ones also rescored."""
        few = replace(items, source=ArraySource(self.rows), stored_ids=None)
        n_ranked = int(self.rows.any(axis=1).sum())  # rows of zeros are in no list
        deep = min(CANDIDATES * k, n_ranked - self.asked.among_themselves)
        half = Code("float16", items.d)
        rescored = deep > k and not half.overflows(*half.encode(self.rows))
        coarse = [one for one in tried if rescored and _bits(one.code) <= _COARSE]
        fine = [one for one in tried if one not in coarse]
        exact, *coded_lists = self.asked.lists(few, [one.code for one in fine], k, self.own)
        for one, lists in zip(fine, coded_lists, strict=True):
            yield self._entry(one, exact, lists)
        if not coarse:
            return
        _, *coded_lists = self.asked.lists(few, [one.code for one in coarse], deep, self.own)
        for one, lists in zip(coarse, coded_lists, strict=True):
            yield self._entry(one, exact, lists[:, :k])
            best = self._reranked(lists, through(half, self.rows), k)
            yield replace(self._entry(one, exact, best, scored_by=half), rescored=deep)

    def _entry(
        self, tried: Tried, exact: RowNumbers, lists: RowNumbers, scored_by: RowCode | None = None
    ) -> Entry:
        """By the ``exact`` lists (q, k) and those of coded rows, whose scores are of ``scored_by``
        where another code made them.
        """
        k, code = exact.shape[1], scored_by or tried.code
        shared, places = overlaps(exact, lists), places_in(lists, exact)
        # The grade of the best row is k, that of the next k - 1, and so on.
        grades = np.where(places < 0, 0, k - places).astype(np.float64)
        ideal = np.broadcast_to(np.arange(k, 0, -1.0), grades.shape)
        gains = judged_figures(grades, ideal, np.full(len(grades), k), (k,))["ndcg"][k]
        everything = np.ones(len(self.rows), bool)
        error, slope = self._scores(code, everything, np.ones(len(exact), bool))
        return Entry(
            code=tried.code.name,
            rotate=tried.rotate,
            n_bytes=tried.code.row_bytes,
            recall=estimate(shared[:, -1] / k, np.inf),
            ndcg=estimate(gains, np.inf),
            overlap=estimate(rank_biased_overlap(shared), np.inf),
            score_error=error,
            slope=slope,
            rank=tried.rank,
            parts=dict(self._parts(code, exact, places_in(exact, lists) >= 0)),
        )

    def _parts(
        self, code: RowCode, exact: RowNumbers, kept: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[str, PartFigures]]:
        """Figures of head and long tail, and of groups: by the places (q, k) of ``exact`` lists
        that are ``kept``.
        """
        every_query = np.ones(len(exact), bool)
        for name, items in self._items_by_part(exact):
            hits, of = (kept & items[exact]).sum(axis=1), items[exact].sum(axis=1)
            if of.any():
                scores = self._scores(code, items, every_query)
                yield name, PartFigures(ratio_estimate(hits, of), *scores)
        names, groups = self.query_groups or ((), self.numbers[:0])
        for number, name in enumerate(names):
            if (queries := groups == number).any():
                recall = estimate(kept[queries].mean(axis=1), np.inf)
                everything = np.ones(len(self.rows), bool)
                scores = self._scores(code, everything, queries)
                yield f"queries {name}", PartFigures(recall, *scores)

    def _items_by_part(self, exact: RowNumbers) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Names, and whether each item belongs to it. The head are the items, listed most often
        first, that fill half of the places of exact lists.
        """
        listed = np.bincount(exact.ravel(), minlength=len(self.rows))
        order = np.argsort(-listed, kind="stable")
        before = np.cumsum(listed[order]) - listed[order]
        head = np.zeros(len(listed), bool)
        head[order[2 * before < exact.size]] = True
        yield "head", head
        yield "long tail", ~head
        names, groups = self.groups or ((), self.numbers[:0])
        for number, name in enumerate(names):
            yield f"items {name}", groups == number

    def _scores(
        self, code: RowCode, items: npt.NDArray[np.bool_], queries: npt.NDArray[np.bool_]
    ) -> tuple[float, float]:
        """Relative error and slope of the scores of these ``items`` with these ``queries``."""
        chosen = np.flatnonzero(items)
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, _SCORED).astype(np.int64))]
        rows, asked = self.rows[chosen], self.asked.rows[queries]
        scores, coded = asked @ rows.T, asked @ through(code, rows).astype(np.float64).T
        size, energy = float(np.linalg.norm(scores)), float(np.vdot(coded, coded))
        error = float(np.linalg.norm(coded - scores)) / size if size else 0.0
        return error, float(np.vdot(coded, scores)) / energy if energy else 1.0

    def _reranked(self, lists: RowNumbers, rows: Rows, k: int) -> RowNumbers:
        """The best ``k`` of these lists (q, n) by the scores of ``rows``."""
        asked, rows = self.asked.rows, rows.astype(np.float64)
        if self.asked.metric == "cosine":
            asked, rows = unit(asked), unit(rows)
        scores = np.stack([rows[one] @ query for one, query in zip(lists, asked, strict=True)])
        return np.take_along_axis(lists, np.lexsort((lists, -scores), axis=1)[:, :k], 1)


def through(code: RowCode, rows: Rows) -> Rows:
    """The rows as their codes give them back."""
    return code.decode(*code.encode(rows))


def coded_table(table: Table, code: RowCode) -> Table:
    """The table as its codes give it back, encoded and decoded by whoever reads it."""
    source = MappedSource(table.source, partial(through, code), table.d, np.dtype(np.float32))
    return replace(table, source=source)


def _bits(code: RowCode) -> float:
    """Of a component."""
    return 8 * code.n_codes / code.d
