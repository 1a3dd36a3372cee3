"""Which row of the one table belongs to a row of the other? In memory, in a file, or for a few rows
only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, Protocol

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import DamageError
from dask_embstab.files.objects import objects_below
from dask_embstab.files.remote import Url
from dask_embstab.tables.ids.scratch_files import each, open_file, require_seen, write_file

_WORD = 8
_GATHERED = 4096


Storage = Literal["memory", "file", "sparse", "computed"]
"""Where the partners are: in memory, in a scratch file, in memory for a few rows, or computed."""


class RowIndex(Protocol):
    """Partner of every row; -1 where it has none. Small to pickle, or cut to the rows of one task
    by ``part``.
    """

    storage: ClassVar[Storage]

    def take(self, start: int, stop: int) -> RowNumbers:
        """Partners of rows ``start`` to ``stop``."""

    def part(self, start: int, stop: int) -> RowIndex:
        """The same index for these rows alone."""


@dataclass(frozen=True, slots=True)
class ArrayIndex:
    """Held in memory; ``array[0]`` belongs to row ``first``."""

    array: RowNumbers
    first: int = 0
    storage: ClassVar[Storage] = "memory"

    def take(self, start: int, stop: int) -> RowNumbers:
        """A view."""
        return self.array[start - self.first : stop - self.first]

    def part(self, start: int, stop: int) -> ArrayIndex:
        """A view."""
        return ArrayIndex(self.take(start, stop), start)

    def put(self, start: int, values: RowNumbers) -> None:
        """Set the partners of rows from ``start`` on."""
        self.array[start - self.first : start - self.first + len(values)] = values


@dataclass(frozen=True, slots=True)
class FileIndex:
    """One int64 per row in a scratch file, or in objects of a store: one for each `put`, named by
    its first row, and read once all are there.
    """

    path: str
    storage: ClassVar[Storage] = "file"

    def take(self, start: int, stop: int) -> RowNumbers:
        """Read from the file."""
        if isinstance(self.path, Url):
            return _from_objects(self.path, start, stop)
        try:
            return np.fromfile(self.path, np.int64, stop - start, offset=start * _WORD)
        except FileNotFoundError:
            require_seen(os.path.dirname(self.path))  # noqa: PTH120 (a text)
            raise

    def part(self, start: int, stop: int) -> FileIndex:
        """Itself."""
        del start, stop
        return self

    def put(self, start: int, values: RowNumbers) -> None:
        """Write the partners of rows from ``start`` on; tasks may do so side by side."""
        if isinstance(self.path, Url):
            if len(values):
                write_file(self.path / f"{start}", [values])
            return
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            require_seen(os.path.dirname(self.path))  # noqa: PTH120 (a text)
            raise
        try:
            data, offset = memoryview(np.ascontiguousarray(values).view(np.uint8)), start * _WORD  # type: ignore[arg-type]
            while len(data):
                done = os.pwrite(file, data, offset)
                data, offset = data[done:], offset + done
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class StepIndex:
    """Row i belongs to row i, for the first ``n`` rows."""

    n: int
    storage: ClassVar[Storage] = "computed"

    def take(self, start: int, stop: int) -> RowNumbers:
        """The row numbers themselves."""
        rows = np.arange(start, stop, dtype=np.int64)
        rows[max(0, self.n - start) :] = -1
        return rows

    def part(self, start: int, stop: int) -> StepIndex:
        """Itself."""
        del start, stop
        return self


@dataclass(frozen=True, slots=True)
class ShiftedIndex:
    """Row i belongs to row i + ``by``."""

    by: int
    storage: ClassVar[Storage] = "computed"

    def take(self, start: int, stop: int) -> RowNumbers:
        """The row numbers themselves, shifted."""
        return np.arange(start + self.by, stop + self.by, dtype=np.int64)

    def part(self, start: int, stop: int) -> ShiftedIndex:
        """Itself."""
        del start, stop
        return self


@dataclass(frozen=True, slots=True)
class SparseIndex:
    """Partners of a few ``rows`` (ascending); every other row has none."""

    rows: RowNumbers
    partners: RowNumbers
    storage: ClassVar[Storage] = "sparse"

    def take(self, start: int, stop: int) -> RowNumbers:
        """Mostly -1."""
        first, last = np.searchsorted(self.rows, (start, stop))
        rows = np.full(stop - start, -1, np.int64)
        rows[self.rows[first:last] - start] = self.partners[first:last]
        return rows

    def part(self, start: int, stop: int) -> SparseIndex:
        """Those of these rows."""
        first, last = np.searchsorted(self.rows, (start, stop))
        return SparseIndex(self.rows[first:last], self.partners[first:last])


def _from_objects(path: Url, start: int, stop: int) -> RowNumbers:
    """The rows of an index in a store, of as many objects as hold them."""
    starts, lengths = _objects_of(path)
    first = max(0, int(np.searchsorted(starts, start, side="right")) - 1)
    at = range(first, int(np.searchsorted(starts, stop)))

    def read(number: int) -> RowNumbers:
        begin = int(starts[number])
        low, high = max(start, begin), min(stop, begin + int(lengths[number]))
        values = np.empty(max(0, high - low), np.int64)
        open_file(path / f"{begin}").fill([(values, (low - begin) * _WORD)])
        return values

    partners = np.concatenate([np.empty(0, np.int64), *each(path, read, at)])
    if len(partners) != max(0, stop - start):
        raise DamageError(
            f"objects of the scratch index {path} are gone; see that nobody else removes objects"
            " there, and call again"
        )
    return partners


@lru_cache(maxsize=16)
def _objects_of(path: Url) -> tuple[RowNumbers, RowNumbers]:
    """First rows of all objects of an index, ascending, and how many rows each holds."""
    objects = sorted((int(name), size // _WORD) for name, size in objects_below(path).items())
    starts, lengths = np.array(objects, np.int64).reshape(-1, 2).T
    return starts, lengths


def gather(index: RowIndex, rows: RowNumbers) -> RowNumbers:
    """Partners of single rows in any order; -1 for row -1 too."""
    order = np.argsort(rows, axis=None, kind="stable")
    flat = rows.ravel()
    partners = np.full(flat.shape, -1, np.int64)
    order = order[np.searchsorted(flat[order], 0) :]
    while len(order):
        start = int(flat[order[0]])
        n = int(np.searchsorted(flat[order], start + _GATHERED))
        partners[order[:n]] = index.take(start, int(flat[order[n - 1]]) + 1)[
            flat[order[:n]] - start
        ]
        order = order[n:]

    return partners.reshape(rows.shape)
