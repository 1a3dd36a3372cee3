"""The example of codes on real data, at reduced size: its tables, and what frozen codebooks are
for.
"""

from __future__ import annotations

from pathlib import Path

import compression_ideas
import frontier
import gmf
import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.core.codes.code import BITS

DATA = gmf.default_folder()
FEW = ("int8", "int6", "int5", "int4", "pq8")
"""The short form has codebooks of one size alone: they are trained."""


def test_frozen_codebooks_keep_codes_that_refitted_ones_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(900, 8)), rng.normal(size=(200, 8))
    # Two thirds of a week's items are known from the week before.
    weeks = [np.arange(150 * week, 150 * week + 600) for week in range(3)]
    runs = [
        es.create_run(
            tmp_path / f"{week}.zarr",
            items[ids] + 0.01 * rng.normal(size=(600, 8)),
            users,
            item_ids=ids,
            user_ids=np.arange(200),
        )
        for week, ids in enumerate(weeks)
    ]
    rows = list(frontier.weekly(runs, tmp_path, ("int8", "pq2")))
    seen = {(code, kind): list(map(float, figures)) for code, kind, *figures in rows}
    assert seen["int8", "frozen"][1] > 0.9
    assert seen["pq2", "frozen"][3] > 0.8
    assert seen["pq2", "refitted"][3] < 0.4


@pytest.mark.skipif(
    not (DATA / "gmf" / "gmf_a.npz").exists(), reason="no gmf_a.npz; set EMBSTAB_DATA"
)
@pytest.mark.parametrize("codes", [FEW, pytest.param(frontier.CODES, marks=pytest.mark.long)])
def test_the_frontier_of_a_real_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: tuple[str, ...]
) -> None:
    monkeypatch.setattr(frontier, "CODES", codes)
    monkeypatch.setattr(frontier.webshop, "default_file", lambda _: tmp_path / "none")
    monkeypatch.setattr(frontier, "glove", lambda: None)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{frontier.BEGIN}\nold\n{frontier.END}\nafter\n")
    ((_, header, rows),) = frontier.main(["--page", str(page)])
    assert len(rows) > 2 * len(BITS) or codes == FEW
    assert len(rows) >= len(FEW)
    by_code = {row[1]: float(row[header.index("recall@10")]) for row in rows}
    assert by_code["int4"] < by_code["int5"] < by_code["int6"] < by_code["int8"]
    text = page.read_text()
    assert "| GMF | int8 |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


def test_ideas_of_the_guide_are_measured() -> None:
    rng = np.random.default_rng(0)
    day = rng.normal(size=(600, 8)) * np.linspace(2, 0.5, 8), rng.normal(size=(80, 8))
    seen = {
        (idea, of): (n_bytes, compression_ideas.recall(day, decode))
        for idea, of, n_bytes, decode in compression_ideas.ideas(day)
    }
    kept = {name: share for name, (_, share) in seen.items()}
    assert kept["equal steps", "int4"] < kept["equal steps", "int5"]
    assert kept["int8 for the head, int4", "a tenth"] > kept["equal steps", "int4"]
    assert kept["half of the blocks of 2 pruned", "int8"] < kept["equal steps", "int4"]
    assert seen["residual codebooks", "4 stages"][0] == seen["a codebook for each part", "pq4"][0]
    collisions, bits = compression_ideas.buckets(day, 4, 4)
    assert 0 < collisions < bits < 1
