"""The benchmark without a disk: computed rows through the real fit, its figures, and the user's own
table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic
from distributed import LocalCluster
from oracle import assert_close, world

import dask_embstab as es

# A cluster's own goodbye.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FIGURES = {
    "seconds",
    "ns per row",
    "of the first",
    "generator ns per row",
    "overhead",
    "read tasks per chunk",
}


def test_every_figure_is_there(tmp_path: Path) -> None:
    table, record = tmp_path / "synthetic.md", tmp_path / "synthetic.json"
    arguments = ["--rows", "5e4", "3e5", "--d", "32", "--repeats", "1"]
    results = synthetic.main([*arguments, "--markdown", str(table), "--json", str(record)])
    small, large = results["rows"]
    assert (small["rows"], large["rows"], large["d"]) == (50_000, 300_000, 32)
    for row in (small, large):
        assert set(row) >= FIGURES
        assert row["read tasks per chunk"] <= 1.1
        assert row["tree tasks per chunk"] <= 0.5
        assert row["generator ns per row"] < 0.5 * row["ns per row"]
        assert row["ns per row"] == pytest.approx(row["seconds"] / row["rows"] * 1e9)
        assert row["overhead"] == pytest.approx(row["overhead seconds"] / row["seconds"])
    assert large["of the first"] == pytest.approx(large["ns per row"] / small["ns per row"])
    assert "| 300,000 | 32 |" in table.read_text()
    assert json.loads(record.read_text()) == results


def test_the_fit_is_that_of_the_rows() -> None:
    """The same rows in memory have the same moments, and every chunk its digest."""
    table = synthetic.synthetic_table(70_000, 32)
    reader, panel = table.source.block(0, table.n_rows).open(), 8192
    rows = np.concatenate(
        [reader.rows(at, min(at + panel, 70_000)) for at in range(0, 70_000, panel)]
    )
    assert len(np.unique(rows[:panel], axis=0)) == panel
    fitted, wanted = (es.fit(what, keep="geometry") for what in (table, rows))
    assert_close(fitted.singular_values, wanted.singular_values, 1e-12)
    assert len(fitted.diagnostics["items"]["digests"]) == -(-70_000 // table.chunk_rows)


def test_it_takes_a_table_and_a_scheduler(make_run: Callable[..., es.Run]) -> None:
    run = make_run("a", world(3)[0], dtype="float32")
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        options = ["--scheduler", cluster.scheduler_address, "--repeats", "1"]
        (row,) = synthetic.main(["--table", run.path, *options])["rows"]
        assert synthetic.main(["--rows", "5e4", "--d", "8", *options])["rows"][0]["rows"] == 50_000
    assert (row["rows"], row["d"], row["chunks"], row["generator ns per row"]) == (60, 4, 4, 0.0)
