"""Which few shared rows stand for all of them, and how far may the rotation they decide lie from
that of all?

Anchors are the rows with the smallest hash of their id: the same ones in every run, whatever its
order.
"""

from __future__ import annotations

import numpy as np

from dask_embstab.core.scatter import Influence, Scatter
from dask_embstab.core.types import RowNumbers
from dask_embstab.passes.join.pairing import Pairing, used_ranges
from dask_embstab.passes.join.sample import FewRows, RowSample, over_few_rows
from dask_embstab.tables.ids.keys import read_keys
from dask_embstab.tables.ids.row_index import SparseIndex
from dask_embstab.tables.table import Table


def anchor_rows(pairing: Pairing, table: Table, n: int, seed: int) -> RowNumbers:
    """The ``n`` matched rows whose ids have the smallest hashes, ascending."""
    return np.sort(anchor_sample(pairing, table, n, seed).rows)


def anchor_sample(pairing: Pairing, table: Table, n: int, seed: int) -> RowSample:
    """The same with their hashes."""
    sample = RowSample.of(np.empty(0, np.int64), n, seed)
    reader = table.row_ids.open()
    for start, rows in used_ranges(pairing, table.n_rows):
        if len(rows):
            key = read_keys(reader, start, int(rows[-1]) + 1)[rows - start]
            sample += RowSample.of(rows, n, seed, key)
    return sample


def anchor_scatter(table: Table, pairing: Pairing, influence: Influence) -> Scatter:
    """The scatter of the anchors' influence on the rotation; reads these rows of both tables and no
    other.
    """
    assert isinstance(pairing.index, SparseIndex)
    few = FewRows(table.source, pairing.index.rows, pairing.reference, pairing.index.partners)
    return over_few_rows(few, influence, label="fit: anchors").run()
