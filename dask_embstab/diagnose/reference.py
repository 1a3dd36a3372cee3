"""Which rows can a stabilized run be compared with: are those of its reference still there, and in
which space are they read now?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask

from dask_embstab.errors import EmbstabError
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import Url
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.series.log.basis import matrix_of, moved_table, read_run
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.mark import store_at
from dask_embstab.series.log.names import run_key
from dask_embstab.series.log.published import published_reference, published_run
from dask_embstab.series.places import is_series
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.read.source import Openable
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.stores.url_store import UrlStore
from dask_embstab.tables.table import Table

_LEFT_OUT = "The rows are not compared with the reference's: "


def with_reference(run: Run, known: Mapping[str, Any]) -> tuple[Run, Run] | str:
    """The run and its reference in one space, or a note that says why they cannot be compared;
    ``known`` are the diagnostics of the run, whose reference has a path.
    """
    store = _series_of(run)
    pair: tuple[Run, Run] | str
    try:
        if store is not None:
            # What a series holds never changes under its name.
            pair = _in_series(run, known, store, read_log(store))
        elif known.get("rebased"):
            pair = "a rebase moved the run after it was aligned, and its series is not here"
        else:
            reference = open_run(known["reference"]["path"])
            pair = _another(known, reference) or (run, reference)
    except EmbstabError as error:
        pair = f"the reference cannot be read any more: {error}"
    return _LEFT_OUT + pair if isinstance(pair, str) else pair


def _series_of(run: Run) -> Store | None:
    """The series that a stored run lies in."""
    objects = run.group.store
    if isinstance(objects, UrlStore):
        above: Path | str = Url(objects.url.rsplit("/", 2)[0], objects.url.options)
    elif run.path is not None and (local := local_path(run.path)) is not None:
        above = local.parent.parent
    else:
        return None
    return store_at(above) if is_series(above) else None


def _in_series(run: Run, known: Mapping[str, Any], store: Store, log: Log) -> tuple[Run, Run] | str:
    """Both as the series reads them now: a rebase gives each stored run a matrix of its own."""
    reference, stored = known["reference"], log.stored
    places = {store.name(run_key(str(version.run))): version for version in stored.values()}
    ours, theirs = places.get(str(run.path)), stored.get(str(reference.get("name")))
    if (ours is None or theirs is None) and (log.moves or known.get("rebased")):
        return "the series does not hold both any more, and a rebase or a forget came since"
    if theirs is None:
        return run, open_run(reference["path"])
    is_mean = str(reference["path"]).startswith("references/")
    if is_mean and not theirs.has_reference:
        return f"the running reference of {theirs.run} is not kept any more"
    run_then = (published_reference if is_mean else published_run)(store, theirs)
    M = matrix_of(store, theirs)
    items, users = moved_table(run_then.items, M), moved_table(run_then.users, M)
    return run if ours is None else read_run(store, ours), replace(
        run_then, items=items, users=users
    )


def _another(known: Mapping[str, Any], candidate: Run) -> str | None:
    """Why this is not the run that was aligned to, as far as the fit recorded that one."""
    reference = known["reference"]
    differs = []
    if reference.get("name") not in (None, candidate.name):
        differs.append(
            f"its name is {candidate.name}, that of the reference was {reference['name']}"
        )
    if reference.get("stabilized") not in (None, candidate.transform is not None):
        was = "stabilized" if reference["stabilized"] else "as training left it"
        differs.append(f"the reference was {was}, it is not")
    # A series may read a run in another space than its own transform tells.
    origin = None if _series_of(candidate) else reference.get("space")
    if not differs and origin not in (None, space_of_run(candidate).origin):
        differs.append("its vectors are of another space")
    for key in TABLES:
        table: Table | None = getattr(candidate, key)
        figures = known.get(key) or {}
        if table is None or figures.get("matched") is None:
            continue
        unmatched_reference = figures.get("unmatched_reference")
        if figures.get("paired_by") != "listed pairs" and not figures.get("duplicates"):
            n = figures["matched"] + (unmatched_reference or 0)
            if unmatched_reference is not None and n != table.n_rows:
                differs.append(f"it has {table.n_rows} {key}, the reference had {n}")
        digests = figures.get("reference_digests") or []
        whole = digests and len(digests) == -(-table.n_rows // table.chunk_rows)
        if whole and _first(table) not in (None, digests[0]):
            differs.append(f"its {key} are others")
    if not differs:
        return None
    return f"{candidate.where} is another run than the reference was ({'; '.join(differs)})"


def _first(table: Table) -> Any:
    """The digest of the first chunk, from one read of it; None where it has none."""
    stop = min(table.chunk_rows, table.n_rows)
    node = dask.delayed(_digest, pure=False)(table.source.block(0, stop), stop)
    (rows,) = compute([node], label="reference", n_tasks=0)
    return rows


def _digest(block: Openable, n: int) -> int | None:
    reader = block.open()
    reader.take(0, n)
    return reader.digests().get(0)
