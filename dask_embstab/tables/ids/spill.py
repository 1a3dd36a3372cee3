"""How is a part of many small sorted files read back? Columns grouped by part, each part one
contiguous piece.

A task that spreads its records over parts (of a hash, or of a table's rows) sorts them by part and
writes one file; whoever owns a part reads its piece of every file. A file appears whole (written
beside its place and renamed, or put as one object of a store), so a task that is run twice leaves
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.ids.scratch_files import below, each, open_file, remove_files, write_file

Columns = Sequence[np.ndarray[Any, Any]]
_WORD = 8
_FEW_WORDS = 1 << 10
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Spill:
    """Files ``folder/0`` to ``folder/n_files - 1`` of columns of these dtypes, cut into ``n_parts``
    parts.
    """

    folder: str
    dtypes: tuple[np.dtype[Any], ...]
    n_parts: int
    n_files: int

    def write(self, number: int, columns: Columns, cuts: Sequence[RowNumbers]) -> int:
        """Write one file; ``cuts[c]`` (n_parts + 1,) says where the parts of column ``c`` begin.
        Returns its bytes.
        """
        header = np.concatenate(
            [np.zeros(len(columns), np.int64), *(np.asarray(cut, np.int64) for cut in cuts)]
        )
        sizes = [header.nbytes, *(column.nbytes for column in columns)]
        header[: len(columns)] = np.cumsum(sizes)[:-1]
        return write_file(self.path(number), (header, *columns))

    def clear(self) -> None:
        """Give the space of all files back."""
        remove_files(self.folder, [str(number) for number in range(self.n_files)])

    def read(self, number: int, part: int) -> list[np.ndarray[Any, Any]]:
        """All columns of one part of one file."""
        with SpillReader(self, number, part) as reader:
            return reader.columns()

    def each(self, read: Callable[[int], V]) -> Iterator[V]:
        """What ``read`` makes of the number of every file, in their order."""
        return each(self.folder, read, range(self.n_files))

    def path(self, number: int) -> str:
        """Of one file."""
        return below(self.folder, str(number))


class SpillReader:
    """One part of one file, open: columns are read whole or a range at a time."""

    def __init__(self, spill: Spill, number: int, part: int) -> None:
        self._dtypes = spill.dtypes
        self._file = open_file(spill.path(number))
        n, cuts = len(spill.dtypes), spill.n_parts + 1
        if n * cuts <= _FEW_WORDS:  # in one call
            (head,) = self._words((0, n + n * cuts))
            pairs = head[n:].reshape(n, cuts)[:, part : part + 2]
        else:
            head, *words = self._words((0, n), *((n + c * cuts + part, 2) for c in range(n)))
            pairs = np.array(words)
        self._spans = [
            (int(base), int(start), int(stop))
            for base, (start, stop) in zip(head[:n], pairs, strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def column(self, c: int, first: int = 0, last: int | None = None) -> np.ndarray[Any, Any]:
        """Values ``first`` to ``last`` of the part in column ``c``."""
        wanted = self._wanted(c, first, last)
        self._file.fill([wanted])
        return wanted[0]

    def columns(self) -> list[np.ndarray[Any, Any]]:
        """All values of the part in every column."""
        wanted = [self._wanted(c, 0, None) for c in range(len(self._dtypes))]
        self._file.fill(wanted)
        return [values for values, _ in wanted]

    def _wanted(self, c: int, first: int, last: int | None) -> tuple[np.ndarray[Any, Any], int]:
        """Room for values of column ``c``, and where they begin in the file."""
        base, start, stop = self._spans[c]
        stop = stop if last is None else start + last
        values = np.empty(stop - start - first, self._dtypes[c])
        return values, base + (start + first) * self._dtypes[c].itemsize

    def _words(self, *spans: tuple[int, int]) -> list[RowNumbers]:
        wanted = [(np.empty(n, np.int64), first * _WORD) for first, n in spans]
        self._file.fill(wanted)
        return [values for values, _ in wanted]
