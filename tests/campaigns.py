"""The long tests: the longest ones begin first, each is given up after its time, and every test
records the CPU seconds that it and its child processes took.

``@pytest.mark.long(minutes=25)`` says after how many minutes; `MINUTES` where it says nothing. Long
campaigns that would take hours try a part, by `spread`, and all with ``EMBSTAB_EVERY=1``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

MINUTES = 20.0
"""Far more than any takes on two cores that do nothing else; a test that hangs ends then."""
GRACE_SECONDS = 60
EVERY = os.environ.get("EMBSTAB_EVERY", "") not in ("", "0")


def spread(n: int, most: int, last: int = 5) -> list[int]:
    """Numbers from 1 to ``n``: so many, evenly spread, and the ``last`` ones, where things are
    published; all of them with ``EMBSTAB_EVERY=1``.
    """
    step = 1 if EVERY else max(1, n // most)
    return sorted({*range(1, n + 1, step), *range(max(1, n - last + 1), n + 1)})


def minutes_of(item: pytest.Item) -> float:
    """After how many minutes a test is given up; 0 for a short one, which nobody interrupts."""
    mark = item.get_closest_marker("long")
    return 0.0 if mark is None else float(mark.kwargs.get("minutes", MINUTES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that say that they need more than others come first: with one of them at the end,
    all other processes would wait for it. With ``--dist loadgroup`` the short tests of a file stay
    together, as its fixtures want, and long ones are handed out one by one.
    """
    items.sort(key=lambda item: -max(minutes_of(item), MINUTES))
    for item in items:
        if not minutes_of(item) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@contextlib.contextmanager
def given_up_after(seconds: float) -> Iterator[None]:
    """TimeoutError within the block when its time is over; where nothing can be raised, in a call
    that no signal ends, the process ends a minute later.
    """

    def give_up(*_: Any) -> None:
        faulthandler.dump_traceback(sys.__stderr__)
        raise TimeoutError(f"a long test was given up after {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test with its fixtures, in its time."""
    item.stash[_BEFORE] = os.times()
    minutes = minutes_of(item)
    with given_up_after(60 * minutes) if minutes else contextlib.nullcontext():
        return (yield)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Where the last of a test is over, what it took."""
    if call.when == "teardown":
        pairs = zip(os.times()[:4], item.stash[_BEFORE][:4], strict=True)
        item.user_properties.append(("cpu_seconds", f"{sum(n - b for n, b in pairs):.2f}"))


_BEFORE = pytest.StashKey[os.times_result]()
