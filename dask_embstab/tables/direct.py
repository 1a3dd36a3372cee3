"""Rows straight from chunk files into one reused panel buffer, and straight from a panel into chunk files.

Reading: `preadv`, with the checksum computed on the way and compared when a chunk has been read to its end. A range that
is only a part of a chunk verifies the whole chunk first, once per process. Compressed chunks are decoded from the file
into a reused buffer. Writing: panels are appended to a file beside the chunk's place with a running checksum, and the
file is renamed when it is whole.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numcodecs
import numpy as np

from dask_embstab.core.errors import DamageError
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.tables.chunkfile import ChunkFiles, OpenChunk, require_checksum, require_seen, verify_once
from dask_embstab.tables.source import Digests, checksum

_READ_BYTES = 2 << 20
"""Read at once where panels are smaller: a call costs as much as a tenth of a megabyte does."""
_PADDING_ROWS = 4096
"""Rows of fill that are written at a time behind the last rows of a table."""


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
        """Read these rows; a panel after another comes out of them. What is there already is not read twice."""
        first, last = self._ahead
        kept = self._buffer[start - first : last - first] if first <= start < last else self._buffer[:0]
        self._ahead = start, stop
        if len(self._buffer) < stop - start or len(kept):
            fresh = np.empty((stop - start, self._files.d), self._files.dtype)
            fresh[: len(kept)] = kept
            self._buffer = fresh
        panel = self._buffer[len(kept) : stop - start]
        start += len(kept)
        target, at = memoryview(panel.view(np.uint8).reshape(-1)), 0  # type: ignore[arg-type]
        while start < stop:
            number = start // self._files.chunk_rows
            end = min(stop, (number + 1) * self._files.chunk_rows)
            size = (end - start) * self._files.row_bytes
            self._read(number, start, end, target[at : at + size])
            start, at = end, at + size

    def digests(self) -> Digests:
        """Of every chunk that was read to its end."""
        return self._digests

    def _read(self, number: int, start: int, end: int, target: memoryview) -> None:
        if number != self._number:
            self._open(number)
        if self._chunk is None:
            np.frombuffer(target, self._files.dtype)[:] = self._files.fill
        else:
            self._chunk.read_into(target, (start - number * self._files.chunk_rows) * self._files.row_bytes)
        if self._whole:
            self._crc = crc32c.crc32c(target, self._crc)
            if end == min((number + 1) * self._files.chunk_rows, self._files.n_rows):
                self._finish(number, end)

    def _open(self, number: int) -> None:
        files = self._files
        self._close()  # a chunk that was read in part
        self._number, self._crc = number, 0
        self._chunk = open_chunk(files, number)
        first, last = number * files.chunk_rows, min((number + 1) * files.chunk_rows, files.n_rows)
        self._whole = self._range[0] <= first and last <= self._range[1]
        if self._chunk is None:
            return
        _require_size(files, self._chunk)
        if not self._whole:
            verify_once(files, self._chunk)

    def _finish(self, number: int, end: int) -> None:
        """At the end of a chunk: what pads the last one, then the comparison of checksums."""
        files = self._files
        padding = ((number + 1) * files.chunk_rows - end) * files.row_bytes
        if padding and self._chunk is not None:
            self._crc = self._chunk.checksum(files.data_bytes - padding, files.data_bytes, self._crc)
        if self._chunk is not None:
            if files.checksummed:
                require_checksum(self._crc, self._chunk.stored_checksum(), self._chunk.path)
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
        """Rows ``start`` to ``stop``: a view of the decoded chunk, or a copy where they straddle two."""
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
            self._joined[at : at + end - start] = self._load(number)[start - number * size : end - number * size]
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


def open_chunk(files: ChunkFiles, number: int) -> OpenChunk | None:
    """The chunk's file; None where Zarr left out a chunk of nothing but a finite fill value."""
    try:
        return OpenChunk(files, number)
    except FileNotFoundError:
        require_seen(files.root)
        if not files.complete:
            return None
        raise DamageError(
            f"chunk file {files.path(number)} is missing; restore it from its source, or write the table again"
        ) from None


def _require_size(files: ChunkFiles, chunk: OpenChunk) -> None:
    """Raise unless an uncompressed chunk's file is as long as its rows (and checksum) are."""
    expected = files.data_bytes + (4 if files.checksummed else 0)
    if chunk.size != expected:
        raise DamageError(
            f"chunk file {chunk.path} should have {expected} bytes and has {chunk.size}; restore it from its source"
        )


def decode_chunk(files: ChunkFiles, number: int, out: Rows, *, drop: bool) -> None:
    """Decode a compressed chunk file into ``out`` (chunk_rows, d)."""
    chunk = open_chunk(files, number)
    if chunk is None:
        out[...] = files.fill
        return
    try:
        encoded = memoryview(bytearray(chunk.size))
        chunk.read_into(encoded, 0)
        if files.checksummed:
            require_checksum(crc32c.crc32c(encoded[:-4]), chunk.stored_checksum(), chunk.path)
            encoded = encoded[:-4]
        codec: Any = numcodecs.Blosc() if files.compression == "blosc" else numcodecs.Zstd()
        codec.decode(encoded, out=out)
    except DamageError:
        raise
    except Exception as error:
        raise DamageError(f"chunk file {chunk.path} cannot be decoded ({error}); restore it from its source") from error
    finally:
        chunk.close(drop=drop)


@dataclass(frozen=True, slots=True)
class DirectGather:
    """Rows picked from uncompressed chunk files.

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
        for group in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1) if len(rows) else []:
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
            _require_size(files, chunk)
            if self._verify:
                verify_once(files, chunk)
            return np.memmap(chunk.path, files.dtype, "r", shape=(files.chunk_rows, files.d))
        finally:
            chunk.close()


class DirectWriter:
    """Appends panels to chunk files, each written beside its place with a running checksum and then renamed."""

    def __init__(self, files: ChunkFiles, start: int, stop: int) -> None:
        self._files, self._stop = files, stop
        self._at = start
        self._crc = 0
        self._descriptor = -1
        self._beside = ""
        self.dtype = files.dtype
        self._cast = np.empty((0, files.d), files.dtype)
        self.digests: Digests = {}

    def put(self, rows: Rows) -> None:
        """Append rows, cast to the stored dtype."""
        if rows.dtype != self.dtype or not rows.flags.c_contiguous:
            rows = self._as_stored(rows)
        while len(rows):
            number = self._at // self._files.chunk_rows
            end = min((number + 1) * self._files.chunk_rows, self._stop)
            taken = min(len(rows), end - self._at)
            if self._descriptor < 0:
                self._begin(number)
            self._append(memoryview(rows[:taken].view(np.uint8).reshape(-1)))  # type: ignore[arg-type]
            self._at += taken
            rows = rows[taken:]
            if self._at == end:
                self._finish(number, end)

    def _as_stored(self, rows: Rows) -> Rows:
        if len(self._cast) < len(rows):
            self._cast = np.empty((len(rows), self._files.d), self.dtype)
        cast = self._cast[: len(rows)]
        np.copyto(cast, rows, casting="same_kind")
        return cast

    def _begin(self, number: int) -> None:
        path = self._files.path(number)
        self._make_folders(path)
        self._beside = f"{path}.{uuid.uuid4().hex[:12]}.partial"
        self._descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._crc = 0

    def _make_folders(self, path: str) -> None:
        """Those below the array's own folder; where that one is gone, the write was given up and nothing may come back."""
        root = Path(self._files.root)
        require_seen(root)
        for folder in reversed(Path(path).relative_to(root).parents[:-1]):
            (root / folder).mkdir(exist_ok=True)

    def _append(self, data: memoryview) -> None:
        self._crc = crc32c.crc32c(data, self._crc)
        while len(data):
            data = data[os.write(self._descriptor, data) :]

    def _finish(self, number: int, end: int) -> None:
        padding = (number + 1) * self._files.chunk_rows - end
        fill: Any = np.full((min(padding, _PADDING_ROWS), self._files.d), self._files.fill, self.dtype)
        for at in range(0, padding, _PADDING_ROWS):
            self._append(memoryview(fill[: padding - at].view(np.uint8).reshape(-1)))
        self.digests[number] = self._crc
        if self._files.checksummed:
            os.write(self._descriptor, self._crc.to_bytes(4, "little"))
        self._close()
        os.rename(self._beside, self._files.path(number))  # noqa: PTH104

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        """Leave no half-written file behind an error."""
        if self._descriptor >= 0:
            self._close()
            Path(self._beside).unlink(missing_ok=True)
