"""A rebase that is interrupted, overtaken or struck: the series reads as before or as after, and
nothing else.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import test_rebase
from oracle import Stop, meanwhile, stop_after
from test_rebase import all_read

import dask_embstab as es
from dask_embstab.series.admin import rebase as rebasing

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
quick, template, series = test_rebase.quick, test_rebase.template, test_rebase.series


@pytest.mark.usefixtures("small_tasks")
def test_an_interrupted_rewrite_goes_on(
    series: es.Series, template: Path, tmp_path: Path, writing: Any
) -> None:
    other = es.Series(shutil.copytree(tmp_path / "series", tmp_path / "undisturbed"))
    written: list[int] = []
    with writing(written.append):
        other.rebase(template / "other.zarr", rewrite=True)
    n_chunks = len(written)
    with writing(stop_after(n_chunks - 2)), pytest.raises(Stop):
        series.rebase(template / "other.zarr", rewrite=True)
    assert len(series.log().versions) == 3
    written.clear()
    with writing(written.append):
        series.rebase(template / "other.zarr", rewrite=True)
    assert len(written) == 2, "chunks that are there are not written again"
    assert series.log().moved == other.log().moved


def test_a_rebase_that_lost_the_race(series: es.Series, template: Path) -> None:
    other = partial(series.add, template / "day-3.zarr")
    with meanwhile(rebasing, "create_version", other), pytest.raises(es.RetryError):
        series.rebase(1, rewrite=True)
    assert series.head().run == "day-3"
    assert series.rebase(1, rewrite=True).published
    series.gc(grace=0)
    assert len(list((Path(series.store.place("runs"))).iterdir())) == 4
    assert not series.verify().damage


def ended(series: es.Series) -> Any:
    """What readers get, bit for bit, and where it lies."""
    return series.log().moved, [np.asarray(rows).tobytes() for rows in all_read(series)]


@pytest.mark.parametrize("mode", faults.MODES)
@pytest.mark.parametrize("verb", ["rebase"])
@pytest.mark.parametrize("step", [2801, pytest.param(0, marks=pytest.mark.long)])
def test_a_fault_at_the_nth_operation(
    template: Path,
    tmp_path: Path,
    disk: faults.Faults,
    record_property: Any,
    verb: str,
    mode: str,
    step: int,
) -> None:
    """The short form takes a few operations, the long one the first of every place in the code."""
    del verb  # names the row of the table of faults

    def call(series: es.Series) -> None:
        series.rebase(1, rewrite=True)

    start, offset = template / "series", faults.MODES.index(mode) * 222
    tried = faults.strike_every(
        disk, start, tmp_path / "work", call, ended, mode, step=step, offset=offset
    )
    record_property("tried", tried)
