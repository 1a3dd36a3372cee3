"""Rows straight from chunk files into one reused panel buffer.

`preadv`, with the checksum computed on the way and compared when a chunk has been read to its end.
A range that is only a part of a chunk verifies the whole chunk first, once per process. Compressed
chunks are decoded from the file into a reused buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import crc32c
import numcodecs
import numpy as np

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import EmbstabError
from dask_embstab.tables.read.bounded import allowed_bytes, decode_into, require_encoded_size
from dask_embstab.tables.read.chunk_layout import (
    ChunkFiles,
    OpenChunk,
    open_chunk,
    verify_once,
)
from dask_embstab.tables.read.recorded import stored_checksum
from dask_embstab.tables.read.source import Digests, checksum
from dask_embstab.tables.store_errors import read_error

_READ_BYTES = 2 << 20
"""Read at once where panels are smaller: a call costs as much as a tenth of a megabyte does."""


@dataclass(frozen=True, slots=True)
class DirectBlock:
    """A range of rows in chunk files; ``drop`` forgets their pages once read."""

    files: ChunkFiles
    start: int
    stop: int
    drop: bool = False

    def open(self) -> DirectReader | DecodedReader:
        """Start reading."""
        if self.files.compression is not None:
            return DecodedReader(self.files, drop=self.drop)
        return DirectReader(self.files, self.start, self.stop, drop=self.drop)

    def stored_digests(self) -> Digests:
        """Of every chunk, as its file tells before its rows are read (and compared with it); empty
        where one does not.
        """
        if not self.files.checksummed or self.files.compression is not None:
            return {}
        chunks = range(self.start // self.files.chunk_rows, -(-self.stop // self.files.chunk_rows))
        try:
            return {number: stored_checksum(self.files.path(number)) for number in chunks}
        except (
            OSError
        ):  # a chunk of nothing but its fill, or one that is lost or cut short: reading tells
            return {}


class DirectReader:
    """Reads uncompressed chunk files panel by panel."""

    def __init__(self, files: ChunkFiles, start: int, stop: int, *, drop: bool) -> None:
        self._files, self._range, self._drop = files, (start, stop), drop
        self._number, self._chunk = -1, None
        self._read_rows = max(1, _READ_BYTES // files.row_bytes)
        self._ahead = 0, 0
        self._crc = 0
        self._whole = False
        self._buffer = np.empty((0, files.d), files.dtype)
        self._digests: Digests = {}

    _chunk: OpenChunk | None

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``, in a buffer that a later call fills anew."""
        if not self._ahead[0] <= start < stop <= self._ahead[1]:
            whole = max(1, self._read_rows // (stop - start)) * (stop - start)
            self._fill(start, max(stop, min(start + whole, self._range[1])))
        return self._buffer[start - self._ahead[0] : stop - self._ahead[0]]

    def _fill(self, start: int, stop: int) -> None:
        """Read these rows; a panel after another comes out of them. What is there already is not
        read twice.
        """
        files = self._files
        first, last = self._ahead
        kept = (
            self._buffer[start - first : last - first]
            if first <= start < last
            else self._buffer[:0]
        )
        self._ahead = start, stop
        if len(self._buffer) < stop - start or len(kept):
            fresh = np.empty((stop - start, files.d), files.dtype)
            fresh[: len(kept)] = kept
            self._buffer = fresh

        panel = self._buffer[len(kept) : stop - start]
        start += len(kept)
        target, at = memoryview(panel.view(np.uint8).reshape(-1)), 0  # type: ignore[arg-type]
        while start < stop:
            number = start // files.chunk_rows
            end = min(stop, (number + 1) * files.chunk_rows)
            size = (end - start) * files.row_bytes
            part = target[at : at + size]
            if number != self._number:
                self._open(number)
            if self._chunk is None:
                np.frombuffer(part, files.dtype)[:] = files.fill
            else:
                self._chunk.read_into(part, (start - number * files.chunk_rows) * files.row_bytes)

            if self._whole:
                self._crc = crc32c.crc32c(part, self._crc)
                if end == min((number + 1) * files.chunk_rows, files.n_rows):
                    self._finish(number, end)
            start, at = end, at + size

    def digests(self) -> Digests:
        """Of every chunk that was read to its end."""
        return self._digests

    def _open(self, number: int) -> None:
        files = self._files
        self._close()  # a chunk that was read in part
        self._number, self._crc = number, 0
        self._chunk = open_chunk(files, number)
        first, last = number * files.chunk_rows, min((number + 1) * files.chunk_rows, files.n_rows)
        self._whole = self._range[0] <= first and last <= self._range[1]
        if self._chunk is not None and not self._whole:
            verify_once(files, self._chunk)

    def _finish(self, number: int, end: int) -> None:
        """At the end of a chunk: what pads the last one, then the comparison of checksums."""
        files = self._files
        padding = ((number + 1) * files.chunk_rows - end) * files.row_bytes
        if padding and self._chunk is not None:
            self._crc = self._chunk.checksum(
                files.data_bytes - padding, files.data_bytes, self._crc
            )

        if self._chunk is not None:
            if files.checksummed:
                self._chunk.require_checksum(self._crc)
            self._chunk.close(drop=self._drop)
            self._chunk = None

        self._digests[number] = self._crc

    def _close(self) -> None:
        if self._chunk is not None:
            self._chunk.close()
            self._chunk = None

    def __del__(self) -> None:
        """Close what an error or a partial read left open."""
        self._close()


class DecodedReader:
    """Reads Blosc and Zstandard chunk files whole, each decoded into one reused buffer."""

    def __init__(self, files: ChunkFiles, *, drop: bool) -> None:
        self._files, self._drop = files, drop
        self._number = -1
        self._rows = np.empty((0, files.d), files.dtype)
        self._joined = np.empty((0, files.d), files.dtype)
        self._digests: Digests = {}

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``: a view of the decoded chunk, or a copy where they straddle
        two.
        """
        size = self._files.chunk_rows
        first = start // size
        if (stop - 1) // size == first:
            return self._load(first)[start - first * size : stop - first * size]

        if len(self._joined) < stop - start:
            self._joined = np.empty((stop - start, self._files.d), self._files.dtype)
        at = 0
        while start < stop:
            number = start // size
            end = min(stop, (number + 1) * size)
            self._joined[at : at + end - start] = self._load(number)[
                start - number * size : end - number * size
            ]
            start, at = end, at + end - start

        return self._joined[:at]

    def digests(self) -> Digests:
        """Of every chunk that was decoded."""
        return self._digests

    def _load(self, number: int) -> Rows:
        if number == self._number:
            return self._rows
        if not len(self._rows):
            self._rows = np.empty((self._files.chunk_rows, self._files.d), self._files.dtype)
        decode_chunk(self._files, number, self._rows, drop=self._drop)
        self._number = number
        self._digests[number] = checksum(self._rows)
        return self._rows


def decode_chunk(files: ChunkFiles, number: int, out: Rows, *, drop: bool) -> None:
    """Decode a compressed chunk file into ``out`` (chunk_rows, d)."""
    chunk = open_chunk(files, number)
    if chunk is None:
        out[...] = files.fill
        return

    try:
        require_encoded_size(
            chunk.size, allowed_bytes(out.size, files.dtype), f"chunk file {chunk.path}"
        )
        encoded = memoryview(bytearray(chunk.size))
        chunk.read_into(encoded, 0)
        if files.checksummed:
            chunk.require_checksum(crc32c.crc32c(encoded[:-4]))
            encoded = encoded[:-4]
        codec: Any = numcodecs.Blosc() if files.compression == "blosc" else numcodecs.Zstd()
        decode_into(codec, encoded, out)
    except EmbstabError:
        raise
    except Exception as error:
        raise read_error(error, f"chunk file {chunk.path}") from error
    finally:
        chunk.close(drop=drop)


@dataclass(frozen=True, slots=True)
class DirectGather:
    """Rows gathered from uncompressed chunk files.

    Where ``verified``, a chunk is checked before its first row is used, which reads it whole.
    """

    files: ChunkFiles
    rows: RowNumbers
    verified: bool = True

    def open(self) -> DirectGatherReader:
        """Start picking."""
        return DirectGatherReader(self)


class DirectGatherReader:
    """Picks rows from mapped chunk files, one panel at a time."""

    def __init__(self, gather: DirectGather) -> None:
        self._files, self._rows, self._verify = gather.files, gather.rows, gather.verified

    def take(self, start: int, stop: int) -> Rows:
        """The gathered rows ``start`` to ``stop``."""
        rows, size = self._rows[start:stop], self._files.chunk_rows
        panel = np.empty((len(rows), self._files.d), self._files.dtype)
        chunks = rows // size
        order = np.argsort(chunks, kind="stable")
        for group in (
            np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1) if len(rows) else []
        ):
            number = int(chunks[group[0]])
            panel[group] = self._mapped(number)[rows[group] - number * size]

        return panel

    def digests(self) -> Digests:
        """None: chunks are not read as a whole table."""
        return {}

    def _mapped(self, number: int) -> Rows:
        """The chunk mapped into memory, unmapped when the panel is done."""
        files = self._files
        chunk = open_chunk(files, number)
        if chunk is None:
            return np.broadcast_to(np.asarray(files.fill, files.dtype), (files.chunk_rows, files.d))
        try:
            if self._verify:
                verify_once(files, chunk)
            return np.memmap(chunk.path, files.dtype, "r", shape=(files.chunk_rows, files.d))
        finally:
            chunk.close()
