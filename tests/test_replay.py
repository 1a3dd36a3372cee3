"""The recorded inputs under another policy: nothing published is touched, the differences are those
of two series.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from deliveries import shuffled
from oracle import data_of, snapshot
from seriesworlds import drifting

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.admin import replay as replay_module
from dask_embstab.series.admin.replay import replay
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.log.versions import Version


@pytest.fixture
def series(tmp_path: Path) -> es.Series:
    """Four weeks, the second of them accepted in spite of a gate; a shadow that was never live."""
    made = es.Series.init(tmp_path / "series")
    for week in range(4):
        trained = drifting(week)
        (shuffled(trained, "user") if week == 1 else trained).write(tmp_path / f"week-{week}.zarr")
        made.add(tmp_path / f"week-{week}.zarr", accept="a test", shadow=week == 2)
    return made


def test_another_policy_into_a_scratch_series(
    series: es.Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(tmp_path / "series")

    def run(*arguments: Any) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["series", "replay", *map(str, arguments)], prog_name="embstab")
        assert not ended.value.code
        return capsys.readouterr().out

    printed = json.loads(
        run(tmp_path / "series", tmp_path / "scratch", "--policy", "first", "--json")
    )
    assert snapshot(tmp_path / "series") == before
    direct = es.Series.init(tmp_path / "direct", policy="first")
    for week in (0, 1, 3):
        direct.add(tmp_path / f"week-{week}.zarr", accept="a test")
    assert data_of(es.Series(tmp_path / "scratch").open().path) == data_of(direct.open().path)
    assert [row["run"] for row in printed["runs"]] == ["week-0", "week-1", "week-3"]
    last = printed["runs"][-1]
    assert last["versions"] == [4, 3]
    for side, where in (("series", series), ("scratch", direct)):
        verdicts = {v["gate"]: v["figure"] for v in where.head().verdicts}
        for gate, figure in verdicts.items():
            assert last["figures"][f"gate_{gate}"][side] == pytest.approx(figure)
        a, b = (2, 4) if side == "series" else (2, 3)
        assert last["figures"]["items_mean_cosine"][side] == pytest.approx(
            where.diff(a, b).items.mean_cosine
        )
    for figure in last["figures"].values():
        if figure["difference"] is not None:
            assert figure["difference"] == pytest.approx(figure["scratch"] - figure["series"])
    mean = printed["means"]["relative_error"]["series"]
    assert mean == pytest.approx(
        sum(row["figures"]["relative_error"]["series"] for row in printed["runs"][1:]) / 2
    )
    lines = run(tmp_path / "series", tmp_path / "scratch", "--policy", "first").splitlines()
    assert any(line.split()[:2] == ["mean", "relative_error"] for line in lines), (
        "again: what is there is compared"
    )


def test_the_same_settings_make_no_difference(series: es.Series, tmp_path: Path) -> None:
    replayed = replay(series, tmp_path / "scratch", {}, first=None, last=2)
    assert [row["versions"] for row in replayed["runs"]] == [[1, 1], [2, 2]]
    differences = [f["difference"] for row in replayed["runs"] for f in row["figures"].values()]
    assert {d for d in differences if d is not None} == {0.0}


def test_inputs_that_are_gone_or_changed(series: es.Series, tmp_path: Path) -> None:
    other = es.create_run(tmp_path / "other.zarr", *(lambda w: (w.items * 2, w.users))(drifting(3)))
    kept = shutil.move(tmp_path / "week-3.zarr", tmp_path / "kept.zarr")
    with pytest.raises(es.InputError, match="the input of version 4 cannot be opened any more"):
        replay(series, tmp_path / "a", {}, first=None, last=None)
    assert not (tmp_path / "a").exists(), "it is found out before anything is written"
    shutil.copytree(other.path, tmp_path / "week-3.zarr")
    with pytest.raises(
        es.InputError, match=r"the input of version 4, .*week-3.zarr, is not what was aligned"
    ):
        replay(series, tmp_path / "a", {}, first=None, last=None)
    shutil.rmtree(tmp_path / "week-3.zarr")
    week = drifting(3)
    week.items[0] += 1.0
    week.write(tmp_path / "week-3.zarr")
    with pytest.raises(
        es.InputError, match=r"is not what was aligned; .*first= and last= leave versions out"
    ):
        series.replay(tmp_path / "b")
    shutil.rmtree(tmp_path / "week-3.zarr")
    shutil.move(kept, tmp_path / "week-3.zarr")
    with pytest.raises(es.InputError, match="other settings"):
        replay(series, tmp_path / "b", {"policy": "first"}, first=None, last=None)
    with pytest.raises(es.InputError, match="no live run"):
        replay(series, tmp_path / "c", {}, first=3, last=3)


def test_what_one_call_was_given_is_given_again(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series", gates=dict.fromkeys(THRESHOLDS))
    for week in range(3):
        run = tmp_path / f"week-{week}.zarr"
        drifting(week).write(run)
        stored: Any = zarr.open_group(run, mode="r+")["items"]
        stored.create_array("seen", data=np.arange(1, stored["vectors"].shape[0] + 1.0))
        own = {"weights": "seen", "unit_rows": False, "sample": np.int64(64)} if week == 1 else {}
        series.add(run, **own)
    assert series.show(2).inputs["options"] == {"weights": "seen", "unit_rows": False, "sample": 64}
    replayed = series.replay(tmp_path / "scratch")
    assert data_of(es.Series(tmp_path / "scratch").open().path) == data_of(series.open().path)
    assert all(
        f["difference"] in (0, None) for row in replayed["runs"] for f in row["figures"].values()
    )
    assert replayed["without_options"] == []

    seen: Any = zarr.open_array(tmp_path / "week-1.zarr/items/seen", mode="r+")
    seen[0] = 7.0
    with pytest.raises(es.InputError, match="weights of the items of version 2 are not what they"):
        series.replay(tmp_path / "other")


def test_arrays_of_one_call_are_no_silent_difference(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifting(4).write(tmp_path / "week-4.zarr")
    n_rows = es.open_run(tmp_path / "week-4.zarr").items.n_rows
    series.add(tmp_path / "week-4.zarr", weights=np.ones(n_rows), accept="a test")
    with pytest.raises(es.InputError, match=r"arrays are not kept.*version 5 \(weights\)"):
        series.replay(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()

    known = replay_module.recorded(series.log(), 1, 1)[0].inputs
    older = {key: value for key, value in known.items() if key != "options"}
    monkeypatch.setattr(Version, "inputs", older)
    replayed = series.replay(tmp_path / "scratch", last=1)
    assert replayed["without_options"] == [1]
    assert "is not recorded of the versions 1" in replay_module.table_lines(replayed)[-1]
