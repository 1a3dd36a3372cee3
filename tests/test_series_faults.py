"""Whatever fails or dies at whichever file operation: the series reads as before, and ends in the
same bits.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import faults
import pytest
from campaigns import EVERY
from oracle import data_of

import dask_embstab as es
from dask_embstab.series.admin.status import unpublished
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.store import Folder

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("plainly"),
]
PLACES = ("runs", "references")
LIKE_ADD = ("hold", "accept", "shadow")
"""What publishes as ``add`` does: the places in the library that ``add`` reaches are struck there,
and the short form strikes each of these in one way.
"""


def hold(series: es.Series, runs: Path) -> None:
    """An add that ends held, and only so."""
    with pytest.raises(es.HoldError):
        series.add(runs / "day-3.zarr")


VERBS: dict[str, Callable[[es.Series, Path], Any]] = {
    "init": lambda series, _: es.Series.init(series.store.place("").parent / "new"),
    "add": lambda series, runs: series.add(runs / "day-3.zarr"),
    "rollback": lambda series, _: series.rollback(1),
    "change": lambda series, _: series.change(policy="first", gaps=None),
    "gc": lambda series, _: series.gc(grace=0),
    "hold": hold,
    "accept": lambda series, runs: series.add(runs / "day-3.zarr", accept="known"),
    "shadow": lambda series, runs: series.add(runs / "day-3.zarr", shadow=True),
    "promote": lambda series, _: series.promote(3),
}
POINTS = 3
"""So many operations the short form strikes, evenly spread, and the last ones; other ones in each
mode.
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days, with ids, in two chunks a table; a series of two of them, and what an interrupted
    publish left.

    ``start`` asks no gate, ``strict`` one that nothing passes, ``held`` is the same with the third
    day held, ``shadow`` has it as a shadow.
    """
    folder = tmp_path_factory.mktemp("faults")
    faults.write_days(folder, 30)
    for name, gates in (("start", {}), ("strict", {"matched": 2.0})):
        lagged: dict[str, Any] = {"gaps": [1, 2], "keep_references": 1}
        series = es.Series.init(folder / name, gates=dict.fromkeys(THRESHOLDS) | gates, **lagged)
        for day in (1, 2):
            series.add(folder / f"day-{day}.zarr", accept="known")
        for place in PLACES:
            shutil.copytree(
                folder / "day-2.zarr", folder / name / place / ".lost.zarr.0123456789ab.partial"
            )
    hold(es.Series(shutil.copytree(folder / "strict", folder / "held")), folder)
    VERBS["shadow"](es.Series(shutil.copytree(folder / "start", folder / "shadow")), folder)
    return folder


@pytest.fixture
def start(runs: Path, verb: str) -> Path:
    """Where the series stands, to be copied; what a test that failed left of a copy is gone."""
    shutil.rmtree(runs / "work", ignore_errors=True)
    return runs / {"hold": "strict", "accept": "held", "promote": "shadow"}.get(verb, "start")


def ended(place: Path) -> tuple[Any, ...]:
    """Everything a reader can see of a series: its log, its runs, the references kept, what is held
    and why.
    """
    series = es.Series(place)
    assert not series.verify().damage
    log = series.log()
    names = {"runs": {v.run for v in log.versions}, "references": log.kept_references or ()}
    data = {(at, name): data_of(place / at / f"{name}.zarr") for at in PLACES for name in names[at]}
    return faults.recorded(series), data, unpublished(series.store, log).held


def strike(disk: faults.Faults, start: Path, runs: Path, verb: str, at: int, mode: str) -> bool:
    """One fault; False where the verb ended before its ``at``-th operation."""
    place = runs / "work" / "series"
    shutil.copytree(start, place)
    before, do = stood(start, place), VERBS[verb]
    with (
        contextlib.suppress(faults.Killed, OSError, es.EmbstabError),
        disk.armed(place.parent, at, mode),
    ):
        do(es.Series(place), runs)
    after = ended(place)
    assert after[0][: len(before[0])] == before[0]
    assert len(after[0]) <= len(before[0]) + 1
    assert after[2] in (before[2], wanted(start, runs, verb)[2])
    if verb == "init" and (place.parent / "new" / "series.json").exists():
        assert es.Series(place.parent / "new").log().versions == ()
    else:
        do(es.Series(place), runs)  # the same call again
    assert ended(place) == wanted(start, runs, verb)
    es.Series(place).gc(grace=0)
    assert ended(place)[:2] == wanted(start, runs, verb)[:2]
    known = {f"day-{day}.zarr" for day in (1, 2, 3)}
    leftovers = {path.name for at in PLACES for path in (place / at).iterdir()} - known
    assert not leftovers, "gc takes what an interruption left"
    assert not list((place / "candidates").iterdir())
    shutil.rmtree(runs / "work")
    return disk.struck


_stood: dict[Path, tuple[Any, ...]] = {}
_wanted: dict[tuple[Path, str], tuple[Any, ...]] = {}


def stood(start: Path, place: Path) -> tuple[Any, ...]:
    """What a copy of the series ``start`` at ``place`` is, read once."""
    if start not in _stood:
        _stood[start] = ended(place)
    return _stood[start]


def wanted(start: Path, runs: Path, verb: str) -> tuple[Any, ...]:
    """What an undisturbed verb leaves."""
    if (start, verb) not in _wanted:
        place = (
            runs / "work" / "series"
        )  # the same place: what is read of it once per process is read now
        shutil.copytree(start, place)
        VERBS[verb](es.Series(place), runs)
        _wanted[start, verb] = ended(place)
        shutil.rmtree(place.parent)
    return _wanted[start, verb]


def cases(verbs: Sequence[str], ways: Sequence[Any]) -> Iterator[Any]:
    """Every verb in every way; long ones where all is struck, and where the short form need not."""
    for every, verb, way in product((False, True), verbs, ways):
        own = ways[LIKE_ADD.index(verb) % len(ways)] if verb in LIKE_ADD else way
        marks = (pytest.mark.long,) if every or way != own else ()
        yield pytest.param(every, verb, way, marks=marks)


@pytest.mark.parametrize(("every", "verb", "mode"), list(cases([*VERBS], faults.MODES)))
def test_a_fault_at_the_nth_operation(
    disk: faults.Faults,
    start: Path,
    runs: Path,
    record_property: Any,
    verb: str,
    mode: str,
    *,
    every: bool,
) -> None:
    """At every one of them, or at every place in the library that they come from; the short form
    takes a few, and the last ones, around the publish itself.
    """
    wanted(start, runs, verb)  # a first call imports and looks up more than later ones
    struck_there: faults.Places = {}
    if every and verb in LIKE_ADD and not EVERY:
        wanted(runs / "start", runs, "add")
        strike(disk, runs / "start", runs, "add", faults.NEVER, mode)
        struck_there = disk.places
    assert not strike(disk, start, runs, verb, faults.NEVER, mode)
    last, step = disk.count, max(1, disk.count // POINTS)
    offset = faults.MODES.index(mode) * step // len(faults.MODES)
    some = disk.every_place(struck_there) if every else range(1 + offset, last + 1, step)
    chosen = sorted({*some, *range(max(1, last - (5 if every else 2)), last + 1)})
    struck = sum(strike(disk, start, runs, verb, at, mode) for at in chosen)
    assert struck == len(chosen)
    record_property("tried", struck)


@pytest.mark.parametrize(("every", "verb", "after"), list(cases([*VERBS][1:], (False, True))))
def test_a_fault_at_every_operation_of_the_store(
    start: Path, runs: Path, record_property: Any, verb: str, *, after: bool, every: bool
) -> None:
    """At every one of them, or at every place in the library that ``add`` does not reach, and the
    last ones; the short form takes one in 36, other ones before and after the operation.
    """
    wanted(start, runs, verb)  # before the place is taken
    shared = every and verb in LIKE_ADD and not EVERY
    known = asked(runs / "start", runs, "add").places if shared else {}
    undisturbed, before = asked(start, runs, verb), faults.recorded(es.Series(start))
    if shared:
        places, last = undisturbed.places, undisturbed.count
        own = {n for place, n in places.items() if place not in known}
        chosen = sorted({*own, *range(last - 5, last + 1)})
    else:
        step = 1 if every else 36
        chosen = [*range(1 + step // 2 * after, undisturbed.count + 1, step)]
    for at in chosen:
        assert asked(start, runs, verb, at, after=after).count >= at
        place = runs / "work" / "series"
        assert faults.recorded(es.Series(place))[: len(before)] == before
        assert not es.Series(place).verify().damage
        VERBS[verb](es.Series(place), runs)
        assert ended(place) == wanted(start, runs, verb)
        shutil.rmtree(place.parent)
    record_property("tried", len(chosen))


def asked(
    start: Path, runs: Path, verb: str, at: int = faults.NEVER, *, after: bool = False
) -> faults.FaultyStore:
    """The store of a copy of a series whose verb is struck; the copy is left if it is."""
    place = runs / "work" / "series"
    shutil.copytree(start, place)
    store = faults.FaultyStore(Folder(place), at, after=after)
    with contextlib.suppress(OSError):
        VERBS[verb](es.Series(store), runs)
    if at == faults.NEVER:
        shutil.rmtree(place.parent)
    return store
