"""What is the digest of the rows in a file that ends in it, be it a chunk or a shard?

A shard that this library wrote begins with its index; its inner chunks follow one behind another,
each with its checksum, and at the end stands the digest of all rows. Bytes with their checksum
behind them have one and the same crc32c, whatever they are: so the digest is made of the rows
alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import crc32c
import numpy as np

from dask_embstab.tables.read.stored.checksums import appended
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES

_ENTRY_BYTES = 16
_MOST_INDEX_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class FileDigest:
    """crc32c of a whole file, of the rows in it (of all but its last four bytes, where it is no
    shard; -1 where an inner chunk fails its checksum), and the last four bytes as a number.
    """

    whole: int
    body: int
    stored: int

    @property
    def checks(self) -> bool:
        """Whether the file ends in the checksum of its rows."""
        return self.body == self.stored


def file_digest(blocks: Iterable[bytes]) -> FileDigest:
    """Of a file, by its bytes: a bounded number of them in memory."""
    whole, body, tail = 0, 0, b""
    shard: _Shard | None = None
    head: bytearray | None = bytearray()
    for block in blocks:
        whole = crc32c.crc32c(block, whole)
        data = block
        if head is not None:
            head += block
            inner = inner_bytes(head)
            if inner is None:
                continue  # it may be an index, of which there is more to come
            data, head = bytes(head), None
            if inner:
                shard = _Shard(inner, int.from_bytes(data[:8], "little"))
        joined = memoryview(tail + data)
        if shard is None:
            body = crc32c.crc32c(joined[:-CHECKSUM_BYTES], body)
        else:
            shard.add(joined[:-CHECKSUM_BYTES])
        tail = bytes(joined[-CHECKSUM_BYTES:])

    if head:  # shorter than what its first bytes may have meant
        body, tail = (
            crc32c.crc32c(memoryview(head)[:-CHECKSUM_BYTES]),
            bytes(head[-CHECKSUM_BYTES:]),
        )
    stored = int.from_bytes(tail, "little") if len(tail) == CHECKSUM_BYTES else -1
    return FileDigest(whole, body if shard is None else shard.digest(), stored)


def inner_bytes(head: bytes | bytearray) -> int | None:
    """Bytes of an inner chunk with its checksum, where a file begins with the index of a shard as
    this library writes it; 0 where it does not, None where more bytes are needed to tell.
    """
    if len(head) < _ENTRY_BYTES:
        return None
    n_index, inner = (int(number) for number in np.frombuffer(head, "<u8", 2))
    if n_index % _ENTRY_BYTES != CHECKSUM_BYTES or not 0 < n_index <= _MOST_INDEX_BYTES:
        return 0
    if len(head) < n_index:
        return None
    index = memoryview(head)[:n_index]
    stored = int.from_bytes(index[-CHECKSUM_BYTES:], "little")
    if crc32c.crc32c(index[:-CHECKSUM_BYTES]) != stored or inner <= CHECKSUM_BYTES:
        return 0
    entries = np.frombuffer(index[:-CHECKSUM_BYTES], "<u8").reshape(-1, 2)
    offsets = np.uint64(n_index) + np.arange(len(entries), dtype=np.uint64) * np.uint64(inner)
    return inner if (entries[:, 0] == offsets).all() and (entries[:, 1] == inner).all() else 0


class _Shard:
    """The digest of the rows of a shard, from its bytes in order."""

    def __init__(self, inner: int, n_index: int) -> None:
        self._size, self._skip = inner - CHECKSUM_BYTES, n_index
        self._left = n_index // _ENTRY_BYTES
        self._crc, self._filled, self._stored = 0, 0, b""
        self._digest, self._is_right = 0, True

    def add(self, data: memoryview) -> None:
        """Go on with these bytes."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        data = data[skipped:]
        while len(data):
            if not self._left:
                self._is_right = False  # more than the index speaks of
                return
            rows = data[: self._size - self._filled]
            self._crc = crc32c.crc32c(rows, self._crc)
            self._filled += len(rows)
            data = data[len(rows) :]
            wanted = CHECKSUM_BYTES - len(self._stored)
            self._stored += bytes(data[:wanted])
            data = data[wanted:]
            if len(self._stored) == CHECKSUM_BYTES:
                self._is_right &= self._crc == int.from_bytes(self._stored, "little")
                self._digest = appended(self._size)(self._digest, self._crc)
                self._crc, self._filled, self._stored = 0, 0, b""
                self._left -= 1

    def digest(self) -> int:
        """Of all rows; -1 where an inner chunk is damaged or cut short."""
        return self._digest if self._is_right and not (self._left or self._filled) else -1
