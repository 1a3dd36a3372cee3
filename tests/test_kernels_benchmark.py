"""The benchmark of kernels runs, at a small size, and its figures hang together."""

from __future__ import annotations

import runpy
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "kernels.py"


def test_every_product_and_the_small_mathematics_are_there(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    other = "<!-- kernels other: begin -->\nold\n<!-- kernels other: end -->\n"
    page.write_text(f"# Speed\n{other}\n<!-- kernels: end -->\nrest\n")
    program = runpy.run_path(str(BENCHMARK))
    options = ["--d", "24", "--small", "24", "--jobs", "0", "--seconds", "0", "--repeats", "1"]
    options += ["--threads", "2"]
    result = program["main"]([*options, "--sweep", "--docs", str(page)])
    for threads in (1, 2):
        (row,) = result["products"][threads]
        for name in ("X'X", "[X Y]'[X Y]", "X'Y", "X M"):
            assert min(row[name].values()) > 0
    assert result["mathematics"][0]["reference"] > 0
    assert set(result["sweep"][0]["cuts"]) >= {"128 x 8", "1024 x 16"}
    first = page.read_text()
    assert first.startswith(f"# Speed\n{other}")
    assert first.endswith("<!-- kernels: end -->\nrest\n")
    assert first.count("| 24 |") >= 2
    program["write_family"](page, "new")
    assert page.read_text().count("begin -->") == 2
    assert "| 24 |" not in page.read_text()
