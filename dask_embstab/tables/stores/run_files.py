"""The files of a run, wherever they lie: their names, their bytes, and the checksums that end
chunks.

In a folder they are read without Zarr; in any other store they are its keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync

from dask_embstab.errors import DamageError
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import files_below, open_regular, read_regular
from dask_embstab.tables.stores.url_store import store_at

CHECKSUM_BYTES = 4
_BLOCK_BYTES, _OBJECT_BLOCK_BYTES = 1 << 20, 1 << 24
_AT_ONCE = 32


class RunFiles(Protocol):
    """Files by their paths below the run."""

    def names(self) -> list[str]:
        """All of them, sorted."""

    def read(self, name: str) -> bytes:
        """All bytes of one; FileNotFoundError where there is none."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """The same, a bounded number of bytes at a time."""

    def checksums(self, names: Iterable[str]) -> dict[str, int]:
        """The last four bytes of each, as a number; none of them is read."""

    def where(self, name: str) -> str:
        """What messages call one."""


def run_files(place: Any, path: str = "") -> RunFiles:
    """The files at a place, or below a path in a store."""
    if (local := local_path(place)) is not None:
        return FolderFiles(local)
    return StoreFiles(store_at(place), path)


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a local folder."""

    root: Path

    def names(self) -> list[str]:
        """Regular files, sorted."""
        return list(files_below(self.root))

    def read(self, name: str) -> bytes:
        """All bytes."""
        return read_regular(self.root / name)

    def blocks(self, name: str) -> Iterator[bytes]:
        """A MiB at a time."""
        with os.fdopen(open_regular(self.root / name), "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block

    def checksums(self, names: Iterable[str]) -> dict[str, int]:
        """By the last bytes of each file."""
        return {name: stored_checksum(self.where(name)) for name in names}

    def where(self, name: str) -> str:
        """Its path."""
        return str(self.root / name)


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """What lies below a path in a Zarr store; ``known`` are the names of all files, where they were
    looked for already.
    """

    store: Store
    path: str = ""
    known: tuple[str, ...] | None = None

    def names(self) -> list[str]:
        """Keys below the path, sorted: no order of a listing is relied upon."""
        if self.known is not None:
            return list(self.known)
        below = f"{self.path}/" if self.path else ""

        async def listed() -> list[str]:
            return [key async for key in self.store.list_prefix(below)]

        return sorted(key[len(below) :] for key in sync(listed()))

    def read(self, name: str) -> bytes:
        """All bytes."""
        return sync(self._get(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        """Ranges of 16 MiB; the store is asked again until one is short."""
        at, size = 0, sync(self.store.getsize(self._key(name)))
        while at < size:
            end = min(at + _OBJECT_BLOCK_BYTES, size)
            yield sync(self._get(name, RangeByteRequest(at, end)))
            at = end

    def checksums(self, names: Iterable[str]) -> dict[str, int]:
        """By one small request each, many at a time."""

        async def ask(name: str) -> tuple[str, bytes]:
            return name, await self._get(name, SuffixByteRequest(CHECKSUM_BYTES))

        async def all_of_them() -> list[tuple[str, bytes]]:
            return await concurrent_map([(name,) for name in names], ask, _AT_ONCE)

        return {name: _checksum(data, self.where(name)) for name, data in sync(all_of_them())}

    def where(self, name: str) -> str:
        """Its URL, or what its store calls it."""
        return f"{self.store}/{self._key(name)}"

    def _key(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    async def _get(self, name: str, part: ByteRequest | None = None) -> bytes:
        data = await self.store.get(self._key(name), default_buffer_prototype(), part)
        if data is None:
            raise FileNotFoundError(self.where(name))
        return data.to_bytes()


def stored_checksum(path: str) -> int:
    """The last four bytes of a chunk's file, which is not read."""
    descriptor = open_regular(path)
    try:
        before = max(0, os.fstat(descriptor).st_size - CHECKSUM_BYTES)
        return _checksum(os.pread(descriptor, CHECKSUM_BYTES, before), path)
    finally:
        os.close(descriptor)


def _checksum(data: bytes, where: str) -> int:
    if len(data) != CHECKSUM_BYTES:
        raise DamageError(f"chunk file {where} is truncated; restore it from its source")
    return int.from_bytes(data, "little")
