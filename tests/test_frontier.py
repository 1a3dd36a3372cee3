"""What codes keep of a run: every figure of the frontier is that of NumPy on the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.core.codes.code import leading_directions
from dask_embstab.core.metrics.estimates import ratio_estimate

K = 5
RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(400, 8)) * np.linspace(3, 0.5, 8)
USERS = RNG.normal(size=(300, 8))
GROUPS = np.array(["a", "b"], dtype=object)[np.arange(400) % 2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> es.Run:
    return es.create_run(tmp_path_factory.mktemp("frontier") / "run.zarr", ITEMS, USERS)


def asked() -> Any:
    """The queries that choose: half of all, drawn by the seed."""
    drawn = np.random.default_rng(0).choice(300, 300, replace=False)
    return USERS[np.sort(drawn[:150])]


def best(scores: Any, k: int) -> Any:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def shared(a: Any, b: Any) -> Any:
    return (a[:, :, None] == b[:, None, :]).any(axis=2)


def coded_rows(folder: Path, code: str) -> Any:
    small = es.compress({"items": ITEMS}, folder / "small.zarr", code=code)
    return np.asarray(small.table("items").vectors, np.float64)


@pytest.mark.parametrize("code", ["int4", "sign", "int5-component"])
def test_every_figure_is_that_of_whole_matrices(code: str, run: es.Run, tmp_path: Path) -> None:
    frontier = es.frontier(run, k=K, codes=code, groups={"items": GROUPS})
    plain, rescored = (
        next(one for one in frontier.entries if (one.rotate, one.rescored) == (False, n))
        for n in (0, 10 * K)
    )
    rows = coded_rows(tmp_path, code)
    exact, coded = asked() @ ITEMS.T, asked() @ rows.T
    lists, ours = best(exact, K), best(coded, K)
    kept = shared(lists, ours)
    assert plain.recall.mean == pytest.approx(kept.mean())
    # The grade of the best row is K, that of the next K - 1; the discount log2(1 + rank).
    grades = np.where(
        shared(ours, lists), K - (ours[:, :, None] == lists[:, None, :]).argmax(axis=2), 0
    )
    discount = np.log2(np.arange(K) + 2)
    ndcg = (grades / discount).sum(axis=1) / (np.arange(K, 0, -1) / discount).sum()
    assert plain.ndcg.mean == pytest.approx(ndcg.mean())
    assert plain.score_error == pytest.approx(
        np.linalg.norm(coded - exact) / np.linalg.norm(exact), rel=1e-6
    )
    assert plain.slope == pytest.approx((coded * exact).sum() / (coded**2).sum(), rel=1e-6)

    half = asked() @ ITEMS.astype(np.float16).astype(float).T
    deep = best(coded, 10 * K)
    again = np.take_along_axis(deep, best(np.take_along_axis(half, deep, 1), K), 1)
    assert rescored.recall.mean == pytest.approx(shared(lists, again).mean())
    assert rescored.recall.mean > plain.recall.mean
    assert rescored.n_bytes == plain.n_bytes


def test_head_long_tail_and_groups_are_told_apart(run: es.Run, tmp_path: Path) -> None:
    by_user = np.arange(300) % 3
    groups = {"items": GROUPS, "users": np.array(["x", "y", "z"], dtype=object)[by_user]}
    entry = next(
        one for one in es.frontier(run, k=K, codes="int4", groups=groups).entries if not one.rotate
    )
    rows = coded_rows(tmp_path, "int4")
    exact, coded = asked() @ ITEMS.T, asked() @ rows.T
    lists = best(exact, K)
    kept = shared(lists, best(coded, K))
    listed = np.bincount(lists.ravel(), minlength=400)
    order = np.argsort(-listed, kind="stable")
    n = int(np.searchsorted(np.cumsum(listed[order]), lists.size / 2)) + 1
    head = np.isin(lists, order[:n])
    assert entry.parts["head"].recall.mean == pytest.approx(kept[head].mean())
    assert entry.parts["long tail"].recall.mean == pytest.approx(kept[~head].mean())
    for name in ("a", "b"):
        of_it = (name == GROUPS)[lists]
        part = entry.parts[f"items {name}"]
        assert part.recall.mean == pytest.approx(kept[of_it].mean())
        one, other = exact[:, name == GROUPS], coded[:, name == GROUPS]
        assert part.score_error == pytest.approx(
            np.linalg.norm(other - one) / np.linalg.norm(one), rel=1e-6
        )
    drawn = np.sort(np.random.default_rng(0).choice(300, 300, replace=False)[:150])
    of_it = by_user[drawn] == 1
    assert entry.parts["queries y"].recall.mean == pytest.approx(kept[of_it].mean())
    assert {"head", "long tail", "items a", "items b", "queries x"} <= set(entry.parts)


def test_queries_among_items_are_no_answer_to_themselves() -> None:
    frontier = es.frontier({"items": ITEMS}, k=K, codes="float16")
    assert all(one.recall.mean > 0.99 for one in frontier.entries)
    assert {one.rescored for one in frontier.entries} == {0}


@pytest.mark.parametrize("has_users", [True, False])
def test_rows_of_zeros_are_no_candidates_of_a_rescored_code(has_users: bool) -> None:
    rng = np.random.default_rng(3)
    items, users = rng.normal(size=(30, 8)), rng.normal(size=(20, 8))
    items[[5, 17]] = 0
    tables = {"items": items} | ({"users": users} if has_users else {})
    frontier = es.frontier(tables, k=10, codes=["int8", "int4"])
    assert [(one.code, one.rescored) for one in frontier.entries if one.rescored] == [
        ("int4", 28 if has_users else 27)
    ] * 2


def test_chains_are_truncated_rotated_and_coded(run: es.Run) -> None:
    frontier = es.frontier(run, k=K, codes=["float16", "int8"], rank=3)
    V = leading_directions(ITEMS.T @ ITEMS, 3)
    exact = asked() @ ITEMS.T
    off = np.linalg.norm(exact - asked() @ V @ V.T @ ITEMS.T) / np.linalg.norm(exact)
    chains = [one for one in frontier.entries if one.rank == 3 and not one.rescored]
    assert {(one.code, one.rotate) for one in chains} == {
        (code, rotate) for code in ("float16", "int8") for rotate in (False, True)
    }
    for one in chains:
        assert one.score_error == pytest.approx(off, rel=0.01)
        assert one.n_bytes == {"float16": 6, "int8": 5}[one.code]


@pytest.mark.parametrize("limit", [0.4, 0.02])
def test_a_budget_on_the_error_of_scores_is_kept(limit: float, run: es.Run, tmp_path: Path) -> None:
    small = es.compress(run, tmp_path / "small.zarr", budget=f"score_error={limit}")
    record = small.attrs["embstab"]["compressed"]
    assert record["certified"]["high"] <= limit
    rows = np.asarray(small.table("items").vectors, np.float64)
    exact = USERS @ ITEMS.T
    assert np.linalg.norm(USERS @ rows.T - exact) / np.linalg.norm(exact) <= limit * 1.02
    # A truncation is among the codes, and is chosen where the budget is wide.
    assert any(one["rank"] for one in record["entries"]) or limit < 0.1
    assert small.table("items").source.code.row_bytes == record["chosen"]["n_bytes"]


def test_a_ratio_of_sums_has_the_interval_of_repeated_samples() -> None:
    rng = np.random.default_rng(3)
    of = rng.integers(1, 9, size=4000)
    hits = rng.binomial(of, rng.beta(8, 3, size=4000))
    truth, inside = hits.sum() / of.sum(), 0
    for _ in range(200):
        drawn = rng.choice(4000, 60)
        estimated = ratio_estimate(hits[drawn], of[drawn])
        inside += estimated.low <= truth <= estimated.high
    assert 180 <= inside <= 198


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": "int7"}, "code must be one of float16"),
        ({"codes": "pq2"}, "codebooks of 256 entries need about 10000 rows"),
        ({"rank": 9}, "must lie between 1 and 8"),
        ({"k": 0}, "k must be at least 1; it is 0"),
        ({"groups": {"things": GROUPS}}, "by the name of a table"),
    ],
)
def test_a_frontier_that_cannot_be_measured_is_one_error(
    options: Any, message: str, run: es.Run
) -> None:
    with pytest.raises(es.InputError, match=message):
        es.frontier(run, **options)


def test_the_command_prints_and_draws_it(run: es.Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["frontier", str(run.path), "--codes", "int4,pq2", "--force", "--out", str(page)]
    completed = CliRunner().invoke(main, words)
    assert completed.exit_code == 0, completed.output
    lines = completed.output.splitlines()
    assert lines[0].split()[:3] == ["code", "bytes", "recall@10"]
    assert any(line.startswith("pq2, rotated, rescored") for line in lines)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.read_text().count("<svg") == 3
    completed = CliRunner().invoke(main, [*words[:4], "--force", "--json"])
    answer = json.loads(completed.output)
    assert {one["code"] for one in answer["entries"]} == {"int4", "pq2"}
    assert "head" in answer["entries"][0]["parts"]


def test_codes_are_a_list_or_one_text_with_commas() -> None:
    items = np.random.default_rng(0).normal(size=(60, 4))
    frontier = es.frontier({"items": items}, codes="int8, int6")
    assert {one.code for one in frontier.entries} == {"int8", "int6"}
    with pytest.raises(es.InputError, match="codes= must be names of codes"):
        es.frontier({"items": items}, codes=[])
