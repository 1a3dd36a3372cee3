"""The lease of a name on an object store: one owner at a time, whatever clocks, kills and lost
answers do.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pytest
from objectstores import Requests, in_memory

import dask_embstab as es
from dask_embstab.files.lock_owner import Owner, machine
from dask_embstab.series.objects import lease as leases
from dask_embstab.series.objects.prefix import ObjectPrefix

KEY = "locks/day.lock"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Where requests are counted and struck; nobody renews a lease by the clock meanwhile."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 1e6)
    counted = Requests()
    counted.install(monkeypatch)
    return counted


def left_by(place: ObjectPrefix, **known: Any) -> None:
    """A lease that somebody left."""
    owner = Owner("0" * 12, "beta 1", 7, "12", "yesterday", "yesterday")
    place.create(KEY, json.dumps(asdict(owner) | known).encode())


def aged(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The store's clock goes on."""
    before = ObjectPrefix._time
    monkeypatch.setattr(ObjectPrefix, "_time", lambda self: before(self) + seconds)


def test_one_of_all_who_try_holds_it() -> None:
    place, barrier = in_memory(), threading.Barrier(8)

    def held(_: int) -> int:
        barrier.wait(60)
        try:
            with place.lock("day") as lock:
                assert lock.is_held()
                barrier.wait(60)
        except es.RetryError:
            barrier.wait(60)
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(held, range(8))) == 1
    assert place.names("locks") == []


def test_a_lease_is_held_as_soon_as_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    place, put_new = in_memory(), leases.put_new

    def seen(*arguments: Any) -> Any:
        tag = put_new(*arguments)
        monkeypatch.setattr(leases, "put_new", put_new)
        with pytest.raises(es.RetryError, match="at work on day"):
            place.lock("day").__enter__()
        return tag

    monkeypatch.setattr(leases, "put_new", seen)
    with place.lock("day") as lock:
        assert lock.is_held()


def test_a_lease_says_whose_it_is() -> None:
    place = in_memory()
    with place.lock("day"), pytest.raises(es.RetryError, match=r"at work on day \(process .* on "):
        place.lock("day").__enter__()
    with place.lock("day"), place.lock("another") as other:
        assert other.is_held()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once() -> None:
    place = in_memory()
    left_by(place, machine=machine(), process=2**22 + 1)
    with place.lock("day") as lock:
        assert lock.is_held()
    assert place.names("locks") == []


def test_a_lease_that_this_process_could_not_remove_is_taken_again(
    requests: Requests,
) -> None:
    place = in_memory()
    with place.lock("day"):
        pass
    with requests.armed(2):
        with place.lock("day"):
            pass
        assert requests.count == 2, "it is made, and removed"
    assert place.names("locks") == ["day.lock"]
    with place.lock("day") as lock:
        assert lock.is_held()


@pytest.mark.parametrize(("seconds", "taken"), [(50.0, False), (63.0, True)])
def test_a_lease_from_elsewhere_ends_by_the_clock_of_the_store(
    monkeypatch: pytest.MonkeyPatch, seconds: float, taken: bool
) -> None:
    place = in_memory()
    left_by(place)
    aged(monkeypatch, seconds)
    if not taken:
        with pytest.raises(es.RetryError, match=r"process 7 on beta"):
            place.lock("day").__enter__()
        return
    with place.lock("day") as lock:
        assert lock.is_held()


def test_what_is_no_record_ends_by_the_clock_too(monkeypatch: pytest.MonkeyPatch) -> None:
    place = in_memory()
    place.create(KEY, b"half")
    with pytest.raises(es.RetryError, match="has not written its name"):
        place.lock("day").__enter__()
    aged(monkeypatch, 63.0)
    with place.lock("day") as lock:
        assert lock.is_held()


@pytest.mark.usefixtures("requests")
def test_an_owner_that_wakes_and_one_that_took_over_never_both_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one slept for a minute, and the other takes itself for another machine."""
    place = in_memory()
    with place.lock("day") as first:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(leases, "machine", lambda: "gamma 2")
            aged(elsewhere, 63.0)
            second = leases.take_lease(place.store, KEY, "day", place._time)
        assert not first.is_held()
        assert second.is_held()
    assert place.names("locks") == ["day.lock"], "it is not the first one's to remove"
    second.release()
    assert place.names("locks") == []


def test_two_who_take_over_one_lease_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    place, barrier = in_memory(), threading.Barrier(8)
    left_by(place, machine=machine(), process=2**22 + 1)
    read = leases.stored

    def together(*arguments: Any) -> Any:
        result = read(*arguments)
        barrier.wait(60)
        return result

    def held(_: int) -> Any:
        key = KEY
        try:
            return leases.take_lease(place.store, key, "day", place._time)
        except es.RetryError:
            return None

    monkeypatch.setattr(leases, "stored", together)
    monkeypatch.setattr(leases, "_MOST_TRIES", 1)
    with ThreadPoolExecutor(8) as pool:
        result = [lease for lease in pool.map(held, range(8)) if lease is not None]
    assert len(result) == 1
    result[0].release()


@pytest.mark.parametrize("after", [False, True])
def test_a_request_that_fails_never_leaves_two_owners(requests: Requests, after: bool) -> None:
    """At every request of taking, asking and letting go; a lost answer does not lose the lease."""
    place = in_memory()
    at, struck = 1, True
    while struck:
        held = None
        with requests.armed(at, after=after):
            try:
                with place.lock("day") as lock:
                    held = lock.is_held()
            except es.AccessError:
                assert not after
            struck = requests.struck
        assert held in ((True,) if after or not struck else (True, False, None))
        with place.lock("day") as lock:
            assert lock.is_held()
        assert place.names("locks") == []
        at += 1
    assert at > 3


def test_it_is_renewed_while_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.001)
    place, renewed = in_memory(), threading.Event()
    original = leases.put_over

    def put_over(*arguments: Any) -> Any:
        made = original(*arguments)
        renewed.set()
        return made

    monkeypatch.setattr(leases, "put_over", put_over)
    with place.lock("day") as lock:
        assert renewed.wait(60)
        assert lock.is_held()
    assert place.names("locks") == []
