"""How does a task get the reference rows of its rows, a panel at a time: by position, gathered one
by one, or shuffled?
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.passes.engine.paired import Mask, PartnerRows
from dask_embstab.passes.engine.plan import RowRange
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.passes.join.shuffle import (
    Shuffled,
    ShuffledReader,
    scan_reference,
    scan_unmatched,
)
from dask_embstab.tables.ids.row_index import RowIndex
from dask_embstab.tables.read.dask_source import delayed_if_needed
from dask_embstab.tables.read.direct_source import few_rows
from dask_embstab.tables.read.source import Digests, Openable, Reader, Source
from dask_embstab.tables.table import Table

Strategy = Literal["positional", "gather", "shuffle"]
_FEW = 16
_STORED = ("panels", "chunks", "zarr")
"""Access to sources that are read by row number in a task, whatever the order."""


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """A pairing whose reference rows can be read with the run's, and what is known of the
    reference.

    ``unmatched_energy`` is the sum of squares of the reference's rows that have no row in the run,
    ``energy`` that of all (None where the matched rows' own sums will tell it); both None where
    they are not to be known. ``unmatched_zero_rows`` of these rows are zeros, as far as they
    were read.
    """

    pairing: Pairing
    strategy: Strategy
    shuffled: Shuffled | None = None
    unmatched_energy: float | None = None
    energy: float | None = None
    digests: Digests = field(default_factory=dict)
    n_bytes: int = 0
    unmatched_zero_rows: int = 0

    @property
    def reference(self) -> Source:
        """The vectors that the reference rows are of."""
        return self.pairing.reference

    @property
    def n_used(self) -> int:
        """Rows of the table whose reference row is used."""
        return self.pairing.n_used

    def chunk_rows(self) -> int | None:
        """Rows of a reference chunk where both tables are read by position."""
        return self.pairing.reference.chunk_rows if self.strategy == "positional" else None

    def of(self, rows: RowRange) -> Any:
        """What one task is given (`Partners`, or a Dask value that becomes it); None where no row
        has a partner.
        """
        pairing = self.pairing
        chosen = None if pairing.chosen is None else pairing.chosen[rows.start : rows.stop]
        if self.shuffled is not None:
            return ShuffledPartners(self.shuffled, chosen)
        if pairing.index is None:
            stop = min(rows.stop, pairing.reference.shape[0])
            block = pairing.reference.block(rows.start, stop) if stop > rows.start else None
            return (
                None
                if block is None
                else delayed_if_needed(PositionalPartners, block, stop, chosen)
            )

        index = pairing.index.part(rows.start, rows.stop)
        if index.storage == "file":
            return IndexedPartners(pairing.reference, index, chosen)

        partner = index.take(rows.start, rows.stop)
        partner = partner if chosen is None else np.where(chosen, partner, -1)
        wanted = partner[partner >= 0]
        if not len(wanted):
            return None

        gather = (
            pairing.reference.gather if pairing.verified else partial(few_rows, pairing.reference)
        )
        return delayed_if_needed(GatheredPartners, gather(wanted), partner)


def strategy_for(pairing: Pairing, join: JoinOptions) -> Strategy:
    """The cheapest way to read the reference's rows.

    They are gathered where few are wanted, where they ascend (a chunk is read once), or where the
    reference is small enough to stay in the page cache; an unrelated order is shuffled.
    """
    source, index = pairing.reference, pairing.index
    if index is None:
        return "positional"
    if index.storage == "sparse":
        return "gather"

    n, d = source.shape
    # Pieces of a file are decoded from their start on: each task would decode all of them.
    in_pieces = getattr(source, "task_rows", 1) > 1
    fits = not in_pieces and n * d * source.dtype.itemsize <= join.memory // 4
    if pairing.paired_by == "merged ids":
        fits = index.storage != "file" or source.access in _STORED
    elif index.storage == "file":
        fits = False
    return "gather" if fits else "shuffle"


def plan_reference_read(
    pairing: Pairing, table: Table, join: JoinOptions, *, label: str
) -> ReferenceRows:
    """Decide how the reference's rows are read, and move them first where they lie in an unrelated
    order.
    """
    strategy = strategy_for(pairing, join)
    if strategy != "shuffle":
        return ReferenceRows(pairing, strategy, n_bytes=pairing.n_bytes)

    shuffled, scan = scan_reference(
        pairing, join, n_rows=table.n_rows, label=f"{label}: sorting the reference", move=True
    )
    n_bytes = pairing.n_bytes + scan.n_bytes
    energies = scan.unmatched_energy, scan.energy
    return ReferenceRows(
        pairing, strategy, shuffled, *energies, scan.digests, n_bytes, scan.unmatched_zero_rows
    )


def with_energy(
    rows: ReferenceRows, join: JoinOptions, *, weighted: bool, label: str
) -> ReferenceRows:
    """The same with the energy of the unmatched reference rows: they alone are read where they are
    few, else the whole reference.

    Nothing is read where the reference was already, where none is unmatched, where it holds more
    than one run, or where anchors are to spare a read.
    """
    pairing = rows.pairing
    if (
        rows.strategy == "shuffle"
        or not pairing.verified
        or not pairing.unmatched_reference
        or pairing.live is not None
    ):
        return rows

    whole = not weighted and pairing.n_used == pairing.matched
    if whole and pairing.unmatched_reference * _FEW <= pairing.reference.shape[0]:
        scan = scan_unmatched(pairing, label=f"{label}: unmatched reference rows")
        return replace(
            rows,
            unmatched_energy=scan.unmatched_energy,
            unmatched_zero_rows=scan.unmatched_zero_rows,
        )

    _, scan = scan_reference(
        pairing, join, n_rows=0, label=f"{label}: the reference's energy", move=False
    )
    return replace(
        rows,
        unmatched_energy=scan.unmatched_energy,
        energy=scan.energy,
        unmatched_zero_rows=scan.unmatched_zero_rows,
    )


@dataclass(frozen=True, slots=True)
class PositionalPartners:
    """Row i belongs to row i, up to row ``stop``."""

    block: Openable
    stop: int
    chosen: Mask | None

    def open(self, start: int, stop: int) -> PositionalReader:
        """Start reading."""
        del stop
        return PositionalReader(self.block.open(), start, self.stop, self.chosen)


class PositionalReader:
    """Reads the reference by position with the table."""

    def __init__(self, reader: Reader, first: int, end: int, chosen: Mask | None) -> None:
        self._reader, self._first, self._end, self._chosen = reader, first, end, chosen

    def take(self, start: int, stop: int) -> PartnerRows:
        """The next rows."""
        end = max(start, min(stop, self._end))
        if end == start:
            return None
        rows = self._reader.take(start, end)
        if self._chosen is None:
            return rows, None if end == stop else np.arange(start, stop) < end
        return _selected_rows(
            rows, self._chosen[start - self._first : end - self._first], stop - start
        )

    def digests(self) -> Digests:
        """Of what was read."""
        return self._reader.digests()


@dataclass(frozen=True, slots=True)
class GatheredPartners:
    """``block`` holds the partners in order; ``index`` says which of the task's rows have one."""

    block: Openable
    index: RowNumbers

    def open(self, start: int, stop: int) -> GatheredReader:
        """Start reading."""
        del stop
        return GatheredReader(self.block.open(), start, self.index >= 0)


@dataclass(frozen=True, slots=True)
class IndexedPartners:
    """The same where the index lies in a scratch file and is read by the task."""

    source: Source
    index: RowIndex
    chosen: Mask | None

    def open(self, start: int, stop: int) -> GatheredReader:
        """Start reading."""
        has = (index := self.index.take(start, stop)) >= 0
        has = has if self.chosen is None else has & self.chosen
        return GatheredReader(self.source.gather(index[has]).open(), start, has)


class GatheredReader:
    """Takes the gathered rows one after the other."""

    def __init__(self, reader: Reader, first: int, has: Mask) -> None:
        self._reader, self._first, self._has = reader, first, has
        self._taken = 0

    def take(self, start: int, stop: int) -> PartnerRows:
        """The next rows."""
        mask = self._has[start - self._first : stop - self._first]
        n = int(np.count_nonzero(mask))
        if not n:
            return None
        rows = self._reader.take(self._taken, self._taken + n)
        self._taken += n
        return rows, None if n == len(mask) else mask

    def digests(self) -> Digests:
        """Of what was read whole."""
        return self._reader.digests()


@dataclass(frozen=True, slots=True)
class ShuffledPartners:
    """Partners in scratch files, in the order of the run."""

    shuffled: Shuffled
    chosen: Mask | None

    def open(self, start: int, stop: int) -> SlabReader:
        """Start reading."""
        return SlabReader(self.shuffled.open(start, stop), start, self.chosen)


class SlabReader:
    """Takes rows of slabs."""

    def __init__(self, reader: ShuffledReader, first: int, chosen: Mask | None) -> None:
        self._reader, self._first, self._chosen = reader, first, chosen

    def take(self, start: int, stop: int) -> PartnerRows:
        """The next rows."""
        rows, has = self._reader.take(start, stop)
        if self._chosen is not None:
            has = has & self._chosen[start - self._first : stop - self._first]
        return _selected_rows(rows, has, len(has))

    def digests(self) -> Digests:
        """The reference's chunks were read before."""
        return {}


def _selected_rows(rows: Rows, has: Mask, n: int) -> PartnerRows:
    """The rows that are wanted, and the mask for a panel of ``n`` rows."""
    count = int(np.count_nonzero(has))
    if not count:
        return None
    if count == n:
        return rows, None
    mask = has if len(has) == n else np.concatenate([has, np.zeros(n - len(has), bool)])
    return (rows if count == len(rows) else rows[has]), mask
