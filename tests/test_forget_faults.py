"""Forgetting ids that is interrupted or struck: the series reads as before or as after, and the
same call ends it.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import faults
import pytest
import test_forget
from oracle import Stop
from test_forget import GONE, LIVE, references, rows
from test_rebase_faults import stop_after

import dask_embstab as es

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
quick, template, series = test_forget.quick, test_forget.template, test_forget.series


@pytest.mark.usefixtures("small_tasks")
def test_what_was_written_before_an_interruption_is_gone_on_with(
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
@pytest.mark.parametrize("step", [1500, pytest.param(1, marks=pytest.mark.long)])
def test_a_fault_at_the_nth_operation(
    template: Path, tmp_path: Path, disk: faults.Faults, mode: str, step: int
) -> None:
    """The short form takes a few operations, and the last two, around the publish itself."""
    before, wanted = ended(es.Series(template / "series")), None
    tried = [10**9]
    while tried:
        at = tried.pop()
        place = tmp_path / "work" / "series"
        shutil.copytree(template / "series", place)
        with (
            contextlib.suppress(faults.Killed, OSError, es.EmbstabError),
            disk.armed(place.parent, at, mode),
        ):
            es.Series(place).forget([GONE, LIVE], rewrite=True)
        assert not es.Series(place).verify().damage
        if len(es.Series(place).log().versions) == 3:
            assert disk.struck
            assert ended(es.Series(place)) == before
            assert es.Series(place).forget([GONE, LIVE], rewrite=True).published
        if wanted is None:
            wanted = ended(es.Series(place))
            last, offset = disk.count, faults.MODES.index(mode) * 490 if step > 1 else 0
            tried = sorted({*range(1 + offset, last + 1, step), *range(max(1, last - 1), last + 1)})
        assert ended(es.Series(place)) == wanted
        es.Series(place).gc(grace=0)
        assert ended(es.Series(place)) == wanted
        assert not es.Series(place).verify().damage
        shutil.rmtree(place.parent)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> faults.Faults:
    return faults.install(monkeypatch)
