"""Figures that a page quotes from another page's measured table are those of that table: who
measures again is told where the old ones still stand.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="an installed package comes without its pages"
)
RIVALS = {
    "`da.linalg.tsqr`, `x @ M`, `to_zarr`": "Dask tsqr, 1 BLAS thread",
    "Dask `x.T @ x`, `x @ M`, `to_zarr`": "Dask x.T @ x, x @ M, 1 BLAS thread",
    "NumPy memory-map loop, default BLAS threads": "NumPy memmap loop",
    "PySpark `mapInArrow` + NumPy": "PySpark mapInArrow",
    "zarr-python: bare read, bare copy": "zarr-python, bytes alone",
}
SHARES = {
    "fit, share of its serial limit": (4, 100),
    "fit onto a reference, share of its limit": (7, 100),
    "apply, share of its limit": (10, 100),
    "fit time over zarr-python's read time": (13, 1),
    "apply time over zarr-python's copy time": (14, 1),
}
"""The column of speed.md, and what its figures are multiplied by."""


def page(name: str) -> str:
    return (ROOT / name).read_text()


def rows(text: str) -> list[list[str]]:
    """The cells of every row of its tables."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def is_rounded(quoted: str, measured: float) -> bool:
    """Whether ``quoted`` is ``measured``, rounded to as many digits as it shows."""
    decimals = len(quoted.partition(".")[2])
    return abs(float(quoted) - measured) <= 0.5001 * 10**-decimals


def test_a_figure_that_was_not_measured_is_noticed() -> None:
    assert is_rounded("0.9", 0.867)
    assert is_rounded("41", 41.23)
    assert not is_rounded("0.05", 0.034)
    assert not is_rounded("41", 41.73)


def test_the_readme_quotes_the_rivals() -> None:
    jobs = re.split(r"^## ", page("docs/rivals.md"), flags=re.MULTILINE)[1:]
    sizes = ("2", "2", "0.625")
    measured = [
        {row[0]: float(row[5]) for row in rows(job) if row[1:2] == [gb]}
        for job, gb in zip(jobs, sizes, strict=True)
    ]
    quoted = {row[0]: row[1:] for row in rows(page("README.md")) if row[0] in RIVALS}
    assert quoted.keys() == RIVALS.keys()
    for name, cells in quoted.items():
        for cell, job in zip(cells, measured, strict=True):
            ours = job.get(RIVALS[name])
            assert cell == "-" if ours is None else is_rounded(cell, ours), (name, cell, ours)


def test_the_performance_page_quotes_the_speeds() -> None:
    measured = {row[0]: row for row in rows(page("docs/speed.md")) if row[1:2] == ["none"]}
    quoted = {row[0]: row[1:] for row in rows(page("docs/performance.md")) if row[0] in SHARES}
    assert quoted.keys() == SHARES.keys()
    for name, cells in quoted.items():
        column, unit = SHARES[name]
        for cell, row in zip(cells, measured.values(), strict=True):
            assert is_rounded(cell.removesuffix(" %"), unit * float(row[column])), (name, cell)


def test_the_choice_of_a_policy_quotes_the_web_shop() -> None:
    measured = {}
    for row in rows(page("docs/policies.md")):
        measured.setdefault(row[0], [f".{cell[2:5]}" for cell in row[1:]])
    text = " ".join(page("docs/howto/choose.md").split())
    for name in ("ceiling", "previous", "first", "consensus"):
        assert f"{name} {' '.join(measured[name])}" in text, name


def test_the_page_of_alternatives_by_hand_quotes_the_rivals() -> None:
    rates = {(row[0], row[1]): row[4] for row in rows(page("docs/rivals.md"))[:11]}
    text = " ".join(page("docs/by-hand.md").split())
    for quoted in (
        f"reads {rates['Dask tsqr, 1 BLAS thread', '2']} GB/s",
        f"a fit here reads {float(rates['dask_embstab', '2']):.2f}",
        f"reads {rates['PySpark RowMatrix', '0.5']} GB/s",
        f"`mapInArrow` with NumPy {rates['PySpark mapInArrow', '2']}",
    ):
        assert quoted in text


def test_the_page_of_faults_counts_what_its_sources_count() -> None:
    """Kinds of damage, mutants, faults of file operations."""
    text = page("docs/faults.md")
    table = page("docs/damage.md").partition("| done to it |")[2].partition("\n\n")[0]
    kinds = [row[0] for row in rows(table) if row[0] != "**found**"]
    assert f"| {len(kinds)} kinds of damage to files |" in text
    mutants = re.search(r": (\d+) of (\d+) mutants, (\d+) killed", page("docs/mutation.md"))
    assert mutants is not None
    assert "{} of {}; {} noticed".format(*mutants.groups()) in text
    for name in ("series", "compression", "damage"):
        in_all = re.search(r"\*\*faults in all\*\* \| \*\*(\d+)\*\*", page(f"docs/{name}.md"))
        assert in_all is not None
        assert f"| {int(in_all[1]):,} |" in text, name
