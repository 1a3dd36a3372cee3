"""How much do two rankings agree? Rank-biased overlap (Webber, Moffat & Zobel 2010), and the top k
of scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.core.types import Matrix, RowNumbers


def rank_biased_overlap(a: RowNumbers, b: RowNumbers, *, p: float = 0.9) -> float:
    """RBO of two rankings (k,) without repeats, truncated at k and normalized: 1 if identical, 0 if
    disjoint.

    The mean over the depths 1 to k of the share of rows that both rankings have down to there,
    depth d with weight p^(d - 1). Negative numbers match nothing.
    """
    k = len(a)
    meets = (a[:, None] == b[None, :]) & (a[:, None] >= 0)
    i, j = np.nonzero(meets)
    overlap = np.cumsum(np.bincount(np.maximum(i, j), minlength=k)[:k])
    weights = p ** np.arange(k)
    return float(weights @ (overlap / np.arange(1, k + 1)) / weights.sum())


@dataclass(frozen=True, slots=True)
class TopK:
    """For every query the k best rows so far: ``scores`` (q, k) descending and ``rows`` (q, k);
    ties by row number.
    """

    scores: Matrix
    rows: RowNumbers

    def __add__(self, other: TopK) -> TopK:
        """The best of both."""
        k = max(self.scores.shape[1], other.scores.shape[1])
        return best(np.hstack([self.scores, other.scores]), np.hstack([self.rows, other.rows]), k=k)


def top_k(queries: Matrix, rows: Matrix, numbers: RowNumbers, *, k: int) -> TopK:
    """Best ``k`` of ``rows`` (m, d) with these ``numbers`` (m,), for each of ``queries`` (q, d) by
    dot product.

    Fewer rows than ``k`` are filled up with row -1 at score -inf.
    """
    scores = queries @ rows.T
    kept = scores
    numbers = np.broadcast_to(numbers, scores.shape)
    if scores.shape[1] < k:
        short = ((0, 0), (0, k - scores.shape[1]))
        kept, numbers = (
            np.pad(scores, short, constant_values=-np.inf),
            np.pad(numbers, short, constant_values=-1),
        )
    return best(kept, numbers, k=k)


def best(scores: Matrix, rows: RowNumbers, *, k: int) -> TopK:
    """The ``k`` largest scores of every line, in order."""
    if scores.shape[1] > 4 * k:
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        least = np.take_along_axis(scores, kept, 1).min(axis=1, keepdims=True)
        for line in np.flatnonzero(
            (scores >= least).sum(axis=1) > k
        ):  # ties at the end: by row number
            kept[line] = np.lexsort((rows[line], -scores[line]))[:k]
        scores, rows = np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return TopK(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))
