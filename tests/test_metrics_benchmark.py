"""The benchmark of `evaluate` runs, and both ways to search agree."""

from __future__ import annotations

import json
from pathlib import Path

import metrics
import pytest


@pytest.mark.long
def test_the_search_agrees_with_the_loop_by_hand(tmp_path: Path) -> None:
    options = ["--rows", "20000", "--users", "500", "--components", "8", "--queries", "40"]
    files = ["--dir", tmp_path, "--json", tmp_path / "m.json", "--markdown", tmp_path / "m.md"]
    results = metrics.main([*options, "--k", "20", "--repeats", "1", *map(str, files)])
    assert results["agree"] > 0.999
    assert json.loads((tmp_path / "m.json").read_text()) == results
    assert "search / this, median" in (tmp_path / "m.md").read_text()
