"""Whatever request of a series on an object store fails, or is done and its answer lost: nothing is
lost, and the same call again ends in what an undisturbed one ends in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from faults import recorded
from objectstores import InMemory, Requests, contents, copied, in_memory
from oracle import world

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
SHORT = ("add", "rollback")
POINTS = 4
"""So many requests the short form strikes, evenly spread, and the last three: around the
publish.
"""


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
    """Strike at the chosen ones of all requests of a verb; how many were struck."""
    undisturbed = copied(start)
    with requests.armed(0):
        verb(es.Series(undisturbed))
        n = requests.count
    before, wanted = ended(start), ended(undisturbed)
    for at in chosen(n):
        place = copied(start)
        with requests.armed(at, after=after), contextlib.suppress(OSError, es.EmbstabError):
            verb(es.Series(place))
        assert requests.struck
        found = ended(place)
        assert found[0][: len(before[0])] == before[0]
        if len(found[0]) == len(before[0]):
            verb(es.Series(place))
        assert ended(place) == wanted
        es.Series(place).gc(grace=0)
        assert ended(place) == wanted
        lost = [key for key in contents(place) if "/locks/" in key or "/candidates/" in key]
        assert not [key for key in lost if "held.json" not in key and "candidate.npz" not in key]
    return len(chosen(n))


def some(n: int) -> list[int]:
    """A few requests, and the last three."""
    return sorted({*range(1, n + 1, max(1, n // POINTS)), n - 2, n - 1, n} - {0, -1})


@pytest.mark.parametrize(
    "verb", [v if v in SHORT else pytest.param(v, marks=pytest.mark.long) for v in VERBS]
)
@pytest.mark.parametrize("after", [False, True], ids=["not done", "answer lost"])
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
        return list(range(1, n + 1)) if every else some(n)

    struck = strike_every(
        requests, start, lambda series: VERBS[verb](series, runs), chosen, after=after
    )
    record_property("tried", struck)
