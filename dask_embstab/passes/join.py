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

import dask
import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.passes.compute import compute
from dask_embstab.passes.joining import Joining
from dask_embstab.tables.ids import Ids, RowNumberIds
from dask_embstab.tables.idspill import COLUMNS, RECORD_BYTES, parts_for, read_part, spread_rows
from dask_embstab.tables.match import Duplicates, match
from dask_embstab.tables.rowindex import FileIndex
from dask_embstab.tables.spill import Spill

_DISK_BYTES = {"int64": 64, "string": 160, "uuid": 112}
_FEWEST_ROWS, _MOST_ROWS = 1 << 10, 1 << 20
_ROW = np.dtype(np.int64)


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
    n_parts = parts_for(n_ids, record, how.per_thread)
    rows = max(_FEWEST_ROWS, min(_MOST_ROWS, how.per_thread // record))
    folder = how.scratch.folder(needs=n_ids * _DISK_BYTES[ours.kind])
    spills, written = _spread(sides, Spill(folder, COLUMNS[ours.kind], n_parts, 0), rows)
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
    doubled = [reduce(add, (part.duplicates[side] for part in parts)) for side in (0, 1)]
    return Joined(indices[0], indices[1], sum(part.matched for part in parts), doubled[0], doubled[1], total)


def _spread(sides: Sequence[Ids | RowNumberIds], like: Spill, rows: int) -> tuple[tuple[Spill, Spill], int]:
    """Both sides' records in files cut by key."""
    task = dask.delayed(spread_rows, pure=False)
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
