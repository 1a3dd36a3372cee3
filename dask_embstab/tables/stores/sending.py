"""A write that was given up puts nothing any more where the next run may be written meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from dask_embstab.errors import AccessError


class Sending:
    """The objects that this process has on their way to one output at ``place``.

    ``is_copy``: of another process, which is not told that the write was given up and so must look
    whose the place is.
    """

    def __init__(self, place: str, *, is_copy: bool = False) -> None:
        self.place, self.is_copy = place, is_copy
        self._is_closed, self._n = False, 0
        self._changed = threading.Condition()

    def __reduce__(self) -> tuple[object, ...]:
        return _copy, (self.place,)

    def require_open(self, *, is_ours: bool = True) -> None:
        """Raise where the write was given up, or the place is not ours any more."""
        if self._is_closed or not is_ours:
            raise AccessError(f"the write to {self.place} was given up; nothing is put there")

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """An object is put in this block; an error where the write was given up."""
        with self._changed:
            self.require_open()
            self._n += 1
        try:
            yield
        finally:
            with self._changed:
                self._n -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Give the write up: none is on its way any more, and none follows."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._n)


def _copy(place: str) -> Sending:
    return Sending(place, is_copy=True)


@runtime_checkable
class Abandonable(Protocol):
    """A store into which nothing is put any more once the write was given up."""

    sending: Sending

    def require_ours(self) -> None:
        """Raise where it was, or the place is not that of this write any more: other processes
        look.
        """
