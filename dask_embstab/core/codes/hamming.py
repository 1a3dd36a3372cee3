"""Which k codes differ from each of many queries in the fewest bits? A block of rows at a time.

Bits that differ are counted by popcount on words of 64 bits. A row is known by one number, its
distance and then its row number, so that the smallest numbers are the nearest rows, ties by row
number, however the rows were cut into blocks and joined again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dask_embstab.core.codes.packing import Bytes

Keys = npt.NDArray[np.int64]
_QUERIES, _ROWS = 256, 2048
"""A block of distances: half a MiB, which stays in the second cache."""
_ROW_BITS = 44
NONE = np.iinfo(np.int64).max
"""The key of no row."""


def words_of(codes: Bytes) -> Any:
    """Rows of bytes as rows of words of 64 bits, (m, words), filled up with zeros."""
    whole = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    whole[:, : codes.shape[1]] = codes
    return whole.view("<u8")


@dataclass(frozen=True, slots=True)
class HammingSearch:
    """The ``queries`` (q, words), how many rows each of them looks for, and what is asked of
    blocks: `nearest` of each, joined by `merge`.
    """

    queries: Any
    k: int

    def nearest(self, codes: Bytes, numbers: npt.NDArray[np.int64], known: Keys) -> Keys:
        """Keys (q, k) of the nearest of ``codes`` (m, bytes), rows of these ``numbers`` (m,), and
        of those ``known`` (q, k); ascending.
        """
        nearest_keys, columns = known.copy(), np.ascontiguousarray(words_of(codes).T)
        for start in range(0, len(self.queries), _QUERIES):
            asked = slice(start, start + _QUERIES)
            queries, best = self.queries[asked], nearest_keys[asked]
            for first in range(0, len(codes), _ROWS):
                rows = slice(first, first + _ROWS)
                distances = _distances(queries, columns[:, rows])
                best[...] = self._nearer(best, distances, numbers[rows])
        return nearest_keys

    def _nearer(self, best: Keys, distances: Any, numbers: npt.NDArray[np.int64]) -> Keys:
        """The ``best`` (q, k) of a block of ``distances`` (q, m) and of what was known."""
        # A row as far as the last one known is nearer only by its row number: it is looked at.
        if best[:, -1].max() == NONE:
            return self.merge(best, (distances.astype(np.int64) << _ROW_BITS) | numbers)
        farthest = (best[:, -1] >> _ROW_BITS).astype(distances.dtype)
        hits = np.flatnonzero(distances <= farthest[:, None])
        if not len(hits):
            return best
        lines, places = np.divmod(hits, distances.shape[1])
        keys = (distances.ravel()[hits].astype(np.int64) << _ROW_BITS) | numbers[places]
        return merged(best, lines, keys)

    def nothing(self) -> Keys:
        """The keys of no rows, (q, k)."""
        return np.full((len(self.queries), self.k), NONE)

    def merge(self, a: Keys, b: Keys) -> Keys:
        """The nearest of both, (q, k); ``b`` may have any number of keys a line."""
        both = np.concatenate([a, b], axis=1)
        both.partition(self.k - 1, axis=1)
        return np.sort(both[:, : self.k], axis=1)


def merged(best: Keys, lines: npt.NDArray[np.int64], keys: Keys) -> Keys:
    """The ``best`` (q, k) ascending, with more ``keys`` of these ``lines`` among them."""
    k = best.shape[1]
    touched, line = np.unique(lines, return_inverse=True)
    counts = np.bincount(line)
    wide = np.full((len(touched), k + int(counts.max())), NONE)
    wide[:, :k] = best[touched]
    order = np.argsort(line, kind="stable")
    starts = np.cumsum(counts) - counts
    wide[line[order], k + np.arange(len(order)) - starts[line[order]]] = keys[order]
    wide.partition(k - 1, axis=1)
    joined = best.copy()
    joined[touched] = np.sort(wide[:, :k], axis=1)
    return joined


def distances_and_rows(keys: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distances (q, k) and row numbers (q, k)."""
    return keys >> _ROW_BITS, keys & ((1 << _ROW_BITS) - 1)


def _distances(queries: Any, columns: Any) -> Any:
    """Bits in which ``queries`` (q, words) and rows differ, (q, m), of as few bytes as hold them;
    ``columns`` (words, m) are the words of the rows.
    """
    shape = len(queries), columns.shape[1]
    different, distances = np.empty(shape, np.uint64), np.empty(shape, np.uint8)
    np.bitwise_xor(queries[:, :1], columns[0], out=different)
    np.bitwise_count(different, out=distances)
    if 64 * len(columns) > np.iinfo(np.uint8).max:
        distances = distances.astype(np.uint16)
    counted = np.empty(shape, np.uint8) if len(columns) > 1 else distances
    for query, column in zip(queries.T[1:], columns[1:], strict=True):
        np.bitwise_xor(query[:, None], column, out=different)
        np.bitwise_count(different, out=counted)
        distances += counted
    return distances
