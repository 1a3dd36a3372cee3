"""The estimate that anchors state holds in every world of `benchmarks/anchors.py`, as often as
docs/anchors.md says.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ANCHORS: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "anchors.py"))
WORLDS, UNSEEN, STATED = ANCHORS["WORLDS"], ANCHORS["UNSEEN"], 4 / 120


def exceeded(world: Any, n_seeds: int) -> int:
    return round(ANCHORS["exceedance"](world, n_seeds)["exceeded"] * n_seeds)


def test_the_estimate_is_seldom_exceeded_in_any_world() -> None:
    misses = {name: exceeded(world, 6) for name, world in WORLDS.items()}
    assert len(WORLDS) >= 40
    assert max(misses.values()) <= 1, misses
    assert sum(misses.values()) <= 0.01 * 6 * len(WORLDS), misses


def test_it_is_exceeded_where_no_anchor_is_like_the_rows_that_matter() -> None:
    for world in UNSEEN.values():
        assert exceeded(world, 30) > STATED * 30


@pytest.mark.long
@pytest.mark.parametrize("name", WORLDS)
def test_the_estimate_is_exceeded_as_seldom_as_stated(name: str) -> None:
    assert exceeded(WORLDS[name], 120) <= STATED * 120


def test_the_document_states_what_was_measured(tmp_path: Path) -> None:
    stated = (ROOT / "docs" / "anchors.md").read_text()
    seen = {
        name: float(share) / 100
        for name, share in re.findall(r"^\| (.*?) \| ([0-9.]+)% \|", stated, re.MULTILINE)
    }
    assert list(seen) == [*WORLDS, *UNSEEN]
    assert max(seen[name] for name in WORLDS) == round(STATED, 3)
    assert np.mean([seen[name] for name in WORLDS]) < 0.01
    results = ANCHORS["main"](["--seeds", "2", "--markdown", str(tmp_path / "anchors.md")])
    assert [row["world"] for row in results["rows"]] == list(seen)
