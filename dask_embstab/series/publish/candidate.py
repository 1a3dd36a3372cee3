"""Step 1 of a publish: the fit. What is aligned, to what, by which matrices, made durable before
the first chunk is written.

A publish that was interrupted goes on from its candidate: the same transform, so the same bits, and
the chunks that are there already stay. A candidate of another plan (another parent, other settings,
a run that was delivered anew) is dropped.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.errors import DamageError
from dask_embstab.files.npz import read_npz
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.passes.fit.driver import fit_tables
from dask_embstab.passes.fit.options import Selection, resolve_keep
from dask_embstab.passes.fit.reference import balance_for
from dask_embstab.passes.join.space import fitted_on, known_origin
from dask_embstab.series.log.names import candidate_key, held_key
from dask_embstab.series.publish.consensus import aligned_on
from dask_embstab.series.publish.delivery import Delivery, described
from dask_embstab.series.publish.selecting import Selected, selected
from dask_embstab.series.store import Store
from dask_embstab.tables.read.limits import physical_memory
from dask_embstab.tables.transform import Transform


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan (plain JSON values that must be equal for the transform to serve), its transform, and
    the rows that decided it.
    """

    plan: dict[str, Any]
    transform: Transform
    selected: Selected


def fit(delivery: Delivery) -> Candidate:
    """The stored candidate where it is of this very plan, else one that is fitted and stored."""
    store, source, settings = delivery.store, delivery.source, delivery.settings
    version, lagged = delivery.reference, delivery.log.lagged(settings.lags.keys())
    rows = selected(source, settings, delivery.request.selection)
    plan = {
        "run": delivery.name,
        "source": {"path": source.path, "tables": described(source)},
        "reference": None if version is None else version.run,
        "running_reference": None if version is None else version.reference_at,
        "lags": {str(gap): before.run for gap, before in lagged.items()},
        "selected": rows.recorded,
        "options": delivery.request.given,
        "basis": None if version is None else version.basis.get("file"),
        "settings": {name: value for name, value in settings.to_dict().items() if name != "gates"},
    }
    known, transform = _stored(store, delivery.name)
    if transform is not None and known == plan:
        return Candidate(plan, transform, rows)
    store.remove(held_key(delivery.name))  # what was said of another plan

    raw = version is None and settings.first_run == "raw"
    reference = (
        None if version is None else aligned_on(store, version, delivery.before, lagged, settings)
    )
    # The length of a consensus row is what it weighs: unit rows times lengths are the sums that are
    # aligned to.
    by_runs = reference is not None and settings.policy == "consensus" and settings.units
    options = settings.fitting(
        keep="geometry" if raw else resolve_keep(settings.keep, users=source.users),
        rank=None if raw else settings.rank,
        width=settings.width,
        balance=balance_for(settings.balance, reference),
        selections={
            name: replace(rows.selections.get(name, Selection()), times_norm=by_runs)
            for name in settings.aligned
        },
    )
    origin = known_origin(source, source.transform)
    transform = fit_tables(source.table("items"), source.users, reference, options)
    transform = fitted_on(source, origin, transform)

    file = io.BytesIO()
    header = json.dumps({"plan": plan, "diagnostics": dict(transform.diagnostics)})
    arrays: dict[str, Any] = {"header": np.array(header), **transform.arrays()}
    np.savez(file, **arrays)
    store.replace(candidate_key(delivery.name), file.getvalue())
    return Candidate(plan, transform, rows)


def _stored(store: Store, name: str) -> tuple[Any, Transform | None]:
    """Plan and transform; None where there is no candidate, or none that can be read: it is made
    again.
    """
    try:
        with store.open(candidate_key(name)) as file:
            # A candidate is as long as its matrices are, which metadata may not be.
            size, most = file.seek(0, os.SEEK_END), physical_memory() // 4
            if size > most:
                raise DamageError(f"a candidate has {size} bytes of {most} at most")
            arrays = read_npz(file)  # by position: what is no archive is not read whole
        header = parsed_json(str(arrays.pop("header")))
        return header["plan"], Transform.from_arrays(arrays, header["diagnostics"])
    except (
        DamageError,
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        KeyError,
    ):
        return None, None
