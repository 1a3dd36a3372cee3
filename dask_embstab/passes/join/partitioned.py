"""The join of ids that do not fit in memory: spread over parts by key, match part by part, put in
row order.

Three passes of tasks over scratch files, each reading and writing every record once. What a task
holds is a fixed share of the memory that the join may take; a part that is much larger than its
share can only repeat ids, and is thinned as it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.sums import Sums, total
from dask_embstab.core.types import RowNumbers
from dask_embstab.passes.engine.graph import Graph
from dask_embstab.passes.join.joined import Joined
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.tables.ids.id_spill import (
    COLUMNS,
    RECORD_BYTES,
    Spread,
    parts_for,
    read_part,
    spread_rows,
)
from dask_embstab.tables.ids.ids import Ids, RowNumberIds
from dask_embstab.tables.ids.match import Duplicates, match
from dask_embstab.tables.ids.row_index import FileIndex
from dask_embstab.tables.ids.scratch_files import below, make_folder
from dask_embstab.tables.ids.spill import Spill
from dask_embstab.tables.inputs import needs_digests

_DISK_BYTES = {"int64": 64, "string": 160, "uuid": 112}
_FEWEST_ROWS, _MOST_ROWS = 1 << 10, 1 << 20
_ROW = np.dtype(np.int64)


@dataclass(frozen=True, slots=True)
class _Part(Sums):
    matched: int
    ours: Duplicates
    theirs: Duplicates
    n_bytes: int


def partitioned(ours: Ids | RowNumberIds, theirs: Ids | RowNumberIds, join: JoinOptions) -> Joined:
    """Join ids of one kind, out of core; computes three graphs."""
    sides, lengths = (ours, theirs), (len(ours), len(theirs))
    record, share = RECORD_BYTES[ours.kind], join.per_thread
    n_parts = parts_for(sum(lengths), record, share)
    most = max(_FEWEST_ROWS, min(_MOST_ROWS, share // record))
    rows = tuple(_in_chunks(ids, most) for ids in sides)
    blocks = [
        [(start, min(start + size, n)) for start in range(0, n, size)]
        for n, size in zip(lengths, rows, strict=True)
    ]
    folder = join.scratch.folder(needs=sum(lengths) * _DISK_BYTES[ours.kind])
    spills = [
        Spill(make_folder(folder, f"ids-{i}"), COLUMNS[ours.kind], n_parts, len(cuts))
        for i, cuts in enumerate(blocks)
    ]
    pairs = [
        Spill(make_folder(folder, f"pairs-{i}"), (_ROW, _ROW), len(cuts), n_parts)
        for i, cuts in enumerate(blocks)
    ]
    indices = [FileIndex(below(folder, f"index-{i}")) for i in (0, 1)]
    spread = [
        (ids.block(*cut), cut[0], spill, number, side)
        for side, (ids, spill, cuts) in enumerate(zip(sides, spills, blocks, strict=True))
        for number, cut in enumerate(cuts)
    ]
    watched = tuple(ids if needs_digests(ids) else None for ids in sides)
    done: Spread = _sum_of(spread_rows, spread, label="ids: spreading", reads=watched)
    parts = [(spills, pairs, part, lengths, rows, 4 * share // record) for part in range(n_parts)]
    matched: _Part = _sum_of(_match_part, parts, label="ids: matching")
    put = [
        (pair, index, number, *cut)
        for pair, index, cuts in zip(pairs, indices, blocks, strict=True)
        for number, cut in enumerate(cuts)
    ]
    n_put: int = _sum_of(_put_rows, put, label="ids: row order")
    for pair in pairs:
        pair.clear()

    n_bytes = done.n_bytes + matched.n_bytes + n_put
    return Joined(
        index=indices[0],
        inverse=indices[1],
        matched=matched.matched,
        our_duplicates=matched.ours,
        their_duplicates=matched.theirs,
        strategy="partitioned ids",
        n_bytes=n_bytes,
    )


def _in_chunks(ids: Ids | RowNumberIds, most: int) -> int:
    """Rows of a task, ``most`` at most: whole chunks or shards, or equal parts of one, so that few
    are decoded twice.
    """
    if not (chunk := ids.decoded_rows):
        return most
    return most // chunk * chunk if chunk <= most else -(-chunk // -(-chunk // most))


def _sum_of(
    task: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    label: str,
    reads: tuple[Any, ...] = (),
) -> Any:
    """The sum of what these tasks hand on, computed."""
    graph = Graph(label)
    keys = [graph.read(task, *given) for given in arguments]
    return graph.tree(keys, total, reads=reads).run()


def _match_part(
    spills: Sequence[Spill],
    pairs: Sequence[Spill],
    part: int,
    lengths: tuple[int, int],
    rows: tuple[int, ...],
    limit: int,
) -> _Part:
    """One task: the pairs of one part, written in the order of either side."""
    (ours, first), (theirs, second) = (read_part(spill, part, limit) for spill in spills)
    matched = match(ours, theirs)
    written = 0
    for pair, n, size, by, other in zip(
        pairs,
        lengths,
        rows,
        (matched.ours, matched.theirs),
        (matched.theirs, matched.ours),
        strict=True,
    ):
        block = by // size
        order = np.argsort(block.astype(np.uint16) if n // size < 1 << 16 else block, kind="stable")
        cuts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=pair.n_parts))])
        written += pair.write(part, (by[order], other[order]), (cuts, cuts))

    return _Part(
        len(matched.ours),
        first + matched.our_duplicates,
        second + matched.their_duplicates,
        written,
    )


def _put_rows(pairs: Spill, index: FileIndex, block: int, start: int, stop: int) -> int:
    """One task: the partners of a range of rows, from every part; returns their bytes."""
    partners: RowNumbers = np.full(stop - start, -1, np.int64)
    for rows, others in pairs.each(lambda number: pairs.read(number, block)):
        partners[rows - start] = others
    index.put(start, partners)
    return partners.nbytes
