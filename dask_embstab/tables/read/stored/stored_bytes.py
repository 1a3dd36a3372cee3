"""What a file and an object of a store have in common: a size, and bytes that are read from any
offset on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import crc32c

from dask_embstab.errors import DamageError
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES

_BLOCK_BYTES = 1 << 20
_MOST_REMEMBERED = 1 << 17


class StoredBytes(Protocol):
    """The bytes of one chunk as they are stored, open for reading; ``name`` is what messages call
    them. ``version`` is another one where they were written anew.
    """

    @property
    def path(self) -> str:
        """Of the file, or of the object in its store."""

    @property
    def name(self) -> str:
        """What messages call them."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def version(self) -> Hashable:
        """Another value once they were written anew."""

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on."""

    def scatter(self, targets: Sequence[memoryview], offset: int) -> None:
        """Fill one target after another from ``offset`` on."""

    def stored_checksum(self) -> int:
        """The last four bytes; `DamageError` where there are fewer."""

    def checksums(self, offsets: Sequence[int]) -> list[int]:
        """Those that are stored at each of these offsets."""

    def close(self, *, drop: bool = False) -> None:
        """No more is read; with ``drop`` the system may forget what was."""


def read_checksum(source: StoredBytes, offset: int) -> int:
    """The checksum that is stored there."""
    data = bytearray(CHECKSUM_BYTES)
    source.read_into(memoryview(data), offset)
    return int.from_bytes(data, "little")


def checksum_of(source: StoredBytes, start: int, stop: int, before: int = 0) -> int:
    """crc32c of a range of bytes, going on from ``before``; a bounded number in memory at a
    time.
    """
    buffer = memoryview(bytearray(min(_BLOCK_BYTES, stop - start)))
    for at in range(start, stop, _BLOCK_BYTES):
        part = buffer[: stop - at]
        source.read_into(part, at)
        before = crc32c.crc32c(part, before)
    return before


def require_checksum(computed: int, stored: int, name: str) -> None:
    """Raise unless both are equal."""
    if computed != stored:
        raise DamageError(
            f"{name} fails its checksum (crc32c {computed:#010x}, stored {stored:#010x}); restore"
            " it from its source"
        )


def without_checksum(data: memoryview, name: str) -> memoryview:
    """The bytes that end in their own checksum, which is compared."""
    body = data[:-CHECKSUM_BYTES]
    stored = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
    require_checksum(crc32c.crc32c(body), stored, name)
    return body


_verified: dict[Hashable, None] = {}
_verified_lock = threading.Lock()


def once(key: Hashable, verify: Callable[[], object]) -> None:
    """Call ``verify`` unless this process has done so for this key."""
    if key in _verified:
        return
    verify()
    with _verified_lock:
        if len(_verified) >= _MOST_REMEMBERED:
            _verified.clear()
        _verified[key] = None
