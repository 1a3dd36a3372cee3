"""A rebase that is interrupted, overtaken or struck: the series reads as before or as after, and
nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import test_rebase
from oracle import Stop
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


def stop_after(n: int) -> Callable[[int], None]:
    def hook(count: int) -> None:
        if count > n:
            raise Stop

    return hook


def test_a_rebase_that_lost_the_race(
    series: es.Series, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = rebasing.create_version

    def meanwhile(*arguments: Any) -> Any:
        series.add(template / "day-3.zarr")
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(rebasing, "create_version", meanwhile)
        with pytest.raises(es.RetryError):
            series.rebase(1, rewrite=True)
    assert series.head().run == "day-3"
    assert series.rebase(1, rewrite=True).published
    series.gc(grace=0)
    assert len(list((Path(series.store.place("runs"))).iterdir())) == 4
    assert not series.verify().damage


@pytest.mark.parametrize("mode", faults.MODES)
@pytest.mark.parametrize("step", [701, pytest.param(1, marks=pytest.mark.long)])
def test_a_fault_at_the_nth_operation(
    template: Path, tmp_path: Path, disk: faults.Faults, mode: str, step: int
) -> None:
    """What is there reads as before or as after, and the same call ends in the same; the short form
    takes a few.
    """
    wanted: Any = None
    tried = [10**9]
    while tried:
        at = tried.pop()
        place = tmp_path / "work" / "series"
        shutil.copytree(template / "series", place)
        with (
            contextlib.suppress(faults.Killed, OSError, es.EmbstabError),
            disk.armed(place.parent, at, mode),
        ):
            es.Series(place).rebase(1, rewrite=True)
        assert not es.Series(place).verify().damage
        if len(es.Series(place).log().versions) == 3:
            assert disk.struck
            es.Series(place).rebase(1, rewrite=True)
        es.Series(place).gc(grace=0)
        ended = es.Series(place).log().moved, all_read(es.Series(place))
        if wanted is None:
            wanted = ended
            last, offset = disk.count, faults.MODES.index(mode) * 222 if step > 1 else 0
            tried = sorted({*range(1 + offset, last + 1, step), *range(max(1, last - 1), last + 1)})
        assert ended[0] == wanted[0]
        np.testing.assert_array_equal(np.vstack(ended[1]), np.vstack(wanted[1]))
        assert not es.Series(place).verify().damage
        shutil.rmtree(place.parent)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> faults.Faults:
    return faults.install(monkeypatch)
