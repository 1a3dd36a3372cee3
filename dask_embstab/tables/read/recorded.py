"""Are the files of a run those that were written? Their digests, kept in a file that was recorded
when they were.

A chunk file that ends in its own checksum says only that it is some chunk, whole. That it is *this*
chunk of *this* run its digest says: exchanged chunks, chunks of another run and values with a
mended checksum all have another one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import crc32c
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from dask_embstab.errors import DamageError
from dask_embstab.files.regular import (
    MOST_METADATA_BYTES,
    read_regular,
    require_regular,
)
from dask_embstab.tables.layout import Files
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES, run_files, stored_checksum

_METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
CHUNK = re.compile(r"[^/]+/[^/]+/c(/[0-9]+)+")
METADATA = re.compile(r"([^/]+/){0,2}zarr\.json")
"""Names of the files that a run is made of; all others are somebody else's."""


class Metadata(Protocol):
    """Where a file of metadata lies that is on no local disk; picklable."""

    def read(self, key: str) -> bytes:
        """All its bytes; FileNotFoundError where there is none."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The digests in one part of a JSON file, which every process reads once: small, whatever their
    number.

    On no local disk, ``file`` is the ``key`` in a place ``within``, as messages call it. Files of
    the run are asked for by their paths, or by keys that begin with ``below``.
    """

    file: str
    crc32c: int
    part: tuple[str, ...]
    within: Metadata | None = field(default=None, compare=False)
    key: str = ""
    below: str = ""

    def files(self) -> Files:
        """All of them."""
        return _read(self)

    def compared(self, key: str, stored: Buffer | None, where: str) -> Buffer | None:
        """A whole file, if it is the one that was recorded; `DamageError` where it is another."""
        files, path = self.files(), key.removeprefix(self.below)
        if stored is None:
            if any(path in names for names in files.values()):
                raise DamageError(f"{where} is missing; restore it from a copy")
            return None

        data: Any = stored.as_numpy_array()
        if path in files["metadata"]:
            require_metadata(data, files["metadata"][path], where)
        elif not METADATA.fullmatch(path):
            self.require_chunk(path, int.from_bytes(data[-CHECKSUM_BYTES:], "little"), where)
        return stored

    def require_chunk(self, path: str, checksum: int, where: str) -> None:
        """Raise unless the chunk at ``path`` below the run is the one that was written;
        ``checksum`` ends its file.
        """
        known = self.files()["chunks"].get(path.removeprefix(self.below))
        if known != checksum:
            raise DamageError(
                f"{where} is not the chunk that was published; restore it from a copy"
            )


@lru_cache(maxsize=32)
def _read(recorded: Recorded) -> Files:
    file, within = recorded.file, recorded.within
    try:
        data = read_regular(file) if within is None else within.read(recorded.key)
    except FileNotFoundError:
        raise DamageError(f"{file} is missing; restore it from a copy") from None

    if crc32c.crc32c(data) != recorded.crc32c:
        raise DamageError(f"{file} fails its checksum; restore it from a copy")

    recorded_part: Any = json.loads(data)
    for name in recorded.part:
        recorded_part = recorded_part[name]
    if (
        "arrays" in recorded_part
    ):  # digests in the order of the chunks, as a run records its own (`tables/output.py`)
        numbered = (
            (name.replace("{}", str(n)), crc)
            for name, crcs in recorded_part["arrays"].items()
            for n, crc in enumerate(crcs)
        )
        recorded_part = {
            "chunks": dict(numbered),
            "metadata": recorded_part["metadata"],
            "bytes": {},
        }

    files: Files = recorded_part
    return files


class RunStore(LocalStore):
    """A folder of which Zarr is given regular files alone and, where ``recorded``, none but those
    that were recorded.

    None of them is longer than ``most_bytes``, but for metadata.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        read_only: bool = False,
        recorded: Recorded | None = None,
        most_bytes: int | None = None,
    ) -> None:
        super().__init__(root, read_only=read_only)
        self.recorded, self.most_bytes = recorded, most_bytes

    def with_read_only(self, read_only: bool = False) -> RunStore:  # noqa: FBT001, FBT002 (Zarr's)
        """The same folder."""
        return type(self)(
            self.root, read_only=read_only, recorded=self.recorded, most_bytes=self.most_bytes
        )

    def read(self, key: str) -> bytes:
        """All bytes of a file; FileNotFoundError where there is none, `DamageError` where it is not
        the one that was recorded.
        """
        try:
            data = read_regular(self.root / key)
        except FileNotFoundError:
            self._compared(key, None, None)
            raise
        if self.recorded is not None:
            self._compared(key, default_buffer_prototype().buffer.from_bytes(data), None)
        return data

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As Zarr, or `DamageError`."""
        if byte_range is None:
            return await asyncio.to_thread(self._whole, key, prototype)
        require_regular(self.root / key, self._most_bytes(key))
        return self._compared(key, await super().get(key, prototype, byte_range), byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As Zarr, or `DamageError`."""
        if byte_range is None:
            return self._whole(key, prototype)
        require_regular(self.root / key, self._most_bytes(key))
        return self._compared(
            key, super().get_sync(key, prototype=prototype, byte_range=byte_range), byte_range
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As Zarr, or `DamageError`."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    def _whole(self, key: str, prototype: BufferPrototype | None) -> Buffer | None:
        # By one descriptor, of which kind and length are asked: Zarr opens groups by requests in
        # threads and waits for none of them once one has failed. A file that has grown since it
        # was looked at would be read whole.
        try:
            data = read_regular(self.root / key, self._most_bytes(key))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        buffer = (prototype or default_buffer_prototype()).buffer.from_bytes(data)
        return self._compared(key, buffer, None)

    def _most_bytes(self, key: str) -> int | None:
        return MOST_METADATA_BYTES if key.endswith(_METADATA_NAMES) else self.most_bytes

    def _compared(
        self, key: str, data: Buffer | None, byte_range: ByteRequest | None
    ) -> Buffer | None:
        if self.recorded is None:
            return data
        where = f"{self.root / key}"
        if byte_range is not None and data is not None:  # of a shard, which ends in its digest
            self.recorded.require_chunk(key, stored_checksum(where), where)
            return data
        return self.recorded.compared(key, data, where)


def require_metadata(data: Any, recorded: int, where: str) -> None:
    """Raise unless these bytes are the ones that were recorded."""
    if crc32c.crc32c(data) != recorded:
        raise DamageError(f"{where} is not what was published; restore it from a copy")


def require_recorded(array: Any) -> None:
    """Raise unless the chunk files of a one-dimensional Zarr array end in the digests that were
    recorded, if any were.
    """
    recorded: Recorded | None = getattr(array.store, "recorded", None)
    if recorded is None:
        return
    local = isinstance(array.store, RunStore)
    files = run_files(array.store.root if local else array.store)
    keys = [f"{array.path}/{array.metadata.encode_chunk_key((n,))}" for n in range(array.nchunks)]
    for key, checksum in files.checksums(keys).items():
        recorded.require_chunk(key, checksum, files.where(key))
