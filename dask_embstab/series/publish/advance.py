"""Step 6 of a publish: advance the consensus. The running mean with the run in it is written
beside the one before; what an interrupted call left serves where it was made of the very same
files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import partial

from dask_embstab.passes.running_mean import Aging, Mean, advance, never_seen, view_of
from dask_embstab.series.log.names import reference_key
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.publish.candidate import Candidate
from dask_embstab.series.publish.consensus import Consensus
from dask_embstab.series.publish.delivery import Delivery
from dask_embstab.series.publish.files import made_of, resumed_run
from dask_embstab.series.publish.readback import Readback
from dask_embstab.series.publish.selecting import Selected
from dask_embstab.series.store import Store
from dask_embstab.tables.run import Run, open_run


@dataclass(frozen=True, slots=True)
class MeanUpdate:
    """The digests of a running reference's files, and by table its rows and how many have
    left it.
    """

    digests: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, dict[str, int | None]] = field(default_factory=dict)


def advance_consensus(delivery: Delivery, candidate: Candidate, readback: Readback) -> MeanUpdate:
    """Write the average with the run in it, beside the one before, durable and verified.

    Nothing is written, and nothing returned, where none is kept. Rows that a selection leaves out
    only age.
    """
    store, version, settings = delivery.store, delivery.reference, delivery.settings
    run, rows = readback.run, candidate.selected
    if settings.policy != "consensus" or (version is None and not rows.rows):
        return MeanUpdate()
    # What must be equal for two averages to have the same bits.
    known = [] if version is None else [version.place, dict(version.basis)]
    bits = [
        readback.digests,
        [*known, rows.recorded],
        settings.decay,
        settings.forget_below,
        settings.aligned,
    ]
    origin = hashlib.sha256(json.dumps(bits, sort_keys=True).encode()).hexdigest()[:32]
    key = reference_key(run.name)
    before = delivery.before
    made = made_of(store, key, origin, partial(_write, store, run, before, settings, rows))

    stored, digests = open_run(store.place(key)), {}
    for name in settings.aligned:
        union, now, left = run.table(name).n_rows, stored.table(name).n_rows, None
        if before is None:
            left = union - now
        elif rows.joined(name):  # rows that were in the average before are known
            fitted = candidate.transform.diagnostics[name]
            union += before.mean(name).table.n_rows - fitted["matched"] - fitted.get("returned", 0)
            left = union - now
        digests[name] = {"rows": now, "left": left}
    return MeanUpdate(made, digests)


def _write(
    store: Store,
    transformed: Run,
    before: Consensus | None,
    settings: Settings,
    selected: Selected,
    key: str,
    origin: str,
) -> None:
    tables = {name: selected.counted(transformed, name) for name in settings.aligned}
    if before is None:
        known = {
            name: Mean(view_of(table, never_seen, table.d + 1), None)
            for name, table in tables.items()
        }
    else:
        known = {name: before.mean(name) for name in tables}
    more = {"kind": "reference", "live": {name: table.n_rows for name, table in tables.items()}}
    with resumed_run(store, key, transformed.name, origin, more) as writer:
        means = {name: (table, known[name]) for name, table in tables.items()}
        advance(
            writer,
            means,
            Aging(settings.decay, settings.forget_below),
            duplicates=settings.duplicates,
        )
