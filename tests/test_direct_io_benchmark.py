"""The benchmark of direct I/O writes and reads every way, and leaves nothing behind."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "direct_io.py"


def test_every_way_is_measured(tmp_path: Path) -> None:
    try:
        os.close(os.open(tmp_path / "one", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600))
    except OSError as error:
        pytest.skip(f"no direct I/O here: {error}")
    main = runpy.run_path(str(BENCHMARK))["main"]
    main.__globals__.update(CHUNK=2**17, PIECE=2**15)
    results = main(["--dir", str(tmp_path), "--gb", "0", "--repeats", "1"])
    assert len(results["rates"]) == 6
    assert min(figures["GB/s"] for figures in results["rates"].values()) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
