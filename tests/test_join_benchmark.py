"""The benchmark of the join runs, at a small size, and its transforms agree."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "join.py"


@pytest.mark.long
def test_every_order_gives_one_transform(tmp_path: Path) -> None:
    main = runpy.run_path(str(BENCHMARK))["main"]
    table, record = tmp_path / "join.md", tmp_path / "join.json"
    sizes = ["--rows", "9000", "--d", "8", "--repeats", "1", "--memory", "1MiB"]
    arguments = [*sizes, "--dir", str(tmp_path)]
    results = main([*arguments, "--markdown", str(table), "--json", str(record)])
    assert [row["path"] for row in results["rows"]] == [
        "row number",
        "identical ids",
        "merged ids",
        "partitioned ids",
    ]
    assert all(
        row["matched"] == 9000 and row["peak"] > 0 and row["difference"] < 1e-9
        for row in results["rows"]
    )
    assert results["rows"][-1]["scratch"] > 9000 * 8 * 4
    assert table.read_text().count("\n| 9,000") == 4
    assert json.loads(record.read_text()) == results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["join.json", "join.md"]
