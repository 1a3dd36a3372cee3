"""Where are the inner chunks of a shard, and what are its rows?

A shard (codec ``sharding_indexed``) is many small chunks in one file or object: an index at its
start or end tells the offset and length of each, in C order, or that it was left out. Inner chunks
are read in place: neighbours that also lie next to each other by one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from dask_embstab.errors import DamageError
from dask_embstab.tables.read.stored.checksums import appended, repeated
from dask_embstab.tables.read.stored.stored_bytes import (
    StoredBytes,
    checksum_of,
    once,
    read_checksum,
    require_checksum,
    without_checksum,
)
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES

_ENTRY_BYTES = 16
_NONE = (1 << 64) - 1
_BLOCK_BYTES = 1 << 20
_MOST_TARGETS = 512
"""Of one call (systems take 1024)."""
_RESTORE = "restore it from its source"
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shards:
    """Inner chunks of ``rows`` x ``width`` values, ``grid`` of them along both axes.

    ``chunk_bytes`` are those of a decoded one; an encoded one takes ``most_bytes`` at most, or just
    so many where it is not ``compressed``, with its checksum where it is ``checksummed``.
    """

    rows: int
    width: int
    grid: tuple[int, int]
    chunk_bytes: int
    most_bytes: int
    compressed: bool
    checksummed: bool
    index_first: bool
    index_checksummed: bool

    @property
    def index_bytes(self) -> int:
        """Of the index with its checksum."""
        return _ENTRY_BYTES * self.grid[0] * self.grid[1] + CHECKSUM_BYTES * self.index_checksummed

    @property
    def whole_rows(self) -> bool:
        """Whether an inner chunk's bytes are whole rows as they are stored."""
        return self.grid[1] == 1 and not self.compressed

    def index(self) -> bytes:
        """The index of a shard of all inner chunks, stored as they are, one behind another behind
        this index.
        """
        n_chunks, size = self.grid[0] * self.grid[1], self.chunk_bytes + CHECKSUM_BYTES
        entries = np.full((n_chunks, 2), size, "<u8")
        entries[:, 0] = self.index_bytes + size * np.arange(n_chunks, dtype=np.uint64)
        data = entries.tobytes()
        if self.index_checksummed:
            data += crc32c.crc32c(data).to_bytes(CHECKSUM_BYTES, "little")
        return data

    def places(self, source: StoredBytes) -> Places:
        """Offset and length of each inner chunk, (n, 2); -1 where it was left out.

        Raises `DamageError` where they cannot be so: outside of the shard, of another length, one
        over another, or the index itself is damaged.
        """
        size, n_index = source.size, self.index_bytes
        if size < n_index:
            raise DamageError(
                f"{source.name} is truncated: its index alone takes {n_index} bytes and it has"
                f" {size}; {_RESTORE}"
            )
        start = 0 if self.index_first else size - n_index
        data = bytearray(n_index)
        source.read_into(memoryview(data), start)
        if self.index_checksummed:
            without_checksum(memoryview(data), f"the index of {source.name}")

        entries = np.frombuffer(data, "<u8", 2 * self.grid[0] * self.grid[1]).reshape(-1, 2)
        is_there = ~(entries == _NONE).all(axis=1)
        offsets, lengths = entries[is_there].T
        expected = self.chunk_bytes + CHECKSUM_BYTES * self.checksummed
        wrong = (offsets > size) | (lengths > size - np.minimum(offsets, np.uint64(size)))
        wrong |= (lengths > self.most_bytes) if self.compressed else (lengths != expected)
        if wrong.any():
            at = int(np.flatnonzero(is_there)[np.argmax(wrong)])
            offset, length = map(int, entries[at])
            most = f"{self.most_bytes} bytes at most" if self.compressed else f"{expected} bytes"
            raise DamageError(
                f"inner chunks of {source.name} must lie in its {size} bytes and take {most}; by"
                f" its index, inner chunk {at} takes {length} from {offset} on; {_RESTORE}"
            )

        begins = np.append(offsets, np.uint64(start)).astype(np.int64)
        ends = begins + np.append(lengths, np.uint64(n_index)).astype(np.int64)
        order = np.argsort(begins, kind="stable")
        if (ends[order][:-1] > begins[order][1:]).any():
            raise DamageError(
                f"inner chunks of {source.name} must lie apart from each other and from its index;"
                f" by its index some overlap; {_RESTORE}"
            )
        places = np.full(entries.shape, -1, np.int64)
        places[is_there] = entries[is_there]
        return places


class OpenShard:
    """One shard, open for reading.

    ``n_rows`` of its rows are rows of the table. ``may_be_left_out(n)`` says whether an inner chunk
    of n of them may have been left out, and stands for ``fill`` then.
    """

    def __init__(
        self,
        source: StoredBytes,
        shards: Shards,
        n_rows: int,
        fill: np.ndarray[Any, np.dtype[Any]],
        may_be_left_out: Callable[[int], bool],
    ) -> None:
        self.source, self.shards, self._fill = source, shards, fill
        self._places = shards.places(source)
        rows, columns = shards.rows, shards.grid[1]
        self._n_bytes = n_rows * (shards.chunk_bytes // rows) * columns
        self._range = 0, 0
        self._at, self._crc = -1, 0
        missing = np.flatnonzero(self._places[:, 0] < 0)
        for number in missing[missing // columns * rows < n_rows]:
            if not may_be_left_out(min(rows, n_rows - int(number) // columns * rows)):
                raise DamageError(
                    f"{self.name(number)} is missing; {_RESTORE}, or write the table again"
                )

    # --- rows as they are stored (`Shards.whole_rows`)

    def expect(self, start: int, stop: int, *, is_whole: bool) -> None:
        """These bytes of the rows will be read, in order: an inner chunk of which a part is left
        out is verified first.
        """
        del is_whole
        self._range = start, stop

    def read(self, target: memoryview, offset: int, crc: int) -> int:
        """Fill ``target`` with the rows from byte ``offset`` of them on; ``crc`` going on with it,
        inner chunk by inner chunk.
        """
        size, checksummed = self.shards.chunk_bytes, self.shards.checksummed
        if self._are_neighbours(offset, offset + len(target)):
            return self._read_neighbours(target, offset, crc)
        pieces: list[tuple[int, int, memoryview, memoryview | None]] = []
        targets: list[memoryview] = []
        begin = end = 0
        done = 0
        while done < len(target):
            number, skip = divmod(offset + done, size)
            piece = target[done : done + size - skip]
            done += len(piece)
            place = int(self._places[number, 0])
            stored = None
            if place < 0:
                np.frombuffer(piece, self._fill.dtype)[:] = self._fill
            else:
                if targets and (place + skip != end or len(targets) >= _MOST_TARGETS):
                    self.source.scatter(targets, begin)
                    targets = []
                if not targets:
                    begin = place + skip
                targets.append(piece)
                end = place + skip + len(piece)
                if checksummed and skip + len(piece) == size:
                    stored = memoryview(bytearray(CHECKSUM_BYTES))
                    targets.append(stored)
                    end += CHECKSUM_BYTES
            pieces.append((number, skip, piece, stored))

        if targets:
            self.source.scatter(targets, begin)
        for entry in pieces:
            crc = self._checked(*entry, crc)
        return crc

    def _are_neighbours(self, start: int, stop: int) -> bool:
        """Whether these bytes are whole inner chunks with their checksums, one behind another in
        the shard, and all of them to be read.
        """
        size, (low, high) = self.shards.chunk_bytes, self._range
        if start % size or stop % size or not self.shards.checksummed:
            return False
        places = self._places[start // size : stop // size, 0]
        steps = np.diff(places) == size + CHECKSUM_BYTES
        is_read = low <= start and min(stop, self._n_bytes) <= high
        return is_read and bool(places[0] >= 0) and bool(steps.all())

    def _read_neighbours(self, target: memoryview, offset: int, crc: int) -> int:
        """The same of such, with next to no work for each of them: there are thousands."""
        size = self.shards.chunk_bytes
        first, n = offset // size, len(target) // size
        data = bytearray(CHECKSUM_BYTES * n)
        checksums = memoryview(data)
        parts = [target[at : at + size] for at in range(0, len(target), size)]
        ends = [checksums[at : at + CHECKSUM_BYTES] for at in range(0, len(data), CHECKSUM_BYTES)]
        for at in range(0, n, _MOST_TARGETS // 2):
            some = slice(at, at + _MOST_TARGETS // 2)
            targets = [view for pair in zip(parts[some], ends[some], strict=True) for view in pair]
            self.source.scatter(targets, int(self._places[first + at, 0]))
        stored, join = np.frombuffer(data, "<u4").tolist(), appended(size)
        for number, part in enumerate(parts):
            own = crc32c.crc32c(part)
            if own != stored[number]:
                require_checksum(own, stored[number], self.name(first + number))
            crc = join(crc, own)
        self._at = -1
        return crc

    def _checked(
        self, number: int, skip: int, piece: memoryview, stored: memoryview | None, crc: int
    ) -> int:
        """``crc`` going on with a piece of an inner chunk, which is compared with its checksum as
        soon as it has been read to its end.
        """
        if not self.shards.checksummed:
            return crc32c.crc32c(piece, crc)

        size = self.shards.chunk_bytes
        first = number * size
        last = first + size
        begins = (
            skip == 0 and self._range[0] <= first and min(last, self._n_bytes) <= self._range[1]
        )
        if not begins and self._at != first + skip:
            self.verify(number)
            return crc
        self._crc = crc32c.crc32c(piece, 0 if begins else self._crc)
        self._at = first + skip + len(piece)
        if self._at < last:
            return crc
        self._at = -1  # the next one begins anew
        if stored is not None:
            require_checksum(self._crc, int.from_bytes(stored, "little"), self.name(number))
        return appended(size)(crc, self._crc)

    def finish(self, offset: int, crc: int) -> int:
        """What pads the last row's inner chunk, then those that hold no row of the table (by their
        fill, whatever is stored of them); the checksum of all rows.
        """
        size = self.shards.chunk_bytes
        end = offset + -offset % size
        buffer = memoryview(bytearray(min(_BLOCK_BYTES, end - offset)))
        for at in range(offset, end, _BLOCK_BYTES):
            crc = self.read(buffer[: end - at], at, crc)
        fill = repeated(self._fill.tobytes(), size // self._fill.itemsize)
        for _ in range(end // size, self.shards.grid[0]):
            crc = appended(size)(crc, fill)
        return crc

    def verify(self, number: int | None = None) -> None:
        """Compare the checksum of an inner chunk (None: of all); once per version and process."""
        if not self.shards.checksummed:
            return
        for one in range(len(self._places)) if number is None else (number,):
            if (place := int(self._places[one, 0])) >= 0:
                once((self.source.version, one), partial(self._verify, place, one))

    def _verify(self, place: int, number: int) -> None:
        end = place + self.shards.chunk_bytes
        computed = checksum_of(self.source, place, end)
        require_checksum(computed, read_checksum(self.source, end), self.name(number))

    def stored_checksum(self) -> int:
        """The checksum of all rows, from those that are stored with the inner chunks."""
        size = self.shards.chunk_bytes
        join, joined = appended(size), 0
        fill = repeated(self._fill.tobytes(), size // self._fill.itemsize)
        places = self._places[:, 0]
        is_stored = (places >= 0) & (np.arange(len(places)) * size < self._n_bytes)
        stored = iter(self.source.checksums((places[is_stored] + size).tolist()))
        for one in is_stored:
            joined = join(joined, next(stored) if one else fill)
        return joined

    # --- inner chunks

    @property
    def path(self) -> str:
        """Of the shard's file."""
        return self.source.path

    def place(self, number: int) -> int | None:
        """The offset of an inner chunk; None where it was left out."""
        offset = int(self._places[number, 0])
        return None if offset < 0 else offset

    def offsets(self, at: Places) -> Places:
        """Where these bytes of the rows lie in the shard; -1 where they were left out."""
        size = self.shards.chunk_bytes
        places = self._places[at // size, 0]
        return np.where(places < 0, -1, places + at % size)

    def encoded(self, number: int, memory: Callable[[int], memoryview]) -> memoryview | None:
        """The bytes of an inner chunk, in ``memory``, without its checksum, which is compared; None
        where it was left out.
        """
        place, length = self._places[number].tolist()
        if place < 0:
            return None
        data = memory(length)
        self.source.read_into(data, place)
        return without_checksum(data, self.name(number)) if self.shards.checksummed else data

    def name(self, number: int) -> str:
        """What messages call an inner chunk."""
        return f"inner chunk {number} of {self.source.name}"

    def close(self, *, drop: bool = False) -> None:
        """No more is read."""
        self.source.close(drop=drop)
