"""Rows that are paired by a list of ids: a view of the run's listed rows, one per pair, and where
each of them has its partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import TooFewMatchedError
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.tables.ids.id_pairs import IdPairs, ids_of_kind
from dask_embstab.tables.ids.kinds import hashable
from dask_embstab.tables.ids.row_index import SparseIndex
from dask_embstab.tables.read.views import Gathered
from dask_embstab.tables.table import Table


def pair_listed(
    table: Table, reference: Table, pairs: IdPairs, lags: Sequence[Table] = ()
) -> tuple[Table, Pairing, list[Pairing]]:
    """A view of the run's listed rows, its pairing with the reference, and with each of ``lags``.

    A pair that is repeated counts once; pairs whose first id the run does not have are left out,
    and without ``lags`` those whose second id the reference does not have. With them such a pair
    stays, as a row without a partner: another table may have its id, and a run that is joined by
    equal ids keeps its new rows too. One read of the ids of each table; the listed rows are
    gathered when the pass runs.

    Raises
    ------
    TooFewMatchedError
        Where no pair is in run and reference.
    """
    import pandas as pd

    ours = pairs.rows_in(table.row_ids, reference=False)
    theirs = [pairs.rows_in(other.row_ids, reference=True) for other in (reference, *lags)]
    if not ((ours >= 0) & (theirs[0] >= 0)).any():
        raise TooFewMatchedError(
            f"no pair of {pairs.where} has its first id in {table.where} ({np.sum(ours >= 0)} of"
            f" {len(ours)} do) and its second in {reference.where} ({np.sum(theirs[0] >= 0)} do);"
            " give the run's ids first"
        )
    named = len(np.unique(ours[ours >= 0]))

    # Ascending rows: every chunk of the run is read in one piece. The last column tells pairs apart
    # whose other id no table has.
    others, _ = pd.factorize(hashable(ids_of_kind(pairs.theirs, reference.row_ids, pairs.where)))
    kept = ours >= 0 if lags else (ours >= 0) & (theirs[0] >= 0)
    ours, *theirs, _ = np.unique(np.stack([ours, *theirs, others], axis=1)[kept], axis=0).T
    view = Gathered(table.source, np.ascontiguousarray(ours))
    pairings = [
        _pairing(table, other, ours, rows, named)
        for other, rows in zip((reference, *lags), theirs, strict=True)
    ]
    return replace(table, source=view, stored_ids=None), pairings[0], pairings[1:]


def _pairing(
    table: Table, reference: Table, ours: RowNumbers, theirs: RowNumbers, named: int
) -> Pairing:
    """Of a view of the rows ``ours`` with the rows ``theirs`` of a table, -1 where it has none."""
    (known,) = np.nonzero(theirs >= 0)
    return Pairing(
        reference.source,
        index=SparseIndex(known, theirs[known]),
        inverse=None,
        matched=len(known),
        new=table.n_rows - len(np.unique(ours[known])),
        unmatched_reference=reference.n_rows - len(np.unique(theirs[known])),
        paired_by="listed pairs",
        listed=named,
    )
