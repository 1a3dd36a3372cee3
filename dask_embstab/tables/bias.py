"""One more component: a softmax or logistic model's bias folded into the tables, so that u.w + b is one dot product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.tables.source import Digests, Openable, Reader, Source


@dataclass(frozen=True, slots=True)
class BiasSource:
    """The rows of ``source`` with one more component: ``bias`` (n,) for items, the number 1.0 for users."""

    source: Source
    bias: Any

    @property
    def array(self) -> Any:
        """A lazy Dask array is not made of this view; its rows are read through the passes."""
        raise NotImplementedError("a table with a folded bias is a view; write it with es.create_run to slice it")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d + 1)."""
        return self.source.shape[0], self.source.shape[1] + 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the rows."""
        return self.source.dtype

    @property
    def chunk_rows(self) -> int:
        """As the rows."""
        return self.source.chunk_rows

    def block(self, start: int, stop: int) -> Any:
        """A block of the rows with its part of the bias."""
        bias = self.bias if isinstance(self.bias, float) else self.bias[start:stop]
        return dask.delayed(BiasBlock, pure=False)(self.source.block(start, stop), bias, start)

    def gather(self, rows: RowNumbers) -> Any:
        """These rows with their biases."""
        bias = self.bias if isinstance(self.bias, float) else np.asarray(self.bias)[rows]
        return dask.delayed(BiasBlock, pure=False)(self.source.gather(rows), bias, 0)


@dataclass(frozen=True, slots=True)
class BiasBlock:
    """What a task opens."""

    block: Openable
    bias: Any
    start: int

    def open(self) -> BiasReader:
        """Start reading."""
        return BiasReader(self.block.open(), self.bias, self.start)


class BiasReader:
    """Appends the bias to every panel."""

    def __init__(self, reader: Reader, bias: Any, start: int) -> None:
        self._reader, self._bias, self._start = reader, bias, start

    def take(self, start: int, stop: int) -> Rows:
        """Rows with one more component."""
        rows = self._reader.take(start, stop)
        out = np.empty((len(rows), rows.shape[1] + 1), rows.dtype)
        out[:, :-1] = rows
        constant = isinstance(self._bias, float)
        out[:, -1] = self._bias if constant else np.asarray(self._bias[start - self._start : stop - self._start])
        return out

    def digests(self) -> Digests:
        """Of the rows without the bias."""
        return self._reader.digests()
