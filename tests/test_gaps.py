"""Gaps to hold: a run aligned to lagged runs and to the running sum, against the formula written
plainly with NumPy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_consensus
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_close, data_of, draws, join_on_disk, rotation, standardize, vectors_of
from test_consensus import OFF, Array, State, moved, tables, unit

import dask_embstab as es
from dask_embstab.cli.main import main

quick = test_consensus.quick
N = 24
"""Ids of the world here."""


def held(
    items: Array,
    users: Array,
    ids: list[Any],
    state: State,
    past: list[dict[Any, Array]],
    given: dict[str, Any],
) -> Array:
    """C = sum over g of w_g X'Y_g / n_g + w_0 X'S / n, on unit standardized rows; the run times its
    polar factor.

    Where none of the lags exists yet the sum decides alone, whatever its weight.
    """
    sum_weight = given["sum_weight"] if any(gap <= len(past) for gap in given["gaps"]) else 1.0
    X = items @ standardize(items, users, balance="rows").items
    C, U = np.zeros((X.shape[1], X.shape[1])), unit(X)
    for key, row in zip(ids, U, strict=True):
        if key in state:
            C += sum_weight * np.outer(row, state[key][0] * state[key][1]) / len(ids)
    for gap, weight in given["gaps"].items():
        earlier = past[-gap] if gap <= len(past) else {}
        n = sum(key in earlier for key in ids)
        for key, row in zip(ids, U, strict=True):
            if key in earlier:
                C += weight * np.outer(row, earlier[key]) / n
    return X @ rotation(np.eye(len(C)), C)


catalogues = st.lists(
    st.tuples(st.permutations(range(N)), st.integers(14, N), st.integers(3, 25), st.booleans()),
    min_size=3,
    max_size=4,
)
gaps = st.dictionaries(st.integers(1, 4), st.floats(0.1, 5), min_size=1, max_size=3)


@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=draws(4))
@given(
    catalogue=catalogues,
    gaps=gaps,
    sum_weight=st.sampled_from([0, 0.25, 2.0]),
    half_life=st.none() | st.floats(0.5, 9.0),
    with_ids=st.booleans(),
    out_of_core=st.booleans(),
)
def test_every_run_is_aligned_as_the_formula_says(
    tmp_path_factory: pytest.TempPathFactory,
    catalogue: Any,
    gaps: dict[int, float],
    sum_weight: float,
    half_life: float | None,
    with_ids: bool,
    out_of_core: bool,
) -> None:
    """Any overlap, order, chunking, weights, half-life and path of the join; rows of zeros; lags
    that are not there.
    """
    folder = tmp_path_factory.mktemp("g")
    chosen: dict[str, Any] = {"gaps": gaps, "sum_weight": sum_weight}
    series = es.Series.init(
        folder / "series", min_matched=1, half_life=half_life, forget_below=0, gates=OFF, **chosen
    )
    state: State = {}
    past: list[dict[Any, Array]] = []
    with pytest.MonkeyPatch.context() as patched:
        if out_of_core:
            join_on_disk(patched)
        for day, (order, n, chunk_rows, with_zeros) in enumerate(catalogue):
            rows = np.array(order[:n]) if with_ids else np.arange(n)
            T, W = tables(day, N)
            T = T[rows]
            T[day] *= not with_zeros
            named = {"item_ids": rows} if with_ids else {}
            added = series.add(
                es.create_run(folder / f"{day}.zarr", T, W, chunk_rows=chunk_rows, **named)
            ).version
            published = vectors_of(series.open())
            if day:
                assert_close(published, held(T, W, rows.tolist(), state, past, chosen), 1e-9)
                known = {str(gap): sum(r in past[-gap] for r in rows) for gap in gaps if gap <= day}
                assert (added.figures["items"]["lags"] or {}) == known
            state = moved(state, rows.tolist(), published, half_life)
            past.append(dict(zip(rows.tolist(), unit(published), strict=True)))
    assert not series.verify().damage


def runs(folder: Path, n: int, **options: Any) -> list[es.Run]:
    made = []
    for day in range(n):
        T, W = tables(day, N)
        made.append(
            es.create_run(folder / f"day-{day}.zarr", T, W, item_ids=np.arange(N), **options)
        )
    return made


def series_of(place: Path, of: list[es.Run], **settings: Any) -> es.Series:
    series = es.Series.init(place, gates=OFF, **settings)
    for run in of:
        series.add(run)
    return series


def test_the_last_run_alone_is_the_policy_previous_on_unit_rows(tmp_path: Path) -> None:
    days = runs(tmp_path, 4)
    one = series_of(tmp_path / "a", days, gaps=[1], sum_weight=0)
    other = series_of(tmp_path / "b", days, policy="previous", unit_rows=True)
    assert_close(vectors_of(one.open()), vectors_of(other.open()), 1e-12)


def test_lags_follow_the_history_of_the_head(tmp_path: Path) -> None:
    """After a rollback, a promotion, a change of settings and a rebase: what was live before the
    run that is the head.
    """
    days = runs(tmp_path, 6)
    series = series_of(tmp_path / "s", days[:3], gaps=[1, 2, 3])
    series.rollback(2)
    series.change(sum_weight=0.5)
    assert {gap: v.run for gap, v in series.log().lagged([1, 2, 3]).items()} == {
        1: "day-1",
        2: "day-0",
    }
    series.add(days[3], shadow=True)
    series.add(days[4])
    assert {gap: v.run for gap, v in series.log().lagged([1, 2, 3]).items()} == {
        1: "day-4",
        2: "day-1",
        3: "day-0",
    }
    series.promote(6)
    series.rebase(1)
    assert {gap: v.run for gap, v in series.log().lagged([1, 3]).items()} == {
        1: "day-3",
        3: "day-0",
    }
    assert series.log().lagged([]) == {}
    assert set(series.add(days[5]).version.figures["items"]["lags"]) == {"1", "2", "3"}


@pytest.mark.parametrize("rewrite", [False, True])
def test_after_a_rebase_lagged_runs_are_read_in_the_new_space(
    tmp_path: Path, *, rewrite: bool
) -> None:
    """Then all of the series has moved by one rotation, nearly, and the next run is aligned where
    it would have, so moved.
    """
    days = runs(tmp_path, 4)
    series, still = (series_of(tmp_path / name, days[:3], gaps=[1, 2, 3]) for name in "ab")
    T, W = tables(9, N)
    series.rebase(
        es.create_run(tmp_path / "onto.zarr", T, W, item_ids=np.arange(N)), rewrite=rewrite
    )
    series.add(days[3])
    still.add(days[3])
    for version in (1, 2, 3):
        here = np.sum(
            unit(vectors_of(series.open())) * unit(np.asarray(series.open(version).items.vectors)),
            axis=1,
        )
        there = np.sum(
            unit(vectors_of(still.open())) * unit(vectors_of(still.open(version))), axis=1
        )
        assert abs(here.mean() - there.mean()) < 0.02


def test_nothing_published_is_rewritten(tmp_path: Path) -> None:
    days = runs(tmp_path, 5)
    series = series_of(tmp_path / "s", days[:2], gaps=[1, 3])
    before = {name: data_of(tmp_path / "s" / "runs" / name) for name in series.store.names("runs")}
    for day in days[2:]:
        series.add(day)
    assert before == {name: data_of(tmp_path / "s" / "runs" / name) for name in before}


def test_a_lag_that_shares_no_row_is_left_out(tmp_path: Path) -> None:
    days = runs(tmp_path, 2)
    series = series_of(tmp_path / "s", days, gaps=[1, 2], min_matched=1)
    for day, ids in ((2, np.arange(N) + 12), (3, np.arange(N) + 24)):
        T, W = tables(day, N)
        series.add(es.create_run(tmp_path / f"day-{day}.zarr", T, W, item_ids=ids))
    assert series.head().figures["items"]["lags"] == {"1": 12}


def test_users_and_items_together(tmp_path: Path) -> None:
    """One number of pairs for both tables: as if they stood in one."""
    days = runs(tmp_path, 4, user_ids=[f"u{i}" for i in range(30)])
    series = series_of(tmp_path / "s", days, align_on="both", gaps={1: 1.0, 3: 2.0})
    figures = series.head().figures
    assert (figures["items"]["lags"], figures["users"]["lags"]) == (
        {"1": N, "3": N},
        {"1": 30, "3": 30},
    )
    frame = standardize(*(np.asarray(t) for t in tables(3, N)), balance="rows")
    C = np.zeros((4, 4))
    for key, table, M in zip(
        ("items", "users"), tables(3, N), (frame.items, frame.users), strict=True
    ):
        X = unit(table @ M)
        Y = [unit(vectors_of(series.open(version), key)) for version in (1, 2, 3)]
        decay = 2 ** (-1 / 12)
        C += X.T @ (Y[2] + 2 * Y[0]) / (N + 30) + X.T @ (decay**2 * Y[0] + decay * Y[1] + Y[2]) / (
            N + 30
        )
    assert_close(
        vectors_of(series.open()), tables(3, N)[0] @ frame.items @ rotation(np.eye(4), C), 1e-9
    )


# --- settings


def test_gaps_without_weights_weigh_alike_and_set_the_half_life(tmp_path: Path) -> None:
    known = es.Series.init(tmp_path / "s", gaps=[26, 4]).settings
    assert known.gaps == {"4": 1.0, "26": 1.0}
    assert known.decay == pytest.approx(2 ** (-1 / 104))
    assert es.Series(tmp_path / "s").settings == known
    assert es.Series.init(tmp_path / "none").settings.decay == pytest.approx(2 ** (-1 / 26))


@pytest.mark.parametrize(
    "gaps", [[0], [-1], ["x"], {1: 0}, {1: float("nan")}, {1: "many"}, [1.5], [None], {2: None}]
)
def test_gaps_are_numbers_of_runs(tmp_path: Path, gaps: Any) -> None:
    with pytest.raises(
        es.InputError, match=r"gaps must be whole numbers of runs from 1 on.*\[1, 4, 13\]"
    ):
        es.Series.init(tmp_path / "s", gaps=gaps)


@pytest.mark.parametrize(
    "other", [{"policy": "first"}, {"policy": "previous"}, {"unit_rows": False}]
)
def test_gaps_are_of_the_consensus(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(
        es.InputError, match="gaps are held by the policy 'consensus', on unit rows"
    ):
        es.Series.init(tmp_path / "s", gaps=[1], **other)


def test_the_command_line_sets_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(verb: str, *arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["series", verb, str(tmp_path / "s"), *arguments, "--json"])
        assert ended.value.code == 0
        known: dict[str, Any] = json.loads(capsys.readouterr().out)["settings"]
        return known

    assert told("init", "--gaps", "1,4", "--sum-weight", "0.5")["gaps"] == {"1": 1.0, "4": 1.0}
    assert told("settings", "--gaps", "1=2,26=0.5")["gaps"] == {"1": 2.0, "26": 0.5}
    assert told("settings", "--half-life", "3")["half_life"] == 3.0
    assert told("settings", "--half-life", "auto")["half_life"] == "auto"
    assert told("settings", "--gaps", "none") | {"gates": 0} == told("settings") | {
        "gates": 0,
        "gaps": {},
    }
    with pytest.raises(SystemExit) as ended:
        main(["series", "settings", str(tmp_path / "s"), "--gaps", "1=x"])
    assert ended.value.code == 2
    assert "gaps are like 1,4,13 or 1=1.2,4=1.5, or none" in capsys.readouterr().err
