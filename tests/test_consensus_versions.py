"""What a version holds of the running reference, whatever interrupts its writing or damages it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
import test_consensus
from oracle import Stop, assert_close, data_of, stop_at, vectors_of
from test_consensus import IDS, OFF, assert_state, state_after, state_of, tables
from test_damage import DAMAGE

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.publish import publish as publishing

quick, template, days, series = (
    test_consensus.quick,
    test_consensus.template,
    test_consensus.days,
    test_consensus.series,
)


# --- interruptions


@pytest.mark.usefixtures("small_tasks")
def test_an_interrupted_move_goes_on(
    series: es.Series, days: list[Path], tmp_path: Path, writing: Any
) -> None:
    """Whole chunks stay; what is whole and of these very files serves; what is torn, or of others,
    is written anew.
    """
    undisturbed = es.Series(shutil.copytree(tmp_path / "series", tmp_path / "undisturbed"))
    written: list[int] = []
    with writing(written.append):
        undisturbed.add(days[3])
    n_chunks = len(written)
    with writing(stop_at(n_chunks)), pytest.raises(Stop):
        series.add(days[3])
    assert series.head().version == 3
    assert not series.verify().damage
    written.clear()
    with pytest.MonkeyPatch.context() as patched, writing(written.append):
        patched.setattr(publishing, "create_version", _dead)
        with pytest.raises(Stop):
            series.add(days[3])
    assert len(written) == 1
    place = tmp_path / "series" / "references" / "day-3.zarr"
    for harm in (
        lambda: None,
        lambda: os.truncate(place / "items/vectors/c/1/0", 0),
        lambda: torn(place),
    ):
        harm()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(publishing, "create_version", _dead)
            with pytest.raises(Stop):
                series.add(days[3])
        assert data_of(place) == data_of(tmp_path / "undisturbed" / "references" / "day-3.zarr")
    series.rollback(2)
    assert series.add(days[3]).version.reference == 4
    assert_state(series, "day-3", state_after(series, ["day-0", "day-1", "day-3"]), 1e-12)
    assert not series.verify().damage


def torn(place: Path) -> None:
    (place / "items/weight/c/2").unlink()
    (place / "items/zarr.json").write_bytes(b"")


def _dead(*_: Any) -> None:
    raise Stop


def test_gc_takes_what_was_left_of_a_mean(series: es.Series, days: list[Path]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publishing, "create_version", _dead)
        with pytest.raises(Stop):
            series.add(days[3])
    assert "references/day-3.zarr" in series.gc(grace=0).removed
    assert sorted(series.store.names("references")) == ["day-1.zarr", "day-2.zarr"]
    assert series.gc(grace=0).removed == []


# --- what a version holds


def test_a_rollback_goes_on_from_that_version_s_mean(series: es.Series, days: list[Path]) -> None:
    series.rollback(2)
    series.add(days[3])
    assert_state(series, "day-3", state_after(series, ["day-0", "day-1", "day-3"]), 1e-12)
    series.rollback(1)
    series.add(days[3], name="again")
    assert_state(series, "again", state_after(series, ["day-0", "again"]), 1e-12)


@pytest.mark.parametrize("before", ["previous", "first"])
def test_a_change_of_policy_starts_from_the_head(
    days: list[Path], tmp_path: Path, before: str
) -> None:
    series = es.Series.init(tmp_path / "series", policy=before, gates=OFF)
    for day in days[:2]:
        series.add(day)
    assert not series.store.names("references")
    assert not series.settings.units
    series.change(policy="consensus", half_life=2, forget_below=0)
    assert series.settings.units
    for day in days[2:]:
        series.add(day)
    assert_state(series, "day-3", state_after(series, ["day-1", "day-2", "day-3"]), 1e-12)
    series.change(policy=before)
    assert not series.settings.units
    series.change(policy="consensus", align_on="both")
    T, W = tables(5, 24)
    series.add(es.create_run(tmp_path / "both.zarr", T[IDS[3]], W, item_ids=IDS[3]))
    assert_state(series, "both", state_after(series, ["day-3", "both"]), 1e-12)


def test_raw_rows_where_the_user_says_so(days: list[Path], tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series", unit_rows=False, half_life=None, head_weight=0)
    for day in days[:3]:
        series.add(day)
    ids, means, weights = state_of(series, "day-1")
    sums = es.create_run(tmp_path / "sums.zarr", means * weights[:, None], item_ids=ids)
    by_hand = es.stabilize(days[2], tmp_path / "b.zarr", reference=sums, balance="rows")
    assert_close(vectors_of(series.open()), vectors_of(by_hand), 1e-12)
    assert not series.head().figures["alignment"]["unit_rows"]


def test_old_versions_keep_their_meaning(days: list[Path], tmp_path: Path) -> None:
    """Series from before there was a consensus: their files lack what is new."""
    series = es.Series.init(tmp_path / "series", policy="previous", unit_rows=False)
    series.add(days[0])
    file = tmp_path / "series" / "series.json"
    values = json.loads(file.read_text())
    del values["crc32c"], values["settings"]["half_life"]
    check = crc32c.crc32c(json.dumps(values, sort_keys=True).encode())
    file.write_text(json.dumps(values | {"crc32c": check}, indent=1, sort_keys=True))
    settings = {
        name: value for name, value in series.head().settings.items() if name != "half_life"
    }
    old = replace(series.head(), details=replace(series.head().full_details, settings=settings))
    (tmp_path / "series" / "versions" / "1.json").write_bytes(old.encoded())
    series = es.Series(tmp_path / "series")
    assert (series.settings.policy, series.settings.units) == ("previous", False)
    assert series.add(days[1]).version.reference_digests == {}


@pytest.mark.parametrize("half_life", [0, -1.0, float("inf"), float("nan"), "2"])
def test_a_half_life_is_a_number_of_runs(tmp_path: Path, half_life: Any) -> None:
    with pytest.raises(es.InputError, match="half_life must be a number"):
        es.Series.init(tmp_path / "series", half_life=half_life)


@pytest.mark.parametrize("head_weight", [-1.0, float("inf"), "2"])
def test_a_head_weight_is_a_number(tmp_path: Path, head_weight: Any) -> None:
    with pytest.raises(es.InputError, match="head_weight must be a number"):
        es.Series.init(tmp_path / "series", head_weight=head_weight)


def test_the_command_line_sets_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "series")
    for half_life, known in (("none", None), ("9", 9.0)):
        arguments = ["--half-life", half_life, "--head-weight", "1", "--json"]
        with pytest.raises(SystemExit) as ended:
            main(["series", "settings" if known else "init", place, *arguments])
        assert ended.value.code == 0
        settings = json.loads(capsys.readouterr().out)["settings"]
        assert (settings["half_life"], settings["head_weight"]) == (known, 1.0)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "file", ["items/vectors/c/1/0", "items/id/c/2", "items/weight/c/0", "zarr.json"]
)
def test_damage_to_a_mean_is_found(
    series: es.Series, tmp_path: Path, file: str, damage: str
) -> None:
    DAMAGE[damage](tmp_path / "series" / "references" / "day-2.zarr" / file)
    assert any(f"references/day-2.zarr/{file}" in line for line in series.verify().damage)


def test_a_manifest_names_the_means(series: es.Series, days: list[Path], tmp_path: Path) -> None:
    for name in series.manifest()["files"]:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "series" / name, tmp_path / "copy" / name)
    shutil.copytree(days[3], tmp_path / "day-3.zarr")
    copy = es.Series(tmp_path / "copy")
    for place in (series, copy):
        place.add(tmp_path / "day-3.zarr")
    assert state_of(copy, "day-3")[0] == state_of(series, "day-3")[0]
    np.testing.assert_array_equal(state_of(copy, "day-3")[1], state_of(series, "day-3")[1])
