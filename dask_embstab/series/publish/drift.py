"""How far has the chain carried this run from where the first run would have put it?

X are the aligned rows and B the first run's rows with the same ids. Aligning the same run to the
first instead gives X R with R the rotation of algorithm 2 for X'B (the balance is the same; unit
rows where directions are aligned), so the difference |X - X R| / |X| follows from the Gramian X'X
and the cross-product X'B: one read of the first run's rows, beside the read that verifies the
aligned ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from operator import add

import numpy as np

from dask_embstab.core.moments import Moments, Panel, unit_pairs
from dask_embstab.core.procrustes import procrustes
from dask_embstab.core.products import gramian
from dask_embstab.errors import IdError
from dask_embstab.passes.engine.reduce import Reduction
from dask_embstab.passes.fit.aligned import AlignedRows
from dask_embstab.passes.fit.reductions import moments_finite_check
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.reference_rows import plan_reference_read
from dask_embstab.series.publish.selecting import Selected
from dask_embstab.tables.run import Run


def pairs_with(
    first: Run, transformed: Run, keys: Sequence[str], chosen: Selected, join: JoinOptions
) -> dict[str, AlignedRows]:
    """The first run's rows that belong to the aligned ones, by table; a table without shared ids is
    left out.
    """
    aligned: dict[str, AlignedRows] = {}
    for key in keys:
        ours, theirs = getattr(transformed, key), getattr(first, key)
        if ours is not None and theirs is not None:
            with contextlib.suppress(IdError):
                table, pairing = chosen.paired(ours, theirs, key, join)
                rows = plan_reference_read(pairing, table, join, label="verify")
                aligned[key] = AlignedRows(table, rows)
    return aligned


def direction_reduction() -> Reduction[Moments]:
    """Gramian of the rows as they are, and the sums over their pairs with both sides scaled to
    length one.
    """
    return Reduction(_with_directions, add, moments_finite_check, n_copies=6)


def _with_directions(panel: Panel) -> Moments:
    d = panel.rows.shape[1]
    G = gramian(panel.rows, family=panel.family)
    return Moments(
        len(panel.rows), d, partnered=G, pairs=unit_pairs(panel, np.eye(d)), zeros=panel.zeros
    )


def chain_minus_first(moments: Mapping[str, Moments]) -> float | None:
    """|X - X R| / |X| over the aligned tables; None where fewer rows than components are shared
    with the first run.
    """
    paired = [m for m in moments.values() if m.pairs is not None]
    shared = sum(m.pairs.n for m in paired if m.pairs is not None)
    if not paired or shared < paired[0].d:
        return None
    k = paired[0].d
    cross = np.zeros((k, k))
    for pairs in (m.pairs for m in paired if m.pairs is not None):
        # A first run that is narrower is padded with zeros, as the fit does.
        cross[:, : pairs.cross.shape[1]] += pairs.cross
    G = sum((m.gramian for m in paired), np.zeros((k, k)))
    away = np.eye(k) - procrustes(cross).Q
    return float(np.sqrt(max(np.trace(away.T @ G @ away), 0.0) / np.trace(G)))
