"""Forgetting ids that is interrupted or struck: the series reads as before or as after, and the
same call ends it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faults
import pytest
import test_forget
from oracle import Stop, stop_after
from test_forget import GONE, LIVE, references, rows

import dask_embstab as es

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
quick, template, series = test_forget.quick, test_forget.template, test_forget.series


@pytest.mark.usefixtures("small_tasks")
def test_what_was_written_before_an_interruption_is_resumed(
    series: es.Series, writing: Any
) -> None:
    with writing(stop_after(7)), pytest.raises(Stop):
        series.forget([LIVE], rewrite=True)
    assert len(series.log().versions) == 3
    written: list[int] = []
    with writing(written.append):
        assert series.forget([LIVE], rewrite=True).published
    resumed = len(written)
    series.gc(grace=0)
    written.clear()
    with writing(written.append):
        series.forget(["i29"], rewrite=True)
    assert 0 < resumed < len(written) / 2 + 7


def ended(series: es.Series) -> Any:
    """What readers get, and where it lies."""
    log = series.log()
    read = [rows(series.open(n), key) for n in (1, 2, 3) for key in ("items", "users")]
    return read, references(series), log.moved, len(log.versions)


@pytest.mark.parametrize("mode", faults.MODES)
@pytest.mark.parametrize("verb", ["forget"])
@pytest.mark.parametrize("step", [6000, pytest.param(0, marks=pytest.mark.long)])
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
        series.forget([GONE, LIVE], rewrite=True)

    start, offset = template / "series", faults.MODES.index(mode) * 490
    tried = faults.strike_every(
        disk, start, tmp_path / "work", call, ended, mode, step=step, offset=offset
    )
    record_property("tried", tried)
