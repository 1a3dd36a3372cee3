"""Top k of many rows, and figures of rankings, against plain definitions."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, draws

from dask_embstab.core.metrics import top_k
from dask_embstab.core.metrics.rankings import cutoffs, overlaps, places_in, rank_biased_overlap
from dask_embstab.core.metrics.top_k import NO_CANDIDATES, TopKSearch
from dask_embstab.core.tree import Node, Roots, fold

seeds = st.integers(0, 100_000)


def searched(queries: Array, rows: Array, k: int, cuts: list[int], *, seeded: int = 0) -> Any:
    """The best rows by a search over these parts, merged in a tree."""
    search = TopKSearch(queries.astype(float), k)
    if seeded:
        search.seed(rows[:seeded].astype(float))
    roots = Roots(search.merge)
    edges = sorted({0, len(rows), *(cut % (len(rows) + 1) for cut in cuts)})
    for number, (start, stop) in enumerate(pairwise(edges)):
        candidates = search.candidates(rows[start:stop].astype(float), np.arange(start, stop))
        roots.push(Node(0, number, candidates))
    return search.best(fold(roots.forest(), search.merge))


def require_best(ranked: Any, scores: Array, k: int) -> None:
    for line, numbers, best in zip(scores, ranked.rows, ranked.scores, strict=True):
        wanted = sorted(range(len(line)), key=lambda row: (-line[row], row))[:k]
        assert numbers.tolist() == wanted + [-1] * (k - len(wanted))
        assert best.tolist() == [line[row] for row in wanted] + [-np.inf] * (k - len(wanted))


@settings(max_examples=draws(25))
@given(
    seed=seeds,
    n=st.integers(1, 300),
    k=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    values=st.integers(1, 40),
    scale=st.sampled_from([1.0, 2.0**-500, 2.0**400]),
    seeded=st.integers(0, 80),
)
def test_top_k_of_parts_is_top_k_of_the_whole(
    seed: int, n: int, k: int, cuts: list[int], values: int, scale: float, seeded: int
) -> None:
    """Whole numbers make ties: the smaller row number comes first, however the rows were cut and
    whatever float32 can hold.
    """
    rng = np.random.default_rng(seed)
    queries = rng.integers(-3, 4, (5, 2)).astype(float)
    rows = rng.integers(0, values, (n, 2)) * scale
    require_best(searched(queries, rows, k, cuts, seeded=seeded), queries @ rows.T, k)


@pytest.mark.parametrize("n", [5_000])
def test_the_search_is_that_of_float64_where_float32_cannot_tell_scores_apart(n: int) -> None:
    rng = np.random.default_rng(0)
    near = np.ones((n, 8)) + 1e-9 * rng.normal(size=(n, 8))
    queries = rng.random((3, 8)) + 0.5
    scores = np.einsum("qd,nd->qn", queries, near)
    best = searched(queries, near, 20, [1000, 2048, 4097])
    again = searched(queries, near, 20, [17, 3333])
    np.testing.assert_array_equal(best.rows, again.rows)
    for line, numbers in zip(scores, best.rows, strict=True):
        kept = np.sort(line[numbers])[::-1]
        np.testing.assert_allclose(kept, np.sort(line)[::-1][:20], rtol=1e-15)


@settings(max_examples=draws(15))
@given(seed=seeds, m=st.integers(0, 70), q=st.integers(1, 5), group=st.integers(1, 40))
def test_scores_that_reach_their_limit_are_found_by_the_largest_of_every_few(
    seed: int, m: int, q: int, group: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-9, 9, (m, q)).astype(np.float32)
    scores[rng.random((m, q)) < 0.02] = -np.inf
    least = rng.choice([-np.inf, 3.0, 8.0, 20.0], q)
    with mock.patch.object(top_k, "_GROUP", group):
        lines, columns = top_k._reaching(scores, least)
    chosen = np.zeros((m, q), bool)
    chosen[lines, columns] = True
    np.testing.assert_array_equal(chosen, scores >= least)
    assert len(lines) == chosen.sum()


def test_copies_of_one_row_do_not_fill_the_memory() -> None:
    """Every score ties with the k-th best: the first rows win, and few are held."""
    search = TopKSearch(np.eye(300, 4) + 1, 3)
    rows = np.tile(np.arange(1.0, 5.0), (3000, 1))
    candidates = search.candidates(rows, np.arange(3000))
    assert len(candidates.scores) <= 2 * 3 * 300
    np.testing.assert_array_equal(search.best(candidates).rows, np.tile([0, 1, 2], (300, 1)))


def test_a_search_is_copied_to_workers_and_what_they_find_is_merged() -> None:
    rng = np.random.default_rng(1)
    queries, rows = rng.normal(size=(7, 5)), rng.normal(size=(900, 5))
    search = TopKSearch(queries, 4)
    parts = []
    for start in (0, 300, 600):
        worker = pickle.loads(pickle.dumps(search))
        parts.append(worker.candidates(rows[start : start + 300], np.arange(start, start + 300)))
    merged = NO_CANDIDATES
    for part in parts:
        merged = search.merge(merged, part)
    best = search.best(merged).rows
    np.testing.assert_array_equal(best, np.argsort(-queries @ rows.T, axis=1)[:, :4])


# --- agreement of two rankings


def rbo(a: Any, b: Any, p: float = 0.9) -> float:
    (value,) = rank_biased_overlap(overlaps(np.atleast_2d(a), np.atleast_2d(b)), p=p)
    return float(value)


@settings(max_examples=draws(25))
@given(data=st.data(), k=st.integers(1, 12), p=st.sampled_from([0.5, 0.9, 0.98]))
def test_rank_biased_overlap_is_the_plain_loop(data: Any, k: int, p: float) -> None:
    numbers = st.lists(st.integers(0, 15), min_size=k, max_size=k, unique=True)
    a, b = data.draw(numbers), data.draw(numbers)
    a = [-1 if data.draw(st.integers(0, 9)) == 0 else x for x in a]
    value = rbo(a, b, p)
    assert value == pytest.approx(oracle.rank_biased_overlap(a, b, p), abs=1e-12)
    assert 0 <= value <= 1
    assert value == pytest.approx(rbo(b, a, p), abs=1e-12)


def test_rank_biased_overlap_of_equal_and_of_disjoint_rankings() -> None:
    a = np.random.default_rng(0).permutation(100)
    assert rbo(a, a) == pytest.approx(1)
    assert rbo(a, a) <= 1
    assert rbo(a, a + 100) == 0
    assert rbo(np.full(5, -1), np.full(5, -1)) == 0


def test_rank_biased_overlap_is_that_of_another_implementation() -> None:
    """ranked-overlap extrapolates what lies beyond depth k by the agreement at k."""
    ranked_overlap = pytest.importorskip("ranked_overlap")
    rng = np.random.default_rng(3)
    for k in (1, 7, 40):
        a, b = rng.permutation(60)[:k], rng.permutation(60)[:k]
        at_k = len(set(a.tolist()) & set(b.tolist())) / k
        extrapolated = rbo(a, b) * (1 - 0.9**k) + at_k * 0.9**k
        assert extrapolated == pytest.approx(ranked_overlap.rbo(a.tolist(), b.tolist(), p=0.9))


@settings(max_examples=draws(20))
@given(seed=seeds, k=st.integers(1, 30))
def test_shared_rows_by_depth_are_set_intersections(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.stack([rng.permutation(40)[:k] for _ in range(4)]) for _ in range(2))
    a = np.where(rng.random(a.shape) < 0.2, -1, a)
    result = overlaps(a, b)
    for line in range(4):
        for depth in range(1, k + 1):
            shared = {x for x in a[line, :depth].tolist() if x >= 0} & set(b[line, :depth].tolist())
            assert result[line, depth - 1] == len(shared)
    wanted = rng.integers(-1, 41, (4, 6))
    for line, places in enumerate(places_in(wanted, b)):
        listed = b[line].tolist()
        assert places.tolist() == [
            listed.index(x) if x in listed and x >= 0 else -1 for x in wanted[line].tolist()
        ]


@pytest.mark.parametrize(
    ("k", "depths"),
    [(0, ()), (1, (1,)), (7, (1, 5, 7)), (100, (1, 5, 10, 20, 50, 100))],
)
def test_depths_end_at_k(k: int, depths: tuple[int, ...]) -> None:
    assert cutoffs(k) == depths
