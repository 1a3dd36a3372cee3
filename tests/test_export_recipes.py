"""The recipes of docs/export.md give back the ids and the vectors that were exported, and the
example keeps a store equal to the head of a series.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_changed import update

import dask_embstab as es

DOCS = Path(__file__).parent.parent / "docs" / "export.md"
RECIPES: dict[str, str] = dict(
    re.findall(r"<!-- recipe: ([\w ]+) -->\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
)
HOSTILE = ["", " a ", "q\"u,o;t'e", "new\nline", "tab\tin", "é😀", "NA", "007", "null", "a\\"]
IDS = [*HOSTILE, *map(str, range(50))]

_SPARK = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # it warns of its libraries


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=_SPARK if n == "spark" else ()) for n in RECIPES],
)
def test_a_recipe_reads_back_what_was_exported(name: str, tmp_path: Path) -> None:
    library = {"spark": "pyspark"}.get(name, name.partition(" ")[0])
    pytest.importorskip(library, reason="the recipe is of this library")
    rows = np.random.default_rng(0).normal(size=(len(IDS), 4)).astype("float32")
    form = "csv" if name.endswith(" csv") else "parquet"
    place = tmp_path / form
    es.export(es.table(rows, ids=IDS), place, format=form, rows_per_file=25)
    read: dict[str, Any] = {"out": place, "csv": place}
    exec(RECIPES[name], read)
    if name == "spark":
        read["spark"].stop()
    at = {i: k for k, i in enumerate(read["ids"])}
    assert sorted(at) == sorted(IDS)
    assert read["vectors"].dtype == np.float32
    assert np.array_equal(read["vectors"][[at[i] for i in IDS]], rows)


def test_there_is_a_recipe_for_every_library_that_is_promised() -> None:
    assert {"pyarrow", "pandas", "duckdb", "polars", "spark"} <= RECIPES.keys()


def test_the_example_keeps_a_store_at_the_head_of_a_series(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    series = es.Series.init(
        tmp_path / "series", policy="first", keep="geometry", first_run="raw", gates={}
    )
    rng, errors = np.random.default_rng(0), []
    rows = rng.normal(size=(40, 4)).astype("float32")
    for day in range(3):
        ids = [f"i{k}" for k in range(day, day + 40)]
        run = es.create_run(tmp_path / f"{day}.zarr", rows, item_ids=ids)
        series.add(run, accept="test")
        rows = np.concatenate([rows[1:], rng.normal(size=(1, 4)).astype("float32")])
        errors.append(update(tmp_path / "series", tmp_path / "store.db"))
    assert [each["since"] for each in errors] == [None, 1, 2]
    assert (errors[2]["new"], errors[2]["gone"]) == (1, 1)
    again = update(tmp_path / "series", tmp_path / "store.db")
    assert (again["since"], again["rows"], again["gone"]) == (3, 0, 0)
    with duckdb.connect(str(tmp_path / "store.db")) as db:
        held = dict(db.execute("SELECT id, vector FROM items").fetchall())
    items = series.open().items
    wanted = dict(zip(items.ids.compute(), items.vectors.compute(), strict=True))
    assert held.keys() == wanted.keys()
    assert all(np.array_equal(np.float32(held[i]), wanted[i]) for i in held)

    series.forget(["i5"], table="items", rewrite=True)
    after = update(tmp_path / "series", tmp_path / "store.db")
    assert after["since"] is None
    with duckdb.connect(str(tmp_path / "store.db")) as db:
        assert db.execute("SELECT count(*) FROM items WHERE id = 'i5'").fetchone() == (0,)


def test_the_example_is_short() -> None:
    assert len((DOCS.parent.parent / "examples/export_changed.py").read_text().splitlines()) < 60
