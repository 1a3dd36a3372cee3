"""Laws of a report's verdict: it is never false, and it names what is wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.series.log.thresholds import GATES


def day(folder: Path, t: int) -> es.Run:
    """One noisy geometry in another basis each day; names and ids stay."""
    own, ids = np.random.default_rng(100 + t), np.arange(5 * t, 5 * t + 80)
    M = own.normal(size=(4, 4))
    items, users = (np.random.default_rng(k).normal(size=(200, 4)) for k in (0, 1))
    items = (items[ids] + 0.1 * own.normal(size=(80, 4))) @ M
    users = (users[:60] + 0.1 * own.normal(size=(60, 4))) @ np.linalg.inv(M).T
    return es.create_run(folder / f"d{t}.zarr", items, users, item_ids=ids)


def agreement(report: es.Report) -> float | None:
    keys = {key["name"]: key["value"] for key in report.to_dict()["keys"]}
    result: float | None = keys["Same ids agree"]
    return result


@pytest.mark.parametrize("policy", ["consensus", "previous"])
@pytest.mark.parametrize("rewrite", [False, True])
def test_a_rebase_changes_no_verdict_of_a_run(tmp_path: Path, policy: str, rewrite: bool) -> None:
    series = es.Series.init(tmp_path / "s", policy=policy)
    for t in range(3):
        series.add(day(tmp_path, t))
    series.rebase(onto=tmp_path / "d1.zarr", rewrite=rewrite)
    series.add(day(tmp_path, 3))  # of references that are read through the rebase
    for version in (2, 3, 5):
        report = es.report(f"{series.store.place('')}@{version}")
        assert report.well, report.verdict
        assert (agreement(report) or 0) > 0.9
        assert report.to_dict()["notes"] == []
    if not rewrite:
        stored = es.report(tmp_path / "s" / "runs" / "d2.zarr")  # not through the series
        assert stored.well
        assert (agreement(stored) or 0) > 0.9
    else:
        superseded = es.report(tmp_path / "s" / "runs" / "d2.zarr")
        assert superseded.well
        assert agreement(superseded) is None
        assert "a rebase or a forget came since" in superseded.to_dict()["notes"][0]


def test_a_rebased_run_outside_of_its_series_is_not_compared(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "s")
    for t in range(2):
        series.add(day(tmp_path, t))
    series.rebase(onto=tmp_path / "d0.zarr", rewrite=True)
    shutil.copytree(Path(str(series.open().path)), tmp_path / "copy.zarr")
    report = es.report(tmp_path / "copy.zarr")
    assert report.well
    assert agreement(report) is None
    assert "a rebase moved the run" in report.to_dict()["notes"][0]


@pytest.mark.parametrize("by_id", [False, True])
def test_another_run_at_the_references_place_is_not_compared(tmp_path: Path, by_id: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 120, 4))
    at, out = tmp_path / "reference.zarr", tmp_path / "out.zarr"
    ids = np.arange(120)
    es.create_run(at, rows[0], item_ids=ids)
    run = es.create_run(tmp_path / "run.zarr", rows[0], item_ids=ids[::-1] if by_id else ids)
    es.stabilize(run, out, reference=at)
    for other, ids_of, message in (
        (rows[1], ids, "its vectors are of another space"),
        (rows[2][:100], ids[:100], "it has 100 items, the reference had 120"),
        (np.concatenate([rows[0][:100], rows[1][:20]]), ids, None if by_id else "items are others"),
    ):
        if message is None:
            continue  # of gathered rows no digest is recorded: the first 64 rows tell
        es.create_run(at, other, item_ids=ids_of, overwrite=True)
        report = es.report(out)
        assert agreement(report) is None
        assert message in report.to_dict()["notes"][0]
    es.create_run(at, rows[0], item_ids=ids, name="other", overwrite=True)
    assert "its name is other" in es.report(out).to_dict()["notes"][0]
    es.stabilize(run, at, overwrite=True)
    assert "as training left it, it is not" in es.report(out).to_dict()["notes"][0]
    shutil.rmtree(at)
    assert "cannot be read any more" in es.report(out).to_dict()["notes"][0]


def test_another_stabilized_run_at_the_references_place_is_not_compared(tmp_path: Path) -> None:
    """Of the same name and rows, joined by ids: the space it is in tells."""
    rows, ids = np.random.default_rng(0).normal(size=(2, 120, 4)), np.arange(120)
    raw = [
        es.create_run(tmp_path / f"{k}.zarr", rows[k], item_ids=ids, name="day") for k in range(2)
    ]
    at, out = tmp_path / "reference.zarr", tmp_path / "out.zarr"
    es.stabilize(raw[0], at)
    run = es.create_run(tmp_path / "run.zarr", rows[0], item_ids=ids[::-1])
    es.stabilize(run, out, reference=at)
    assert es.report(out).to_dict()["notes"] == []
    es.stabilize(raw[1], at, overwrite=True)
    assert "its vectors are of another space" in es.report(out).to_dict()["notes"][0]


def test_an_unchanged_reference_is_compared(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(120, 4))
    es.create_run(tmp_path / "a.zarr", rows)
    es.stabilize(tmp_path / "a.zarr", tmp_path / "out.zarr", reference=tmp_path / "a.zarr")
    report = es.report(tmp_path / "out.zarr")
    assert agreement(report) == pytest.approx(1)
    assert report.to_dict()["notes"] == []


def test_a_part_of_the_rows_that_agrees_does_not_make_two_tables_comparable() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 1000, 16))
    y[:200] = x[:200]
    report = es.report(x, y)
    assert (agreement(report) or 0) > 0.15  # the mean alone would pass
    assert report.verdict == (
        "Look at this: one row in ten does not agree, many rows agree no better than chance"
    )
    shares = [key for key in report.to_dict()["keys"] if key["name"] == "Rows at chance"]
    assert shares[0]["value"] > 0.7
    assert shares[0]["threshold"] == 0.12


@pytest.mark.parametrize("n", [1, 31, 32])
def test_two_runs_are_comparable_from_four_usable_rows_per_component_on(n: int) -> None:
    x = np.random.default_rng(0).normal(size=(1000, 8))
    y = x.copy()
    y[n:] = 0
    report = es.report(x, y)
    assert report.well is (n == 32)
    assert report.verdict == (
        "Comparable: both runs hold the same ids in one space"
        if n == 32
        else f"Look at this: too few shared rows of items to tell ({n}; at least 32 are needed)"
    )
    assert not es.report(x[:9, :1], x[:9, :1]).well
    assert es.report(x[:10, :1], x[:10, :1]).well


def test_what_cannot_be_compared_is_named() -> None:
    zeros, rows = np.zeros((50, 3)), np.random.default_rng(0).normal(size=(50, 3))
    text = "Look at this: no row of {} that is not zero in both runs"
    assert es.report(zeros, zeros).verdict == text.format("items")
    half = {"items": rows, "users": zeros}
    assert es.report(half, half).verdict == text.format("users")


def test_ids_that_are_in_one_run_alone_are_named(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    runs = [
        es.create_run(tmp_path / f"{k}.zarr", rows, item_ids=np.arange(50) + 40 * k)
        for k in range(2)
    ]
    verdict = es.report(*runs).verdict
    assert "too few shared rows of items to tell (10; at least 12 are needed)" in verdict
    assert "few shared ids" in verdict


def test_a_verdict_names_the_trouble() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert es.report(x, 2 * x).verdict == "Look at this: lengths differ"


def test_a_gate_that_is_off_makes_nothing_well(tmp_path: Path) -> None:
    """It holds nothing; the report still asks its figure, and says that the gate is off."""
    rng = np.random.default_rng(0)
    off: dict[str, float | None] = dict.fromkeys((gate.name for gate in GATES), None)
    series = es.Series.init(tmp_path / "shop", gates=off)
    for k in range(2):
        rows = rng.normal(size=(200, 8)), rng.normal(size=(100, 8))
        series.add(es.create_run(tmp_path / f"day-{k}.zarr", *rows))
    report = series.report()
    assert series.status()["well"]
    assert not report.well
    assert report.verdict == "Look at this: same ids do not stay in place (its gate is off)"
    assert "(its gate is off; good is at least 0.15)" in report.html


def test_what_is_good_is_said_of_a_figure_that_is_not_known(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 4))
    series = es.Series.init(tmp_path / "shop")
    series.add(es.create_run(tmp_path / "day.zarr", rows, rows))
    report = series.report()
    assert report.well
    assert "(not known here; good is at least 0.3)" in report.html
    assert "None" not in report.html


def test_three_figures_stand_first_those_that_do_not_pass_before_all_others() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 4))
    same, longer = es.report(rows, rows).html, es.report(rows, 3 * rows).html
    for page, first in ((same, "Same ids agree"), (longer, "Lengths")):
        matches = re.findall(r'class="key"><h3>(.*?)</h3>', page)
        assert len(matches) == 3
        assert matches[0] == first
    assert "Also asked: the lowest tenth agrees 1 (good is at least 0.18)" in same


def test_a_run_in_its_own_space_is_not_called_standardized(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 4))
    for keep, message in (("geometry", "Left in its own space"), ("scores", "Standardized")):
        raw = es.create_run(tmp_path / f"{keep}.zarr", rows, rows)
        run = es.stabilize(raw, tmp_path / f"{keep}-s.zarr", keep=keep)
        assert es.report(run).verdict.startswith(f"{message} without a reference")


@pytest.mark.parametrize("rewrite", [False, True])
def test_forgotten_ids_are_not_listed(tmp_path: Path, rewrite: bool) -> None:
    """Without a rewrite the runs hold them still, but the report does not name them."""
    rng = np.random.default_rng(0)
    rows, ids = rng.normal(size=(80, 4)), np.array([f"item-{k}" for k in range(80)], object)
    series = es.Series.init(tmp_path / "shop")
    for k in range(2):
        rows[:3] *= -1  # these move most
        series.add(es.create_run(tmp_path / f"{k}.zarr", rows, item_ids=ids))

    def named(report: es.Report) -> set[str]:
        moved = report.to_dict()["days"]["tables"]["items"]["last"]["moved"]
        assert {len(listed) for listed in moved.values()} == {12}
        return {one["id"] for listed in moved.values() for one in listed}

    assert {"item-0", "item-1", "item-2"} <= named(series.report())
    series.forget(["item-0", "item-2"], table="items", rewrite=rewrite)
    report = series.report()
    assert "item-1" in named(report)
    for gone in ("item-0", "item-2"):
        assert gone not in named(report)
        assert f">{gone}<" not in report.html
