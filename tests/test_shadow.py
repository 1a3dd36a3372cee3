"""A shadow is whole, checked and kept, and no reader of the head sees it until it is promoted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import snapshot
from seriesworlds import drifting

import dask_embstab as es
from dask_embstab.cli.main import main


@pytest.fixture
def series(tmp_path: Path) -> es.Series:
    """Two live weeks and the third as a shadow."""
    made = es.Series.init(tmp_path / "series")
    for week in range(4):
        drifting(week).write(tmp_path / f"week-{week}.zarr")
    for week in range(2):
        made.add(tmp_path / f"week-{week}.zarr")
    assert (
        made.add(tmp_path / "week-2.zarr", model="candidate", shadow=True).version.state == "shadow"
    )
    return made


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, Any, str]:
    with pytest.raises(SystemExit) as ended:
        main(["series", *map(str, arguments), "--json"], prog_name="embstab")
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(out) if out else None, err


def test_readers_of_the_head_do_not_see_a_shadow(series: es.Series, tmp_path: Path) -> None:
    assert series.head().version == 2
    assert series.open().name == "week-1"
    assert series.open(3).name == "week-2"
    with pytest.raises(es.InputError, match=r"must belong to the model 'candidate'"):
        series.transform_for(model="candidate")
    again = series.add(tmp_path / "week-2.zarr")
    assert not again.published
    assert "promote 3 makes it live" in again.note
    live = series.add(tmp_path / "week-3.zarr").version
    assert (live.version, live.parent, live.reference) == (4, 2, 2), "no policy looks at a shadow"


def test_promote_is_a_version_and_changes_no_other(
    series: es.Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "series"
    before = snapshot(place)
    code, output, _ = run(capsys, "diff", place, 3)
    assert (code, output["a"], output["b"]) == (0, 3, 2)
    code, output, _ = run(capsys, "promote", place, 3)
    assert (code, output["version"], output["kind"], output["restores"], output["state"]) == (
        0,
        4,
        "promote",
        3,
        "live",
    )
    after = snapshot(place)
    assert {name: after[name] for name in before} == before
    assert series.head().run == "week-2"
    assert series.log().version(3).state == "shadow"
    np.testing.assert_array_equal(
        series.transform_for(model="candidate").items, series.open(3).transform.items
    )
    assert not series.promote(3).published, "it is live"
    assert series.add(tmp_path / "week-3.zarr").version.reference == 4
    series.rollback(3)
    assert (series.head().run, series.head().state) == ("week-2", "live")


def test_what_cannot_be_promoted_or_gone_back_to(series: es.Series, tmp_path: Path) -> None:
    with pytest.raises(es.InputError, match="version 1 is no shadow; rollback 1"):
        series.promote(1)
    with pytest.raises(es.InputError, match="version 3 is a shadow that was never live; promote 3"):
        series.rollback(3)
    empty = es.Series.init(tmp_path / "empty")
    with pytest.raises(es.InputError, match="add the first run without shadow"):
        empty.add(tmp_path / "week-0.zarr", shadow=True)


def test_a_shadow_is_kept_verified_and_copied(series: es.Series, tmp_path: Path) -> None:
    assert series.gc(grace=0).removed == []
    assert any(name.startswith("runs/week-2.zarr/") for name in series.manifest()["files"])
    file = tmp_path / "series/runs/week-2.zarr/items/vectors/c/0/0"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert "version 3" in series.verify().damage[0]


def test_gates_hold_shadows_too(series: es.Series, tmp_path: Path) -> None:
    with pytest.raises(es.HoldError, match="delivered"):
        series.add(tmp_path / "week-1.zarr", name="again", shadow=True)
