"""How does a task get at the rows of a table, whatever the table is made of?

A `Source` is a picklable description of one table's vectors. It hands out blocks (row ranges, the
unit of one task) and gathers (lists of rows); inside the task either one is opened as a `Reader`,
from which rows are taken in ascending order, a panel at a time. Nothing above this folder knows
what kind of array it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import crc32c
import numpy as np

from dask_embstab.core.types import RowNumbers, Rows

Digests = dict[int, int]
"""Chunk number to the crc32c of its decoded bytes (C order, little-endian)."""


Access = Literal["memory", "panels", "chunks", "zarr", "computed"]
"""How a task reads rows: from memory, from chunk files a panel at a time, from chunk files that
are decoded whole, through Zarr, or computed (a Dask array, a view).
"""


class Reader(Protocol):
    """Rows of one block, taken in ascending order; what was taken is valid until the next call."""

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` in the stored dtype, (stop - start, d), C-contiguous."""

    def digests(self) -> Digests:
        """Digests of the chunks that were read whole."""


class Source(Protocol):
    """One table's vectors: shape, dtype, the rows of one task, and ways to get at them inside a
    task.
    """

    @property
    def array(self) -> Any:
        """The array-like that holds the rows."""

    @property
    def access(self) -> Access:
        """How its rows are read."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16, float32 or float64, in the byte order in which it is stored."""

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk: a task covers whole chunks, and an output is cut alike."""

    def block(self, start: int, stop: int) -> Any:
        """An `Openable` for these rows, or a Dask value that becomes one in its task."""

    def gather(self, rows: RowNumbers) -> Any:
        """An `Openable` for these rows in this order (numbered from 0 in it), or such a
        Dask value.
        """


class Openable(Protocol):
    """What a task is given."""

    def open(self) -> Reader:
        """Start reading."""


def checksum(rows: Rows, before: int = 0) -> int:
    """crc32c of the rows in C order and little-endian, going on from ``before``; copied only where
    they are not so.
    """
    plain: Any = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
    return int(crc32c.crc32c(plain, before))


_PADDING_ROWS = 4096


def chunk_digest(rows: Rows, chunk_rows: int, fill: Any) -> int:
    """Digest of one decoded chunk from the rows in it: the last chunk of a table is padded to full
    length with ``fill``.
    """
    missing, crc = chunk_rows - len(rows), checksum(rows)
    shape = min(missing, _PADDING_ROWS), *rows.shape[1:]
    block = np.full(shape, 0 if fill is None else fill, rows.dtype)
    for at in range(0, missing, _PADDING_ROWS):
        crc = checksum(block[: missing - at], crc)
    return crc


@dataclass(frozen=True, slots=True)
class ArrayBlock:
    """Rows held in memory; row 0 of ``array`` is row ``start`` of a table of ``n_rows`` in chunks
    of ``chunk_rows``.

    Gathered rows, which are no part of one, have ``chunk_rows`` 0.
    """

    array: Rows
    start: int = 0
    chunk_rows: int = 0
    n_rows: int = 0

    def open(self) -> ArrayReader:
        """Start reading."""
        return ArrayReader(self)


class RunningDigests:
    """Digests of chunks of ``chunk_rows`` rows of a table of ``n_rows``, whose rows come in order;
    none with ``chunk_rows`` 0.
    """

    def __init__(self, chunk_rows: int, n_rows: int) -> None:
        self._chunk_rows, self._n_rows = chunk_rows, n_rows
        self._at, self._crc = -1, 0
        self.by_chunk: Digests = {}

    def add(self, start: int, rows: Rows) -> None:
        """Go on with rows from ``start`` on."""
        size, stop = self._chunk_rows, start + len(rows)
        for first in range(start - start % size, stop, size) if size else ():
            last = min(first + size, self._n_rows)
            low, high = max(start, first), min(stop, last)
            if low not in (first, self._at):
                continue  # a chunk that is not read from its start has no digest
            part = rows[low - start : high - start]
            self._crc, self._at = checksum(part, 0 if low == first else self._crc), high
            if high == last:
                self.by_chunk[first // size] = self._crc


class ArrayReader:
    """Slices of an array in memory, and the digests of its chunks."""

    def __init__(self, block: ArrayBlock) -> None:
        self._block, self._digests = block, RunningDigests(block.chunk_rows, block.n_rows)

    def take(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` of the table."""
        first = self._block.start
        rows = np.ascontiguousarray(self._block.array[start - first : stop - first])
        self._digests.add(start, rows)
        return rows

    def digests(self) -> Digests:
        """Of the chunks that were read whole."""
        return self._digests.by_chunk


@dataclass(frozen=True, slots=True)
class ArrayGather:
    """Rows gathered from an array in memory."""

    array: Rows
    rows: RowNumbers

    def open(self) -> GatherReader:
        """Start reading."""
        return GatherReader(lambda rows: self.array[rows], self.rows)


class GatherReader:
    """Picks rows a panel at a time by ``pick(row numbers)``."""

    def __init__(self, pick: Any, rows: RowNumbers) -> None:
        self._pick, self._rows = pick, rows

    def take(self, start: int, stop: int) -> Rows:
        """The gathered rows ``start`` to ``stop``."""
        return np.ascontiguousarray(self._pick(self._rows[start:stop]))

    def digests(self) -> Digests:
        """None: chunks are not read whole."""
        return {}


def grouped(numbers: RowNumbers) -> list[tuple[int, RowNumbers]]:
    """Each number that occurs, ascending, and where it does."""
    if not len(numbers):
        return []
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [(int(numbers[group[0]]), group) for group in groups]


DEFAULT_CHUNK_BYTES = 64 * 2**20


def default_chunk_rows(d: int, itemsize: int, n_bytes: int | None = None) -> int:
    """Rows of a chunk near 64 MiB: a power of two, so that chunks are whole subtrees of every fixed
    grid.
    """
    return 1 << max(0, ((n_bytes or DEFAULT_CHUNK_BYTES) // (d * itemsize)).bit_length() - 1)


@dataclass(frozen=True, slots=True)
class ArraySource:
    """A NumPy array or memory map; a block is a view, so a memory map stays on disk until its task
    reads it.
    """

    array: Rows
    access: ClassVar[Access] = "memory"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the array."""
        return self.array.dtype

    @property
    def chunk_rows(self) -> int:
        """The default chunk: an array has none of its own."""
        return default_chunk_rows(self.shape[1], self.dtype.itemsize)

    def block(self, start: int, stop: int) -> ArrayBlock:
        """A view of these rows."""
        return ArrayBlock(self.array[start:stop], start, self.chunk_rows, len(self.array))

    def gather(self, rows: RowNumbers) -> ArrayGather:
        """Picks rows when its task runs."""
        return ArrayGather(self.array, rows)
