"""Rows that are paired by a list of ids: views of the listed rows of both tables, side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dask_embstab.errors import TooFewMatchedError
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.tables.ids.id_pairs import IdPairs
from dask_embstab.tables.read.views import Gathered
from dask_embstab.tables.table import Table


def pair_listed(table: Table, reference: Table, pairs: IdPairs) -> tuple[Table, Pairing]:
    """A view of the run's listed rows, and their pairing, row by row, with a view of the
    reference's.

    Pairs with an id that one of the tables does not have are left out; a pair that is repeated
    counts once. One read of the ids of either table; the listed rows are gathered when the pass
    runs.

    Raises
    ------
    TooFewMatchedError
        Where no pair is left.
    """
    ours = pairs.rows_in(table.row_ids, reference=False)
    theirs = pairs.rows_in(reference.row_ids, reference=True)
    known = (ours >= 0) & (theirs >= 0)
    if not known.any():
        raise TooFewMatchedError(
            f"no pair of {pairs.where} has its first id in {table.where} ({np.sum(ours >= 0)} of"
            f" {len(ours)} do) and its second in {reference.where} ({np.sum(theirs >= 0)} do); give"
            " the run's ids first"
        )

    # Ascending rows: every chunk of the run is read in one piece.
    ours, theirs = np.unique(np.stack([ours[known], theirs[known]], axis=1), axis=0).T
    view = replace(
        table, source=Gathered(table.source, np.ascontiguousarray(ours)), stored_ids=None
    )
    return view, Pairing(
        Gathered(reference.source, np.ascontiguousarray(theirs)),
        index=None,
        inverse=None,
        matched=len(ours),
        new=table.n_rows - len(np.unique(ours)),
        unmatched_reference=reference.n_rows - len(np.unique(theirs)),
        paired_by="listed pairs",
        listed=True,
    )
