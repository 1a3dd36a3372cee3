"""The `consensus` policy: a run lands on where every id ever seen stands on average, and then moves that average.

The average is kept per version as ``references/<run>.zarr``: a run-format group with the mean of each id's stabilized unit
vectors and its weight, for the tables that are aligned on. The first run's is not stored: it is its own unit rows. So is
that of a head that was published under another policy, or aligned on other tables: from it a new one is started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import zarr

from dask_embstab.core.consensus import decay_of
from dask_embstab.core.errors import DamageError, InputError
from dask_embstab.passes.consensus import Mean, advance, seen_once, unit_rows, view_of
from dask_embstab.passes.reference import Reference, as_reference
from dask_embstab.series.files import whole_digests
from dask_embstab.series.settings import Settings
from dask_embstab.series.store import Store
from dask_embstab.series.versions import Version, reference_key, run_key
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.store import local_path
from dask_embstab.tables.table import Table
from dask_embstab.tables.views import SideBySide, column_source
from dask_embstab.tables.writer import begin_run


@dataclass(frozen=True, slots=True)
class Consensus:
    """The average as of one version; ``state`` is None where it is the run's own unit rows."""

    run: Run
    state: Run | None

    def live(self, key: str) -> int | None:
        """Rows of a table that are the version's run's; None for all of them."""
        return None if self.state is None else int(self.state.attrs[ATTRIBUTE]["live"][key])

    def table(self, key: str) -> Table | None:
        """Its rows, to land on."""
        table: Table | None = getattr(self.state or self.run, key)
        return view_of(table, unit_rows, table.d) if self.state is None and table is not None else table

    def mean(self, key: str) -> Mean:
        """Its rows with their weights, to be moved on."""
        if self.state is None:
            table = self.run.table(key)
            return Mean(view_of(table, seen_once, table.d + 1), None)
        table, group = self.state.table(key), self.state.group[f"{key}/weight"]
        assert isinstance(group, zarr.Array)
        return Mean(replace(table, source=SideBySide(table.source, column_source(group))), self.live(key))


def landed_on(store: Store, version: Version, settings: Settings) -> Reference:
    """What the next run lands on, recorded by its place in the series: a copied series says the same."""
    key = run_key(str(version.run))
    run = open_run(store.place(key))
    found = as_reference(run)
    assert found is not None
    if settings.policy == "consensus":
        known = consensus_of(store, version, settings, run)
        tables: dict[str, Any] = {name: known.table(name) for name in settings.aligned}
        live = {name: n for name in settings.aligned if (n := known.live(name)) is not None}
        found = replace(found, live=live, **tables)
        key = key if known.state is None else reference_key(str(version.run))
    return replace(found, described={**found.described, "path": key})


def consensus_of(store: Store, version: Version, settings: Settings, run: Run) -> Consensus:
    """The average as of a version, opened."""
    if not version.reference_digests:
        return Consensus(run, None)
    state = open_run(store.place(reference_key(str(version.run))))
    return Consensus(run, state if all(getattr(state, key) for key in settings.aligned) else None)


def moved_on(
    store: Store, landed: Run, digests: Mapping[str, Mapping[str, int]], version: Version | None, settings: Settings
) -> dict[str, dict[str, int]]:
    """The average with ``landed`` in it: written, durable, verified. Its files' digests; none where there is none to keep.

    What an interrupted call left serves where it was made of the very same files; what a power cut tore is written anew.
    """
    if settings.policy != "consensus" or version is None:
        return {}
    key, origin = reference_key(landed.name), _origin(digests, version, settings)
    for is_last in (False, True):
        state = _leftover(store, key, origin) or _written(store, key, origin, landed, version, settings)
        for half_written in (file for file in store.files(key) if file.endswith(".partial")):
            store.remove(f"{key}/{half_written}")
        store.sync(key)
        try:
            return whole_digests(store, key, state)
        except DamageError:
            if is_last:
                raise
            store.remove(key)
    raise AssertionError("the second attempt returns or raises")


def _origin(digests: Mapping[str, Any], version: Version, settings: Settings) -> str:
    """What must be equal for two averages to have the same bits."""
    made_of = [digests, version.run, version.digests, version.reference_digests, settings.half_life, settings.aligned]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


def _leftover(store: Store, key: str, origin: str) -> Run | None:
    folder, _, name = key.rpartition("/")
    if name not in store.names(folder):
        return None
    try:
        state = open_run(store.place(key))
        if state.attrs[ATTRIBUTE].get("origin") == origin:
            return state
    except (InputError, DamageError, KeyError):
        pass
    store.remove(key)
    return None


def _written(store: Store, key: str, origin: str, landed: Run, version: Version, settings: Settings) -> Run:
    known = consensus_of(store, version, settings, open_run(store.place(run_key(str(version.run)))))
    tables = {name: landed.table(name) for name in settings.aligned}
    more = {"kind": "reference", "origin": origin, "live": {name: table.n_rows for name, table in tables.items()}}
    store.make(key.rpartition("/")[0])
    place = store.place(key)
    with begin_run(
        place, name=landed.name, fingerprint=origin, resume=local_path(place) is not None, more=more
    ) as writer:
        means = {name: (table, known.mean(name)) for name, table in tables.items()}
        advance(writer, means, decay=decay_of(settings.half_life))
    return open_run(place)
