"""What has this process made visible? Whoever is interrupted, or cannot print, must say so, and
never the opposite.

A place is noted in the same step that makes it visible: an interrupt that comes meanwhile waits
until the step is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_places: list[str] = []
_depth = 0
_waiting: list[Callable[[], None]] = []


@contextlib.contextmanager
def publishing(place: object) -> Iterator[None]:
    """The step that makes ``place`` visible, as short as can be."""
    global _depth
    _depth += 1
    try:
        yield
        _places.append(str(place))
    finally:
        _depth -= 1
        if not _depth and _waiting:
            _waiting.pop()()


@contextlib.contextmanager
def unpublished() -> Iterator[None]:
    """What the block makes visible is not published yet: nobody looks there before something else
    names it.
    """
    before = len(_places)
    try:
        yield
    finally:
        del _places[before:]


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """The places that the block has published, in order."""
    _places.clear()
    yield _places


def interrupt(act: Callable[[], None]) -> None:
    """Act on an interrupt: now, or once the step that is publishing is done."""
    if _depth:
        _waiting[:] = [act]
    else:
        act()
