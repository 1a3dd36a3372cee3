"""Views of stored tables: their rows through a function, or with the columns of another one
appended.

They are read through the passes as stored ones are, a panel at a time; nothing is computed before.
"""

from __future__ import annotations

import hashlib
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import InputError
from dask_embstab.repairs import call
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.dask_source import DaskSource, as_dask, delayed_if_needed
from dask_embstab.tables.read.direct_source import DirectSource
from dask_embstab.tables.read.source import Access, ArraySource, Digests, Openable, Reader, Source
from dask_embstab.tables.read.zarr_source import ZarrSource

_COLUMN_ROWS = 1 << 18
_GATHERED_ROWS = 1 << 14
_Place = Callable[[RowNumbers], RowNumbers]


@dataclass(frozen=True, slots=True)
class View:
    """What views have in common: they are cut and typed like ``source``, unless they say
    otherwise.
    """

    source: Source
    access: ClassVar[Access] = "computed"

    @property
    def array(self) -> Any:
        """Most views cannot be sliced."""
        raise InputError(
            f"a view is read through the passes alone; write it with {call('create_run')} to"
            " slice it"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the source."""
        return self.source.dtype

    @property
    def chunk_rows(self) -> int:
        """As the source."""
        return self.source.chunk_rows

    @property
    def task_rows(self) -> int:
        """Rows that a task covers at least, as the source."""
        return getattr(self.source, "task_rows", 1)


@dataclass(frozen=True, slots=True)
class _ViewBlock:
    """What a task opens: a reader made of those of ``blocks``."""

    reader: Callable[..., Reader]
    blocks: tuple[Openable, ...]

    def open(self) -> Reader:
        """Start reading."""
        return self.reader(*(block.open() for block in self.blocks))


def view_block(reader: Callable[..., Reader], *blocks: Any) -> Any:
    """A block whose reader is made of those of ``blocks``, of which some may be delayed."""
    return delayed_if_needed(_made_of, reader, *blocks)


def _made_of(reader: Callable[..., Reader], *blocks: Openable) -> _ViewBlock:
    return _ViewBlock(reader, blocks)


class ViewReader:
    """Reads through other readers."""

    def __init__(self, *readers: Reader) -> None:
        self._readers = readers

    def digests(self) -> Digests:
        """Of the first one's rows as they are stored."""
        return self._readers[0].digests() if self._readers else {}


@dataclass(frozen=True, slots=True)
class MappedSource(View):
    """``map`` of the rows of ``source``: any number of rows at a time, each to ``width`` components
    of dtype ``to``.
    """

    map: Callable[[Rows], Rows]
    width: int
    to: np.dtype[Any]

    @property
    def array(self) -> Any:
        """A lazy Dask array."""
        rows = as_dask(self.source.array, self.source.chunk_rows)
        return rows.map_blocks(self.map, dtype=self.to, chunks=(rows.chunks[0], (self.width,)))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, width)."""
        return self.source.shape[0], self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the function makes."""
        return self.to

    def block(self, start: int, stop: int) -> Any:
        """A block of the rows."""
        return view_block(partial(_MappedReader, self.map), self.source.block(start, stop))

    def gather(self, rows: RowNumbers) -> Any:
        """These rows."""
        return view_block(partial(_MappedReader, self.map), self.source.gather(rows))


class _MappedReader(ViewReader):
    def __init__(self, function: Callable[[Rows], Rows], reader: Reader) -> None:
        super().__init__(reader)
        self._map = function

    def take(self, start: int, stop: int) -> Rows:
        """The mapped rows."""
        return self._map(self._readers[0].take(start, stop))


@dataclass(frozen=True, slots=True)
class SideBySide(View):
    """The columns of ``right`` behind those of ``source``, row by row, in the dtype of
    ``source``.
    """

    right: Source

    @property
    def shape(self) -> tuple[int, int]:
        """(n, columns of both)."""
        return self.source.shape[0], self.source.shape[1] + self.right.shape[1]

    def block(self, start: int, stop: int) -> Any:
        """A block of both."""
        return view_block(
            _JoinedReader, self.source.block(start, stop), self.right.block(start, stop)
        )

    def gather(self, rows: RowNumbers) -> Any:
        """These rows of both."""
        return view_block(_JoinedReader, self.source.gather(rows), self.right.gather(rows))


class _JoinedReader(ViewReader):
    def take(self, start: int, stop: int) -> Rows:
        """Rows of both, in one."""
        left, right = (reader.take(start, stop) for reader in self._readers)
        return np.concatenate([left, right], axis=1, dtype=left.dtype, casting="same_kind")


@dataclass(frozen=True, slots=True)
class _OfRows(View):
    n_rows: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, d)."""
        return self.n_rows, self.source.shape[1]


@dataclass(frozen=True, slots=True)
class Head(_OfRows):
    """The first ``n_rows`` rows of ``source``."""

    def block(self, start: int, stop: int) -> Any:
        """The source's own block."""
        return self.source.block(start, stop)

    def gather(self, rows: RowNumbers) -> Any:
        """The source's own rows."""
        return self.source.gather(rows)


@dataclass(frozen=True, slots=True)
class Padded(_OfRows):
    """``n_rows`` rows: those of ``source``, then rows of zeros."""

    def block(self, start: int, stop: int) -> Any:
        """A block of rows."""
        end = self.source.shape[0]
        blocks = [self.source.block(start, min(stop, end))] if start < end else []
        return self._made(partial(np.minimum, end), *blocks)

    def gather(self, rows: RowNumbers) -> Any:
        """These rows."""
        stored = rows < self.source.shape[0]
        return self._made(
            np.concatenate([[0], np.cumsum(stored)]).take, self.source.gather(rows[stored])
        )

    def _made(self, place: _Place, *blocks: Any) -> Any:
        return view_block(partial(_PaddedReader, place, self.shape[1], self.dtype), *blocks)


class _PaddedReader(ViewReader):
    """Row i is row ``place(i)`` of what is stored, or zeros where ``place(i + 1)`` is no
    further.
    """

    def __init__(self, place: _Place, d: int, dtype: np.dtype[Any], *readers: Reader) -> None:
        super().__init__(*readers)
        self._place, self._d, self._dtype = place, d, dtype

    def take(self, start: int, stop: int) -> Rows:
        """Stored rows and zeros."""
        places = self._place(np.arange(start, stop + 1))
        rows = np.zeros((stop - start, self._d), self._dtype)
        if places[-1] > places[0]:
            rows[np.diff(places) > 0] = self._readers[0].take(int(places[0]), int(places[-1]))
        return rows


@dataclass(frozen=True, slots=True)
class Gathered(View):
    """Row i is row ``rows[i]`` of ``source``, which may repeat; cut into chunks of its own."""

    rows: RowNumbers

    @property
    def shape(self) -> tuple[int, int]:
        """(len(rows), d)."""
        return len(self.rows), self.source.shape[1]

    @property
    def chunk_rows(self) -> int:
        """The same for every view, so that two of them are read in equal steps."""
        return _GATHERED_ROWS

    def block(self, start: int, stop: int) -> Any:
        """These rows, by one gather."""
        return view_block(partial(_ShiftedReader, start), self.source.gather(self.rows[start:stop]))

    def gather(self, rows: RowNumbers) -> Any:
        """These of the rows."""
        return self.source.gather(self.rows[rows])


class _ShiftedReader(ViewReader):
    """Rows that are numbered from ``first`` on."""

    def __init__(self, first: int, reader: Reader) -> None:
        super().__init__(reader)
        self._first = first

    def take(self, start: int, stop: int) -> Rows:
        """The next rows."""
        return self._readers[0].take(start - self._first, stop - self._first)

    def digests(self) -> Digests:
        """None: no chunk of the source is read whole."""
        return {}


def source_written(source: Any) -> str | None:
    """Another text once what is read of a source is another: it is written anew, or a view does
    something else with it.

    Different each time where that is not known, as of arrays in memory; None on other stores than
    local ones.
    """
    if isinstance(source, View):
        parts = [getattr(source, field.name) for field in fields(source)]
        known = [
            source_written(part) if hasattr(part, "chunk_rows") else _content(part)
            for part in parts
        ]
        return f"{type(source).__name__} {known}"

    array = source.array
    if hasattr(array, "files"):
        return _content((array.files, array.what))
    if not isinstance(array, zarr.Array):
        return uuid.uuid4().hex
    if not isinstance(array.store, LocalStore):
        return None

    folder = Path(array.store.root) / array.path
    stat = next(
        file for name in ("zarr.json", ".zarray") if (file := folder / name).exists()
    ).stat()
    return f"{stat.st_ino} {stat.st_mtime_ns}"


def _content(value: Any) -> str:
    """The same text for the same function, matrix or row numbers, in any process."""
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()[:32]
    except (pickle.PicklingError, AttributeError, TypeError):  # a function without a name
        return uuid.uuid4().hex


def column_source(array: Any, *, unique: bool = False) -> Source:
    """One number per row, in any one-dimensional array-like, as a table of one column; ``unique``
    as `chunk_files` has it.
    """
    files = chunk_files(array, unique=unique) if isinstance(array, zarr.Array) else None
    if files is not None and files.by_panels and files.store is None:
        return DirectSource.of(array, files)
    if isinstance(array, zarr.Array):
        return ZarrSource(array, unique)
    if isinstance(array, np.ndarray):
        return ArraySource(array[:, None])
    return DaskSource(as_dask(array, _COLUMN_ROWS)[:, None])


def with_ones(source: Source) -> Source:
    """One more component, which is 1 in every row."""
    return MappedSource(source, _append_one, source.shape[1] + 1, source.dtype)


def _append_one(rows: Rows) -> Rows:
    return np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)
