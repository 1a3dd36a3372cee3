"""Ids spread over parts by their keys, for whatever must bring equal ones together without holding
all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.sums import Sums
from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.ids.ids import IdBlock
from dask_embstab.tables.ids.keys import Keyed, joined, keyed, read_keyed, read_keys
from dask_embstab.tables.ids.kinds import IdKind, digest_of_ids
from dask_embstab.tables.ids.match import Duplicates, distinct
from dask_embstab.tables.ids.spill import Spill
from dask_embstab.tables.ids.texts import Keys, laid_out
from dask_embstab.tables.inputs import ALL_IDS, ID_DIGESTS, needs_digests
from dask_embstab.tables.read.source import Digests

RECORD_BYTES: dict[IdKind, int] = {"int64": 128, "string": 256, "uuid": 256}
"""What an id takes while it is joined or sorted, copies and orders included."""
_KEY, _ROW, _LENGTH, _BYTE = (np.dtype(t) for t in (np.uint64, np.int64, np.uint32, np.uint8))
_HASHED = (_KEY, _ROW, _LENGTH, _BYTE)
COLUMNS: dict[IdKind, tuple[np.dtype[Any], ...]] = {
    "int64": (_KEY, _ROW),
    "string": _HASHED,
    "uuid": _HASHED,
}
_MOST_PARTS = 1 << 14


def parts_for(n_ids: int, record_bytes: int, memory: int) -> int:
    """Parts (a power of two) so that one of them fits in ``memory``: repeated ids aside, keys
    spread evenly.
    """
    return min(_MOST_PARTS, 1 << (n_ids * record_bytes // memory).bit_length())


@dataclass(frozen=True, slots=True)
class Spread(Sums):
    """Bytes that were written, and the digests of the ids of both sides, where their places do not
    tell them.
    """

    n_bytes: int
    ours: int
    theirs: int

    def read_digests(self) -> tuple[Digests, Digests]:
        """Of the ids of both sides."""
        return {ALL_IDS: self.ours % ID_DIGESTS}, {ALL_IDS: self.theirs % ID_DIGESTS}


def spread_rows(
    block: IdBlock, start: int, spill: Spill, number: int, side: int = 0, *, cells: bool = True
) -> Spread:
    """Keys of these rows (the first is row ``start`` of its table, of that ``side``), written as
    file ``number``; with them what tells texts apart (`Texts.in_cells`), or without ``cells`` the
    texts as they are.
    """
    reader, digest = block.ids.open(), 0
    if needs_digests(block.ids):
        ids = reader.take(block.start, block.stop)
        records, digest = keyed(ids, start, cells=cells), digest_of_ids(ids, start)
    else:
        records = read_keyed(reader, block.start, block.stop, start, cells=cells)
    order, cuts = _by_part(records.key, spill.n_parts)
    columns: list[Any] = [records.key[order], records.row[order]]
    all_cuts = [cuts, cuts]
    if records.texts is not None:
        texts = records.texts.moved(order)
        ends = np.append(0, texts.begin + texts.length)
        columns += [texts.length.astype(np.uint32), texts.data[: ends[-1]]]
        all_cuts += [cuts, ends[cuts]]

    return Spread(spill.write(number, columns, all_cuts), *((0, digest) if side else (digest, 0)))


def spread_keys(block: IdBlock, spill: Spill, number: int) -> int:
    """The keys of these rows alone, written as file ``number``; returns its bytes."""
    keys = read_keys(block.ids.open(), block.start, block.stop)
    order, cuts = _by_part(keys, spill.n_parts)
    return spill.write(number, [keys[order]], [cuts])


def _by_part(keys: Keys, n_parts: int) -> tuple[RowNumbers, RowNumbers]:
    """The order that groups keys by their first bits, and where each part begins."""
    bits = n_parts.bit_length() - 1
    part = (
        (keys >> np.uint64(64 - bits)).astype(np.uint16) if bits else np.zeros(len(keys), np.uint16)
    )
    order = np.argsort(part.astype(np.uint8) if bits <= 8 else part, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(part, minlength=n_parts))])


def read_part(spill: Spill, part: int, limit: int) -> tuple[Keyed, Duplicates]:
    """Records of one part in row order; from ``limit`` records on, repeated ids are left out as
    they are read.
    """
    kept: list[Keyed] = []
    pieces: list[list[np.ndarray[Any, Any]]] = []
    doubled, n = Duplicates(), 0
    for piece in spill.each(lambda number: spill.read(number, part)):
        pieces.append(piece)
        n += len(piece[0])
        if n > limit:
            one, more = distinct(joined([*kept, _records(pieces)]))
            kept, pieces, doubled, n = [one], [], doubled + more, len(one)

    return joined([*kept, _records(pieces)] if pieces else kept), doubled


def _records(pieces: list[list[np.ndarray[Any, Any]]]) -> Keyed:
    """Records of the columns of several files, one after the other."""
    keys, rows, *texts = zip(*pieces, strict=True)
    laid = None
    if texts:
        lengths, data = texts
        laid = laid_out(np.concatenate(lengths).astype(np.int64), *data)
    return Keyed(np.concatenate(keys), np.concatenate(rows), laid)
