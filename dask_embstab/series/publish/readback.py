"""Step 4 of a publish: is the aligned run what it should be? One read of what was written, before
anybody else sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.errors import DamageError, InputChangedError
from dask_embstab.passes.digest import ids_digest
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.fit.reductions import moments_reduction
from dask_embstab.passes.join.options import join_options
from dask_embstab.series.publish.candidate import Candidate
from dask_embstab.series.publish.delivery import Delivery
from dask_embstab.series.publish.drift import chain_minus_first, direction_reduction, pairs_with
from dask_embstab.series.publish.files import run_digests
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Readback:
    """The aligned run, digests of every file, what it was made of, the drift of the chain; of each
    table its singular values, and how many of its rows are zeros.
    """

    run: Run
    digests: dict[str, dict[str, int]]
    inputs: dict[str, Any]
    chain_minus_first: float | None
    spectra: dict[str, list[float]]
    zero_rows: dict[str, int]


def verify(delivery: Delivery, candidate: Candidate) -> Readback:
    """Read the aligned run once, with the first run's rows where the chain is compared with it.

    Raises `DamageError` where a file is not what was written, `InputChangedError` where the input
    has changed meanwhile.
    """
    store, settings = delivery.store, delivery.settings
    transformed = open_run(store.place(delivery.key))
    inputs = _inputs(transformed, candidate)
    tables = {name: table for name in TABLES if (table := getattr(transformed, name)) is not None}
    reduction = direction_reduction() if settings.units else moments_reduction(centred=False)
    first, chosen = delivery.first_run, candidate.selected
    with join_options(duplicates=settings.duplicates) as join:
        pairs = (
            {} if first is None else pairs_with(first, transformed, settings.aligned, chosen, join)
        )
        listed = {name for name, rows in pairs.items() if rows.pairs.pairing.listed}
        passes: dict[tuple[str, bool], Any] = {}
        for name, table in tables.items():
            with_first = pairs[name].pairs if name in pairs and name not in listed else None
            passes[name, False] = reduce_table(table, reduction, label="verify", pairs=with_first)
        for name in listed:  # listed pairs are other rows than the table's
            rows = pairs[name]
            passes[name, True] = reduce_table(
                rows.table, reduction, label="verify: listed pairs", pairs=rows.pairs
            )
        reduced = run_all(passes)
        read = {name: reduced[name, False] for name in tables}
    for name, table in tables.items():
        if ids_digest(table) != candidate.plan["source"]["tables"][name]["ids"]:
            raise DamageError(f"the ids of {table.where} are not those that were written")

    vectors = {name: done.digests for name, done in read.items()}
    digests = run_digests(store, delivery.key, vectors, transformed)
    moments = {name: done.value for name, done in read.items()}
    # Singular values of each table, descending.
    energies = {name: np.linalg.eigvalsh(of.gramian)[::-1] for name, of in moments.items()}
    zero_rows = {name: of.zeros.rows for name, of in moments.items()}
    for name in listed:
        moments[name] = moments[name].with_pairs(reduced[name, True].value.pairs)
    on_first_link = delivery.first is not None and first is None
    return Readback(
        run=transformed,
        digests=digests,
        inputs=inputs,
        chain_minus_first=0.0 if on_first_link else chain_minus_first(moments),
        spectra={name: np.sqrt(np.maximum(e, 0.0)).tolist() for name, e in energies.items()},
        zero_rows=zero_rows,
    )


def is_transformed_by(transformed: Run, transform: Transform) -> bool:
    """Whether the run was made by this very transform."""
    made = transformed.transform
    if made is None or made.arrays().keys() != transform.arrays().keys():
        return False
    return all(
        np.array_equal(array, transform.arrays()[name]) for name, array in made.arrays().items()
    )


def _inputs(transformed: Run, candidate: Candidate) -> dict[str, Any]:
    """What was read: the same by the fit as by the apply, or it was changed between the two."""
    read: Any = dict(transformed.group["transform"].attrs)["digests"]
    tables = {}
    for name, table in candidate.plan["source"]["tables"].items():
        fitted = (candidate.transform.diagnostics.get(name) or {}).get("digests")
        if fitted and fitted != read[name]:
            raise InputChangedError(
                f"an input must stay as it is until it is published; the {name} of"
                f" {candidate.plan['source']['path']} are not what an interrupted call fitted;"
                " nothing was published; add it again"
            )
        tables[name] = {key: value for key, value in table.items() if key != "written"} | {
            "digests": read[name]
        }
    plan = candidate.plan
    return {"path": plan["source"]["path"], "tables": tables, "options": plan["options"]}
