"""The `consensus` policy: a run is aligned to the running mean of every id ever seen, and then
moves that average.

The average is kept per version as ``references/<run>.zarr``: a run-format group with the mean of
each id's stabilized unit vectors and its weight, for the tables that are aligned on. The first
run's is not stored: it is its own unit rows. So is that of a head that was published under another
policy, or aligned on other tables: from it a new one is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import zarr

from dask_embstab.core.running_mean import consensus_target, sums
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.passes.fit.reference import Lag, Reference, as_reference
from dask_embstab.passes.running_mean import Mean, seen_once, unit_rows, view_of
from dask_embstab.series.log.basis import matrix_of, moved_table, read_run
from dask_embstab.series.log.names import reference_key, run_key
from dask_embstab.series.log.published import published_reference, published_run
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.read.views import Padded, SideBySide, column_source
from dask_embstab.tables.remaining import without_rows
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import rebased_origin
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Consensus:
    """The average as of one version; ``state`` is None where it is the run's own unit rows.

    Both are as they are stored; ``matrix`` brings them into the space in which they are read.
    """

    run: Run
    state: Run | None
    matrix: Matrix | None
    head_weight: float

    def live(self, key: str) -> int | None:
        """Rows of a table that are the version's run's; None for all of them."""
        return None if self.state is None else int(self.state.attrs[ATTRIBUTE]["live"][key])

    def forgotten(self, key: str) -> RowNumbers:
        """Rows of the version's run, ascending, that the average has no rows for: their ids were
        forgotten.
        """
        known = {} if self.state is None else self.state.attrs[ATTRIBUTE].get("forgotten", {})
        return np.asarray(known.get(key, ()), np.int64)

    def table(self, key: str) -> Table | None:
        """The alignment targets that its rows give (`core.running_mean.consensus_target`)."""
        if self.state is not None and not self.head_weight:
            mean = self.mean(key).table
            return view_of(mean, sums, mean.d - 1)
        table = without_rows(self._rebased(self.run, key), self.forgotten(key))
        head = view_of(table, unit_rows, table.d)
        if self.state is None:
            return head
        mean = self.mean(key).table
        joined = replace(mean, source=SideBySide(mean.source, Padded(head.source, mean.n_rows)))
        return view_of(joined, partial(consensus_target, head_weight=self.head_weight), head.d)

    def mean(self, key: str) -> Mean:
        """Its rows with their weights, to be moved on."""
        if self.state is None:
            table = self._rebased(self.run, key)
            return Mean(view_of(table, seen_once, table.d + 1), None)
        table, weights = self._rebased(self.state, key), self.state.group[f"{key}/weight"]
        assert isinstance(weights, zarr.Array)
        joined = replace(table, source=SideBySide(table.source, column_source(weights)))
        return Mean(joined, self.live(key), weights)

    def _rebased(self, run: Run, key: str) -> Table:
        moved = moved_table(run.table(key), self.matrix)
        assert moved is not None
        return moved


def aligned_on(
    store: Store,
    version: Version,
    known: Consensus | None,
    lagged: Mapping[int, Version],
    settings: Settings,
) -> Reference:
    """What the next run is aligned to, recorded by its place in the series: a copied series says
    the same.

    ``known`` is the average as of this version, where the policy keeps one; ``lagged`` are the
    versions whose gaps to it are to be held.
    """
    key = run_key(str(version.run))
    if known is None:
        run, M = published_run(store, version), matrix_of(store, version)
    else:
        run, M = known.run, known.matrix
    reference = as_reference(run)
    assert reference is not None
    reference = replace(
        reference, items=moved_table(reference.items, M), users=moved_table(reference.users, M)
    )
    if known is not None:
        tables: dict[str, Any] = {name: known.table(name) for name in settings.aligned}
        live = {name: n for name in settings.aligned if (n := known.live(name)) is not None}
        lags = tuple(_lag(store, gap, before, settings) for gap, before in lagged.items())
        reference = replace(reference, live=live, lags=lags, weight=settings.sum_weight, **tables)
        key = key if known.state is None else reference_key(version.reference_name)
    moved = {"space": rebased_origin(version.basis)} if version.basis.get("file") else {}
    return replace(reference, described={**reference.described, **moved, "path": key})


def _lag(store: Store, gap: int, version: Version, settings: Settings) -> Lag:
    """An earlier run as it was published: its unit rows."""
    run = read_run(store, version)
    tables = {name: run.table(name) for name in settings.aligned}
    views = {name: view_of(table, unit_rows, table.d) for name, table in tables.items()}
    return Lag(str(gap), settings.lags[gap], views)


def consensus_of(store: Store, version: Version, settings: Settings) -> Consensus:
    """The average as of a version, opened."""
    run, M = published_run(store, version), matrix_of(store, version)
    state = published_reference(store, version) if version.has_reference else None
    serves = state is not None and all(getattr(state, key) for key in settings.aligned)
    # Where gaps are held the last run is one of the lags, with a weight of its own.
    return Consensus(
        run, state if serves else None, M, 0.0 if settings.gaps else settings.head_weight
    )
