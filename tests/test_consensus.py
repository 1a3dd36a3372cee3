"""The running reference: the mean of every id's unit rows, against the same mean written plainly with NumPy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    Stop,
    assert_close,
    data_of,
    pairs_by_id,
    refactored,
    rotation,
    standardize,
    stop_at,
    vectors_of,
    world,
)

import dask_embstab as es
from dask_embstab.passes import pairing, partners

Array = np.ndarray[Any, Any]
State = dict[Any, tuple[Array, float]]


def unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def moved(state: State, ids: list[Any], rows: Array, half_life: float | None) -> State:
    """The mean and the weight of every id, one id after the other; the run's ids first, in the run's order."""
    decay = 1.0 if half_life is None else 2.0 ** (-1.0 / half_life)
    aged = {key: (mean, weight * decay) for key, (mean, weight) in state.items()}
    after: State = {}
    for key, row in zip(ids, unit(rows), strict=True):
        mean, weight = aged.pop(key, (np.zeros(len(row)), 0.0))
        after[key] = ((mean * weight + row) / (weight + 1), weight + 1) if row.any() else (mean, weight)
    return after | aged


def landed(items: Array, users: Array, ids: list[Any], state: State) -> Array:
    """Algorithm 2 on unit rows on both sides: the run's standardized ones, and the means of the ids it shares."""
    frame = standardize(items, users, balance="rows")
    known = list(state)
    mine, theirs = pairs_by_id(ids, known)
    means = np.stack([state[key][0] for key in known])[theirs]
    return items @ frame.items @ rotation(unit((items @ frame.items)[mine]), unit(means))


def state_of(series: es.Series, name: str, key: str = "items") -> tuple[list[Any], Array, Array]:
    """Ids, means and weights as they are stored."""
    stored = xr.open_zarr(series.store.place(f"references/{name}.zarr"), group=key)
    ids = stored["id"].values.tolist() if "id" in stored else list(range(len(stored["vectors"])))
    return ids, stored["vectors"].values, stored["weight"].values


def assert_state(series: es.Series, name: str, wanted: State, tolerance: float, key: str = "items") -> None:
    ids, means, weights = state_of(series, name, key)
    assert ids == list(wanted), "the run's ids in its own order, then those that are gone"
    assert_close(means, np.stack([mean for mean, _ in wanted.values()]), tolerance)
    assert_close(weights, [weight for _, weight in wanted.values()], tolerance)


def tables(day: int, n: int, n_users: int = 30) -> tuple[Array, Array]:
    """A world that changes, in other axes every day; row i is item i."""
    T, W = world(0, n, n_users)
    U, V = world(day + 1, n, n_users)
    return refactored(T + 0.2 * U, W + 0.2 * V, day)


# --- the mean

catalogues = st.lists(
    st.tuples(st.permutations(range(20)), st.integers(9, 20), st.integers(3, 25), st.booleans()),
    min_size=2,
    max_size=4,
)


@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=12)
@given(
    catalogue=catalogues,
    half_life=st.none() | st.floats(0.3, 9.0),
    kind=st.sampled_from(["int", "string", "none"]),
    out_of_core=st.booleans(),
)
def test_the_mean_of_any_catalogues(
    tmp_path_factory: pytest.TempPathFactory, catalogue: Any, half_life: float | None, kind: str, out_of_core: bool
) -> None:
    """Any overlap, order, chunking, half-life, path of the join; rows of zeros; tables that grow and shrink."""
    folder = tmp_path_factory.mktemp("c")
    series = es.Series.init(folder / "series", half_life=half_life, min_matched=4)
    state: State = {}
    with pytest.MonkeyPatch.context() as patched, dask.config.set(scheduler="synchronous"):
        if out_of_core:
            patched.setattr(pairing, "_in_memory", lambda *_: None)
            patched.setattr(partners, "_can_be_picked", lambda *_: False)
        for day, (order, n, chunk_rows, with_zeros) in enumerate(catalogue):
            rows = np.arange(n) if kind == "none" else np.array(order[:n])
            T, W = tables(day, 20)
            T = T[rows]
            if with_zeros:
                T[day] = 0.0
            ids = {"int": rows.tolist(), "string": [f"i{row}" for row in rows], "none": list(range(n))}[kind]
            given_ids = {} if kind == "none" else {"item_ids": ids}
            run = es.create_run(folder / f"day-{day}.zarr", T, W, chunk_rows=chunk_rows, **given_ids)
            known = [key for key in ids if key in state]
            if day and len(set(ids[i] for i in range(n)) & set(_live(ids_before))) < 4:
                continue
            series.add(run)
            assert_close(vectors_of(series.open()) @ vectors_of(series.open(), "users").T, T @ W.T, 1e-10)
            if state and len([key for key in known if state[key][1] > 0]) > 8:
                assert_close(vectors_of(series.open()), landed(T, W, ids, state), 1e-8)
            state = moved(state, ids, vectors_of(series.open()), half_life)
            if len(series.log().versions) > 1:
                assert_state(series, run.name, state, 1e-12)
            ids_before = ids
    assert not series.verify().damage


def _live(ids: list[Any]) -> list[Any]:
    return ids
