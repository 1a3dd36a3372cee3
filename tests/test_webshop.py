"""The real weekly series: what its trainer sees and makes, what its figures are, and the example on
a few of its weeks.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webshop
import webshop_figures
import webshop_series
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import dask_embstab as es
from dask_embstab.demo.als import descend, factorize, half_step
from dask_embstab.series.log.thresholds import THRESHOLDS

DATA = webshop.default_file()
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason=f"no {DATA.name} in {DATA.parent}; set EMBSTAB_DATA"
)

pytestmark = pytest.mark.xdist_group("test_webshop")  # who has the example's six weeks keeps them
FEW = ("consensus", "previous", "previous, unit rows")
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LOSS = {"regularization": 0.7, "alpha": 0.4}


def matrices(most: int = 4) -> st.SearchStrategy[sparse.csr_array]:
    shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
    return shapes.map(
        lambda s: sparse.csr_array(
            np.random.default_rng(s[2]).integers(0, most, s[:2]).astype(np.float64)
        )
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A small shop's file: 60 items, 40 customers, four months; a quarter of its lines do not
    count.
    """
    rng, lines = np.random.default_rng(0), [HEADER]
    for k in range(6000):
        item, user, day = rng.integers(60), rng.integers(40), rng.integers(120)
        when = np.datetime64("2011-01-01") + day
        quantity, customer = (-1 if k % 8 == 0 else 2), ("" if k % 8 == 1 else f"{10000 + user}.0")
        lines.append(
            f'{k},S{item:02d}A,"A THING, RED",{quantity},{when} 08:26:00,1.5,{customer},United'
            " Kingdom"
        )
    path = tmp_path / "shop.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_only_lines_with_a_customer_and_a_positive_quantity_count(shop: Path) -> None:
    events = webshop.read_events(shop)
    assert events.days.size == events.users.size == events.items.size == 4500
    assert events.user_ids[0] == "10000"
    assert events.item_ids[0] == "S00A"


def test_windows_are_a_week_apart_and_count_what_is_in_them(shop: Path) -> None:
    events = webshop.read_events(shop)
    weeks = list(webshop.weeks(events, window_days=90, min_events=1))
    assert [week.name for week in weeks] == [
        "2011-03-31",
        "2011-04-07",
        "2011-04-14",
        "2011-04-21",
        "2011-04-28",
    ]
    first = np.datetime64("2011-03-31").astype(int) + np.datetime64("1970-01-01").item().toordinal()
    inside = (events.days <= first) & (events.days > first - 90)
    assert weeks[0].interactions.sum() == inside.sum()
    user, item = events.users[inside][0], events.items[inside][0]
    count = ((events.users == user) & (events.items == item) & inside).sum()
    row = np.flatnonzero(weeks[0].user_ids == events.user_ids[user])
    assert (
        weeks[0].interactions[row[0], np.flatnonzero(weeks[0].item_ids == events.item_ids[item])[0]]
        == count
    )


@given(counts=matrices(), least=st.integers(1, 8))
def test_the_rare_are_left_out_until_none_is_rare(counts: sparse.csr_array, least: int) -> None:
    rows, columns = webshop.frequent(counts, least)
    expected_rows, expected_columns = list(range(counts.shape[0])), list(range(counts.shape[1]))
    dense, before = counts.toarray(), None
    while before != (expected_rows, expected_columns):
        before = (expected_rows, expected_columns)
        expected_rows = [i for i in expected_rows if dense[i, expected_columns].sum() >= least]
        expected_columns = [j for j in expected_columns if dense[expected_rows, j].sum() >= least]
    assert_array_equal(rows, expected_rows)
    assert_array_equal(columns, expected_columns)


@given(counts=matrices(), seed=st.integers(0, 99))
def test_as_many_conjugate_gradient_steps_as_components_solve(
    counts: sparse.csr_array, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fixed, start = (
        rng.standard_normal((counts.shape[1], 3)),
        rng.standard_normal((counts.shape[0], 3)),
    )
    result = descend(counts, fixed, start, n_steps=3, **LOSS)
    assert_allclose(result, half_step(counts, fixed, **LOSS), atol=1e-8)
    assert_allclose(descend(counts, fixed, result, n_steps=1, **LOSS), result, atol=1e-8)


def test_few_steps_end_where_exact_sweeps_do(shop: Path) -> None:
    week = next(webshop.weeks(webshop.read_events(shop)))
    few, exact = (
        factorize(week.interactions, components=4, n_iterations=60, n_cg_steps=n, seed=0)
        for n in (3, None)
    )
    scores = exact.users @ exact.items.T
    assert np.abs(few.users @ few.items.T - scores).max() < 0.02 * np.abs(scores).max()


@pytest.mark.parametrize("n", [0, -1])
def test_no_steps_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n_cg_steps must be positive"):
        factorize(sparse.csr_array(np.ones((2, 2))), components=1, n_cg_steps=n, seed=0)


def test_a_series_is_a_function_of_its_seed_and_every_week_starts_anew(
    shop: Path, tmp_path: Path
) -> None:
    events = webshop.read_events(shop)

    def vectors(name: str, seed: int) -> list[Any]:
        runs = webshop.write_series(
            events, tmp_path / name, seed=seed, n_weeks=2, components=4, n_iterations=2
        )
        assert [run.name for run in runs] == ["2011-03-31", "2011-04-07"]
        return [np.asarray(run.items.vectors) for run in runs if run.items is not None]

    once, again, other = vectors("a", 1), vectors("b", 1), vectors("c", 2)
    for k in range(2):
        assert_array_equal(once[k], again[k])
        assert not np.allclose(once[k], other[k], rtol=0.1)
    assert not np.allclose(once[0], once[1], rtol=0.1)


def items_of(ids: str, rows: Any) -> webshop_figures.Items:
    return webshop_figures.Items(np.array(list(ids)), np.asarray(rows, np.float64))


def test_figures_are_the_mean_of_the_means_over_shared_items() -> None:
    rng = np.random.default_rng(0)
    weeks = [
        items_of("abcde", rng.standard_normal((5, 2))),
        None,
        items_of("bcdef", rng.standard_normal((5, 2))),
    ]
    weeks.append(items_of("abdfg", rng.standard_normal((5, 2))))
    result = webshop_figures.by_gap(weeks, 1)

    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    x = {name: weeks[2].rows[k] for k, name in enumerate("bcdef")}
    y = {name: weeks[3].rows[k] for k, name in enumerate("abdfg")}
    assert result["transformed"] == pytest.approx(
        np.mean([cosine(x[name], y[name]) for name in "bdf"])
    )
    # In the plane the best rotation or reflection can be searched for.
    X, Y = (np.array([one[name] for name in "bdf"]) for one in (x, y))
    angles = np.linspace(0, 2 * np.pi, 2001)
    turns = [
        np.array([[np.cos(a), -f * np.sin(a)], [np.sin(a), f * np.cos(a)]])
        for a in angles
        for f in (1, -1)
    ]
    best = min(turns, key=lambda Q: np.linalg.norm(Y @ Q - X))
    assert result["ceiling"] == pytest.approx(
        np.mean([cosine(*pair) for pair in zip(X, Y @ best, strict=True)]), abs=1e-3
    )
    assert webshop_figures.by_gap(weeks, 4) == {
        "transformed": None,
        "ceiling": None,
        "ceiling, unit rows": None,
    }


def test_ages_count_from_the_first_run_that_has_the_item() -> None:
    rows = np.random.default_rng(1).standard_normal((3, 2))
    weeks = [items_of(ids, rows) for ids in ("abc", "abd", "ade", "def")]
    result = webshop_figures.by_age(weeks)
    # Week by week: a and b are shared, then a and d (one week old next), then d and e.
    assert {name: line["n"] for name, line in result.items()} == {
        "0": 2,
        "1": 1,
        "in the first run": 3,
    }
    e_d = np.array(
        [
            webshop_figures.cosines(rows[[1]], rows[[0]])[0],
            webshop_figures.cosines(rows[[2]], rows[[1]])[0],
        ]
    )
    assert result["1"]["transformed"] == pytest.approx(e_d[0])
    assert result["0"]["transformed"] == pytest.approx(
        np.mean([webshop_figures.cosines(rows[[2]], rows[[1]])[0], e_d[1]])
    )


def test_a_held_run_is_counted_and_left_out(
    make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    series, outcome = (
        es.Series.init(tmp_path / "series", min_matched=30, gates=dict.fromkeys(THRESHOLDS)),
        webshop_series.Outcome(),
    )
    for name, start in (("one", 0), ("two", 30), ("three", 5)):
        rows = [rng.standard_normal((40, 2)) for _ in range(2)]
        ids = np.arange(start, start + 40)
        webshop_series.add(series, make_run(name, *rows, item_ids=ids, user_ids=ids), outcome)
    assert [week is None for week in outcome.weeks] == [False, True, False]
    assert webshop_figures.by_gap(outcome.weeks, 1)["transformed"] is None
    assert webshop_figures.by_gap(outcome.weeks, 2)["transformed"] is not None


def test_an_absent_file_is_one_line(tmp_path: Path) -> None:
    for program in (webshop, webshop_series):
        options = [str(tmp_path / "out")] if program is webshop else []
        with pytest.raises(
            SystemExit, match=r"^error: there is no online_retail.csv.gz in .*; give the folder"
        ):
            program.main([*options, "--data", str(tmp_path)])


@needs_data
def test_the_shops_weeks_are_as_described() -> None:
    events = webshop.read_events(DATA)
    assert (events.days.size, events.user_ids.size, events.item_ids.size) == (397_924, 4339, 3665)
    weeks = list(webshop.weeks(events))
    assert (len(weeks), weeks[0].name, weeks[-1].name) == (41, "2011-02-28", "2011-12-05")
    for week in weeks:
        assert week.interactions.shape == (week.user_ids.size, week.item_ids.size)
        assert min(week.interactions.sum(axis=0).min(), week.interactions.sum(axis=1).min()) >= 5


@pytest.fixture(scope="module", params=[FEW, pytest.param(None, marks=pytest.mark.long)])
def small(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[dict[str, Any], str]:
    """The example on six weeks; the short form follows three policies."""
    page = tmp_path_factory.mktemp("webshop") / "policies.md"
    report = page.with_name("report.html")
    with pytest.MonkeyPatch.context() as patched:
        if request.param:
            known = {name: webshop_series.POLICIES[name] for name in request.param}
            patched.setattr(webshop_series, "POLICIES", known)
            patched.setattr(webshop_series, "HELD_OUT", request.param[:1])
        words = ["--small", "--markdown", str(page), "--report", str(report)]
        (results,) = webshop_series.main(words)
    assert "<h1>Series consensus</h1>" in report.read_text(encoding="utf-8")
    return results, page.read_text(encoding="utf-8")


@needs_data
def test_aligning_to_the_previous_run_is_the_ceiling_of_the_next_week(
    small: tuple[dict[str, Any], str],
) -> None:
    result, _ = small
    for policy, key in (("previous", "ceiling"), ("previous, unit rows", "ceiling, unit rows")):
        figures = result[policy]["gaps"][1]
        assert figures["transformed"] == pytest.approx(figures[key], abs=1e-4)


@needs_data
def test_no_policy_beats_the_ceiling_by_much(small: tuple[dict[str, Any], str]) -> None:
    result, _ = small
    for policy in result.keys() & webshop_series.POLICIES.keys():
        assert (result[policy]["passed"], result[policy]["held"]) == (6, 0)
        for gap in (1, 4):
            figures = result[policy]["gaps"][gap]
            assert (
                0.5 * figures["ceiling"]
                < figures["transformed"]
                < 1.02 * figures["ceiling, unit rows"]
            )
        assert sum(line["n"] for line in result[policy]["ages"].values()) > 5000


@needs_data
def test_the_page_says_how_it_was_made(small: tuple[dict[str, Any], str]) -> None:
    result, page = small
    assert "`python examples/webshop_series.py --small --markdown " in page
    assert f"| consensus | {result['consensus']['gaps'][1]['transformed']:.3f} (" in page
