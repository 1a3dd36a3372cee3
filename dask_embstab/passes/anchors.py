"""Which few shared rows stand for all of them, and how far may the rotation they decide lie from that of all?

Anchors are the rows with the smallest hash of their id: the same ones in every run, whatever its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from dask_embstab.core.scatter import Influence, Scatter
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.core.types import RowNumbers
from dask_embstab.passes.blas import ensure_one_thread
from dask_embstab.passes.compute import Graph, compute
from dask_embstab.passes.pairing import Pairing, used_ranges
from dask_embstab.tables.directsource import few_rows
from dask_embstab.tables.idkeys import keyed, mixed
from dask_embstab.tables.rowindex import SparseIndex
from dask_embstab.tables.source import Openable
from dask_embstab.tables.table import Table

_TASK_ROWS = 1 << 15


def anchor_rows(pairing: Pairing, table: Table, n: int, seed: int) -> RowNumbers:
    """The ``n`` matched rows whose ids have the smallest hashes, ascending."""
    salt = mixed(np.array([seed], np.int64).view(np.uint64))
    hashes, kept = np.empty(0, np.uint64), np.empty(0, np.int64)
    ids = table.row_ids
    reader = ids.open()
    for start, rows in used_ranges(pairing, table.n_rows):
        if not len(rows):
            continue
        key = keyed(reader.take(start, int(rows[-1]) + 1), start).key[rows - start]
        hashes, kept = np.append(hashes, mixed(key ^ salt)), np.append(kept, rows)
        if len(kept) > n:
            smallest = np.argpartition(hashes, n - 1)[:n]
            hashes, kept = hashes[smallest], kept[smallest]
    return np.sort(kept)


def anchor_scatter(table: Table, pairing: Pairing, influence: Influence) -> Scatter:
    """The scatter of the anchors' influence on the rotation; reads these rows of both tables and no other."""
    assert isinstance(pairing.index, SparseIndex)
    graph = Graph()
    rows, partners = pairing.index.rows, pairing.index.partners
    keys = [
        graph.read(
            _scatter,
            few_rows(table.source, rows[at : at + _TASK_ROWS]),
            few_rows(pairing.reference, partners[at : at + _TASK_ROWS]),
            len(rows[at : at + _TASK_ROWS]),
            micro_block_rows(table.d),
            influence,
        )
        for at in range(0, len(rows), _TASK_ROWS)
    ]
    (found,) = compute([graph.joined(keys, _sum)], label="fit: anchors", n_tasks=len(keys))
    assert isinstance(found, Scatter)
    return found


def _scatter(block: Openable, reference: Openable, n: int, panel: int, influence: Influence) -> Scatter:
    ensure_one_thread()
    ours, theirs = block.open(), reference.open()
    parts = []
    for start in range(0, n, panel):
        stop = min(start + panel, n)
        parts.append(influence(ours.take(start, stop).astype(np.float64), theirs.take(start, stop).astype(np.float64)))
    return _sum(parts)


def _sum(parts: Sequence[Scatter]) -> Scatter:
    total: Scatter = reduce(add, parts)
    return total
