"""What is written into a file of a table: rows with their ids and their numbers, a panel at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.tables.ids.kinds import IdArray, IdKind

_GROUP_BYTES, _GROUP_ROWS = 16 * 2**20, 1 << 17


class Panel(NamedTuple):
    """Row ``numbers`` in the table, their ids, and their vectors in the dtype that is written."""

    numbers: RowNumbers
    ids: IdArray
    rows: Rows


Panels = Iterable[Panel]


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What the files of one table are: vectors of ``d`` components (0: ids alone) in ``dtype``,
    ids of a kind; ``where`` is what messages call the table, ``provenance`` JSON for files that
    have room for it.
    """

    format: str
    d: int
    dtype: np.dtype[Any]
    ids: IdKind
    where: str
    vectors_as: str = "list"
    formulas: bool = False
    provenance: str = "{}"
    metric: str = "dot"

    @property
    def group_rows(self) -> int:
        """Rows that are read and written at a time: a power of two near 16 MiB, whatever the
        chunks.
        """
        row_bytes = max(1, self.d * self.dtype.itemsize)
        return min(_GROUP_ROWS, 1 << max(0, (_GROUP_BYTES // row_bytes).bit_length() - 1))


class Room(NamedTuple):
    """At most so many ``rows`` come, with ids of at most so many ``characters``."""

    rows: int
    characters: int


WriteFile = Callable[[FileSpec, Path, Panels, Room], None]
"""Write the files of one part: ``stem`` and a suffix each."""


def grouped(panels: Panels, size: int) -> Iterator[Panel]:
    """The same rows in panels of ``size`` rows, but for the last one."""
    held: list[Panel] = []
    n = 0
    for panel in panels:
        if not held and len(panel.ids) == size:
            yield panel
            continue
        held.append(Panel(panel.numbers, panel.ids, panel.rows.copy()))  # its memory is used again
        n += len(panel.ids)
        while n >= size:
            whole = joined(held)
            yield Panel(*(part[:size] for part in whole))
            held, n = [Panel(*(part[size:] for part in whole))], n - size
    if n:
        yield joined(held)


def joined(panels: list[Panel]) -> Panel:
    """One panel of several."""
    if len(panels) == 1:
        return panels[0]
    return Panel(*(np.concatenate(parts) for parts in zip(*panels, strict=True)))
