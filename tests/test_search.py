"""The nearest rows are those that a whole matrix of scores gives, for any table and chunking."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import world

import dask_embstab as es
from dask_embstab.core.codes.hamming import HammingSearch, distances_and_rows, words_of
from dask_embstab.passes import search as searching

MakeRun = Callable[..., es.Run]
T, W = world(82)
TEXTS = [f"item {i}" for i in range(60)]


def expected(queries: Any, rows: Any, k: int, metric: str) -> tuple[Any, Any]:
    queries, rows = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "cosine":
        queries, rows = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, rows))
    scores = queries @ rows.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("code", [None, "int8", "sign"])
def test_the_best_rows_of_a_run(
    code: str | None, metric: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("raw", T, W, item_ids=TEXTS)
    if code is not None:
        run = es.compress(run, tmp_path / "small.zarr", code=code)
    scores, ids = es.search(W, run, 7, metric=metric)
    wanted, rows = expected(W, np.asarray(run.table("items").vectors), 7, metric)
    np.testing.assert_allclose(scores, wanted, rtol=1e-12)
    np.testing.assert_array_equal(ids, np.array(TEXTS, dtype=object)[rows])


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12), n=st.integers(12, 90))
def test_ties_go_by_row_number(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 3, size=(n, 2)).astype(np.float64)
    queries = rng.integers(-2, 3, size=(5, 2)).astype(np.float64)
    scores, ids = es.search(queries, rows, k, metric="dot")
    wanted, order = expected(queries, rows, k, "dot")
    np.testing.assert_array_equal(scores, wanted)
    np.testing.assert_array_equal(ids, order)


def test_batches_of_queries_give_what_all_at_once_do(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = np.random.default_rng(3).normal(size=(700, 4))
    whole = es.search(queries, T, 5)
    monkeypatch.setattr(searching, "_BATCH_BYTES", 1)
    for a, b in zip(whole, es.search(queries, T, 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_users_of_a_run_are_queries_by_their_scores(make_run: MakeRun) -> None:
    run = make_run("raw", T, W)
    scores, ids = es.search(run, run, 3)
    wanted, order = expected(W, T, 3, "dot")
    np.testing.assert_allclose(scores, wanted, rtol=1e-12)
    np.testing.assert_array_equal(ids, order)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (W, 0, r"k must be at least 1; it is 0"),
        (W, 61, r"61 rows were asked for; .* has 60"),
        (W[:, :3], 5, r"same number of components; .* has 3 and .* 4"),
        (np.where(np.arange(90)[:, None] == 17, np.nan, W), 5, r"row 17 of .* is not finite"),
    ],
)
def test_what_cannot_be_searched_is_one_error(queries: Any, k: int, message: str) -> None:
    with pytest.raises(es.EmbstabError, match=message):
        es.search(queries, T, k)


def test_rows_of_zeros_are_no_answer() -> None:
    rows = T.copy()
    rows[:50] = 0
    _, ids = es.search(W, rows, 10, metric="dot")
    assert ids.min() == 50
    with pytest.raises(es.InputError, match="has 10 that are not zero"):
        es.search(W, rows, 11)


def signs(rows: Any, matrix: Any = None) -> Any:
    rows = rows.astype(np.float32)
    return (rows if matrix is None else rows @ matrix.astype(np.float32)) >= 0


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("rotate", [False, True])
def test_hamming_counts_the_bits_that_differ(
    rotate: bool, make_run: MakeRun, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    T, W = rng.normal(size=(300, 70)), rng.normal(size=(40, 70))
    T[::7] = 0  # rows of zeros are no answer
    texts = [f"item {i}" for i in range(300)]
    small = es.compress(
        make_run("raw", T, W, item_ids=texts), tmp_path / "small.zarr", code="sign", rotate=rotate
    )
    matrix = small.table("items").source.code.matrix
    scores, ids = es.search(W, small, 9, metric="hamming")
    far = (signs(W, matrix)[:, None] != signs(T, matrix)[None]).sum(axis=2).astype(float)
    far[:, ::7] = 999
    order = np.argsort(far, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(scores, -np.take_along_axis(far, order, 1))
    np.testing.assert_array_equal(ids, np.array(texts, dtype=object)[order])


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 9), d=st.sampled_from([3, 64, 300]))
def test_nearest_codes_are_the_same_however_rows_are_cut(seed: int, k: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    codes, asked = (
        np.packbits(rng.integers(0, 2, (n, d), np.uint8), axis=1, bitorder="little")
        for n in (60, 5)
    )
    search, numbers = HammingSearch(words_of(asked), k), np.arange(60)
    whole = search.nearest(codes, numbers, search.nothing())
    cuts = np.unique(np.append(rng.integers(0, 60, 3), [0, 60]))
    parts = [slice(*pair) for pair in itertools.pairwise(cuts)]
    keys = [search.nearest(codes[p], numbers[p], search.nothing()) for p in reversed(parts)]
    np.testing.assert_array_equal(functools.reduce(search.merge, keys), whole)
    known = search.nothing()
    for part in parts:
        known = search.nearest(codes[part], numbers[part], known)
    np.testing.assert_array_equal(known, whole)
    far = np.unpackbits(codes[None] ^ asked[:, None], axis=2).sum(axis=2)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(distances_and_rows(whole)[1], order)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("metric", ["dot", "cosine", "hamming"])
def test_the_best_of_a_search_in_codes_are_rescored(
    metric: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("raw", T, W, item_ids=TEXTS)
    order = np.random.default_rng(1).permutation(60)
    other = make_run("other", T[order], item_ids=np.array(TEXTS)[order].tolist()).items
    small = es.compress(run, tmp_path / "small.zarr", code="sign")
    by = "dot" if metric == "hamming" else metric
    wanted, rows = expected(W, T, 3, by)
    # All of them rescored is the exact search; the order of the other run's rows is its own.
    scores, ids = es.search(run, small, 3, metric=metric, rescore=other, candidates=60)
    np.testing.assert_allclose(scores, wanted, rtol=1e-12)
    np.testing.assert_array_equal(ids, np.array(TEXTS, dtype=object)[rows])
    # Of few, those that the codes find, with their exact scores.
    _, coded = es.search(run, small, 6, metric=metric)
    scores, ids = es.search(run, small, 3, metric=metric, rescore=run, candidates=6)
    assert all(set(best) <= set(few) for best, few in zip(ids, coded, strict=True))
    all_scores, _ = expected(W, T, 60, by)
    assert (np.abs(all_scores[:, None] - scores[:, :, None]).min(axis=2) < 1e-12).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "hamming"}, r"compares sign codes; .* holds none"),
        ({"candidates": 9}, r"are rescored; give rescore"),
        ({"rescore": T[:, :2]}, r"must have the components of what is searched; .* has 2"),
        ({"rescore": T, "candidates": 2}, r"from k, 5, on; it is 2"),
        ({"rescore": es.table(T, ids=TEXTS)}, r"ids of this table are string; 0 is none"),
    ],
)
def test_a_rescored_search_that_cannot_be_is_one_error(options: Any, message: str) -> None:
    with pytest.raises(es.EmbstabError, match=message):
        es.search(W, T, 5, **options)


def test_rows_that_rescoring_needs_are_there_and_finite(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 5))
    signs = es.compress({"items": rows}, tmp_path / "signs.zarr", code="sign")
    few, damaged = rows[:40], rows.copy()
    damaged[50, 2] = np.nan

    def search(other: Any) -> None:
        es.search(rows[:3], signs, 4, metric="hamming", rescore={"items": other}, candidates=60)

    with pytest.raises(es.InputError, match=r"rescore= must have every row .* 40 rows and .* 60"):
        search(few)
    with pytest.raises(es.NotFiniteError, match="row 50 of the items array is not finite"):
        search(damaged)
