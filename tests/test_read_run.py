"""The reader in plain zarr and NumPy reads what the library reads, in every state of a series; and
every example is known, short, opens with what it shows, and is run.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import read_run
from doc_pages import ROOT
from oracle import world

import dask_embstab as es

T, W = world(0)
IDS = {"item_ids": np.arange(60), "user_ids": [f"u{n}" for n in range(90)]}


def same(place: Path, run: es.Run) -> None:
    for key in ("items", "users"):
        table = run.table(key)
        parts = list(read_run.open_table(place, key))
        assert np.concatenate([ids for ids, _ in parts]).tolist() == table.ids[:].compute().tolist()
        rows = np.concatenate([vectors for _, vectors in parts])
        np.testing.assert_allclose(rows, np.asarray(table.vectors), rtol=1e-9, atol=1e-12)


def test_the_reader_reads_runs_and_heads_of_series(tmp_path: Path) -> None:
    days = [
        es.create_run(tmp_path / f"{n}.zarr", T + 0.02 * n, W, chunk_rows=16, **IDS)
        for n in range(2)
    ]
    same(tmp_path / "0.zarr", days[0])
    place = tmp_path / "series"
    series = es.Series.init(place)
    for day in days:
        series.add(day)
    same(place, series.open())
    for change in (
        lambda: series.rebase(2),
        lambda: series.rollback(1),
        lambda: series.forget([3], table="items", rewrite=True),
        lambda: series.rebase(1, rewrite=True),
        lambda: series.rebase(None),
    ):
        change()
        same(place, series.open())
    bare = es.create_run(tmp_path / "bare.zarr", T)
    ids = [row for part, _ in read_run.open_table(Path(bare.path)) for row in part]
    assert ids == list(range(60))


EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text()
PROGRAMS = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py"))
LISTED = re.findall(r"^\| `([\w/]+\.py)` \| (.+) \| `(test_\w+\.py)` \|$", PAGE, re.MULTILINE)
SHORT = PAGE.partition("## Experiments")[0]


def test_every_example_is_listed_with_the_test_that_runs_it() -> None:
    assert sorted(name for name, _, _ in LISTED) == PROGRAMS
    for name, _, test in LISTED:
        assert re.search(rf"\b{Path(name).stem}\b", (ROOT / "tests" / test).read_text()), name


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_is_short_and_opens_with_what_it_shows(program: str) -> None:
    text = (EXAMPLES / program).read_text()
    assert len(text.splitlines()) <= 60 or f"`{program}`" not in SHORT
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    assert len(docstring.partition("\n\n")[0]) > 30
