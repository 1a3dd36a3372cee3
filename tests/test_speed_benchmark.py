"""The benchmark against the serial limit runs, at a small size, and its figures hang together."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "speed.py"


@pytest.mark.long
def test_every_rate_and_ratio_is_there(tmp_path: Path) -> None:
    main = runpy.run_path(str(BENCHMARK))["main"]
    table, record = tmp_path / "speed.md", tmp_path / "speed.json"
    arguments = [
        "--gb",
        "0.01",
        "--d",
        "16",
        "--repeats",
        "1",
        "--codec",
        "none",
        "zstd",
        "--dir",
        str(tmp_path),
    ]
    results = main([*arguments, "--markdown", str(table), "--json", str(record)])
    plain, compressed = results["rows"]
    rates = plain["GB/s"]
    assert all(
        rates[name] > 0
        for name in ("fit", "apply", "fit_reference", "zarr_read", "zarr_copy", "syrk", "write")
    )
    slowest = min(rates[step] for step in ("read", "crc", "upcast", "syrk"))
    assert plain["limit GB/s"]["fit"] < slowest
    assert not compressed["limit GB/s"]
    assert "| 16 | zstd |" in table.read_text()
    assert json.loads(record.read_text()) == results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.json", "speed.md"]
