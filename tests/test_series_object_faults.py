"""Whatever request of a series on an object store fails, or is done and its answer lost: nothing is
lost, and the same call again ends in what an undisturbed one ends in.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import dask
import numpy as np
import pytest
from faults import recorded
from objectstores import InMemory, Requests, contents, copied, in_memory, restore
from oracle import world
from publishers import publish_in_step
from test_series_processes import day_of

import dask_embstab as es
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.objects import lease as leases

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("plainly"),
]


def hold(series: es.Series, runs: Path) -> None:
    """An add that ends held, and only so."""
    with pytest.raises(es.HoldError):
        series.add(runs / "day-3.zarr")


VERBS: dict[str, Callable[[es.Series, Path], Any]] = {
    "add": lambda series, runs: series.add(runs / "day-3.zarr"),
    "rollback": lambda series, _: series.rollback(1),
    "change": lambda series, _: series.change(policy="first", gaps=None),
    "gc": lambda series, _: series.gc(grace=0),
    "hold": hold,
    "accept": lambda series, runs: series.add(runs / "day-3.zarr", accept="known"),
    "rebase": lambda series, _: series.rebase(1, rewrite=True),
    "forget": lambda series, _: series.forget([5], table="items", rewrite=True),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days, with ids, in two chunks a table."""
    folder = tmp_path_factory.mktemp("faults")
    for day in (1, 2, 3):
        ids: dict[str, Any] = {
            "item_ids": np.arange(24) + day,
            "user_ids": [f"u{i}" for i in range(30)],
        }
        es.create_run(folder / f"day-{day}.zarr", *world(day, 24, 30), chunk_rows=16, **ids)
    return folder


@pytest.fixture(scope="module")
def started(runs: Path) -> dict[str, InMemory]:
    """A series of two days that asks no gate, one with a gate that nothing passes, and one in which
    that gate holds the third day.
    """
    with dask.config.set(scheduler="synchronous"):
        for name, gates in (("start", {}), ("strict", {"matched": 2.0})):
            lagged: dict[str, Any] = {"gaps": [1, 2], "keep_references": 1}
            place = in_memory()
            series = es.Series.init(place, gates=dict.fromkeys(THRESHOLDS) | gates, **lagged)
            for day in (1, 2):
                series.add(runs / f"day-{day}.zarr", accept="known")
            _started[name] = place
        hold(es.Series(held := copied(_started["strict"])), runs)
    return _started | {"held": held}


_started: dict[str, InMemory] = {}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """Where requests are counted and struck; leases are not renewed by the clock meanwhile."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 1e6)
    counted = Requests()
    counted.install(monkeypatch)
    return counted


def ended(place: InMemory) -> tuple[Any, ...]:
    """Everything a reader can see of a series: its log, and the rows of its runs."""
    series = es.Series(place)
    assert not series.verify().damage
    numbers = [v.version for v in series.log().versions if v.run is not None]
    tables = [getattr(series.open(n), key) for n in numbers for key in ("items", "users")]
    data = [
        (np.asarray(table.vectors).tobytes(), np.asarray(table.ids).tolist()) for table in tables
    ]
    return recorded(series), data


def strike_every(
    requests: Requests,
    start: InMemory,
    verb: Callable[[es.Series], Any],
    chosen: Callable[[int], list[int]],
    *,
    after: bool,
) -> int:
    """Strike at the chosen ones of all requests of a verb; how many were struck. The place is the
    same each time: runs record the places of their references.
    """
    objects, before = contents(start), ended(start)
    for _ in range(2):  # a first call reads more than later ones
        restore(start, objects)
        with requests.armed(0):
            verb(es.Series(start))
            n = requests.count
    wanted = ended(start)
    for at in chosen(n):
        restore(start, objects)
        with requests.armed(at, after=after), contextlib.suppress(OSError, es.EmbstabError):
            verb(es.Series(start))
        assert requests.struck
        found = ended(start)
        assert found[0][: len(before[0])] == before[0]
        if len(found[0]) == len(before[0]):
            verb(es.Series(start))
        assert ended(start) == wanted
        es.Series(start).gc(grace=0)
        assert ended(start) == wanted
        assert start.names("locks") == []
    return len(chosen(n))


@pytest.mark.parametrize(
    "verb", [v if v == "add" else pytest.param(v, marks=pytest.mark.long) for v in VERBS]
)
@pytest.mark.parametrize(
    "after",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["not done", "answer lost"],
)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_request_that_fails(
    requests: Requests,
    started: dict[str, InMemory],
    runs: Path,
    record_property: Any,
    verb: str,
    *,
    after: bool,
    every: bool,
) -> None:
    start = started[{"hold": "strict", "accept": "held"}.get(verb, "start")]

    def chosen(n: int) -> list[int]:
        return list(range(1, n + 1)) if every else [n // 2, n - 2]

    objects = contents(start)
    try:
        struck = strike_every(
            requests, start, lambda series: VERBS[verb](series, runs), chosen, after=after
        )
    finally:
        restore(start, objects)  # other cases begin there too
    record_property("tried", struck)


def test_two_publishers_at_once(tmp_path: Path) -> None:
    """Threads of one process, which leases keep apart as they do processes."""
    rounds = 5
    for turn in range(5):
        day_of(tmp_path, turn, str(turn))
    series = es.Series.init(place := in_memory(), gates=dict.fromkeys(THRESHOLDS), policy="first")
    barrier, told = threading.Barrier(2), Queue[int]()
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(publish_in_step, number, place, tmp_path, rounds, barrier, told)
            for number in range(2)
        ]
        for one in made:
            one.result()
    versions = series.log().versions
    assert sorted(str(v.run) for v in versions) == sorted(
        f"p{i}-{turn}" for i in range(2) for turn in range(rounds)
    )
    assert [v.parent for v in versions] == [None, *range(1, 2 * rounds)], "none is torn off"
    assert not series.verify().damage
    assert place.names("locks") == []
