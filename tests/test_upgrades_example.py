"""The example of ways to go on after a retraining, on real models."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EMBSTAB_DATA") or ROOT.parent / "shared" / "data")


@pytest.mark.long
@pytest.mark.skipif(not (DATA / "text").exists(), reason="needs the data that EMBSTAB_DATA names")
def test_every_way_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = ROOT / "examples/serving/upgrades.py"
    monkeypatch.setattr(sys, "argv", [str(program), "--data", str(DATA), "--small"])
    runpy.run_path(str(program), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if "web shop" in line]
    assert [line.split()[2] for line in lines] == ["as", "stabilized"]
    assert all(line.rstrip().endswith(("leave", "bridge", "reindex")) for line in lines)
