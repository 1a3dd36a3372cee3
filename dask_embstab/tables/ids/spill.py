"""How is a part of many small sorted files read back? Columns grouped by part, each part one
contiguous piece.

A task that spreads its records over parts (of a hash, or of a table's rows) sorts them by part and
writes one file; whoever owns a part reads its piece of every file. A file appears whole (written
beside its place, renamed), so a task that is run twice leaves the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.files.atomic import write_whole
from dask_embstab.tables.read.stored.files import require_visible_dir

Columns = Sequence[np.ndarray[Any, Any]]
_WORD = 8
_FEW_WORDS = 1 << 10


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
        path = self._path(number)
        require_visible_dir(self.folder)

        def write(file: IO[bytes]) -> None:
            for array in (header, *columns):
                file.write(memoryview(np.ascontiguousarray(array).view(np.uint8).reshape(-1)))  # type: ignore[arg-type]

        write_whole(path, write, sync=False)
        return sum(sizes)

    def remove(self, number: int) -> None:
        """Give the space of one file back."""
        Path(self._path(number)).unlink(missing_ok=True)

    def read(self, number: int, part: int) -> list[np.ndarray[Any, Any]]:
        """All columns of one part of one file."""
        with SpillReader(self, number, part) as reader:
            return [reader.column(c) for c in range(len(self.dtypes))]

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number}"


class SpillReader:
    """One part of one file, open: columns are read whole or a range at a time."""

    def __init__(self, spill: Spill, number: int, part: int) -> None:
        self._dtypes = spill.dtypes
        self._file = os.open(spill._path(number), os.O_RDONLY)  # noqa: SLF001 (the two are one)
        n, cuts = len(spill.dtypes), spill.n_parts + 1
        if n * cuts <= _FEW_WORDS:  # in one call
            head = self._words(0, n + n * cuts)
            pairs = head[n:].reshape(n, cuts)[:, part : part + 2]
        else:
            head = self._words(0, n)
            pairs = np.array([self._words(n + c * cuts + part, 2) for c in range(n)])
        self._spans = [
            (int(base), int(start), int(stop))
            for base, (start, stop) in zip(head[:n], pairs, strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def column(self, c: int, first: int = 0, last: int | None = None) -> np.ndarray[Any, Any]:
        """Values ``first`` to ``last`` of the part in column ``c``."""
        base, start, stop = self._spans[c]
        stop = stop if last is None else start + last
        values = np.empty(stop - start - first, self._dtypes[c])
        self._fill(values, base + (start + first) * self._dtypes[c].itemsize)
        return values

    def _words(self, first: int, n: int) -> RowNumbers:
        values = np.empty(n, np.int64)
        self._fill(values, first * _WORD)
        return values

    def _fill(self, values: np.ndarray[Any, Any], offset: int) -> None:
        data = memoryview(values.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        while len(data):
            got = os.preadv(self._file, [data], offset)
            if not got:
                raise OSError(
                    "a scratch file is shorter than it was written; is the scratch folder full or"
                    " shared?"
                )
            data, offset = data[got:], offset + got
