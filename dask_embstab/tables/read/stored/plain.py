"""A chunk that is stored alone and uncompressed: its bytes are its rows, and perhaps a checksum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import crc32c

from dask_embstab.tables.read.stored.stored_bytes import (
    StoredBytes,
    checksum_of,
    once,
    read_checksum,
    require_checksum,
)


@dataclass(frozen=True, slots=True)
class PlainChunk:
    """Rows of ``n_bytes`` (those that pad the last chunk included) in ``source``."""

    source: StoredBytes
    n_bytes: int
    checksummed: bool

    def expect(self, start: int, stop: int, *, is_whole: bool) -> None:
        """These bytes will be read, in order: before a part of them is, all are verified."""
        del start, stop
        if not is_whole:
            self.verify()

    def read(self, target: memoryview, offset: int, crc: int) -> int:
        """Fill ``target``; ``crc`` going on with it."""
        self.source.read_into(target, offset)
        return crc32c.crc32c(target, crc)

    def finish(self, offset: int, crc: int) -> int:
        """What lies behind the last row, and the comparison; the checksum of all bytes."""
        crc = checksum_of(self.source, offset, self.n_bytes, crc) if offset < self.n_bytes else crc
        if self.checksummed:
            require_checksum(crc, read_checksum(self.source, self.n_bytes), self.source.name)
        return crc

    def verify(self) -> None:
        """Compare the checksum of all bytes; once per version of them and process."""
        if self.checksummed:
            once(self.source.version, partial(self.finish, 0, 0))

    def close(self, *, drop: bool = False) -> None:
        """No more is read."""
        self.source.close(drop=drop)
