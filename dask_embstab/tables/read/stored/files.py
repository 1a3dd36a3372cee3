"""Chunk files of a local disk."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dask_embstab.errors import DamageError
from dask_embstab.files.regular import drop_pages, open_regular, read_at
from dask_embstab.tables.read.stored.stored_bytes import read_checksum
from dask_embstab.tables.store_errors import read_error
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """One chunk's file, open for reading; `open_chunk` makes one. ``name`` is what messages call
    it.
    """

    path: str
    name: str
    descriptor: int
    size: int

    @classmethod
    def at(cls, path: str, name: str) -> OpenChunk:
        """The file there; FileNotFoundError where there is none."""
        try:
            descriptor = open_regular(path)
        except (FileNotFoundError, DamageError):
            raise
        except OSError as error:
            raise read_error(error, name) from error
        return cls(path, name, descriptor, os.fstat(descriptor).st_size)

    @property
    def version(self) -> tuple[str, int, int]:
        """Another one once the file was written anew."""
        return self.path, self.size, os.fstat(self.descriptor).st_ctime_ns

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on."""
        try:
            done = read_at(self.descriptor, target, offset)
        except OSError as error:
            raise read_error(error, self.name) from error
        if done < len(target):
            raise self._truncated()

    def scatter(self, targets: Sequence[memoryview], offset: int) -> None:
        """Fill one target after another from ``offset`` on."""
        try:
            got = os.preadv(self.descriptor, targets, offset)
        except OSError as error:
            raise read_error(error, self.name) from error
        for target in targets:  # what one call left
            if got < len(target):
                self.read_into(target[max(0, got) :], offset + max(0, got))
            offset, got = offset + len(target), got - len(target)

    def stored_checksum(self) -> int:
        """The last four bytes."""
        if self.size < CHECKSUM_BYTES:
            raise self._truncated()
        return read_checksum(self, self.size - CHECKSUM_BYTES)

    def checksums(self, offsets: Sequence[int]) -> list[int]:
        """Those that are stored there."""
        return [read_checksum(self, offset) for offset in offsets]

    def _truncated(self) -> DamageError:
        return DamageError(f"{self.name} is truncated; restore it from its source")

    def close(self, *, drop: bool = False) -> None:
        """Close, and tell the system to forget the pages of a table that is much larger than
        memory.
        """
        if drop:
            drop_pages(self.descriptor)
        os.close(self.descriptor)


def require_visible_dir(folder: str | Path) -> None:
    """Raise where a folder that should be there is not: a worker that cannot see it would read
    every chunk as missing.
    """
    if not Path(folder).is_dir():
        raise DamageError(
            f"{folder} is not there, as seen from {socket.gethostname()}; every process that"
            " computes must see it: give the workers of a cluster a shared file system, or use an"
            " object store's URL"
        )
