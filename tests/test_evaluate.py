"""What `evaluate` measures, against plain NumPy: cosines, lengths, the paper's table 1, and what
every mean left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, draws, pairs_by_id, rank_biased_overlap, world
from seriesworlds import gmf

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.demo.table1 import compare

MakeRun = Callable[..., es.Run]


def cold(seed: int, share: float) -> dict[str, Array]:
    """Tables with rows of zeros at random places, and ids in a random order of which some are this
    run's alone.
    """
    rng = np.random.default_rng(seed)
    tables: dict[str, Array] = {}
    for key, rows in zip(("items", "users"), world(0), strict=True):
        other = world(seed)[0 if key == "items" else 1]
        tables[key] = np.where(rng.random((len(rows), 1)) < share, 0.0, rows + 0.3 * other)
        tables[f"{key[:-1]}_ids"] = rng.permutation(len(rows) + 7)[: len(rows)]
    return tables


def top(query: Array, items: Array, k: int) -> list[int]:
    """Rows of the best items, those of zeros left out."""
    ranked = [int(row) for row in np.argsort(-(items @ query), kind="stable") if items[row].any()]
    return ranked[:k]


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_every_figure_is_that_of_plain_numpy(make_run: MakeRun, share: float) -> None:
    tables = [cold(seed, share) for seed in (1, 2)]
    metrics = es.evaluate(
        *(make_run(f"run-{i}", **given) for i, given in enumerate(tables)), k=10, users=10_000
    )
    shared = {}
    for key in ("items", "users"):
        mine, theirs = pairs_by_id(*(given[f"{key[:-1]}_ids"] for given in tables))
        a, b = (given[key][rows] for given, rows in zip(tables, (mine, theirs), strict=True))
        warm = a.any(axis=1) & b.any(axis=1)
        shared[key] = mine[warm], theirs[warm]
        a, b = a[warm], b[warm]
        lengths = [np.linalg.norm(rows, axis=1) for rows in (a, b)]
        reported = getattr(metrics, key)
        assert (reported.matched, reported.rows, reported.zero_rows) == (
            len(mine),
            len(a),
            len(mine) - len(a),
        )
        assert (reported.unmatched_a, reported.unmatched_b) == tuple(
            len(given[key]) - len(mine) for given in tables
        )
        assert reported.mean_cosine == pytest.approx(
            np.mean(np.sum(a * b, axis=1) / lengths[0] / lengths[1]), abs=1e-12
        )
        assert reported.norm_ratio == pytest.approx(lengths[1].sum() / lengths[0].sum())

    items = [given["items"] for given in tables]
    k = min(10, *(np.count_nonzero(rows.any(axis=1)) for rows in items))
    ids = [given["item_ids"].tolist() for given in tables]
    overlaps = []
    for user_a, user_b in zip(*shared["users"], strict=True):
        queries = tables[0]["users"][user_a], tables[1]["users"][user_b]
        of_a, of_b = ([top(query, rows, k) for query in queries] for rows in items)
        own = [ids[0][row] for row in of_a[0]], [ids[1][row] for row in of_b[1]]
        overlaps.append([rank_biased_overlap(*lists, 0.9) for lists in (of_a, own, of_b)])
    ranked = metrics.rank_correlation
    assert ranked is not None
    figures = ranked.rbo, ranked.retrained_rbo, ranked.new_catalogue_rbo
    np.testing.assert_allclose(figures, np.mean(overlaps, axis=0), rtol=1e-9)
    assert (ranked.k, ranked.users) == (k, len(overlaps))
    zeros = tuple(int(np.sum(~rows.any(axis=1))) for rows in items)
    assert (ranked.zero_items_a, ranked.zero_items_b) == zeros


def test_a_run_of_cold_users_is_still_like_itself(make_run: MakeRun) -> None:
    """The issue's case: with 90 % zero users a run compared with itself had cosine 0.1."""
    run = make_run("run", **cold(1, 0.9))
    metrics = es.evaluate(run, run)
    for reported in (metrics.items, metrics.users):
        assert reported is not None
        assert (reported.mean_cosine, reported.norm_ratio) == (pytest.approx(1), pytest.approx(1))
    ranked = metrics.rank_correlation
    assert ranked is not None
    assert (ranked.rbo, ranked.retrained_rbo, ranked.new_catalogue_rbo) == (pytest.approx(1),) * 3


def test_without_a_row_that_is_not_zero_a_mean_is_null(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    T, W = world(0)
    warm, cold_ = make_run("warm", T, W), make_run("cold", np.zeros_like(T), W)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(warm.path), str(cold_.path), "--json"], prog_name="embstab")
    assert ended.value.code in (None, 0)
    output = json.loads(capsys.readouterr().out)
    counts = {"matched": 60, "rows": 0, "zero_rows": 60, "unmatched_a": 0, "unmatched_b": 0}
    expected = {"mean_cosine": None, "norm_ratio": None, **counts}
    assert {name: output["items"][name] for name in expected} == expected
    assert output["items"]["cosine"] is None
    assert output["users"]["mean_cosine"] == pytest.approx(1)
    assert (output["rank_correlation"]["k"], output["rank_correlation"]["rbo"]) == (0, None)


@settings(max_examples=draws(5))
@given(seed=st.integers(0, 100), n_users=st.integers(1, 80), chunk_rows=st.integers(1, 90))
def test_the_sample_of_users_does_not_depend_on_chunks(
    tmp_path_factory: Any, seed: int, n_users: int, chunk_rows: int
) -> None:
    place: Path = tmp_path_factory.mktemp("sample")
    runs = [
        [es.create_run(place / f"{name}-{i}.zarr", **cold(i, 0.2), chunk_rows=rows) for i in (1, 2)]
        for name, rows in (("cut", chunk_rows), ("whole", 90))
    ]
    metrics, expected = (
        es.evaluate(*pair, k=5, users=n_users, seed=seed).rank_correlation for pair in runs
    )
    assert metrics is not None
    assert metrics == expected
    assert metrics.users <= n_users


def test_values_that_are_not_finite_are_refused_in_any_row(make_run: MakeRun) -> None:
    """Also in items that no other run has, which only the rankings read."""
    T, W = world(0)
    run = make_run("run", T, W, item_ids=np.arange(60))
    bad = np.vstack([T, np.full((1, 4), np.nan)])
    with pytest.raises(es.NotFiniteError, match="row 60"):
        es.evaluate(run, make_run("bad", bad, W, item_ids=np.arange(61)))


# --- the paper's table 1


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, es.Run]:
    """Three real trainings of one recommender, b and c stabilized onto the stabilized a."""
    place = tmp_path_factory.mktemp("gmf")
    first = es.stabilize(gmf("a").write(place / "a.zarr"), place / "a-stable.zarr")
    later = {
        name: es.stabilize(
            gmf(name).write(place / f"{name}.zarr"), place / f"{name}-stable.zarr", reference=first
        )
        for name in ("b", "c")
    }
    return {"a": first, **later}


@pytest.mark.parametrize(("name", "expected"), [("b", 0.80), ("c", 0.73)])
def test_real_trainings_have_the_known_rank_correlation(
    trainings: dict[str, es.Run], name: str, expected: float
) -> None:
    metrics = es.evaluate(trainings["a"], trainings[name], k=100, users=1000)
    ranked = metrics.rank_correlation
    assert ranked is not None
    assert ranked.rbo == pytest.approx(expected, abs=0.01)
    assert (ranked.k, ranked.users, ranked.zero_items_a, ranked.zero_items_b) == (100, 1000, 0, 0)
    assert ranked.retrained_rbo < ranked.rbo

    compared = compare(trainings["a"], trainings[name])
    assert (compared.rbo, compared.retrained) == (
        ranked.rbo,
        ranked.retrained_rbo,
    ), "the demo's figures are these"
    assert compared.rows["users"] == {
        "rows": 6040,
        "zero_rows": 0,
        "unmatched_a": 0,
        "unmatched_b": 0,
    }
