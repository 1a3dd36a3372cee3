"""What shall be landed, on what, by which matrices? Made durable before the first chunk is written.

A publish that was interrupted goes on from its candidate: the same transform, so the same bits, and
the chunks that are there already stay. A candidate of another plan (another parent, other settings,
a run that was delivered anew) is dropped.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.files.npz import read_npz
from dask_embstab.passes.digest import ids_digest
from dask_embstab.passes.fit.driver import fit_tables
from dask_embstab.passes.fit.options import Selection
from dask_embstab.passes.fit.reference import balance_for
from dask_embstab.passes.transform_run import resolve_keep
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.consensus import aligned_on
from dask_embstab.series.publish.selecting import Selected
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.transform import Transform


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan (plain JSON values that must be equal for the transform to serve) and its
    transform.
    """

    plan: dict[str, Any]
    transform: Transform


def held_key(name: str) -> str:
    """Where the verdicts on a run lie that is held."""
    return f"candidates/{name}/held.json"


def candidate_key(name: str) -> str:
    """Where the candidate of a run lies until it is published."""
    return f"candidates/{name}/candidate.npz"


def candidate_of(
    store: Store,
    source: Run,
    name: str,
    reference: Version | None,
    lagged: Mapping[int, Version],
    selected: Selected,
    settings: Settings,
) -> Candidate:
    """The stored candidate where it is of this very plan, else a new one, fitted and stored."""
    plan = {
        "run": name,
        "source": {"path": source.path, "tables": described(source)},
        "reference": None if reference is None else reference.run,
        "running_reference": None if reference is None else reference.reference_at,
        "lags": {str(gap): version.run for gap, version in lagged.items()},
        "selected": selected.recorded,
        "basis": None if reference is None else reference.basis.get("file"),
        "settings": {name: value for name, value in settings.to_dict().items() if name != "gates"},
    }
    stored = _stored(store, name)
    if stored is not None and stored.plan == plan:
        return stored
    store.remove(held_key(name))  # what was said of another plan
    made = Candidate(plan, _fitted(store, source, reference, lagged, selected, settings))
    store.replace(candidate_key(name), _encoded(made))
    return made


def described(source: Run) -> dict[str, dict[str, Any]]:
    """What tells one delivery of a run from another before its vectors are read; its ids are."""
    tables = {key: table for key in TABLES if (table := getattr(source, key)) is not None}
    return {
        key: {
            "rows": table.n_rows,
            "components": table.d,
            "dtype": str(table.dtype),
            "chunk_rows": table.chunk_rows,
            "written": table.written,
            "ids": ids_digest(table),
        }
        for key, table in tables.items()
    }


def _fitted(
    store: Store,
    source: Run,
    version: Version | None,
    lagged: Mapping[int, Version],
    selected: Selected,
    settings: Settings,
) -> Transform:
    raw = version is None and settings.first_run == "raw"
    reference = None if version is None else aligned_on(store, version, lagged, settings)
    # The length of a consensus row is what it weighs: unit rows times lengths are the sums that are
    # landed on.
    by_runs = reference is not None and settings.policy == "consensus" and settings.units
    options = settings.fitting(
        keep="geometry" if raw else resolve_keep(settings.keep, users=source.users),
        rank=None if raw else settings.rank,
        width=settings.width,
        balance=balance_for(settings.balance, reference),
        selections={
            name: replace(selected.selections.get(name, Selection()), times_norm=by_runs)
            for name in settings.aligned
        },
    )
    return fit_tables(source.table("items"), source.users, reference, options)


def _encoded(candidate: Candidate) -> bytes:
    file = io.BytesIO()
    header = json.dumps(
        {"plan": candidate.plan, "diagnostics": dict(candidate.transform.diagnostics)}
    )
    arrays: dict[str, Any] = {"header": np.array(header), **candidate.transform.arrays()}
    np.savez(file, **arrays)
    return file.getvalue()


def _stored(store: Store, name: str) -> Candidate | None:
    """None where there is no candidate, or none that can be read: it is made again."""
    try:
        arrays = read_npz(io.BytesIO(store.read(candidate_key(name))))
        header = json.loads(str(arrays.pop("header")))
        return Candidate(header["plan"], Transform.from_arrays(arrays, header["diagnostics"]))
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
    ):
        return None
