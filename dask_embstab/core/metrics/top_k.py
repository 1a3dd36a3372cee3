"""Which k rows have the largest dot products with each of many queries? A block of rows at a time.

Scores are computed in float32, as one product of a block of queries and a block of rows, and only
what may be among the best is looked at again: a score below the k-th best of the rows seen so far
by more than float32 can be off is not. The largest of a few rows' scores is compared first, so that
most are read once more and no oftener. The few that are left are computed anew in float64, so the
result is that of float64 throughout, ties by row number, however the rows were cut into blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dask_embstab.core.matrix.powers import power_of_two
from dask_embstab.core.types import Matrix, RowNumbers, Rows, Vector

_QUERIES, _ROWS, _SCORES = 1024, 8192, 1 << 21
"""At most, in a block of scores: 8 MiB. In smaller ones the calls cost more than caches save."""
_GROUP = 16
"""Rows of which the largest score is compared first."""
_SEED_GROUPS = 8
"""Where floors are sought, so many groups of rows for each of the k at least."""
_PAIRS = 1 << 11
"""Scores that are computed anew at a time."""
_FULL = 2
"""Candidates are thinned out where there are so many times the k that are wanted."""
_UNIT, _SMALLEST = 2.0**-24, 1e-9


@dataclass(frozen=True, slots=True)
class TopKSearch:
    """The ``queries`` (q, d), how many rows each of them looks for, and what is known so far.

    ``floors`` (q,) lie below the k-th best score of each query. They rise while blocks are read, in
    any order and from any thread, and only spare work. One search is for one table.
    """

    queries: Matrix
    k: int
    floors: Vector = field(init=False)
    _rounded: npt.NDArray[np.float32] = field(init=False)
    _scales: Vector = field(init=False)
    _margins: Vector = field(init=False)

    def __post_init__(self) -> None:
        scales = power_of_two(np.abs(self.queries).max(axis=1, initial=0.0))
        scaled = self.queries * scales[:, None]
        d = self.queries.shape[1]
        # Higham 2002, section 3.1: products of rounded factors, in any order of the sum.
        margins = (d + 4) * _UNIT * np.linalg.norm(scaled, axis=1) + 1e-30
        for name, value in {
            "floors": np.full(len(scaled), -np.inf),
            "_rounded": scaled.astype(np.float32),
            "_scales": scales,
            "_margins": margins,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def value_bytes(self) -> int:
        """Bytes of the candidates that one partial result may hold."""
        return candidate_bytes(len(self.queries), self.k)

    def seed(self, rows: Matrix) -> None:
        """Raise the floors to what these rows (m, d) of the table tell of the k-th best scores: the
        largest scores of k groups of rows are scores of k rows.
        """
        size = min(max(len(rows) // (_SEED_GROUPS * self.k), 1), _GROUP)
        best: dict[int, Rows] = {}
        for block in self._scored(rows):
            largest = [best.get(block.asked.start, block.scores[:0].T)]
            largest += [side.T for side in _largest(block.scores, size)]
            scores = np.hstack(largest)
            if (beyond := scores.shape[1] - self.k) > 0:
                scores.partition(beyond, axis=1)
                scores = scores[:, beyond:]
            best[block.asked.start] = scores
            if scores.shape[1] == self.k:
                floors = self.floors[block.asked]
                least = scores.min(axis=1).astype(np.float64) - block.margins
                np.fmax(floors, least / block.scales, out=floors)

    def candidates(self, rows: Matrix, numbers: RowNumbers) -> Candidates:
        """What of ``rows`` (m, d) in float64, of these ``numbers`` (m,), may be among the best."""
        if len(rows) > 2 * self.k and not np.isfinite(self.floors).all():
            self.seed(rows)
        candidates, limit = [NO_CANDIDATES], _FULL * self.k * len(self.queries)
        for block in self._scored(rows):
            least = self.floors[block.asked] * block.scales - block.margins
            places, queries = _reaching(block.scores, least)
            queries, places = queries + block.asked.start, places + block.first
            candidates += [
                self._exact(queries[pairs], places[pairs], rows, numbers)
                for pairs in (slice(i, i + _PAIRS) for i in range(0, len(places), _PAIRS))
            ]
            # Copies of one row have equal scores: thinned out before they fill the memory.
            if sum(len(part.scores) for part in candidates) > limit:
                candidates = [self._thinned(_joined(candidates))]
        return _joined(candidates)

    def _scored(self, rows: Matrix) -> Iterator[_Block]:
        """Scores of all queries and ``rows`` (m, d) in float32, a block of both at a time, each in
        the memory of the one before.
        """
        longest, scale = float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0.0))), 1.0
        if not _SMALLEST < longest < 1 / _SMALLEST:  # float32 might not hold the products
            scale = float(power_of_two(np.abs(rows).max(initial=0.0)))
            rows = rows * scale
            longest = float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0.0)))

        rounded, n_queries = rows.astype(np.float32), len(self.queries)
        width = max(min(_QUERIES, n_queries), 1)
        height = min(_ROWS, _SCORES // width // _GROUP * _GROUP)
        memory = np.empty(width * min(height, len(rows)), np.float32)
        for first in range(0, len(rows), height):
            block = rounded[first : first + height]
            for start in range(0, n_queries, width):
                asked = slice(start, min(start + width, n_queries))
                scales, margins = self._scales[asked] * scale, self._margins[asked] * longest
                shape = len(block), asked.stop - asked.start
                out = memory[: shape[0] * shape[1]].reshape(shape)
                scores = np.matmul(block, self._rounded[asked].T, out=out)
                yield _Block(first, asked, scores, scales, margins)

    def _exact(
        self, queries: RowNumbers, places: RowNumbers, rows: Matrix, numbers: RowNumbers
    ) -> Candidates:
        """These pairs in float64, and what of them reaches the floors."""
        scores = np.einsum("ij,ij->i", self.queries.take(queries, 0), rows.take(places, 0))
        kept = scores >= self.floors[queries]
        return Candidates(queries[kept].astype(np.int32), numbers[places[kept]], scores[kept])

    def merge(self, a: Candidates, b: Candidates) -> Candidates:
        """Of the rows of both; thinned out where there are many."""
        if not len(a.scores) or not len(b.scores):
            return b if not len(a.scores) else a
        both = _joined([a, b])
        return (
            self._thinned(both) if len(both.scores) > _FULL * self.k * len(self.queries) else both
        )

    def _thinned(self, candidates: Candidates) -> Candidates:
        """Without what is known by now not to be among the best."""
        kept = candidates.only(candidates.scores >= self.floors[candidates.queries])
        order = np.argsort(
            kept.queries.astype(np.uint16 if len(self.queries) < 1 << 16 else np.int32),
            kind="stable",
        )
        kept = kept.only(order)
        counts = np.bincount(kept.queries, minlength=len(self.queries))
        full = counts >= self.k
        if not full.any():
            return kept

        starts = np.cumsum(counts) - counts
        table = np.full((int(full.sum()), int(counts.max())), -np.inf)
        line = np.cumsum(full) - 1
        of_full = full[kept.queries]
        place = np.arange(len(kept.scores)) - starts[kept.queries]
        table[line[kept.queries[of_full]], place[of_full]] = kept.scores[of_full]
        width = table.shape[1]
        least = np.partition(table, width - self.k, axis=1)[:, width - self.k]
        floors = self.floors
        floors[full] = np.fmax(floors[full], least)
        kept = kept.only(kept.scores >= floors[kept.queries])
        if len(kept.scores) <= _FULL * self.k * len(self.queries):
            return kept
        return kept.only(_in_order(kept, self.k))  # many equal scores: by row number

    def best(self, candidates: Candidates) -> TopK:
        """The best rows of every query, in order."""
        ranked = candidates.only(_in_order(candidates, self.k))
        counts = np.bincount(ranked.queries, minlength=len(self.queries))
        place = np.arange(len(ranked.scores)) - (np.cumsum(counts) - counts)[ranked.queries]
        scores = np.full((len(self.queries), self.k), -np.inf)
        rows = np.full((len(self.queries), self.k), -1, np.int64)
        scores[ranked.queries, place] = ranked.scores
        rows[ranked.queries, place] = ranked.rows
        return TopK(scores, rows)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of a query and a row that may be among its best, and their scores, in any order."""

    queries: npt.NDArray[np.int32]
    rows: RowNumbers
    scores: Vector

    def only(self, chosen: npt.NDArray[np.bool_] | RowNumbers) -> Candidates:
        """Those that a mask says, or these places in this order."""
        return Candidates(self.queries[chosen], self.rows[chosen], self.scores[chosen])


@dataclass(frozen=True, slots=True)
class TopK:
    """For every query its k best rows: ``scores`` (q, k) descending and ``rows`` (q, k); ties by
    row number. Where there are fewer rows, row -1 at score -inf.
    """

    scores: Matrix
    rows: RowNumbers


@dataclass(frozen=True, slots=True)
class _Block:
    """Scores (m, q) of rows from ``first`` on and the queries ``asked``, times ``scales`` (q,),
    each off by ``margins`` (q,) at most.
    """

    first: int
    asked: slice
    scores: npt.NDArray[np.float32]
    scales: Vector
    margins: Vector


NO_CANDIDATES = Candidates(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0))


def candidate_bytes(n_queries: int, k: int) -> int:
    """Bytes of the candidates of one partial result."""
    return (_FULL + 1) * n_queries * k * 20


def _joined(parts: list[Candidates]) -> Candidates:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_CANDIDATES
    return Candidates(
        np.concatenate([part.queries for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _in_order(candidates: Candidates, k: int) -> RowNumbers:
    """Places of the ``k`` best of every query: by query, descending score, row number."""
    order = np.lexsort((candidates.rows, -candidates.scores, candidates.queries))
    counts = np.bincount(candidates.queries)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    in_order: RowNumbers = order[np.arange(len(order)) - starts < k]
    return in_order


def _largest(
    scores: npt.NDArray[np.float32], size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The largest of every ``size`` lines of ``scores`` (m, q), and the lines that are left."""
    n, q = scores.shape
    whole = n // size * size
    return scores[:whole].reshape(whole // size, size, q).max(axis=1), scores[whole:]


def _reaching(scores: npt.NDArray[np.float32], least: Vector) -> tuple[RowNumbers, RowNumbers]:
    """Lines and columns of the ``scores`` (m, q) that are at least ``least`` (q,)."""
    lowest = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
    largest, left = _largest(scores, _GROUP)
    groups, columns = _true(largest >= lowest)
    whole = len(scores) - len(left)
    theirs = scores[:whole].reshape(len(largest), _GROUP, len(least))[groups, :, columns]
    queries, places = _true(theirs >= lowest[columns, None])
    lines, more = _true(left >= lowest)
    return (
        np.concatenate([groups[queries] * _GROUP + places, whole + lines]),
        np.concatenate([columns[queries], more]),
    )


def _true(mask: npt.NDArray[np.bool_]) -> tuple[RowNumbers, RowNumbers]:
    """Lines and columns; faster than NumPy's of two dimensions."""
    lines, columns = np.divmod(np.flatnonzero(mask), max(mask.shape[1], 1))
    return lines, columns
