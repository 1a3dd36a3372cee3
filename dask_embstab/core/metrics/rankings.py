"""How much do two rankings agree, and how good is a ranking by judgments?

Rankings are lines of row numbers (q, k), best first, without repeats; negative numbers are nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import Matrix, RowNumbers, Vector

Counts = npt.NDArray[np.int64]
_CUTOFFS = (1, 5, 10, 20, 50)
"""And ten times, a hundred times as many, and so on."""


def cutoffs(k: int) -> tuple[int, ...]:
    """The depths at which figures of rankings of length ``k`` are given, ``k`` among them."""
    scale = [10**power * first for power in range(len(str(k))) for first in _CUTOFFS]
    return tuple(sorted({depth for depth in scale if depth < k} | {k})) if k else ()


def places_in(wanted: RowNumbers, ranked: RowNumbers) -> Counts:
    """The place (0 is best) of each of ``wanted`` (q, m) in the same line of ``ranked`` (q, k); -1
    where it is in none.
    """
    if not ranked.size or not wanted.size:
        return np.full(wanted.shape, -1, np.int64)

    stride = int(max(wanted.max(), ranked.max())) + 2
    line = np.arange(len(ranked), dtype=np.int64)[:, None] * stride
    keys = (np.where(ranked < 0, stride - 1, ranked) + line).ravel()
    order = np.argsort(keys, kind="stable")
    asked = np.where(wanted < 0, 0, wanted) + line
    at = np.minimum(np.searchsorted(keys[order], asked), len(keys) - 1)
    present = (keys[order][at] == asked) & (wanted >= 0)
    return np.where(present, order[at] % ranked.shape[1], -1)


def overlaps(a: RowNumbers, b: RowNumbers) -> Counts:
    """How many rows two rankings share down to each depth, (q, k): depth d in column d - 1."""
    q, k = a.shape
    place = places_in(a, b)
    lines, i = np.nonzero(place >= 0)
    depth = np.maximum(i, place[lines, i])
    counts = np.bincount(lines * k + depth, minlength=q * k).reshape(q, k)
    return np.cumsum(counts, axis=1)


def rank_biased_overlap(shared: Counts, *, p: float = 0.9) -> Vector:
    """RBO (Webber, Moffat & Zobel 2010, doi:10.1145/1852102.1852106) of two rankings by what they
    share (`overlaps`), (q,): truncated at k and normalized, 1 if identical, 0 if disjoint.

    The mean over the depths 1 to k of the share of rows that both rankings have down to there,
    depth d with weight p^(d - 1).
    """
    depths = np.arange(shared.shape[1])
    weights = p**depths
    return np.asarray(shared / (depths + 1) @ weights / weights.sum())


def judged_figures(
    grades: Matrix, ideal: Matrix, n_relevant: Counts, depths: Sequence[int]
) -> dict[str, dict[int, Vector]]:
    """nDCG, recall and precision at each of ``depths``, and reciprocal rank, of judged rankings.

    ``grades`` (q, k) are those of the ranked items (0: not judged, or not relevant), ``ideal`` (q,
    k) the largest grades of each query, descending, over all of its ``n_relevant`` (q,) items of a
    grade above 0, in the table or not. The gain is the grade, its discount log2(1 + rank) (Jarvelin
    & Kekalainen 2002, doi:10.1145/582415.582418, as trec_eval computes it).
    """
    discount = np.log2(np.arange(grades.shape[1]) + 2)
    gains, best = (np.cumsum(np.maximum(side, 0) / discount, axis=1) for side in (grades, ideal))
    is_relevant = grades > 0
    hits = np.cumsum(is_relevant, axis=1)
    first = is_relevant.argmax(axis=1)
    reciprocal = np.where(is_relevant.any(axis=1), 1.0 / (first + 1), 0.0)
    return {
        "ndcg": {k: gains[:, k - 1] / best[:, k - 1] for k in depths},
        "recall": {k: hits[:, k - 1] / n_relevant for k in depths},
        "precision": {k: hits[:, k - 1] / k for k in depths},
        "mrr": {k: np.where(first < k, reciprocal, 0.0) for k in depths},
    }
