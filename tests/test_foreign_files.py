"""What others put into a series is left alone: it breaks no verb, and gc removes nothing through a
link.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import snapshot, world

import dask_embstab as es


@pytest.fixture
def place(tmp_path: Path) -> Path:
    series = es.Series.init(tmp_path / "series")
    series.add(es.create_run(tmp_path / "day.zarr", *world(5)))
    return tmp_path / "series"


def test_gc_status_and_metrics_live_with_foreign_files(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "candidate.npz").write_bytes(b"mine")
    for folder in ("candidates", "pins", "versions", "runs", "digests"):
        (place / folder / ".DS_Store").write_bytes(b"x")
        (place / folder / "garbage.json").write_bytes(b"{")
        (place / folder / "link").symlink_to(target)
    (place / "candidates" / "list").mkdir()
    (place / "candidates" / "list" / "held.json").write_text("[1]")
    (place / "pins" / "null.json").write_text("null")
    before = snapshot(tmp_path)
    series = es.Series(place)
    status = series.status()
    assert status["head"]["run"] == "day"
    named = {
        f"{folder}/{name}"
        for folder in ("versions", "runs", "digests")
        for name in (".DS_Store", "garbage.json", "link")
    }
    named |= {f"candidates/{name}" for name in (".DS_Store", "garbage.json", "link")}
    named |= {f"pins/{name}" for name in (".DS_Store", "garbage.json", "link", "null.json")}
    assert sorted(status["foreign"]) == sorted(named), "each once"
    assert "embstab_series_held_runs" in series.metrics()
    assert series.gc(pin_age=-1.0, grace=0).removed == ["candidates/list/held.json"]
    after = snapshot(tmp_path)
    assert {name for name in before if name not in after} == {
        "series/candidates/list",
        "series/candidates/list/held.json",
    }
    assert (target / "candidate.npz").read_bytes() == b"mine"
    assert not series.verify().damage


def test_a_link_to_a_run_is_removed_as_a_link(place: Path, tmp_path: Path) -> None:
    (place / "runs" / "linked.zarr").symlink_to(tmp_path / "day.zarr")
    assert es.Series(place).gc(grace=0).removed == ["runs/linked.zarr"]
    assert es.open_run(tmp_path / "day.zarr").items.n_rows == 60
