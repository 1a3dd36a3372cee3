"""`docs/damage.md` says who finds which damage; the short form asks for a few kinds again, the long
one for all.
"""

from __future__ import annotations

from pathlib import Path

import damage
import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "damage.md"
SHORT = (
    "two chunks exchanged",
    "both shapes shrunk",
    "a transform changed, its checksum mended",
    "a bit of a version flipped",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.template(tmp_path_factory.mktemp("damage"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(kind, marks=[pytest.mark.long] * (kind not in SHORT))
        for kind in (*damage.KINDS, *damage.OF_A_SERIES)
    ],
)
def test_the_page_says_who_finds_it(source: Path, tmp_path: Path, what: str) -> None:
    wanted = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| {what} |"))
    assert f"| {' | '.join([what, *damage.who_finds(what, source, tmp_path / 'copy')])} |" == wanted


def test_the_series_finds_every_kind() -> None:
    """Whoever reads through it, or verifies it; only a running reference is read by the next run
    alone.
    """
    rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ")
    ]
    cells = {
        row[0]: dict(zip(damage.ASKED, row[1:], strict=True))
        for row in rows
        if row[0] in damage.KINDS
    }
    assert len(cells) == len(damage.KINDS) >= 26
    assert all(row["read"] == row["add"] == row["series verify"] == "yes" for row in cells.values())
