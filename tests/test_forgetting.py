"""A running reference forgets what has faded, and a series keeps as many of them as a rollback may
need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_consensus
from oracle import data_of
from test_consensus import OFF, state_of, tables

import dask_embstab as es

quick = test_consensus.quick
N = 60
"""Rows of a run here."""


def days(folder: Path, ids: list[Any]) -> list[es.Run]:
    """A run a day over these ids, in a few chunks."""
    runs = []
    for day, named in enumerate(ids):
        T, W = tables(day, N)
        runs.append(es.create_run(folder / f"day-{day}.zarr", T, W, item_ids=named, chunk_rows=16))
    return runs


def half_new(n_days: int) -> list[Any]:
    """Every day half of the ids are those of the day before, the others were never seen."""
    return [np.arange(N) + day * (N // 2) for day in range(n_days)]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def added(place: Path, runs: list[es.Run], **settings: Any) -> es.Series:
    series = es.Series.init(place, gates=OFF, min_matched=1, **settings)
    for run in runs:
        series.add(run)
    return series


@pytest.mark.long
def test_disk_is_bounded_where_half_of_the_ids_are_new_every_day(tmp_path: Path) -> None:
    """An id is seen twice here: it weighs 1 + decay when it goes, and stays for at most this many
    runs.
    """
    runs, half_life, kept = days(tmp_path, half_new(14)), 3.0, 2
    decay = 2 ** (-1 / half_life)
    stays = int(np.floor(np.log(1 + decay) / -np.log(decay)))
    series = es.Series.init(tmp_path / "s", gates=OFF, half_life=half_life, keep_references=kept)
    sizes, rows = [], []
    for run in runs:
        series.add(run)
        series.gc(grace=0)
        sizes.append(size(tmp_path / "s" / "references"))
        rows.append(
            (series.head().figures["running_reference"] or {"items": {"rows": 0}})["items"]["rows"]
        )
    assert max(rows) == rows[-1] == N + stays * N // 2
    assert len(set(rows[-6:])) == 1
    assert max(sizes[-6:]) - min(sizes[-6:]) < 0.01 * sizes[-1]
    assert len(series.store.names("references")) == kept
    assert not series.verify().damage
    unbounded = added(
        tmp_path / "all", runs, half_life=half_life, forget_below=0, keep_references=100
    )
    unbounded.gc(grace=0)
    assert size(tmp_path / "all" / "references") > 4 * sizes[-1]


def test_the_same_runs_forget_the_same_rows(tmp_path: Path) -> None:
    runs = days(tmp_path, half_new(4))
    one, other = (added(tmp_path / name, runs, half_life=2) for name in "ab")
    for name in one.store.names("references"):
        assert data_of(tmp_path / "a" / "references" / name) == data_of(
            tmp_path / "b" / "references" / name
        )
    recorded = [version.figures["running_reference"] for version in one.log().versions]
    assert recorded == [version.figures["running_reference"] for version in other.log().versions]
    assert sum(figures["items"]["left"] for figures in recorded if figures) > 0


@pytest.mark.parametrize("half_life", [None, 2.0])
def test_an_id_that_left_is_new_when_it_comes_back(tmp_path: Path, half_life: float | None) -> None:
    """Without a half-life nothing fades, and every id that was ever seen returns."""
    ids = [np.arange(N), *[np.arange(N) + 20] * 4, np.arange(N)]
    series = added(tmp_path / "s", days(tmp_path, ids), half_life=half_life)
    items = series.head().figures["items"]
    assert (items["matched"], items["new"], items["returned"]) == (40, 20, 0 if half_life else 20)
    weights = state_of(series, "day-5")[2]
    assert weights[0] == (1 if half_life else 2)


# --- old references


def test_references_are_kept_as_far_as_a_rollback_may_need(tmp_path: Path) -> None:
    runs = days(tmp_path, [np.arange(N)] * 6)
    series = added(tmp_path / "s", runs[:5], keep_references=2)
    assert series.log().kept_references == ("day-3", "day-4")
    assert sorted(series.gc(grace=0).removed) == ["references/day-1.zarr", "references/day-2.zarr"]
    assert not series.verify().damage
    assert {
        name for name in series.manifest()["files"] if name.startswith("references/day-2")
    } == set()

    assert "not kept" not in series.rollback(4).note
    series.add(runs[5], name="after")
    assert set(state_of(series, "after")[2]) == {sum(2 ** (-k / 26) for k in range(5))}

    # The one of version 3 is gone for good, also once more of them are kept.
    series.change(keep_references=9)
    assert "aligned to this run alone, and starts a new one" in series.rollback(3).note
    series.add(runs[5], name="again")
    assert set(state_of(series, "again")[2]) == {1 + 2 ** (-1 / 26)}
    assert not series.verify().damage
    assert series.gc(grace=0).removed == ["references/day-4.zarr"]


def test_shadows_do_not_drive_out_the_head_s_reference(tmp_path: Path) -> None:
    runs = days(tmp_path, [np.arange(N)] * 5)
    series = added(tmp_path / "s", runs[:2], keep_references=1)
    for run in runs[2:4]:
        series.add(run, shadow=True)
    assert series.log().kept_references == ("day-1",)
    series.gc(grace=0)
    series.add(runs[4])
    np.testing.assert_allclose(state_of(series, "day-4")[2], sum(2 ** (-k / 26) for k in range(3)))
    series.promote(3)
    assert series.log().kept_references == ("day-4",)


@pytest.mark.parametrize("rewrite", [False, True])
def test_a_rebase_moves_the_references_that_are_kept(tmp_path: Path, *, rewrite: bool) -> None:
    runs = days(tmp_path, [np.arange(N)] * 5)
    series = added(tmp_path / "s", runs[:4], keep_references=1)
    series.gc(grace=0)
    series.rebase(2, rewrite=rewrite)
    series.gc(grace=0)
    assert len(series.store.names("references")) == 1
    series.add(runs[4])
    np.testing.assert_allclose(state_of(series, "day-4")[2], sum(2 ** (-k / 26) for k in range(5)))
    assert not series.verify().damage


@pytest.mark.parametrize(
    ("name", "value"), [("forget_below", -1.0), ("forget_below", "1"), ("keep_references", 0)]
)
def test_both_settings_are_checked(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(es.InputError, match=f"{name} must be a"):
        es.Series.init(tmp_path / "s", **{name: value})
