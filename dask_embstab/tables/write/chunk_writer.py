"""Rows straight from a panel into chunk files.

Panels are appended to a temporary file next to the chunk with a running checksum; it is renamed
when it is whole. Of objects of a store: `tables/write/object_writer.py`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import crc32c
import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError, EmbstabError
from dask_embstab.files.atomic import PARTIAL, begin_sync, create_new, new_token, write_all
from dask_embstab.files.libc import call
from dask_embstab.tables.read.limits import exceeds_cache
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.read.stored.checksums import appended
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.files import require_visible_dir
from dask_embstab.tables.store_errors import write_error
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES
from dask_embstab.tables.write.page_cache import forget_later

_PADDING_ROWS = 4096
"""Rows of fill that are written at a time behind the last rows of a table."""
_REPORT = "the input gave another number of rows than it has; nothing was published"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DirectWriter:
    """Appends panels to chunk files, each written to a temporary file with a running checksum and
    then renamed.

    ``sync``: they will be synced in the end, so the system begins to write them to the disk at
    once.
    """

    def __init__(self, files: ChunkFiles, start: int, stop: int, *, sync: bool = False) -> None:
        self._files, self._stop, self._sync = files, stop, sync
        self._forget = sync and exceeds_cache(files.n_rows * files.row_bytes)
        self._at = start
        self._crc, self._inner, self._encoded = 0, 0, 0
        self._descriptor = -1
        self._partial = ""
        self.dtype = files.dtype
        self._cast = np.empty((0, files.d), files.dtype)
        self.digests: Digests = {}
        self.checksums: tuple[Digests, ...] = (self.digests,)

    def put(self, rows: Rows) -> None:
        """Append rows, cast to the stored dtype."""
        require_room(self._at, len(rows), self._stop, self._files.root)
        if rows.dtype != self.dtype or not rows.flags.c_contiguous:
            if len(self._cast) < len(rows):
                self._cast = np.empty((len(rows), self._files.d), self.dtype)
            cast = self._cast[: len(rows)]
            np.copyto(cast, rows, casting="same_kind")
            rows = cast

        shards = self._files.shards
        try:
            while len(rows):
                number = self._at // self._files.chunk_rows
                end = min((number + 1) * self._files.chunk_rows, self._stop)
                taken = min(len(rows), end - self._at)
                if self._at == number * self._files.chunk_rows:
                    self._crc, self._encoded = 0, 0
                    self._begin(number)
                    if shards is not None:
                        self._store(memoryview(shards.index()))
                self._append(memoryview(rows[:taken].view(np.uint8).reshape(-1)))  # type: ignore[arg-type]
                self._at += taken
                rows = rows[taken:]
                if self._at == end:
                    self._complete(number, end)
        except EmbstabError:
            raise
        except OSError as error:
            raise write_error(error, self._files.root) from error

    def finish(self) -> None:
        """Raise unless every row was put."""
        require_end(self._at, self._stop, self._files.root)

    def _begin(self, number: int) -> None:
        # Folders below the array's own; where that one is gone, the write was given up and nothing
        # may come back.
        path, root = self._files.path(number), Path(self._files.root)
        require_visible_dir(root)
        for folder in reversed(Path(path).relative_to(root).parents[:-1]):
            (root / folder).mkdir(exist_ok=True)

        self._partial = f"{path}.{new_token()}{PARTIAL}"
        self._descriptor = create_new(self._partial)
        reserve(self._descriptor, self._files.written_bytes, self._partial)

    def _append(self, data: memoryview) -> None:
        shards = self._files.shards
        if shards is None:
            self._crc = crc32c.crc32c(data, self._crc)
            self._store(data)
            return

        size, join = shards.chunk_bytes, appended(shards.chunk_bytes)
        while len(data):  # an inner chunk ends in its own checksum; of these that of all is made
            part = data[: size - self._encoded]
            self._inner = crc32c.crc32c(part, self._inner if self._encoded else 0)
            self._store(part)
            self._encoded += len(part)
            data = data[len(part) :]
            if self._encoded == size:
                inner = self._inner.to_bytes(CHECKSUM_BYTES, "little")
                self._store(memoryview(inner))
                self._crc, self._encoded = join(self._crc, self._inner), 0

    def _complete(self, number: int, end: int) -> None:
        padding = (number + 1) * self._files.chunk_rows - end
        fill: Any = np.full(
            (min(padding, _PADDING_ROWS), self._files.d), self._files.fill, self.dtype
        )
        for at in range(0, padding, _PADDING_ROWS):
            self._append(memoryview(fill[: padding - at].view(np.uint8).reshape(-1)))
        self.digests[number] = self._crc
        if self._files.checksummed:
            self._store(memoryview(self._crc.to_bytes(CHECKSUM_BYTES, "little")))
        self._publish(number)

    def _store(self, data: memoryview) -> None:
        """Bytes of the chunk, in order."""
        write_all(self._descriptor, data)

    def _publish(self, number: int) -> None:
        """Let the chunk, which is whole, take its place."""
        if self._sync:
            begin_sync(self._descriptor)
        self._close()
        path = self._files.path(number)
        os.rename(self._partial, path)  # noqa: PTH104
        if self._forget:
            forget_later(path)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        """Leave no half-written file behind an error."""
        if self._descriptor >= 0:
            self._close()
            Path(self._partial).unlink(missing_ok=True)


def require_room(at: int, n: int, stop: int, place: str) -> None:
    """Raise where ``n`` rows from row ``at`` on would go beyond row ``stop``: somebody else writes
    those.
    """
    if at + n > stop:
        raise DamageError(
            f"rows up to {stop} of {place} were to be written and {n} came for row {at}; {_REPORT}"
        )


def require_end(at: int, stop: int, place: str) -> None:
    """Raise unless the rows that were written end where they should."""
    if at != stop:
        raise DamageError(
            f"rows up to {stop} of {place} were to be written and those from {at} on are missing;"
            f" {_REPORT}"
        )


def reserve(descriptor: int, n_bytes: int, path: str) -> None:
    """Take the room of a whole file at once: writes into it are a fifth faster (ext4), and a full
    disk shows beforehand.

    By the system's own call: `os.posix_fallocate` writes every block where a file system cannot.
    """
    code = call(
        ("fallocate64", "fallocate"), descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(n_bytes)
    )
    if code in _FULL:
        raise OSError(code, os.strerror(code), path)
