"""A series below a prefix of an object store.

Nothing here relies on renames, on appending, or on the order of listings. An object is whole once
it is there, and outlives a power cut; one of all who try makes it (``If-None-Match: *``). Ages are
told by the store's own clock.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO, Any

from zarr.storage import ObjectStore, StorePath

from dask_embstab.files.regular import MOST_METADATA_BYTES
from dask_embstab.series.objects.lease import Lease, take_lease
from dask_embstab.series.objects.probe import require_conditions
from dask_embstab.series.objects.requests import (
    ConflictError,
    asking,
    client,
    put,
    put_new,
    stored,
)

_BLOCK_BYTES = 1 << 20
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
    """A series in ``store`` (one of obstore's), at the keys below ``prefix``; messages call it
    ``url``.
    """

    store: Any
    prefix: str
    url: str
    _clock: _Clock = field(default_factory=_Clock, compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def require_fit(self) -> None:
        """Raise `InputError` unless the store lets one of all who make an object do so."""
        require_conditions(self.store, self._key("locks"), self.url)

    def make(self, folder: str) -> None:
        """Nothing: an object store has no folders."""

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is none."""
        found = self._listed(folder)
        keys = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return sorted({key.rpartition("/")[2] for key in keys})

    def folders(self, folder: str) -> list[str]:
        """The folders that lie directly in a folder, sorted."""
        return sorted(key.rpartition("/")[2] for key in self._listed(folder)["common_prefixes"])

    def files(self, folder: str) -> dict[str, int]:
        """Keys of all files below a folder, relative to it, sorted, and their bytes."""
        start = len(f"{self._key(folder)}/")
        return {meta["path"][start:]: meta["size"] for meta in self._below(folder)}

    def read(self, key: str) -> bytes:
        """A file's bytes."""
        with asking(self.name(key)):
            return stored(self.store, self._key(key), MOST_METADATA_BYTES)[0]

    def blocks(self, key: str) -> Iterator[bytes]:
        """A file's bytes, a bounded number at a time."""
        with asking(self.name(key)):
            found = client().get(self.store, self._key(key))
            yield from map(bytes, found.stream(min_chunk_size=_BLOCK_BYTES))

    def open(self, key: str) -> AbstractContextManager[IO[bytes]]:
        """A file to be read by position, the parts that are asked for alone."""
        with asking(self.name(key)):
            size = client().head(self.store, self._key(key))["size"]
        return io.BufferedReader(_Ranges(self, key, size), _BLOCK_BYTES)

    def age(self, key: str) -> float:
        """Seconds since a file, or the youngest in a folder, was last changed, by the store's
        clock.
        """
        with asking(self.name(key)):
            changed = [meta["last_modified"] for meta in self._below(key)]
            if not changed:
                changed = [client().head(self.store, self._key(key))["last_modified"]]
        return self._time() - float(max(changed).timestamp())

    def create(self, key: str, data: bytes) -> None:
        """Make an object where there is none: the store lets one of all who try."""
        try:
            with asking(self.name(key), to_write=True):
                put_new(self.store, self._key(key), data)
        except ConflictError:
            raise FileExistsError(f"{self.name(key)} exists already") from None

    def replace(self, key: str, data: bytes) -> None:
        """The same over what stands there."""
        with asking(self.name(key), to_write=True):
            put(self.store, self._key(key), data)

    def sync(self, key: str) -> None:
        """Nothing: what was written is durable."""

    def remove(self, key: str) -> None:
        """Remove an object, or all below a folder: first its own metadata, without which nobody
        opens it, so that half a folder is never taken for a whole one.
        """
        with asking(self.name(key), to_write=True):
            place, obstore = self._key(key), client()
            keys = [meta["path"] for meta in self._below(key)]
            for first in (place, f"{place}/zarr.json"):
                if first == place or first in keys:
                    with contextlib.suppress(FileNotFoundError):
                        obstore.delete(self.store, first)
            if rest := [found for found in keys if found != f"{place}/zarr.json"]:
                obstore.delete(self.store, rest)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[Lease]:
        """The lease ``locks/<name>.lock``."""
        lease = take_lease(self.store, self._key(f"locks/{name}.lock"), name, self._time)
        try:
            yield lease
        finally:
            lease.release()

    def place(self, key: str) -> StorePath:
        """Where Zarr finds a run."""
        return StorePath(ObjectStore(self.store), self._key(key))

    def name(self, key: str) -> str:
        """What messages call a file."""
        return f"{self.url}/{key}" if key else self.url

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}".strip("/")

    def _listed(self, folder: str) -> Any:
        with asking(self.name(folder)):
            return client().list_with_delimiter(self.store, prefix=self._key(folder) or None)

    def _below(self, folder: str) -> list[Any]:
        """All objects below a folder, sorted by their keys."""
        with asking(self.name(folder)):
            batches = client().list(self.store, prefix=self._key(folder) or None)
            return sorted((meta for batch in batches for meta in batch), key=lambda m: m["path"])

    def _time(self) -> float:
        """The time by the clock that dates objects: that of an object which was just written."""
        clock, key = self._clock, self._key(_CLOCK)
        if time.monotonic() - clock.measured > _CLOCK_SECONDS:
            with asking(self.name(_CLOCK), to_write=True):
                put(self.store, key, b"")
                began = time.monotonic()
                changed = client().head(self.store, key)["last_modified"].timestamp()
            clock.ahead, clock.measured = changed - began, began
        return time.monotonic() + clock.ahead


class _Ranges(io.RawIOBase):
    """An object as a file that is read by position."""

    def __init__(self, prefix: ObjectPrefix, key: str, size: int) -> None:
        self._prefix, self._at, self._key, self._size = prefix, 0, key, size

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
            prefix = self._prefix
            with asking(prefix.name(self._key)):
                found = client().get_range(
                    prefix.store,
                    prefix._key(self._key),  # noqa: SLF001 (its own file)
                    start=self._at,
                    length=n,
                )
            target[:n] = memoryview(found)
            self._at += n
        return n
