"""The join of ids that do not fit in memory: spread over parts by key, match part by part, put in row order.

Three passes of tasks over scratch files, each reading and writing every record once. What a task holds is a fixed share of
the memory that the join may take; a part that is much larger than its share can only repeat ids, and is thinned as it
is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import dask
import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.passes.compute import compute
from dask_embstab.passes.joining import Joining
from dask_embstab.passes.match import Duplicates, distinct, match
from dask_embstab.tables.idkeys import Keyed, Texts, joined, keyed
from dask_embstab.tables.ids import IdBlock, Ids, RowNumberIds
from dask_embstab.tables.rowindex import FileIndex
from dask_embstab.tables.spill import Spill

RECORD_BYTES = {"int64": 128, "string": 400, "uuid": 320}
"""What an id of either side takes while it is joined, copies and orders included."""
_DISK_BYTES = {"int64": 64, "string": 160, "uuid": 112}
_MOST_ROWS = 1 << 20
_MOST_PARTS = 1 << 14
_KEY, _ROW, _LENGTH, _BYTE = (np.dtype(t) for t in (np.uint64, np.int64, np.uint32, np.uint8))


@dataclass(frozen=True, slots=True)
class Joined:
    """Both directions of a join, its counts, and what it wrote."""

    index: FileIndex
    inverse: FileIndex
    matched: int
    our_duplicates: Duplicates
    their_duplicates: Duplicates
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Part:
    matched: int
    duplicates: tuple[Duplicates, Duplicates]
    n_bytes: int


def partitioned(ours: Ids | RowNumberIds, theirs: Ids | RowNumberIds, how: Joining) -> Joined:
    """Join ids of one kind, out of core; computes three graphs."""
    sides = (ours, theirs)
    n_ids = len(ours) + len(theirs)
    record = RECORD_BYTES[ours.kind]
    # Duplicates aside, keys spread evenly: a part is as large as its share of all ids.
    n_parts = min(_MOST_PARTS, 1 << max(1, (n_ids * record // how.per_thread)).bit_length())
    rows = max(1024, min(_MOST_ROWS, how.per_thread // record))
    folder = how.scratch.folder(needs=n_ids * _DISK_BYTES[ours.kind])
    columns = (_KEY, _ROW) if ours.kind == "int64" else (_KEY, _ROW, _LENGTH, _BYTE)
    spills, written = _spread(sides, Spill(folder, columns, n_parts, 0), rows)
    pairs = tuple(
        Spill(_made(folder, f"pairs-{name}"), (_ROW, _ROW), max(1, -(-len(ids) // rows)), n_parts)
        for name, ids in zip("ab", sides, strict=True)
    )
    task = dask.delayed(_match_part, pure=False)
    lengths = len(ours), len(theirs)
    limit = 4 * how.per_thread // record
    parts = compute(
        [task(spills, pairs, part, lengths, rows, limit) for part in range(n_parts)], label="ids: matching", n_tasks=0
    )
    indices = tuple(FileIndex(f"{folder}/index-{name}") for name in "ab")
    put = dask.delayed(_put_rows, pure=False)
    compute(
        [
            put(pair, index, block, start, min(start + rows, len(ids)))
            for pair, index, ids in zip(pairs, indices, sides, strict=True)
            for block, start in enumerate(range(0, len(ids), rows))
        ],
        label="ids: row order",
        n_tasks=0,
    )
    for pair in pairs:
        for number in range(n_parts):
            pair.remove(number)
    total = written + sum(part.n_bytes for part in parts) + sum(index.n_bytes for index in indices)
    how.scratch.n_bytes += total
    doubled = [reduce(add, (part.duplicates[side] for part in parts)) for side in (0, 1)]
    return Joined(indices[0], indices[1], sum(part.matched for part in parts), doubled[0], doubled[1], total)


def _spread(sides: Sequence[Ids | RowNumberIds], like: Spill, rows: int) -> tuple[tuple[Spill, Spill], int]:
    """Both sides' records in files cut by key."""
    task = dask.delayed(_spread_rows, pure=False)
    spills, nodes = [], []
    for name, ids in zip("ab", sides, strict=True):
        starts = range(0, len(ids), rows)
        spill = Spill(_made(like.folder, f"ids-{name}"), like.dtypes, like.n_parts, len(starts))
        spills.append(spill)
        nodes += [
            task(ids.block(start, min(start + rows, len(ids))), start, spill, number)
            for number, start in enumerate(starts)
        ]
    return (spills[0], spills[1]), sum(compute(nodes, label="ids: spreading", n_tasks=0))


def _spread_rows(block: IdBlock, start: int, spill: Spill, number: int) -> int:
    """One task: keys of these rows, written by part."""
    records = keyed(block.ids.open().take(block.start, block.stop), start)
    bits = spill.n_parts.bit_length() - 1
    part = (records.key >> np.uint64(64 - bits)).astype(np.uint16) if bits else np.zeros(len(records), np.uint16)
    order = np.argsort(part.astype(np.uint8) if bits <= 8 else part, kind="stable")
    cuts = np.concatenate([[0], np.cumsum(np.bincount(part, minlength=spill.n_parts))])
    columns: list[Any] = [records.key[order], records.row[order]]
    all_cuts = [cuts, cuts]
    if records.texts is not None:
        lengths = records.texts.lengths[order]
        columns += [lengths.astype(np.uint32), records.texts.picked(order)]
        all_cuts += [cuts, np.concatenate([[0], np.cumsum(lengths)])[cuts]]
    return spill.write(number, columns, all_cuts)


def read_part(spill: Spill, part: int, limit: int) -> tuple[Keyed, Duplicates]:
    """Records of one part in row order; from ``limit`` records on, repeated ids are left out as they are read."""
    pieces, doubled, n = [], Duplicates(), 0
    for number in range(spill.n_files):
        columns = spill.read(number, part)
        texts = None
        if len(columns) > 2:
            texts = Texts(np.concatenate([[0], np.cumsum(columns[2], dtype=np.int64)]), columns[3])
        pieces.append(Keyed(columns[0], columns[1], texts))
        n += len(pieces[-1])
        if n > limit:
            kept, more = distinct(joined(pieces))
            pieces, doubled, n = [kept], doubled + more, len(kept)
    return joined(pieces), doubled


def _match_part(
    spills: tuple[Spill, Spill], pairs: tuple[Spill, Spill], part: int, lengths: tuple[int, int], rows: int, limit: int
) -> _Part:
    """One task: the pairs of one part, written in the order of either side."""
    (ours, first), (theirs, second) = (read_part(spill, part, limit) for spill in spills)
    found = match(ours, theirs)
    written = 0
    for pair, n, by, other in zip(pairs, lengths, (found.ours, found.theirs), (found.theirs, found.ours), strict=True):
        block = by // rows
        order = np.argsort(block.astype(np.uint16) if n // rows < 1 << 16 else block, kind="stable")
        cuts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=pair.n_parts))])
        written += pair.write(part, (by[order], other[order]), (cuts, cuts))
    return _Part(len(found.ours), (first + found.our_duplicates, second + found.their_duplicates), written)


def _put_rows(pairs: Spill, index: FileIndex, block: int, start: int, stop: int) -> None:
    """One task: the partners of a range of rows, from every part."""
    partners: RowNumbers = np.full(stop - start, -1, np.int64)
    for number in range(pairs.n_files):
        rows, others = pairs.read(number, block)
        partners[rows - start] = others
    index.put(start, partners)


def _made(folder: str, name: str) -> str:
    (Path(folder) / name).mkdir()
    return f"{folder}/{name}"
