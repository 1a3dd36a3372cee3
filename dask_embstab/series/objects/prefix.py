"""A series below a prefix of an object store.

Nothing here relies on renames, on appending, or on the order of listings. An object is whole once
it is there, and outlives a power cut; one of all who try makes it (``If-None-Match: *``). Ages are
told by the store's own clock.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from dask_embstab.files.regular import MOST_METADATA_BYTES
from dask_embstab.files.remote import Url, again, client
from dask_embstab.series.objects.lease import Lease, take_lease
from dask_embstab.series.objects.probe import require_conditions
from dask_embstab.series.objects.requests import (
    ConflictError,
    asking,
    delete,
    obstore,
    put,
    put_new,
    stored,
)

_BLOCK_BYTES, _BUFFER_BYTES = 8 << 20, 1 << 20
_FEW, _READERS, _BATCH = 3, 32, 1024
_CLOCK = ".clock"
_CLOCK_SECONDS = 300.0
"""For so long the difference between two clocks is taken to be the same."""


@dataclass(slots=True)
class _Clock:
    """How far the store's clock is ahead of this process's monotonic one, and when that was
    measured.
    """

    ahead: float = 0.0
    measured: float = -float("inf")


@dataclass(frozen=True, slots=True)
class ObjectPrefix:
    """A series below a URL, with the storage options that reach it."""

    url: Url
    _clock: _Clock = field(default_factory=_Clock, compare=False, repr=False)

    def __reduce__(self) -> Any:
        return type(self), (self.url,)  # another process has another clock

    @property
    def store(self) -> Any:
        """Obstore's store whose root is the series; each process makes its own."""
        return client(self.url)

    def require_fit(self) -> None:
        """Raise `InputError` unless the store lets one of all who make an object do so."""
        require_conditions(self.store, "locks", self.url)

    def make(self, folder: str) -> None:
        """Nothing: an object store has no folders."""

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is none."""
        listed = self._listed(folder)
        keys = [*listed["common_prefixes"], *(meta["path"] for meta in listed["objects"])]
        return sorted({key.rpartition("/")[2] for key in keys})

    def folders(self, folder: str) -> list[str]:
        """The folders that lie directly in a folder, sorted."""
        return sorted(key.rpartition("/")[2] for key in self._listed(folder)["common_prefixes"])

    def files(self, folder: str) -> dict[str, int]:
        """Keys of all files below a folder, relative to it, sorted, and their bytes."""
        start = len(f"{folder}/")
        return {meta["path"][start:]: meta["size"] for meta in self._below(folder)}

    def read(self, key: str) -> bytes:
        """A file's bytes."""
        with asking(self.name(key)):
            return stored(self.store, key, MOST_METADATA_BYTES)[0]

    def read_each(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Many at a time: a log of ten thousand versions does not wait for each."""
        if len(keys) < _FEW:
            yield from map(self.read, keys)
            return
        with ThreadPoolExecutor(_READERS) as pool:
            for first in range(0, len(keys), _BATCH):
                yield from pool.map(self.read, keys[first : first + _BATCH])

    def blocks(self, key: str) -> Iterator[bytes]:
        """A file's bytes, a bounded number at a time."""
        with asking(self.name(key)):
            size = again(lambda: obstore().head(self.store, key)["size"])
            for start in range(0, size, _BLOCK_BYTES):
                yield self._range(key, start, min(start + _BLOCK_BYTES, size))

    def open(self, key: str) -> AbstractContextManager[IO[bytes]]:
        """A file to be read by position, the parts that are asked for alone."""
        with asking(self.name(key)):
            size = obstore().head(self.store, key)["size"]
        return io.BufferedReader(_Ranges(partial(self._range, key), size), _BUFFER_BYTES)

    def age(self, key: str) -> float:
        """Seconds since a file, or the youngest in a folder, was last changed, by the store's
        clock.
        """
        with asking(self.name(key)):
            changed = [meta["last_modified"] for meta in self._below(key)]
            if not changed:
                changed = [obstore().head(self.store, key)["last_modified"]]
        return self._time() - float(max(changed).timestamp())

    def create(self, key: str, data: bytes) -> None:
        """Make an object where there is none: the store lets one of all who try."""
        try:
            with asking(self.name(key), "written"):
                put_new(self.store, key, data)
        except ConflictError:
            raise FileExistsError(f"{self.name(key)} exists already") from None

    def replace(self, key: str, data: bytes) -> None:
        """The same over what stands there."""
        with asking(self.name(key), "written"):
            put(self.store, key, data)

    def transaction(self) -> AbstractContextManager[ObjectPrefix]:
        """Itself: an object is seen at once."""
        return contextlib.nullcontext(self)

    def sync(self, key: str) -> None:
        """Nothing: what was written is durable."""

    def remove(self, key: str) -> None:
        """Remove an object, or all below a folder: first its own metadata, without which nobody
        opens it, so that half a folder is never taken for a whole one.
        """
        with asking(self.name(key), "written"):
            keys = [meta["path"] for meta in self._below(key)]
            root = f"{key}/zarr.json"
            first = [key, root] if root in keys else [key]
            for name in first:
                delete(self.store, [name])
            delete(self.store, [other for other in keys if other not in first])

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[Lease]:
        """The lease ``locks/<name>.lock``."""
        lease = take_lease(self.store, f"locks/{name}.lock", name, self._time)
        try:
            yield lease
        finally:
            lease.release()

    def place(self, key: str) -> Any:
        """Where Zarr finds a run."""
        return self.url / key

    def name(self, key: str) -> str:
        """What messages call a file."""
        return self.url / key if key else self.url

    def _listed(self, folder: str) -> Any:
        with asking(self.name(folder)):
            return again(lambda: obstore().list_with_delimiter(self.store, prefix=folder or None))

    def _below(self, folder: str) -> list[Any]:
        """All objects below a folder, sorted by their keys."""
        with asking(self.name(folder)):
            listed = again(lambda: obstore().list(self.store, prefix=folder or None).collect())
            return sorted(listed, key=lambda meta: meta["path"])

    def _range(self, key: str, start: int, stop: int) -> bytes:
        """Some bytes of an object."""
        with asking(self.name(key)):
            return bytes(again(lambda: obstore().get_range(self.store, key, start=start, end=stop)))

    def _time(self) -> float:
        """The time by the clock that dates objects: that of an object which was just written."""
        clock = self._clock
        if time.monotonic() - clock.measured > _CLOCK_SECONDS:
            with asking(self.name(_CLOCK), "written"):
                put(self.store, _CLOCK, b"")
                began = time.monotonic()
                changed = obstore().head(self.store, _CLOCK)["last_modified"].timestamp()
            clock.ahead, clock.measured = changed - began, began
        return time.monotonic() + clock.ahead


class _Ranges(io.RawIOBase):
    """An object as a file that is read by position."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._at, self._size = read, 0, size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, target: Any) -> int:
        n = max(0, min(len(target), self._size - self._at))
        if n:
            target[:n] = self._read(self._at, self._at + n)
            self._at += n
        return n
