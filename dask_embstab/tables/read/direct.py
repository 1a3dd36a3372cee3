"""Rows straight from stored chunks into one reused panel buffer.

Rows that are stored as they are, in chunk files or in the inner chunks of shards, are read in
place, with the checksum computed on the way and compared when a chunk has been read to its end. A
range that is only a part of a chunk verifies the whole chunk first, once per process. Compressed
chunks, and inner chunks that hold a part of the components, are decoded into a reused buffer.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import crc32c
import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.tables.read.source import Digests, checksum
from dask_embstab.tables.read.stored.chunk_files import (
    ChunkFiles,
    open_chunk,
    stored_checksum_of,
)
from dask_embstab.tables.read.stored.decode import Scratch, decode_band, decode_chunk
from dask_embstab.tables.read.stored.files import OpenChunk
from dask_embstab.tables.read.stored.in_order import BlockQueue
from dask_embstab.tables.read.stored.objects import OpenObject, ReadAhead
from dask_embstab.tables.read.stored.plain import PlainChunk
from dask_embstab.tables.read.stored.shards import OpenShard
from dask_embstab.tables.store_errors import read_error

_READ_BYTES = 2 << 20
"""Read at once where panels are smaller: a call costs as much as a tenth of a megabyte does."""
_NOT_THERE = {None, errno.ENOENT, errno.ENOTDIR, errno.EINVAL}
"""No such file, or one too short for a checksum. Any other failure may be gone the next time, and
what is made of the checksums (the fingerprint of a space) would differ.
"""


@dataclass(frozen=True, slots=True)
class DirectBlock:
    """A range of rows in chunk files; ``drop`` forgets their pages once read. Blocks of a ``queue``
    are opened one behind another.
    """

    files: ChunkFiles
    start: int
    stop: int
    drop: bool = False
    queue: BlockQueue | None = field(default=None, compare=False, repr=False)

    def open(self) -> DirectReader | DecodedReader:
        """Start reading."""
        kind = DirectReader if self.files.by_panels else DecodedReader
        fetcher: ChunkFiles | BlockQueue = self.files if self.queue is None else self.queue
        ahead = fetcher.ahead(self.start, self.stop)
        return kind(self.files, self.start, self.stop, ahead, drop=self.drop)

    def stored_digests(self) -> Digests:
        """Of every chunk, as its file tells before its rows are read (and compared with it); empty
        where one does not.
        """
        files = self.files
        if not files.checksummed or not files.by_panels or files.store is not None:
            return {}
        chunks = range(self.start // files.chunk_rows, -(-self.stop // files.chunk_rows))
        digests: Digests = {}
        for number in chunks:
            try:
                digests[number] = stored_checksum_of(files, number)
            except OSError as error:
                # A chunk of nothing but its fill, or one that is lost or cut short: reading tells.
                if error.errno in _NOT_THERE:
                    return {}
                raise read_error(error, files.path(number)) from error
        return digests


class DirectReader:
    """Reads rows that are stored as they are, panel by panel."""

    def __init__(
        self, files: ChunkFiles, start: int, stop: int, ahead: ReadAhead | None, *, drop: bool
    ) -> None:
        self._files, self._range, self._drop = files, (start, stop), drop
        self._fetched = ahead
        self._number = -1
        self._chunk: PlainChunk | OpenShard | None = None
        self._read_rows = max(1, _READ_BYTES // files.row_bytes)
        self._ahead = 0, 0
        self._crc = 0
        self._whole = False
        self._buffer = np.empty((0, files.d), files.dtype)
        self._digests: Digests = {}

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``, in a buffer that a later call fills anew.

        Some panels are read at once, and what is there already is not read twice.
        """
        files, (first, last) = self._files, self._ahead
        if start == stop:
            return self._buffer[:0]
        if first <= start < stop <= last:
            return self._buffer[start - first : stop - first]
        whole = max(1, self._read_rows // (stop - start)) * (stop - start)
        behind = max(stop, min(start + whole, self._range[1]))

        # What the last read left goes to the front of the buffer.
        is_left = first <= start < last
        kept = self._buffer[start - first : last - first] if is_left else self._buffer[:0]
        self._ahead = start, behind
        if len(self._buffer) < behind - start or len(kept):
            fresh = np.empty((behind - start, files.d), files.dtype)
            fresh[: len(kept)] = kept
            self._buffer = fresh

        panel, row = self._buffer[len(kept) : behind - start], start + len(kept)
        target, at = memoryview(panel.view(np.uint8).reshape(-1)), 0  # type: ignore[arg-type]
        while row < behind:
            number = row // files.chunk_rows
            end = min(behind, (number + 1) * files.chunk_rows)
            size = (end - row) * files.row_bytes
            part = target[at : at + size]
            if number != self._number:
                self._open(number)
            if self._chunk is None:
                np.frombuffer(part, files.dtype)[:] = files.fill
                self._crc = crc32c.crc32c(part, self._crc)
            else:
                offset = (row - number * files.chunk_rows) * files.row_bytes
                self._crc = self._chunk.read(part, offset, self._crc)

            if self._whole and end == number * files.chunk_rows + files.rows_of(number):
                self._finish(number, end)
            row, at = end, at + size
        return self._buffer[: stop - start]

    def digests(self) -> Digests:
        """Of every chunk that was read to its end."""
        return self._digests

    def _open(self, number: int) -> None:
        files = self._files
        self._close()  # a chunk that was read in part
        self._number, self._crc = number, 0
        opened = open_chunk(files, number, self._fetched)
        first = number * files.chunk_rows
        last = first + files.rows_of(number)
        self._whole = self._range[0] <= first and last <= self._range[1]
        if opened is None:
            self._chunk = None
        else:
            self._chunk = chunk = (
                opened
                if isinstance(opened, OpenShard)
                else PlainChunk(opened, files.data_bytes, files.checksummed)
            )
            low = (max(self._range[0], first) - first) * files.row_bytes
            high = (min(self._range[1], last) - first) * files.row_bytes
            chunk.expect(low, high, is_whole=self._whole)

    def _finish(self, number: int, end: int) -> None:
        """At the end of a chunk: what pads the last one, then the comparison of checksums."""
        files = self._files
        offset = (end - number * files.chunk_rows) * files.row_bytes
        if self._chunk is not None:
            self._crc = self._chunk.finish(offset, self._crc)
            files.require_recorded(number, self._crc)
            self._chunk.close(drop=self._drop)
            self._chunk = None
        elif behind := files.chunk_rows - files.rows_of(number):
            self._crc = files.followed_by_fill(self._crc, behind)
        self._digests[number] = self._crc

    def _close(self) -> None:
        if self._chunk is not None:
            self._chunk.close()
            self._chunk = None

    def __del__(self) -> None:
        """Close what an error or a partial read left open."""
        self._close()
        if self._fetched is not None:
            self._fetched.close()


class DecodedReader:
    """Reads chunks that must be decoded, each (of a shard, all inner chunks of the same rows) into
    one reused buffer.
    """

    def __init__(
        self, files: ChunkFiles, start: int, stop: int, ahead: ReadAhead | None, *, drop: bool
    ) -> None:
        del start, stop
        self._files, self._drop = files, drop
        self._fetched = ahead
        self._unit, self._number = -1, -1
        self._chunk: OpenChunk | OpenObject | OpenShard | None = None
        self._rows = np.empty((0, files.d), files.dtype)
        self._joined = np.empty((0, files.d), files.dtype)
        self._scratch = Scratch()
        self._crc, self._next = 0, 0
        self._digests: Digests = {}

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``: a view of what is decoded, or a copy where they straddle two
        parts.
        """
        size = self._files.unit_rows
        first = start // size
        if (stop - 1) // size == first:
            return self._load(first)[start - first * size : stop - first * size]

        if len(self._joined) < stop - start:
            self._joined = np.empty((stop - start, self._files.d), self._files.dtype)
        at = 0
        while start < stop:
            unit = start // size
            end = min(stop, (unit + 1) * size)
            self._joined[at : at + end - start] = self._load(unit)[
                start - unit * size : end - unit * size
            ]
            start, at = end, at + end - start

        return self._joined[:at]

    def digests(self) -> Digests:
        """Of every chunk that was decoded."""
        return self._digests

    def _load(self, unit: int) -> Rows:
        if unit == self._unit:
            return self._rows
        files = self._files
        if not len(self._rows):
            self._rows = np.empty((files.unit_rows, files.d), files.dtype)
        number, band = divmod(unit, files.chunk_rows // files.unit_rows)
        if number != self._number:
            self._close()
            self._chunk, self._number = open_chunk(files, number, self._fetched), number
            self._crc, self._next = 0, 0

        self._unit = -1  # what is in the buffer, should this fail
        if isinstance(self._chunk, OpenShard):
            decode_band(files, self._chunk, band, self._rows, self._scratch)
        else:
            decode_chunk(files, self._chunk, self._rows, self._scratch)
        self._unit = unit
        self._add_to_digest(number, band)
        return self._rows

    def _add_to_digest(self, number: int, band: int) -> None:
        """Go on with the checksum of a chunk; the inner chunks behind the last row of the table are
        fill.
        """
        if band != self._next:
            return
        files = self._files
        self._crc, self._next = checksum(self._rows, self._crc), band + 1
        if self._next * files.unit_rows < files.rows_of(number):
            return
        behind = files.chunk_rows - self._next * files.unit_rows
        self._crc = files.followed_by_fill(self._crc, behind)
        self._digests[number] = self._crc
        self._close()

    def _close(self) -> None:
        if self._chunk is not None:
            self._chunk.close(drop=self._drop)
            self._chunk = None

    def __del__(self) -> None:
        """Close what an error or a partial read left open."""
        self._close()
        if self._fetched is not None:
            self._fetched.close()
