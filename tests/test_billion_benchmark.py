"""The benchmark of a billion rows, at a small size: what the disk allows, its figures, and that
nothing is left.
"""

from __future__ import annotations

import json
from pathlib import Path

import billion
import pytest

import dask_embstab as es


@pytest.mark.long
def test_both_jobs_are_measured_and_nothing_is_left(tmp_path: Path) -> None:
    table, record = tmp_path / "billion.md", tmp_path / "billion.json"
    arguments = ["--rows", "3e5", "--seconds", "0.005", "--dir", str(tmp_path)]
    results = billion.main([*arguments, "--markdown", str(table), "--json", str(record)])
    alone, onto = results["jobs"]
    for job in (alone, onto):
        assert job["bytes in"] == 300_000 * 8 * 2 <= job["bytes out"]
        assert 0 < job["peak bytes"] <= 400_000_000
        assert job["share of the limit"] == pytest.approx(job["limit seconds"] / job["seconds"])
    assert (alone["matched"], onto["matched"]) == (None, 300_000)
    assert onto["relative error"] < 2e-3, "float16 rounds to 5e-4"
    assert onto["limit seconds"] > alone["limit seconds"] > 0
    assert "| onto it | 300,000 |" in table.read_text()
    assert json.loads(record.read_text()) == results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["billion.json", "billion.md"]


def test_the_disk_decides() -> None:
    gigabytes = [80, 60, 40]
    plans = [billion.plan(10**9, 8, size * 10**9) for size in gigabytes]
    assert [(each.ids, each.second) for each in plans] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert all(each.disk_bytes <= size * 10**9 for each, size in zip(plans, gigabytes, strict=True))
    assert plans[1].vector_bytes == 16 * 10**9
    with pytest.raises(
        SystemExit, match=r"32\.3 GB of free disk and there are 20\.0 GB; pass fewer --rows"
    ):
        billion.plan(10**9, 8, 20 * 10**9)


def test_a_full_disk_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="free disk"):
        billion.main(["--rows", "1e15", "--dir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_failed_job_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billion, "_COMMAND", "raise SystemExit('error: no')")
    with pytest.raises(RuntimeError, match="error: no"):
        billion.main(["--rows", "1e5", "--seconds", "0.001", "--dir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_ids_are_equal_and_in_order(tmp_path: Path) -> None:
    billion.generate(tmp_path / "a.zarr", billion.plan(50_000, 8, 10**9), billion._axes(8))
    run = es.open_run(tmp_path / "a.zarr")
    assert run.items.ids.compute().tolist() == list(range(50_000))
    assert len(billion.chunk_paths(tmp_path / "a.zarr")) > 1
