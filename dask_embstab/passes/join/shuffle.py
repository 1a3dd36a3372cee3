"""The reference's vectors in the run's order, each read once and written once: for references in
unrelated orders.

One task per range of reference rows reads it in order, sorts what it needs by row of the run, and
writes one scratch file cut into slabs of run rows; whoever reads a slab takes its piece of every
file. So the run's pass finds its partners in order, and its sums are those of equal order bit for
bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_embstab.core.tree import micro_block_rows
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.core.zero_rows import zero_rows
from dask_embstab.passes.engine.graph import Graph
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.ids.keys import stable_order
from dask_embstab.tables.ids.row_index import RowIndex, StepIndex
from dask_embstab.tables.ids.spill import Spill, SpillReader
from dask_embstab.tables.read.direct_source import few_rows
from dask_embstab.tables.read.source import Digests, Openable

_ROW = np.dtype(np.int64)
_PANEL = 4096
"""Reference rows that are read at a time."""


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Reference rows in scratch files, cut into slabs of ``slab_rows`` rows of the run."""

    spill: Spill
    slab_rows: int

    def open(self, start: int, stop: int) -> ShuffledReader:
        """Read the partners of rows ``start`` to ``stop``."""
        return ShuffledReader(self, start, stop)


@dataclass(frozen=True, slots=True)
class Scan:
    """What reading reference rows found: their energy (sum of squares), that of the unmatched ones
    and how many of these are zero.

    ``digests`` of the chunks read; ``n_bytes`` written.
    """

    energy: float = 0.0
    unmatched_energy: float = 0.0
    unmatched_zero_rows: int = 0
    digests: Digests = field(default_factory=dict)
    n_bytes: int = 0

    def read_digests(self) -> tuple[Digests]:
        """Of the reference's chunks."""
        return (self.digests,)


def scan_reference(
    pairing: Pairing, join: JoinOptions, *, n_rows: int, label: str, move: bool
) -> tuple[Shuffled | None, Scan]:
    """One read of the whole reference: its energy and, where ``move`` asks for it, its rows in the
    run's order.
    """
    source = pairing.reference
    n, d = source.shape
    row_bytes, share = d * source.dtype.itemsize, join.per_thread
    # A task takes whole chunks where they fit, else a part of one.
    rows, chunk_rows = max(1, share // (4 * row_bytes)), source.chunk_rows
    rows = chunk_rows * (rows // chunk_rows) if rows >= chunk_rows else rows
    shuffled = None
    if move:
        panel = micro_block_rows(d)
        slab = max(panel, share // (8 * row_bytes) // panel * panel)
        folder = join.scratch.folder(needs=pairing.matched * (row_bytes + _ROW.itemsize))
        column = np.dtype((source.dtype, (d,)))
        shuffled = Shuffled(Spill(folder, (_ROW, column), -(-n_rows // slab), -(-n // rows)), slab)
    inverse = pairing.inverse or StepIndex(pairing.matched)
    graph = Graph(label)
    keys = [
        graph.read(
            _scan,
            source.block(start, stop := min(start + rows, n)),
            start,
            stop,
            inverse.part(start, stop),
            shuffled,
            number,
            pairing.unmatched_reference,
        )
        for number, start in enumerate(range(0, n, rows))
    ]
    return shuffled, graph.tree(keys, _sum, reads=(source,)).run()


def _scan(
    block: Openable,
    start: int,
    stop: int,
    inverse: RowIndex,
    to: Shuffled | None,
    number: int,
    gone: int,
) -> Scan:
    """One task: these reference rows, a panel at a time, each to its place in the order of
    the run.
    """
    reader = block.open()
    partner = inverse.take(start, stop)
    wanted = np.flatnonzero(partner >= 0)
    order = stable_order(partner[wanted])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    sums, unmatched_zero_rows = [0.0, 0.0], 0
    moved: Rows | None = None
    at = 0
    for first in range(start, stop, _PANEL):
        last = min(first + _PANEL, stop)
        rows = reader.take(first, last)
        taken = wanted[at : np.searchsorted(wanted, last - start)] - (first - start)
        if gone:
            sums[0] += _energy(rows)
            lost = rows[partner[first - start : last - start] < 0]
            sums[1] += _energy(lost)
            unmatched_zero_rows += len(zero_rows(lost))
        if to is not None:
            moved = np.empty((len(wanted), rows.shape[1]), rows.dtype) if moved is None else moved
            moved[place[at : at + len(taken)]] = rows if len(taken) == len(rows) else rows[taken]
        at += len(taken)

    n_bytes = 0
    if to is not None and moved is not None:
        targets = partner[wanted[order]]
        cuts = np.searchsorted(targets, np.arange(to.spill.n_parts + 1) * to.slab_rows)
        n_bytes = to.spill.write(number, (targets, moved), (cuts, cuts))

    return Scan(sums[0], sums[1], unmatched_zero_rows, reader.digests(), n_bytes)


def _energy(rows: Rows) -> float:
    flat = rows.astype(np.float64).ravel()
    with np.errstate(all="ignore"):
        return float(flat @ flat)


def scan_unmatched(pairing: Pairing, *, label: str) -> Scan:
    """Energy and rows of zeros of the unmatched reference rows; reads these alone."""
    inverse = pairing.inverse or StepIndex(pairing.matched)
    n = pairing.reference.shape[0]
    graph, keys = Graph(label), []
    for start in range(0, n, ID_RANGE):
        stop = min(start + ID_RANGE, n)
        rows = start + np.flatnonzero(inverse.take(start, stop) < 0)
        if len(rows):
            keys.append(graph.read(_scan_gathered, few_rows(pairing.reference, rows), len(rows)))

    scan: Scan = graph.tree(keys, _sum).run()
    return scan


def _scan_gathered(block: Openable, n: int) -> Scan:
    rows = block.open().take(0, n)
    return Scan(unmatched_energy=_energy(rows), unmatched_zero_rows=len(zero_rows(rows)))


def _sum(scans: Sequence[Scan]) -> Scan:
    digests: Digests = {}
    for scan in scans:
        digests.update(scan.digests)
    return Scan(
        sum(scan.energy for scan in scans),
        sum(scan.unmatched_energy for scan in scans),
        sum(scan.unmatched_zero_rows for scan in scans),
        digests,
        sum(scan.n_bytes for scan in scans),
    )


class ShuffledReader:
    """Holds the partners of one slab's rows (of those its task reads) at a time."""

    def __init__(self, shuffled: Shuffled, start: int, stop: int) -> None:
        self._from, self._range = shuffled, (start, stop)
        self._slab = -1
        self._first = 0
        column = shuffled.spill.dtypes[1]
        self._rows: Rows = np.empty((0, *column.shape), column.base)
        self._has = np.empty(0, bool)

    def take(self, start: int, stop: int) -> tuple[Rows, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Partners of rows ``start`` to ``stop``, row by row, and which of them there are; valid
        until the next call.
        """
        size = self._from.slab_rows
        pieces = []
        while start < stop:
            slab = start // size
            end = min(stop, (slab + 1) * size)
            self._load(slab)
            piece = slice(start - self._first, end - self._first)
            pieces.append((self._rows[piece], self._has[piece]))
            if end < stop:  # the next slab is read into the same place
                pieces[-1] = (pieces[-1][0].copy(), pieces[-1][1].copy())
            start = end

        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([rows for rows, _ in pieces]), np.concatenate(
            [has for _, has in pieces]
        )

    def _load(self, slab: int) -> None:
        if slab == self._slab:
            return

        spill, size = self._from.spill, self._from.slab_rows
        first, last = max(slab * size, self._range[0]), min((slab + 1) * size, self._range[1])
        if len(self._rows) < last - first:
            self._rows = np.empty((last - first, *self._rows.shape[1:]), self._rows.dtype)
        self._has = np.zeros(last - first, bool)

        def piece(number: int) -> tuple[RowNumbers, Rows]:
            with SpillReader(spill, number, slab) as reader:
                targets = reader.column(0)
                low, high = (int(i) for i in np.searchsorted(targets, (first, last)))
                return targets[low:high] - first, reader.column(1, low, high)

        for mine, rows in spill.each(piece):
            self._rows[mine] = rows
            self._has[mine] = True

        self._slab, self._first = slab, first
