"""What is printed says what it is in one line, and reads nothing."""

from __future__ import annotations

import importlib.metadata
import inspect
from pathlib import Path

import numpy as np
import pytest

import dask_embstab as es

LONGEST = 240


@pytest.fixture
def printed(tmp_path: Path) -> dict[str, object]:
    rng = np.random.default_rng(0)
    items, users = (rng.normal(size=(n, 8)).astype(np.float32) for n in (300, 200))
    run = es.create_run(tmp_path / "week-1.zarr", items=items, users=users, item_ids=np.arange(300))
    series = es.Series.init(tmp_path / "series")
    version = series.add(run, name="week-1")
    return {
        "run": run,
        "table": run.table("items"),
        "stabilized": series.open(),
        "transform": es.fit(run, reference=run),
        "metrics": es.evaluate(run, run, k=5),
        "frontier": es.frontier(run),
        "moments": es.moments(run.table("items"), reference=run.table("items")),
        "series": series,
        "log": series.log(),
        "version": version,
    }


def test_every_object_prints_within_a_line(printed: dict[str, object]) -> None:
    for name, one in printed.items():
        text = repr(one)
        assert "\n" not in text, name
        assert len(text) <= LONGEST, (name, text)
        assert text.startswith(f"{type(one).__name__}("), (name, text)


def test_the_line_says_what_the_object_is(printed: dict[str, object], tmp_path: Path) -> None:
    assert (
        repr(printed["run"])
        == f"Run(name=week-1, path={tmp_path}/week-1.zarr, items=300 x 8 float32, int64 ids,"
        " users=200 x 8 float32, no ids, kind=as trained)"
    )
    assert "kind=stabilized" in repr(printed["stabilized"])
    assert "components=8 -> 8" in repr(printed["transform"])
    assert "relative_error=" in repr(printed["transform"])
    assert "items=mean cosine 1.0000, norm ratio 1.0000, 300 rows" in repr(printed["metrics"])
    assert "rows=300, components=8" in repr(printed["moments"])
    assert "matched=300" in repr(printed["moments"])
    assert "versions=1, head=1 (week-1, " in repr(printed["log"])
    assert "version=1, kind=publish, run=week-1" in repr(printed["version"])


def test_a_notebook_shows_a_table_with_every_name_escaped(tmp_path: Path) -> None:
    rows = np.eye(4)
    table = es.table(rows, ids=np.arange(4))
    run = es.create_run(tmp_path / "run.zarr", items=rows, name="<b>\x1b[31m")
    shown = run._repr_html_()
    assert "<td>4 x 4 float64, no ids</td>" in shown
    assert "int64 ids" in table._repr_html_()
    assert "&lt;b&gt;\\x1b[31m" in shown
    assert "<b>" not in shown
    assert "\x1b" not in shown + repr(run)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert es.__version__ == importlib.metadata.version("dask_embstab")
    assert "__version__" in dir(es)


@pytest.mark.parametrize("verb", [es.stabilize, es.Series.init, es.Series.change, es.Series.replay])
def test_signatures_name_every_option(verb: object) -> None:
    names = inspect.signature(verb).parameters  # type: ignore[arg-type]
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in names.values()), names
