"""The running reference: the mean of every id's unit rows, against the same mean written plainly
with NumPy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    assert_close,
    draws,
    join_on_disk,
    pairs_by_id,
    refactored,
    rotation,
    standardize,
    vectors_of,
    world,
)

import dask_embstab as es
from dask_embstab.series.log.thresholds import THRESHOLDS

OFF = dict.fromkeys(THRESHOLDS)
"""Worlds made to be hard are not what gates are for."""
Array = np.ndarray[Any, Any]
State = dict[Any, tuple[Array, float]]


def unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def moved(state: State, ids: list[Any], rows: Array, half_life: float | None) -> State:
    """The mean and the weight of every id, one id after the other; the run's ids first, in the
    run's order.
    """
    decay = 1.0 if half_life is None else 2.0 ** (-1.0 / half_life)
    aged = {key: (mean, weight * decay) for key, (mean, weight) in state.items()}
    after: State = {}
    for key, row in zip(ids, unit(rows), strict=True):
        mean, weight = aged.pop(key, (np.zeros(len(row)), 0.0))
        after[key] = (
            ((mean * weight + row) / (weight + 1), weight + 1) if row.any() else (mean, weight)
        )
    return after | aged


def left(
    state: State, ids: list[Any], decay: float, least: float, *, first: bool, in_place: bool
) -> State:
    """The state without the ids that are gone and too light to stay once another run with ``ids``
    has been seen.
    """
    light = [
        key for key, (_, weight) in state.items() if (1.0 if first else weight) * decay < least
    ]
    light = [key for key in light if key not in ids]
    if in_place:
        n = len(state)
        while n - 1 in light:
            n -= 1
        light = list(range(n, len(state)))
    return {key: known for key, known in state.items() if key not in light}


def transformed(
    items: Array,
    users: Array,
    ids: list[Any],
    state: State,
    head: dict[Any, Array],
    head_weight: float,
) -> Array:
    """Algorithm 2: the run's standardized unit rows on the sums of those of all runs before it, the
    last counting more.
    """
    frame = standardize(items, users, balance="rows")
    known = list(state)
    mine, theirs = pairs_by_id(ids, known)
    pulls = [state[key][0] * state[key][1] + head_weight * head.get(key, 0.0) for key in known]
    return (
        items @ frame.items @ rotation(unit((items @ frame.items)[mine]), np.stack(pulls)[theirs])
    )


def state_of(series: es.Series, name: str, key: str = "items") -> tuple[list[Any], Array, Array]:
    """Ids, means and weights as they are stored."""
    stored = xr.open_zarr(series.store.place(f"references/{name}.zarr"), group=key)
    ids = stored["id"].values.tolist() if "id" in stored else list(range(len(stored["vectors"])))
    return ids, stored["vectors"].values, stored["weight"].values


def assert_state(
    series: es.Series, name: str, wanted: State, tolerance: float, key: str = "items"
) -> None:
    ids, means, weights = state_of(series, name, key)
    assert ids == list(wanted), "the run's ids in its own order, then those that are gone"
    assert_close(means, np.stack([mean for mean, _ in wanted.values()]), tolerance)
    assert_close(weights, [weight for _, weight in wanted.values()], tolerance)


def tables(day: int, n: int, n_users: int = 30) -> tuple[Array, Array]:
    """A world that changes, in other axes every day; row i is item i."""
    T, W = world(0, n, n_users)
    U, V = world(day + 1, n, n_users)
    return refactored(T + 0.2 * U, W + 0.2 * V, day)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """One task after another."""
    with dask.config.set(scheduler="synchronous"):
        yield


IDS = [np.arange(20), np.arange(20) + 2, np.roll(np.arange(20) + 1, 3), np.arange(20) + 1]
"""Of four days: two new ones and two gone, one that comes back and others in another order, and so
on.
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days, the first three of them in a series with a half-life."""
    folder = tmp_path_factory.mktemp("template")
    series = es.Series.init(folder / "series", half_life=2, forget_below=0, gates=OFF)
    for day, ids in enumerate(IDS):
        T, W = tables(day, 24)
        es.create_run(folder / f"day-{day}.zarr", T[ids], W, item_ids=ids, chunk_rows=8)
        assert day > 2 or series.add(folder / f"day-{day}.zarr").published
    return folder


@pytest.fixture
def days(template: Path) -> list[Path]:
    return [template / f"day-{day}.zarr" for day in range(4)]


@pytest.fixture
def series(template: Path, tmp_path: Path) -> es.Series:
    return es.Series(shutil.copytree(template / "series", tmp_path / "series"))


def state_after(series: es.Series, names: list[str], half_life: float | None = 2) -> State:
    state: State = {}
    for name in names:
        run = es.open_run(series.store.place(f"runs/{name}.zarr"))
        state = moved(state, np.asarray(run.items.ids).tolist(), vectors_of(run), half_life)
    return state


# --- the mean

catalogues = st.lists(
    st.tuples(st.permutations(range(20)), st.integers(13, 20), st.integers(3, 25), st.booleans()),
    min_size=2,
    max_size=4,
)


@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=draws(4))
@given(
    catalogue=catalogues,
    half_life=st.none() | st.floats(0.3, 9.0),
    head_weight=st.sampled_from([0, 0.5, 3.0]),
    least=st.sampled_from([0, 0.7, 1.0, 1.3]),
    kind=st.sampled_from(["int", "string", "none"]),
    dtype=st.sampled_from(["float32", "float64"]),
    out_of_core=st.booleans(),
)
def test_the_mean_of_any_catalogues(
    tmp_path_factory: pytest.TempPathFactory,
    catalogue: Any,
    half_life: float | None,
    head_weight: float,
    least: float,
    kind: str,
    dtype: str,
    out_of_core: bool,
) -> None:
    """Any overlap, order, chunking, half-life and path of the join; rows of zeros; tables that grow
    and shrink.
    """
    folder = tmp_path_factory.mktemp("c")
    weighed = {"half_life": half_life, "head_weight": head_weight, "forget_below": least}
    series = es.Series.init(folder / "series", min_matched=1, gates=OFF, **weighed)
    exact = {"float32": 1e-6, "float64": 1e-12}[dtype]
    state: State = {}
    head: dict[Any, Array] = {}
    with pytest.MonkeyPatch.context() as patched:
        if out_of_core:
            join_on_disk(patched)
        for day, (order, n, chunk_rows, with_zeros) in enumerate(catalogue):
            rows = np.arange(n) if kind == "none" else np.array(order[:n])
            T, W = (table.astype(dtype) for table in tables(day, 20))
            T = T[rows]
            T[day] *= not with_zeros
            ids = [f"i{row}" for row in rows] if kind == "string" else rows.tolist()
            named = {} if kind == "none" else {"item_ids": ids}
            series.add(
                es.create_run(folder / f"day-{day}.zarr", T, W, chunk_rows=chunk_rows, **named)
            )
            rows_landed = vectors_of(series.open())
            if sum(state[key][1] > 0 for key in ids if key in state) >= 8:
                assert_close(
                    rows_landed, transformed(T, W, ids, state, head, head_weight), 1e4 * exact
                )
            stays = left(
                state,
                ids,
                2 ** (-1 / half_life) if half_life else 1.0,
                least,
                first=day == 1,
                in_place=kind == "none",
            )
            figures = series.head().figures["running_reference"]
            assert not day or figures["items"]["left"] == len(state) - len(stays)
            state = moved(stays, ids, rows_landed, half_life)
            head = dict(zip(ids, unit(rows_landed), strict=True))
            if day:
                assert_state(series, f"day-{day}", state, exact)
                assert state_of(series, f"day-{day}")[1].dtype == dtype
    assert not series.verify().damage


def test_users_too_where_they_are_aligned_on(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series", align_on="both", forget_below=0, gates=OFF)
    states: dict[str, State] = {"items": {}, "users": {}}
    for day in range(3):
        T, W = tables(day, 20)
        ids = {"item_ids": np.arange(20) + day, "user_ids": [f"u{i}" for i in range(day, 30 + day)]}
        series.add(es.create_run(tmp_path / f"day-{day}.zarr", T, W, **ids, chunk_rows=8))
        for key, listed in zip(states, ids.values(), strict=True):
            states[key] = moved(states[key], list(listed), vectors_of(series.open(), key), 26.0)
    for key, state in states.items():
        assert_state(series, "day-2", state, 1e-12, key)


def test_the_first_link_is_a_fit_on_the_first_run_s_directions(
    series: es.Series, days: list[Path], tmp_path: Path
) -> None:
    by_hand = es.stabilize(days[1], tmp_path / "b.zarr", reference=series.open(1), unit_rows=True)
    assert_close(vectors_of(series.open(2)), vectors_of(by_hand), 1e-12)
    assert series.log().version(1).reference_digests == {}, (
        "the first run's mean is its own unit rows: nothing is stored"
    )
    assert sorted(series.store.names("references")) == ["day-1.zarr", "day-2.zarr"]
    figures = series.head().figures
    assert figures["alignment"]["unit_rows"]
    assert figures["alignment"]["rows"] == 20, "19 of the last run's and one from before"


def test_rows_count_against_the_last_live_run(series: es.Series, tmp_path: Path) -> None:
    """What was there once is aligned on, and is neither matched nor gone."""
    counts = [v.figures["items"] for v in series.log().versions]
    assert [
        (c["matched"], c["new"], c["unmatched_reference"], c["returned"]) for c in counts[1:]
    ] == [
        (18, 2, 2, 0),
        (19, 1, 1, 1),
    ]
    T, W = tables(3, 24)
    old = es.create_run(
        tmp_path / "old.zarr", T[:20], W, item_ids=[0, 21, 1, 2, 3, *range(100, 115)]
    )
    series.change(min_matched=4)
    with pytest.raises(es.HoldError, match=r"at least 4 rows.* 3 are shared"):
        series.add(old)
    series.change(min_matched=3)
    assert series.add(old).version.figures["items"] | {"rows": 0} == {
        "rows": 0,
        "matched": 3,
        "new": 17,
        "unmatched_reference": 17,
        "returned": 2,
        "lags": None,
        "zero_rows": 0,
    }


def test_the_same_ids_in_the_same_order_are_read_row_by_row(
    series: es.Series, tmp_path: Path
) -> None:
    """Also once the mean holds others behind them."""
    T, W = tables(3, 24)
    again = es.create_run(tmp_path / "again.zarr", T[IDS[2]], W, item_ids=IDS[2], chunk_rows=8)
    series.add(again)
    items = series.open().transform.diagnostics["items"]
    assert (items["paired_by"], items["vectors"], items["unmatched_reference"]) == (
        "identical ids",
        "positional",
        0,
    )
    assert_state(series, "again", state_after(series, ["day-0", "day-1", "day-2", "again"]), 1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_mean_of_narrow_runs_is_float32(tmp_path: Path, dtype: str) -> None:
    series = es.Series.init(tmp_path / "series")
    for day in range(2):
        T, W = (table.astype(dtype) for table in tables(day, 20))
        series.add(es.create_run(tmp_path / f"day-{day}.zarr", T, W))
    assert state_of(series, "day-1")[1].dtype == np.float32


def test_a_wider_run_widens_the_mean(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series", half_life=None, gates=OFF)
    for day, d in enumerate((4, 4, 6, 6)):
        T, W = world(day, 30, 40, d)
        if d == 6 and series.settings.width is None:
            series.change(width=6)
        series.add(es.create_run(tmp_path / f"day-{day}.zarr", T, W, item_ids=np.arange(30) + day))
    ids, means, weights = state_of(series, "day-3")
    assert means.shape == (33, 6)
    assert (means[ids.index(0), 4:] == 0).all()
    assert (weights[ids.index(0)], weights[ids.index(29)]) == (1, 4)
