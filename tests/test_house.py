"""What a call passes through does not grow unseen: `benchmarks/house.py` measures it, and
`docs/decisions.md` has what it measured.
"""

from __future__ import annotations

import re
from pathlib import Path

import house
import pytest

MARGIN = 1.05
"""What other versions of Python and of Zarr may add: some call one function more."""


@pytest.mark.long
def test_the_counts_are_those_of_the_page(tmp_path: Path) -> None:
    page = house.PAGE.read_text().partition(house.BEGIN)[2].partition(house.END)[0]
    rows = [re.split(r" *[|] *", line.strip("| ")) for line in page.strip().splitlines()]
    calls = [name.strip("`") for name in rows[0] if name]
    recorded = {row[0]: dict(zip(calls, row[1:], strict=True)) for row in rows[2:]}
    measured = house.figures_of_calls(tmp_path)
    assert set(calls) == set(measured)
    for call, figures in measured.items():
        for name in ("functions", "files", "deepest chain"):
            now, then = figures[name.replace(" ", "_")], int(recorded[name][call])
            assert now <= MARGIN * then, f"{call}: {now} {name}; run benchmarks/house.py --write"
        assert sum(figures["purposes"].values()) == figures["functions"]


def test_every_function_is_there_for_something() -> None:
    starts = [start for starts in house.PURPOSES.values() for start in starts]
    assert len(starts) == len(set(starts))
    assert all((house.PACKAGE / start).exists() for start in starts)
