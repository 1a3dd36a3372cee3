"""Views of stored tables: their rows through a function, or with the columns of one more beside them.

They are read through the passes as stored ones are, a panel at a time; nothing is computed before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.tables.chunkfile import chunk_files
from dask_embstab.tables.dasksource import as_dask
from dask_embstab.tables.directsource import DirectSource
from dask_embstab.tables.source import ArraySource, Digests, Openable, Reader, Source


@dataclass(frozen=True, slots=True)
class MappedSource:
    """``map`` of the rows of ``source``: any number of rows at a time, each to ``width`` components of ``dtype``."""

    source: Source
    map: Callable[[Rows], Rows]
    width: int
    dtype: np.dtype[Any]

    @property
    def array(self) -> Any:
        """A lazy Dask array."""
        rows = as_dask(self.source.array, self.source.chunk_rows)
        return rows.map_blocks(self.map, dtype=self.dtype, chunks=(rows.chunks[0], (self.width,)))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, width)."""
        return self.source.shape[0], self.width

    @property
    def chunk_rows(self) -> int:
        """As the rows."""
        return self.source.chunk_rows

    def block(self, start: int, stop: int) -> MappedBlock:
        """A block of the rows."""
        return MappedBlock(self.source.block(start, stop), self.map)

    def gather(self, rows: RowNumbers) -> MappedBlock:
        """These rows."""
        return MappedBlock(self.source.gather(rows), self.map)


@dataclass(frozen=True, slots=True)
class MappedBlock:
    """What a task opens."""

    block: Openable
    map: Callable[[Rows], Rows]

    def open(self) -> MappedReader:
        """Start reading."""
        return MappedReader(self.block.open(), self.map)


class MappedReader:
    """Maps every panel."""

    def __init__(self, reader: Reader, function: Callable[[Rows], Rows]) -> None:
        self._reader, self._map = reader, function

    def take(self, start: int, stop: int) -> Rows:
        """The mapped rows."""
        return self._map(self._reader.take(start, stop))

    def digests(self) -> Digests:
        """Of the rows as they are stored."""
        return self._reader.digests()


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The columns of ``right`` behind those of ``left``, row by row, in the dtype of ``left``."""

    left: Source
    right: Source

    @property
    def array(self) -> Any:
        """Nobody slices this view: it is read through the passes."""
        raise NotImplementedError("two tables side by side are read through the passes alone")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, columns of both)."""
        return self.left.shape[0], self.left.shape[1] + self.right.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the left one."""
        return self.left.dtype

    @property
    def chunk_rows(self) -> int:
        """As the left one."""
        return self.left.chunk_rows

    def block(self, start: int, stop: int) -> BlocksBeside:
        """A block of both."""
        return BlocksBeside(self.left.block(start, stop), self.right.block(start, stop))

    def gather(self, rows: RowNumbers) -> BlocksBeside:
        """These rows of both."""
        return BlocksBeside(self.left.gather(rows), self.right.gather(rows))


@dataclass(frozen=True, slots=True)
class BlocksBeside:
    """What a task opens."""

    left: Openable
    right: Openable

    def open(self) -> ReadersBeside:
        """Start reading."""
        return ReadersBeside(self.left.open(), self.right.open())


class ReadersBeside:
    """Puts both panels into one."""

    def __init__(self, left: Reader, right: Reader) -> None:
        self._left, self._right = left, right

    def take(self, start: int, stop: int) -> Rows:
        """Rows of both."""
        return np.hstack([self._left.take(start, stop), self._right.take(start, stop)])

    def digests(self) -> Digests:
        """Of the left one."""
        return self._left.digests()


@dataclass(frozen=True, slots=True)
class Padded:
    """``n_rows`` rows: those of ``source``, then rows of zeros."""

    source: Source
    n_rows: int

    @property
    def array(self) -> Any:
        """Nobody slices this view: it is read through the passes."""
        raise NotImplementedError("a padded table is read through the passes alone")

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, d)."""
        return self.n_rows, self.source.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the source."""
        return self.source.dtype

    @property
    def chunk_rows(self) -> int:
        """As the source."""
        return self.source.chunk_rows

    def block(self, start: int, stop: int) -> PaddedBlock:
        """A block of rows."""
        end = max(start, min(stop, self.source.shape[0]))
        block = self.source.block(start, end) if start < end else None
        return PaddedBlock(block, np.arange(start, stop) < end, start, self.shape[1], self.dtype)

    def gather(self, rows: RowNumbers) -> PaddedBlock:
        """These rows."""
        stored = rows < self.source.shape[0]
        return PaddedBlock(self.source.gather(rows[stored]), stored, None, self.shape[1], self.dtype)


@dataclass(frozen=True, slots=True)
class PaddedBlock:
    """What a task opens: ``stored`` says which of its rows the block holds; a gathered one counts its own from 0."""

    block: Openable | None
    stored: npt.NDArray[np.bool_]
    start: int | None
    d: int
    dtype: np.dtype[Any]

    def open(self) -> PaddedReader:
        """Start reading."""
        return PaddedReader(self, None if self.block is None else self.block.open())


class PaddedReader:
    """Puts rows of zeros where nothing is stored."""

    def __init__(self, of: PaddedBlock, reader: Reader | None) -> None:
        self._of, self._reader = of, reader

    def take(self, start: int, stop: int) -> Rows:
        """Stored rows and zeros."""
        first = self._of.start or 0
        stored = self._of.stored[start - first : stop - first]
        rows = np.zeros((stop - start, self._of.d), self._of.dtype)
        n = int(np.count_nonzero(stored))
        if n and self._reader is not None:
            at = start if self._of.start is not None else int(np.count_nonzero(self._of.stored[:start]))
            rows[stored] = self._reader.take(at, at + n)
        return rows

    def digests(self) -> Digests:
        """Of the stored rows."""
        return {} if self._reader is None else self._reader.digests()


def column_source(array: zarr.Array[Any]) -> Source:
    """One number per row as a table of one column; brought into memory where its chunks are no plain files."""
    files = chunk_files(array)
    return ArraySource(np.asarray(array[...])[:, None]) if files is None else DirectSource(array, files)
