"""Object stores for tests: one in memory, one whose n-th request fails, one that does not look at
conditions.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from dask_embstab.series.objects.prefix import ObjectPrefix

REQUESTS = ("put", "get", "head", "list_with_delimiter", "delete", "get_range", "get_ranges")
"""Functions of obstore that are one request each; so are their forms that are awaited."""


def in_memory(prefix: str = "team/series", store: Any = None) -> ObjectPrefix:
    """Where a series can live in this process."""
    return ObjectPrefix(store or MemoryStore(), prefix, f"memory://{prefix}")


def copied(place: ObjectPrefix) -> ObjectPrefix:
    """Another store in memory that holds the same objects below its prefix."""
    to = MemoryStore()
    for batch in obstore.list(place.store, place.prefix):
        for meta in batch:
            obstore.put(to, meta["path"], obstore.get(place.store, meta["path"]).bytes())
    return in_memory(place.prefix, to)


def contents(place: ObjectPrefix) -> dict[str, bytes]:
    """Every object below the prefix."""
    return {
        meta["path"]: bytes(obstore.get(place.store, meta["path"]).bytes())
        for batch in obstore.list(place.store, place.prefix)
        for meta in batch
    }


class Requests:
    """Counts requests while it is armed; number ``at`` fails, before it is done or ``after`` (its
    answer was lost).
    """

    def __init__(self) -> None:
        self.count, self.at, self.after = 0, 0, False
        self._armed = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def armed(self, at: int, *, after: bool = False) -> Iterator[None]:
        """Strike at one request of the block."""
        self.count, self.at, self.after, self._armed = 0, at, after, True
        try:
            yield
        finally:
            self._armed = False

    @property
    def struck(self) -> bool:
        """Whether there was such a request."""
        return self.count >= self.at

    def step(self) -> bool:
        """One request; whether it is the one that fails."""
        with self._lock:
            self.count += self._armed
            return self._armed and self.count == self.at

    def install(self, patched: pytest.MonkeyPatch) -> None:
        """See every request of obstore, whoever asks."""
        for name in REQUESTS:
            patched.setattr(obstore, name, self._counted(getattr(obstore, name)))
            later = f"{name}_async"
            patched.setattr(obstore, later, self._counted_async(getattr(obstore, later)))
        original = obstore.list

        def listed(*arguments: Any, **options: Any) -> Any:
            if self.step():
                raise _failed()
            return original(*arguments, **options)

        patched.setattr(obstore, "list", listed)

    def _counted(self, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not self.step():
                return original(*arguments, **options)
            if self.after:
                original(*arguments, **options)
            raise _failed()

        return call

    def _counted_async(self, original: Any) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            if not self.step():
                return await original(*arguments, **options)
            if self.after:
                await original(*arguments, **options)
            raise _failed()

        return call


def _failed() -> GenericError:
    return GenericError("a fault that the test made")


def careless(patched: pytest.MonkeyPatch, ignored: str) -> None:
    """Stores that ignore a condition: ``create`` (If-None-Match) or ``update`` (If-Match)."""
    original = obstore.put

    def put(*arguments: Any, mode: Any = None, **options: Any) -> Any:
        is_ignored = mode == "create" if ignored == "create" else isinstance(mode, dict)
        return original(*arguments, mode=None if is_ignored else mode, **options)

    patched.setattr(obstore, "put", put)
