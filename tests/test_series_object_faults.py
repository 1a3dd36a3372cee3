"""Whatever request of a series on an object store fails, or is done and its answer lost: nothing is
lost, and the same call again ends in what an undisturbed one ends in.

The requests are those that S3 gets; a server of this process answers them from a dict, so that a
bucket is as it was before in no time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import dask
import pytest
from campaigns import spread
from cloud_stand_ins import Amazon, serving
from faults import recorded, write_days
from objectstores import in_memory
from publishers import publish_in_step, require_all
from test_series_processes import day_of

import dask_embstab as es
from dask_embstab.files.remote import Url
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.objects import lease as leases

pytestmark = pytest.mark.usefixtures("plainly")
Objects = dict[str, Any]
_VOLATILE = ("series/attempts/", "series/locks/", "series/.clock")
_READS = ("GET", "HEAD")


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


@dataclass
class World:
    """A bucket, runs to publish in it, and what stands in it before a verb."""

    server: Any
    place: Url
    runs: Path
    starts: dict[str, Objects] = field(default_factory=dict)
    count: int = 0

    def series(self, start: Objects | None = None) -> es.Series:
        """That of the bucket, which holds these objects."""
        if start is not None:
            self.server.objects = dict(start)
        return es.Series(self.place)

    def strike(self, at: int, *, after: bool) -> None:
        """From now on count requests (with ``after`` those that write), and strike the n-th."""
        self.count = 0

        def act(method: str, _: str) -> Any:
            if after and method in _READS:  # done or not is the same
                return None
            self.count += 1
            if self.count != at:
                return None
            failed = (500, b"<Error><Code>InternalError</Code></Error>")
            return "lost" if after else "cut" if at % 2 else failed

        self.server.refuse = act


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A series of two days that asks no gate, one with a gate that nothing passes, and one in which
    that gate holds the third day.
    """
    folder = tmp_path_factory.mktemp("faults")
    write_days(folder, 14)
    with serving(Amazon) as server, dask.config.set(scheduler="synchronous"):
        options = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        place = Url(
            "s3://bucket/series", {"endpoint": server.endpoint, "max_retries": 0, **options}
        )
        made = World(server, place, folder)
        for name, gates in (("start", {}), ("strict", {"matched": 2.0})):
            server.objects = {}
            series = es.Series.init(
                place, gates=dict.fromkeys(THRESHOLDS) | gates, keep_references=1
            )
            for day in (1, 2):
                series.add(folder / f"day-{day}.zarr", accept="known")
            made.starts[name] = dict(server.objects)
        hold(made.series(), folder)
        made.starts["held"] = dict(server.objects)
        yield made


@pytest.fixture
def quiet_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are not renewed by the clock: its requests would be counted."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 1e6)


def ended(world: World) -> tuple[Any, ...]:
    """Everything a reader can see of a series: its log, and every byte of its chunks."""
    series = es.Series(world.place)
    assert not series.verify().damage
    assert series.store.names("locks") == []
    chunks = {key: one.data for key, one in world.server.objects.items() if "/c/" in key}
    return recorded(series), chunks


def left(objects: Objects) -> frozenset[tuple[str, Any]]:
    """What a call left, but for what the clock and chance say in small files."""
    return frozenset(
        (key, hash(one.data) if "/c/" in key else 0)
        for key, one in objects.items()
        if not key.startswith(_VOLATILE)
    )


def strike_every(
    world: World,
    start: Objects,
    verb: Callable[[es.Series], Any],
    chosen: Callable[[int], list[int]],
    *,
    after: bool,
) -> tuple[int, int]:
    """Strike at the chosen ones of all requests of a verb (of those that write, where their answers
    are lost); how many were struck, and how many different things these calls left. Each of those
    is gone on with once.
    """
    for _ in range(2):  # a first call reads more than later ones
        series = world.series(start)
        world.strike(0, after=after)
        verb(series)
        n = world.count
    n_versions = len(es.Series(world.place).log().versions)
    es.Series(world.place).gc(grace=0)
    wanted, final = ended(world), world.server.objects
    kept = {key: one for key, one in start.items() if final.get(key) == one}
    known: set[frozenset[tuple[str, Any]]] = set()
    for at in chosen(n):
        series = world.series(start)
        world.strike(at, after=after)
        with contextlib.suppress(OSError, es.EmbstabError):
            verb(series)
        struck = world.count >= at
        world.strike(0, after=after)
        assert struck
        objects = world.server.objects
        assert kept.items() <= objects.items(), "nothing is lost meanwhile"
        if (state := left(objects)) in known:
            continue
        known.add(state)
        series = es.Series(world.place)
        if len(series.log().versions) < n_versions or n_versions == _versions(start):
            verb(series)
        es.Series(world.place).gc(grace=0)
        assert ended(world) == wanted
    return len(chosen(n)), len(known)


def _versions(objects: Objects) -> int:
    return sum(key.startswith("series/versions/") for key in objects)


def strike_and_count(
    worlds: World, record: Any, verb: str, chosen: Callable[[int], list[int]], *, after: bool
) -> None:
    """Strike, and keep the counts."""
    start = worlds.starts[{"hold": "strict", "accept": "held"}.get(verb, "start")]
    counts = strike_every(
        worlds, start, lambda series: VERBS[verb](series, worlds.runs), chosen, after=after
    )
    for name, n in zip(("tried", "states"), counts, strict=True):
        record(name, n)


@pytest.mark.usefixtures("quiet_leases")
@pytest.mark.parametrize(
    ("verb", "after"),
    [("add", True)] + [pytest.param(v, False, marks=pytest.mark.long) for v in ("hold", "accept")],
)
def test_a_request_that_fails(
    worlds: World, record_property: Any, verb: str, *, after: bool
) -> None:
    """Two of them; what `hold` and `accept` read an `add` reads."""
    strike_and_count(worlds, record_property, verb, lambda n: [n // 2, n - 2], after=after)


@pytest.mark.long
@pytest.mark.usefixtures("quiet_leases")
@pytest.mark.parametrize("verb", [v for v in VERBS if v not in ("hold", "accept")])
def test_every_request_that_is_not_done(worlds: World, record_property: Any, verb: str) -> None:
    """Of `add`; about 100 of the others, which read alike, and all with ``EMBSTAB_EVERY=1``."""
    most = 1000 if verb == "add" else 100
    strike_and_count(worlds, record_property, verb, lambda n: spread(n, most), after=False)


@pytest.mark.long
@pytest.mark.usefixtures("quiet_leases")
@pytest.mark.parametrize("verb", VERBS)
def test_every_request_whose_answer_is_lost(worlds: World, record_property: Any, verb: str) -> None:
    """Those that write."""
    strike_and_count(worlds, record_property, verb, lambda n: list(range(1, n + 1)), after=True)


def test_two_publishers_at_once(tmp_path: Path) -> None:
    """Threads of one process, which leases keep apart as they do processes."""
    rounds = 5
    for turn in range(5):
        day_of(tmp_path, turn, str(turn))
    series = es.Series.init(place := in_memory(), gates=dict.fromkeys(THRESHOLDS), policy="first")
    barrier, message = threading.Barrier(2), Queue[int]()
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(publish_in_step, number, place, tmp_path, rounds, barrier, message)
            for number in range(2)
        ]
        for one in made:
            one.result()
    require_all(series, 2, rounds)
    assert place.names("locks") == []
