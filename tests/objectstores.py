"""Object stores for tests: one in memory, one whose n-th request fails, one that does not look at
conditions.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from zarr.storage import ObjectStore, StorePath

from dask_embstab.files.remote import Url
from dask_embstab.series.objects.prefix import ObjectPrefix
from dask_embstab.tables.stores.url_store import UrlStore

REQUESTS = ("put", "get", "head", "list_with_delimiter", "delete", "get_range", "get_ranges")
"""Functions of obstore that are one request each; so are their forms that are awaited."""


class MemoryUrl(UrlStore):
    """Objects in the memory of this process, as if they had a URL."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        ObjectStore.__init__(self, _stores[url], read_only=read_only)
        self.url = Url(url)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, store=_stores[state["url"]])

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Zarr makes the groups above a run, which the root of a URL has not."""
        if ".zarr/" in key:
            await super().set_if_not_exists(key, value)


class InMemory(ObjectPrefix):
    """A series in memory."""

    @property
    def store(self) -> Any:
        return _stores[self.url]

    def place(self, key: str) -> Any:
        return StorePath(MemoryUrl(self.url), key)


_stores: dict[str, MemoryStore] = {}
"""By URL: for as long as the process lives."""


def in_memory() -> InMemory:
    """Where a series can live in this process."""
    url = f"memory://{len(_stores)}/series"
    _stores[url] = MemoryStore()
    return InMemory(Url(url))


def copied(place: InMemory) -> InMemory:
    """Another place in memory with the same objects."""
    to = in_memory()
    for key, data in contents(place).items():
        obstore.put(to.store, key, data)
    return to


def restore(place: InMemory, objects: dict[str, bytes]) -> None:
    """The same place with these objects and no others."""
    obstore.delete(place.store, list(contents(place)))
    for key, data in objects.items():
        obstore.put(place.store, key, data)


def contents(place: ObjectPrefix) -> dict[str, bytes]:
    """Every object of a series."""
    return {
        meta["path"]: bytes(obstore.get(place.store, meta["path"]).bytes())
        for meta in obstore.list(place.store).collect()
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


def lagging(patched: pytest.MonkeyPatch, n: int = 3) -> None:  # noqa: C901 (closures)
    """Listings do not know yet of the last ``n`` objects that were put."""
    last: list[str] = []

    def noting(original: Any) -> Any:
        def put(store: Any, path: str, *arguments: Any, **options: Any) -> Any:
            last.append(path)
            return original(store, path, *arguments, **options)

        return put

    class Late:
        """A listing."""

        def __init__(self, listing: Any) -> None:
            self.found = listing

        def collect(self) -> list[Any]:
            """What is known of."""
            return [one for one in self.found.collect() if one["path"] not in last[-n:]]

        async def collect_async(self) -> list[Any]:
            """The same."""
            return self.collect()

        def __iter__(self) -> Iterator[list[Any]]:
            yield self.collect()

        async def __aiter__(self) -> AsyncIterator[list[Any]]:
            yield self.collect()

    list_all, one_level = obstore.list, obstore.list_with_delimiter

    def listed(store: Any, prefix: Any = None, **options: Any) -> Any:
        known = Late(list_all(store, prefix, **options)).collect()
        below = f"{prefix}/" if prefix else ""
        names = [meta["path"][len(below) :] for meta in known if meta["path"].startswith(below)]
        result = one_level(store, prefix, **options)
        folders = {f"{below}{name.partition('/')[0]}" for name in names if "/" in name}
        files = [meta for meta in result["objects"] if meta["path"] not in last[-n:]]
        return {"common_prefixes": sorted(folders), "objects": files}

    async def listed_async(*arguments: Any, **options: Any) -> Any:
        return listed(*arguments, **options)

    for name in ("put", "put_async"):
        patched.setattr(obstore, name, noting(getattr(obstore, name)))
    patched.setattr(obstore, "list", lambda *a, **options: Late(list_all(*a, **options)))
    patched.setattr(obstore, "list_with_delimiter", listed)
    patched.setattr(obstore, "list_with_delimiter_async", listed_async)
