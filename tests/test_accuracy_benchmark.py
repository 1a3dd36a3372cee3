"""The accuracy table of the documents is made by a command; here at its smallest."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "accuracy.py"


def test_the_table_says_what_every_route_keeps(tmp_path: Path) -> None:
    table, record = tmp_path / "accuracy.md", tmp_path / "accuracy.json"
    arguments = [
        "--seeds",
        "1",
        "--kappa",
        "1e2",
        "1e8",
        "--kinds",
        "random/random",
        "decades/decades",
    ]
    results = runpy.run_path(str(BENCHMARK))["main"](
        [*arguments, "--markdown", str(table), "--json", str(record)]
    )
    errors = {(row["kinds"], row["kappa"]): row["errors"] for row in results["columns"]}
    assert errors["random/random", 1e2]["qr"] < errors["random/random", 1e2]["gram"] < 1e-11
    assert (
        errors["decades/decades", 1e8]["qr"]
        < 5e-7
        < errors["decades/decades", 1e8]["QR, paper's formula"]
    )
    assert "auto, float32 tables" not in errors["random/random", 1e8]
    assert "| 1e+08 | 2e-08 |" in table.read_text()
    assert "refused" in table.read_text()
    assert json.loads(record.read_text())["scores"][1]["error"] < 1e-8
