"""A run of a series whose ids were renamed or merged: a list of pairs stands for equal ids, in the
fit, in the lags, in the gates and in the drift of the chain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_consensus
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_close, draws, rotation, standardize, vectors_of
from seriesworlds import drifting
from test_consensus import OFF, tables, unit

import dask_embstab as es
from dask_embstab.cli.main import main

quick = test_consensus.quick
N = 24
NEW = 10_000
"""What is added to an id that is renamed."""


def weeks(folder: Path, n: int, **options: Any) -> list[es.Run]:
    """A drifting world that passes every gate."""
    seen = []
    for week in range(n):
        made = drifting(week, n_items=200, n_users=220)
        ids = {"item_ids": made.item_ids, "user_ids": made.user_ids} | options
        seen.append(es.create_run(folder / f"w{week}.zarr", made.items, made.users, **ids))
    return seen


def renamed(folder: Path, run: es.Run, name: str) -> es.Run:
    """The same rows under new item ids."""
    ids = np.asarray(run.items.ids) + NEW
    return es.create_run(
        folder / f"{name}.zarr",
        vectors_of(run),
        vectors_of(run, "users"),
        item_ids=ids,
        user_ids=run.users.ids,
    )


def verdicts(added: Any) -> dict[str, float]:
    return {v["gate"]: v["figure"] for v in added.version.verdicts}


days = st.lists(
    st.tuples(st.permutations(range(N)), st.integers(14, N)), min_size=3, max_size=4
).filter(lambda drawn: set(drawn[-1][0][: drawn[-1][1]]) & set(drawn[-2][0][: drawn[-2][1]]))


SETTINGS: list[dict[str, Any]] = [
    {"gaps": {1: 1.0, 2: 3.0}, "sum_weight": 0.5},
    {"gaps": [2], "align_on": "both"},
    {},
    {"policy": "previous"},
    {"policy": "first", "unit_rows": True},
]


@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=2)
@given(drawn=days, chosen=st.sampled_from(SETTINGS[:2]))
def test_renamed_and_listed_is_not_renamed(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any, chosen: dict[str, Any]
) -> None:
    require_one_outcome(tmp_path_factory.mktemp("p"), drawn, chosen)


@pytest.mark.long
@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=draws(25))
@given(drawn=days, chosen=st.sampled_from(SETTINGS))
def test_renamed_and_listed_is_not_renamed_in_many_more_draws(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any, chosen: dict[str, Any]
) -> None:
    require_one_outcome(tmp_path_factory.mktemp("p"), drawn, chosen)


def require_one_outcome(folder: Path, drawn: Any, chosen: dict[str, Any]) -> None:
    """Any overlap, order, policy and gaps: the listed run is where it is with its old ids, and
    every gate and the drift of the chain have the same figures.
    """
    plain, other = (
        es.Series.init(folder / name, min_matched=1, forget_below=0, gates=OFF, **chosen)
        for name in "ab"
    )
    for day, (order, n) in enumerate(drawn):
        rows = np.array(order[:n])
        T, W = tables(day, N)
        run = es.create_run(folder / f"{day}.zarr", T[rows], W, item_ids=rows, chunk_rows=8)
        one = plain.add(run)
        if day < len(drawn) - 1:
            other.add(run)
            continue
        listed: Any = [(int(i) + NEW, int(i)) for i in rows[::-1]]
        if "align_on" in chosen:
            listed = {"items": listed}
        two = other.add(renamed(folder, run, "new"), pairs=listed)
    assert_close(vectors_of(other.open()), vectors_of(plain.open()), 1e-9)
    ours, theirs = two.version.figures, one.version.figures
    assert ours["items"]["lags"] == theirs["items"]["lags"]
    assert ours["chain_minus_first"] == pytest.approx(theirs["chain_minus_first"], abs=1e-9)
    expected = verdicts(one)
    for gate, figure in verdicts(two).items():
        if gate == "matched":  # of the rows that the list names, not of the smaller table
            both = set(drawn[-1][0][: drawn[-1][1]]) & set(drawn[-2][0][: drawn[-2][1]])
            assert figure == len(both) / drawn[-1][1]
        else:
            assert figure == pytest.approx(expected[gate], abs=1e-6), gate
    assert not other.verify().damage


def test_lags_and_the_sum_meet_the_ids_that_the_list_names(tmp_path: Path) -> None:
    """Merged products: C = sum over pairs of w_g x'y_g / n_g + w_0 x's / n, written plainly."""
    series = es.Series.init(tmp_path / "s", gates=OFF, gaps={1: 2.0, 2: 1.0}, sum_weight=0.5)
    past = []
    for day in (0, 1):
        T, W = tables(day, N)
        series.add(es.create_run(tmp_path / f"{day}.zarr", T, W, item_ids=np.arange(N)))
        past.append(unit(vectors_of(series.open())))
    T, W = tables(2, N)
    T = T[: N // 2]
    run = es.create_run(tmp_path / "2.zarr", T, W, item_ids=NEW + np.arange(N // 2))
    listed = [(NEW + i // 2, i) for i in range(N)] + [(NEW, 0), (NEW + 1, NEW), (7, 3)]
    added = series.add(run, pairs=listed)
    assert added.version.figures["items"]["lags"] == {"1": N, "2": N}
    frame = standardize(T, W, balance="rows")
    U = unit(T @ frame.items)[np.arange(N) // 2]
    decay = 2 ** (-1 / 8)
    S = decay * past[0] + past[1]
    C = U.T @ (2 * past[1] + past[0]) / N + 0.5 * U.T @ S / (N + 1)
    assert_close(vectors_of(series.open()), T @ frame.items @ rotation(np.eye(4), C), 1e-9)


def test_a_run_of_merged_products_passes_every_gate(tmp_path: Path) -> None:
    """Ten old ids in others' new ones, by command; the next run has the new ids and needs no list,
    and does not mind one.
    """
    runs = weeks(tmp_path, 5)
    series = es.Series.init(tmp_path / "s", gaps=[1, 2])
    for run in runs[:3]:
        series.add(run)
    old = np.asarray(runs[3].items.ids)
    into = np.arange(len(old))
    into[1:20:2] -= 1
    kept = np.unique(into)
    pd.DataFrame({"new": NEW + old[into], "old": old}).to_csv(tmp_path / "pairs.csv", index=False)
    merged = es.create_run(
        tmp_path / "merged.zarr",
        vectors_of(runs[3])[kept],
        vectors_of(runs[3], "users"),
        item_ids=NEW + old[kept],
        user_ids=runs[3].users.ids,
    )
    arguments = ["series", "add", str(tmp_path / "s"), merged.path]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--pairs", str(tmp_path / "pairs.csv")])
    assert ended.value.code == 0
    added = series.head()
    assert added is not None
    assert added.figures["items"]["matched"] == np.isin(old, np.asarray(runs[2].items.ids)).sum()
    share = next(v["figure"] for v in added.verdicts if v["gate"] == "matched")
    assert 0.9 < share < 1  # this week's own products have no old ids
    following = series.add(renamed(tmp_path, runs[4], "next"), pairs=tmp_path / "pairs.csv")
    assert 0.9 < verdicts(following)["matched"] < 1
    assert not series.verify().damage


def test_a_list_of_which_the_head_has_little_is_held(tmp_path: Path) -> None:
    runs = weeks(tmp_path, 2)
    series = es.Series.init(tmp_path / "s", min_matched=1)
    series.add(runs[0])
    other = renamed(tmp_path, runs[1], "new")
    new, old = np.asarray(other.items.ids), np.asarray(runs[1].items.ids)
    known = np.isin(old, np.asarray(runs[0].items.ids))
    listed = [(int(a), int(b)) for a, b in zip(new[known], old[known], strict=True)]
    with pytest.raises(es.HoldError, match=r"matched of items 0\.25 \(at least 0\.3\)"):
        series.add(other, pairs=listed[:40] + [(a, -b - 1) for a, b in listed[40:160]])
    assert verdicts(series.add(other, pairs=listed[:40]))["matched"] == 1


def test_the_floor_counts_listed_pairs(tmp_path: Path) -> None:
    runs = weeks(tmp_path, 2)
    series = es.Series.init(tmp_path / "s", min_matched=40)
    series.add(runs[0])
    other = renamed(tmp_path, runs[1], "new")
    shared = np.intersect1d(*(np.asarray(run.items.ids) for run in runs))
    listed = [(int(i) + NEW, int(i)) for i in shared]
    with pytest.raises(es.HoldError, match=r"at least 40 listed pairs.*39 of the list are"):
        series.add(other, pairs=listed[:39])
    assert series.add(other, pairs=listed[:40]).published


def test_what_the_settings_select_counts_and_the_list_decides(tmp_path: Path) -> None:
    """Weights, samples and counts are settings of the series; a list that comes with a run sets
    aside what decides, and rows seen too seldom still have no say in the mean.
    """
    runs = weeks(tmp_path, 2)
    other = renamed(tmp_path, runs[1], "new")
    for run in (runs[0], other):
        counts = np.arange(run.items.n_rows) % 10
        zarr.open_group(run.path)["items"].create_array("events", data=counts)
    chosen = {"counts": "events", "min_count": 2, "weights": "events", "sample": 150}
    listed = [(int(i) + NEW, int(i)) for i in np.asarray(runs[1].items.ids)]
    series = es.Series.init(tmp_path / "s", gates=OFF, **chosen)
    series.add(runs[0])
    with pytest.raises(es.InputError, match="pairs= says which rows decide"):
        series.add(other, pairs=listed, sample=5)
    added = series.add(other, pairs=listed).version
    figures = added.figures["selected"]["items"]
    assert {"pairs", "counts"} <= set(figures)
    assert "weights" not in figures
    weights = zarr.open_group(tmp_path / "s/references/new.zarr")["items/weight"][:]
    np.testing.assert_array_equal(weights[: len(counts)] > 0, counts >= 2)
    assert figures["sample"] is None


def test_a_list_by_table_goes_with_ids_in_the_other(tmp_path: Path) -> None:
    """A file of pairs of items; users keep their ids."""
    runs = weeks(tmp_path, 2)
    series = es.Series.init(tmp_path / "s", align_on="both")
    series.add(runs[0])
    shared = np.intersect1d(*(np.asarray(run.items.ids) for run in runs))
    frame = pd.DataFrame({"new": shared + NEW, "old": shared})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    added = series.add(
        renamed(tmp_path, runs[1], "new"), pairs={"items": str(tmp_path / "pairs.csv")}
    )
    assert added.version.figures["users"]["matched"] == 220
    assert added.version.figures["items"]["matched"] == len(shared)
