"""How long each step of a publish took is recorded with its version, and shown over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.publish import publish


def test_seconds_of_every_add_are_in_the_version_the_report_and_the_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4))
    series = es.Series.init(tmp_path / "shop")
    for k in range(2):
        series.add(es.create_run(tmp_path / f"day-{k}.zarr", rows + 0.1 * k, rows[:50]))

    log = series.log()
    seconds_of = [version.full_details.seconds for version in log.versions]
    steps = {"add", "fit", "codes", "apply", "verify", "gates", "consensus"}
    for seconds in seconds_of:
        assert set(seconds) == steps
        inner = sum(seconds[step] for step in steps - {"add"})
        assert 0 < inner <= seconds["add"] + 0.001 * len(steps), "to a rounding of each"
    report = series.report()
    assert [run["seconds"] for run in report.to_dict()["runs"]] == seconds_of
    assert "Time to add each run" in report.html
    assert f'embstab_series_add_seconds{{series="shop",step="fit"}} {seconds_of[1]["fit"]}' in (
        series.metrics()
    )
    assert "seconds" not in series.log().versions[0].to_dict().get("figures", {})
    with pytest.raises(SystemExit):
        main(["series", "log", str(tmp_path / "shop"), "--json"], prog_name="embstab")
    printed = capsys.readouterr().out
    assert '"run": "day-1"' in printed
    assert '"seconds"' not in printed


def test_a_version_without_seconds_is_read_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions of before they were recorded."""
    rows = np.random.default_rng(0).normal(size=(60, 4))
    series = es.Series.init(tmp_path / "shop")
    with monkeypatch.context() as patched:
        patched.setattr(publish.Stopwatch, "seconds", lambda _: {})
        series.add(es.create_run(tmp_path / "day-0.zarr", rows, rows))
    series.add(es.create_run(tmp_path / "day-1.zarr", rows + 0.1, rows))
    report = series.report()
    assert report.to_dict()["runs"][0]["seconds"] is None
    assert "Time to add each run" in report.html
