"""Which rows decide the rotation of a series' runs, and how much each counts: as `fit` says it, by
settings or by add.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_consensus
import zarr
from oracle import assert_close, pairs_by_id, rotation, standardize, vectors_of
from test_consensus import OFF, Array, State, assert_state, moved, tables, unit

import dask_embstab as es
from dask_embstab.cli.main import main

quick = test_consensus.quick
N, D = 30, 4


def counts_of(day: int) -> Array:
    """How often the items of a day were seen; a third of them too seldom."""
    return np.random.default_rng(day).permutation(np.arange(N)) + 1


def run_of(folder: Path, day: int, *, named: str | None = "events") -> es.Run:
    """A day's run, with its counts stored beside its items."""
    T, W = tables(day, N)
    run = es.create_run(folder / f"day-{day}.zarr", T, W, item_ids=np.arange(N), chunk_rows=8)
    if named:
        zarr.open_group(run.path)["items"].create_array(named, data=counts_of(day))
    return es.open_run(run.path)


def published(
    T: Array, W: Array, rows: Array, state: State, head: Array, head_rows: Array, weights: Array
) -> Array:
    """The consensus over the chosen rows alone: unit rows on the sums, each pair as often as its
    weight says.
    """
    frame = standardize(T, W, balance="rows")
    X = T @ frame.items
    mine, theirs = pairs_by_id(list(rows), list(state))
    sums = np.stack(
        [
            mean * weight + 0.5 * head[key] * (key in head_rows)
            for key, (mean, weight) in state.items()
        ]
    )
    return X @ rotation(weights[rows][mine][:, None] * unit(X)[rows][mine], sums[theirs])


@pytest.mark.parametrize("given", ["setting", "add"])
def test_rows_seen_too_seldom_have_no_say(tmp_path: Path, given: str) -> None:
    """Not in the rotation, not in the running reference, whose every row is a mean over the days
    that saw it often.
    """
    options: dict[str, Any] = {"counts": "events", "min_count": 10}
    series = es.Series.init(
        tmp_path / "s", gates=OFF, forget_below=0, **(options if given == "setting" else {})
    )
    state: State = {}
    for day in range(4):
        run = run_of(tmp_path, day)
        added = series.add(
            run, **({} if given == "setting" else {"counts": counts_of(day), "min_count": 10})
        )
        rows = unit(vectors_of(series.open())) * (counts_of(day) >= 10)[:, None]
        state = moved(state, list(range(N)), rows, 26.0)
        assert_state(series, f"day-{day}", state, 1e-12)
        figures = added.version.figures["selected"]["items"]
        assert (figures["min_count"], figures["counts"]["from"]) == (
            10,
            "events" if given == "setting" else None,
        )
        assert (added.version.figures["alignment"] or {"rows": N})["rows"] < N or day == 0
    assert not series.verify().damage


def test_the_rotation_is_that_of_the_chosen_rows(tmp_path: Path) -> None:
    """Weights times what each row weighs in the running reference."""
    series = es.Series.init(tmp_path / "s", gates=OFF, min_matched=1, head_weight=0)
    runs = [run_of(tmp_path, day) for day in range(2)]
    series.add(runs[0])
    chosen, weights = np.arange(5, N), np.linspace(0, 3, N)
    series.add(runs[1], only=chosen, weights=weights)
    first = unit(vectors_of(series.open(1)))
    state = {key: (row, 1.0) for key, row in enumerate(first)}
    wanted = published(*tables(1, N), chosen, state, first, np.array([]), weights)
    assert_close(vectors_of(series.open()), wanted, 1e-9)


def never_trained(day: int, n: int, d: int) -> tuple[Array, Array, Array]:
    """Four in five items were never trained: in every run they are where its start has put them."""
    rng = np.random.default_rng((7, day))
    world = np.random.default_rng(7)
    T, W = (
        world.normal(size=(n, d)) * 1.2 ** -np.arange(d),
        world.normal(size=(400, d)) * 1.2 ** -np.arange(d),
    )
    counts = np.where(np.arange(n) % 5 == 0, 100, 0)
    T = T + 0.05 * rng.normal(size=T.shape)
    T[counts == 0] = rng.normal(size=(int((counts == 0).sum()), d))
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return T @ Q, (W + 0.05 * rng.normal(size=W.shape)) @ Q, counts


def test_a_series_of_runs_that_are_mostly_never_trained(tmp_path: Path) -> None:
    """With their counts they pass every gate and are aligned as in Python; without, the gates hold
    them.
    """
    n, d = 3000, 8
    series, blind = (
        es.Series.init(tmp_path / name, min_count=c) for name, c in (("s", 5), ("blind", None))
    )
    aligned = []
    for day in range(4):
        T, W, counts = never_trained(day, n, d)
        run = es.create_run(tmp_path / f"{day}.zarr", T, W, item_ids=np.arange(n))
        series.add(run, counts=counts)
        if day == 1:
            blind.add(tmp_path / "0.zarr")
            with pytest.raises(es.HoldError):
                blind.add(run)
        aligned.append(unit(vectors_of(series.open()))[counts > 0])
    assert min(np.sum(a * b, axis=1).mean() for a, b in pairwise(aligned)) > 0.95
    weights = np.asarray(zarr.open_group(tmp_path / "s" / "references" / "3.zarr")["items/weight"])
    assert ((weights > 0) == (counts > 0)).all()


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet", "zarr"])
def test_numbers_and_ids_from_files(tmp_path: Path, kind: str) -> None:
    """A file with ids is matched by them, in any order."""
    runs = [run_of(tmp_path, day, named=None) for day in range(2)]
    counts, place = counts_of(1), tmp_path / f"counts.{kind}"
    order = np.random.default_rng(0).permutation(N)
    frame = pd.DataFrame({"id": order, "n": counts[order]})
    if kind == "npy":
        np.save(place, counts)
    elif kind == "zarr":
        zarr.create_array(place, data=counts)
    elif kind == "csv":
        frame.to_csv(place, index=False)
    else:
        frame.to_parquet(place)
    pd.DataFrame({"id": np.arange(5, N)}).to_csv(tmp_path / "only.csv", index=False)
    files, arrays = (es.Series.init(tmp_path / name, gates=OFF, min_matched=1) for name in "ab")
    for series in (files, arrays):
        series.add(runs[0])
    files.add(runs[1], counts=str(place), only=tmp_path / "only.csv", min_count=8)
    arrays.add(runs[1], counts=counts, only=np.arange(5, N), min_count=8)
    assert_close(vectors_of(files.open()), vectors_of(arrays.open()), 0)
    figures = [series.head().figures["selected"]["items"]["counts"] for series in (files, arrays)]
    assert [one["crc32c"] for one in figures] == [figures[0]["crc32c"]] * 2


@pytest.mark.parametrize(
    "option", [{"sample": 20, "seed": 3}, {"anchors": 20, "seed": 3}, {"rotation_only": True}]
)
def test_other_options_of_fit_are_settings(tmp_path: Path, option: dict[str, Any]) -> None:
    """By the policy previous they say what they say in `stabilize`."""
    runs = [run_of(tmp_path, day) for day in range(2)]
    series = es.Series.init(
        tmp_path / "s",
        policy="previous",
        gates=OFF,
        min_matched=1,
        method="qr",
        keep="geometry",
        **option,
    )
    for run in runs:
        series.add(run)
    by_hand = es.stabilize(
        runs[1],
        tmp_path / "b.zarr",
        reference=series.open(1),
        method="qr",
        keep="geometry",
        min_matched=1,
        **option,
    )
    assert_close(vectors_of(series.open()), vectors_of(by_hand), 1e-12)
    centred = es.Series.init(
        tmp_path / "c", policy="previous", gates=OFF, keep="geometry", center=True
    )
    for run in runs:
        centred.add(run)
    for version in (1, 2):
        assert np.abs(vectors_of(centred.open(version)).mean(axis=0)).max() < 1e-12


def test_an_interrupted_add_goes_on_only_with_the_same_numbers(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "s", gates=OFF | {"matched": 2.0}, min_matched=1)
    runs = [run_of(tmp_path, day) for day in range(2)]
    series.add(runs[0])
    for counts in (counts_of(1), counts_of(2)):
        with pytest.raises(es.HoldError):
            series.add(runs[1], counts=counts, min_count=12)
    series.add(runs[1], counts=counts_of(2), min_count=12, accept="known")
    fresh = es.Series.init(tmp_path / "t", gates=OFF, min_matched=1)
    fresh.add(runs[0])
    fresh.add(runs[1], counts=counts_of(2), min_count=12)
    assert_close(vectors_of(series.open()), vectors_of(fresh.open()), 0)


def test_what_is_missing_is_named(tmp_path: Path, refused: Any) -> None:
    run = run_of(tmp_path, 0)
    series = es.Series.init(tmp_path / "s", min_count=5)
    with refused(es.InputError, "min_count is 5", r"counts= gives those of this run"):
        series.add(run)
    with refused(es.InputError, "'clicks' is no array stored with .*items", "no file of numbers"):
        series.add(run, counts="clicks")
    with refused(es.InputError, "only= are ids, or a CSV, Parquet or .npy file"):
        series.add(run, counts="events", only=tmp_path / "no.csv")
    with refused(es.InputError, "the setting counts must be the name of an array", "ndarray"):
        series.change(counts=counts_of(0))
    with refused(es.InputError, "center moves the origin"):
        series.change(center=True)
    assert series.log().versions == ()


def test_the_command_line_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(tmp_path, 0)
    np.save(tmp_path / "w.npy", np.linspace(1, 2, N))

    def told(*arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["series", *arguments, "--json"])
        assert ended.value.code == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    place, files = str(tmp_path / "s"), ["--weights", str(tmp_path / "w.npy"), "--seed", "4"]
    known = told(
        "init",
        place,
        "--counts",
        "events",
        "--min-count",
        "3",
        "--method",
        "qr",
        "--sample",
        "25",
        *files,
    )
    settings = known["settings"]
    assert (settings["counts"], settings["min_count"], settings["method"], settings["sample"]) == (
        "events",
        3,
        "qr",
        25,
    )
    selected = told("add", place, str(tmp_path / "day-0.zarr"), "--min-count", "4")["figures"][
        "selected"
    ]["items"]
    assert (selected["min_count"], selected["sample"], selected["seed"]) == (4, 25, 4)
    assert selected["weights"]["from"] == str(tmp_path / "w.npy")
