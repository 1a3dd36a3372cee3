"""Publishes, refits, rebases and forgets of a series with codes that are struck: vectors and codes
read as before or as after, and the same call ends in the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import faults
import numpy as np
import pytest
from oracle import data_of, world

import dask_embstab as es
from dask_embstab.series.log.thresholds import THRESHOLDS

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("plainly"),
]
CODE: dict[str, Any] = {"code": "pq2", "code_force": True, "gates": dict.fromkeys(THRESHOLDS)}
VERBS: dict[str, Callable[[es.Series, Path], Any]] = {
    "add with codes": lambda series, runs: series.add(runs / "day-2.zarr"),
    "refit of codes": lambda series, runs: series.add(runs / "day-2.zarr", refit_code=True),
    "rebase with codes": lambda series, runs: series.rebase(
        es.open_run(runs / "day-2.zarr"), rewrite=True
    ),
    "forget with codes": lambda series, _: series.forget([7], table="items", rewrite=True),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days, and a series with codes of two of them."""
    folder = tmp_path_factory.mktemp("faults")
    series = es.Series.init(folder / "series", **CODE)
    for day in range(3):
        ids: dict[str, Any] = {"item_ids": np.arange(24) + day, "user_ids": np.arange(30)}
        run = es.create_run(folder / f"day-{day}.zarr", *world(day, 24, 30), chunk_rows=16, **ids)
        if day < 2:
            series.add(run)
    return folder


def ended(series: es.Series) -> Any:
    """The log, but for the clock, and everything that is stored of the runs."""
    numbers = [version.version for version in series.log().versions]
    runs = [run for n in numbers for run in (series.open(n), series.codes(n))]
    tables = dask.compute(*(run.table(key).vectors for run in runs for key in ("items", "users")))
    read = [table.tobytes() for table in tables]
    stored = [data_of(run.path) for run in runs[::2]]
    return faults.recorded(series), read, stored


@pytest.mark.parametrize("mode", faults.MODES)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("step", [0], ids=["every"])
@pytest.mark.long
def test_a_fault_at_the_nth_operation(
    runs: Path,
    tmp_path: Path,
    disk: faults.Faults,
    record_property: Any,
    verb: str,
    mode: str,
    step: int,
) -> None:
    """At the first one of every place in the code."""
    tried = faults.strike_every(
        disk,
        runs / "series",
        tmp_path / "work",
        lambda series: VERBS[verb](series, runs),
        ended,
        mode,
        step=step,
        offset=0,
    )
    record_property("tried", tried)


def test_a_power_cut_right_before_a_version_with_codes(
    runs: Path, tmp_path: Path, disk: faults.Faults
) -> None:
    """The short form: a few operations of an add."""
    assert faults.strike_every(
        disk,
        runs / "series",
        tmp_path / "work",
        lambda series: VERBS["add with codes"](series, runs),
        ended,
        "power",
        step=400,
        offset=0,
    )
