"""Ids that a series must not hold any more: removed from running references and, on request, from
the runs themselves.

What holds one of them is written anew without its rows, durable and verified, under a new name
beside the old files; a version then says where everything is stored (as after a rewriting rebase),
and gc removes the old files with the ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import InputError
from dask_embstab.passes.apply import copy_table
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.write import LinearMap
from dask_embstab.passes.running_mean import rewrite_means
from dask_embstab.repairs import format_message, option
from dask_embstab.series.admin.held_ids import (
    HeldIds,
    attribute,
    listed,
    located,
    spelled_otherwise,
)
from dask_embstab.series.log.basis import read_matrices, store_matrices
from dask_embstab.series.log.codes import stored_codes
from dask_embstab.series.log.digests import Digests, record_digests
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.names import REBASING, reference_key, run_key
from dask_embstab.series.log.published import published_reference, published_run, transform_of
from dask_embstab.series.log.settings import Settings, settings_in
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.commit import again_as, create_version
from dask_embstab.series.publish.files import made_of, resumed_run
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.remaining import Remaining, RemainingColumn, without_rows
from dask_embstab.tables.table import Table

AFTERWARDS = (
    "the old files, and the ids in them, stay on the disk until `series gc`, which leaves what is"
    " younger than its grace (an hour; 0 removes all at once); what else holds them (deliveries,"
    " copies, indexes) is not touched, and a delivery that has such an id brings it back"
)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What came of it: the last version, and whether this call published it.

    ``runs`` and ``references`` were written anew, by run; ``still_in`` are the runs that hold one
    of the ids still, ``unknown`` the ids that nothing in the series held.
    """

    version: Version
    published: bool
    note: str
    table: str | None = None
    runs: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    still_in: tuple[str, ...] = ()
    unknown: tuple[Any, ...] = ()


def forget(
    store: Store, initial: Settings, ids: Any, *, table: str | None, rewrite: bool
) -> Forgotten:
    """Remove ids of one table from what the series keeps; ``rewrite``: from its runs too."""
    wanted = listed(ids)
    with (
        store.transaction() as store,
        store.lock(REBASING) as lock,
        contextlib.ExitStack() as held,
    ):
        log = read_log(store)
        head = log.version(None)  # something must be published
        key, held_ids = located(store, log, wanted, table)
        unknown = tuple(value for value, was in zip(wanted, held_ids.known, strict=True) if not was)
        near = held_ids.similar & set(
            spelled_otherwise([value for value in unknown if isinstance(value, str)])
        )
        affected = [
            one for one in held_ids.held if len(one.reference) or (rewrite and len(one.run))
        ]
        runs = tuple(one.name for one in affected if rewrite and len(one.run))
        still_in = () if rewrite else tuple(one.name for one in held_ids.held if len(one.run))
        if not affected:
            note = _note(len(wanted), unknown, near, runs, (), still_in)
            return Forgotten(
                log.versions[-1],
                published=False,
                note=note,
                still_in=still_in,
                unknown=unknown,
                table=key,
            )

        moved = {
            one.name: _rewritten(store, one, key, held, with_run=one.name in runs)
            for one in affected
        }
        references = tuple(
            one.name
            for one in affected
            if one.located.has_reference and moved[one.name]["has_reference"]
        )
        counts = {
            "table": key,
            "ids": len(wanted) - len(unknown),
            "runs": len(runs),
            "references": len(references),
        }
        made = again_as(
            head,
            log,
            "forget",
            settings_in(log, initial),
            restores=None,
            basis=_basis(store, log, moved),
            moved=moved,
            forgot=counts,
        )
        create_version(store, made, lock)
    note = _note(len(wanted), unknown, near, runs, references, still_in)
    return Forgotten(
        made,
        published=True,
        note=note,
        table=key,
        runs=runs,
        references=references,
        still_in=still_in,
        unknown=unknown,
    )


# --- written anew without them


def _rewritten(
    store: Store, one: HeldIds, key: str | None, held: contextlib.ExitStack, *, with_run: bool
) -> dict[str, Any]:
    """A run and the running reference kept with it without these rows; where they are stored from
    now on.
    """
    located, table = one.located, str(key)
    digest = hashlib.sha256(json.dumps([located.place, table, with_run], sort_keys=True).encode())
    for rows in (one.run, one.reference):
        digest.update(rows.tobytes())
    origin = digest.hexdigest()[:32]
    new = f"{one.name}@{origin[:8]}"
    held.enter_context(store.lock(new))
    recorded = located.recorded
    run, means = recorded.run, recorded.reference
    if with_run:
        run = made_of(store, run_key(new), origin, partial(_write_run, store, one, table))
    rewrites_reference = located.has_reference and (
        len(one.reference) or (with_run and len(one.already))
    )
    if rewrites_reference:
        write = partial(_write_reference, store, one, table, with_run=with_run)
        means = made_of(store, reference_key(new), origin, write)
    digests = Digests(
        run=run, reference=means if located.has_reference else {}, inputs=recorded.inputs
    )
    reference_at = new if rewrites_reference else located.reference_name
    stored_as = new if with_run else str(located.run)
    return {
        **record_digests(store, new, digests),
        "run": stored_as,
        "reference_at": None if reference_at == stored_as else reference_at,
    }


def _write_run(store: Store, one: HeldIds, table: str, key: str, origin: str) -> None:
    source = published_run(store, one.located)
    transform, codes = transform_of(source, one.located), stored_codes(source)
    tables = {which: source.table(which) for which in TABLES if getattr(source, which) is not None}
    tables[table] = _without(tables[table], one.run)
    with resumed_run(store, key, one.name, origin, {}) as writer:
        passes = {}
        for which, columns in tables.items():
            shape: Any = {
                "dtype": columns.dtype,
                "width": columns.d,
                "chunk_rows": columns.chunk_rows,
            }
            shape["code"] = codes.get(which)
            passes[which] = copy_table(writer, which, columns, LinearMap(), **shape, label="forget")
        run_all(passes)
        attributes: Any = dict(source.group["transform"].attrs)
        writer.transform(transform, attributes)


def _write_reference(
    store: Store, one: HeldIds, table: str, key: str, origin: str, *, with_run: bool
) -> None:
    state = published_reference(store, one.located)
    live, forgotten = dict(attribute(state, "live")), dict(attribute(state, "forgotten"))
    tables = {which: state.table(which) for which in live}
    weights: dict[str, Any] = {which: state.group[f"{which}/weight"] for which in live}
    if len(one.reference):
        n_rows, column = tables[table].n_rows, weights[table]
        tables[table] = _without(tables[table], one.reference)
        weights[table] = RemainingColumn(column, Remaining(n_rows, one.reference), column.dtype)
        live[table] -= int(np.searchsorted(one.reference, live[table]))
    # Rows of the run as it will be stored that this reference has no rows for.
    rows = np.union1d(one.already, one.run)
    if with_run:
        n_rows = published_run(store, one.located).table(table).n_rows
        rows = Remaining(n_rows, one.run).now(one.already)
    forgotten[table] = rows.tolist()
    more = {"kind": "reference", "live": live, "forgotten": forgotten}
    with resumed_run(store, key, one.name, origin, more) as writer:
        rewrite_means(writer, tables, weights)


def _without(table: Table, removed: RowNumbers) -> Table:
    if len(removed) == table.n_rows:
        raise InputError(
            f"a table must keep at least one row; {table.where} would have none; leave one of its"
            " ids in, or start a new series"
        )
    return without_rows(table, removed)


def _basis(store: Store, log: Log, moved: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the last rebase recorded, by the names under which the runs are stored now."""
    known = dict(log.basis)
    matrices = read_matrices(store, known)
    if not matrices:
        return known
    now = {
        str(located.run): str(moved[name]["run"])
        for name, located in log.stored.items()
        if name in moved
    }
    return known | store_matrices(store, {now.get(name, name): M for name, M in matrices.items()})


# --- what is said of it


def _note(
    n: int,
    unknown: Sequence[Any],
    near: set[str],
    runs: Sequence[str],
    references: Sequence[str],
    still_in: Sequence[str],
) -> str:
    others = (
        f"it holds ids that are spelled otherwise ({_first(sorted(near))}), which are other ids"
        if near
        else ""
    )
    if not (runs or references or still_in):
        none = "nothing that this series reads holds any of these ids; nothing to do"
        return f"{none}; {others}" if near else none
    written = (
        f"{len(runs)} runs and {len(references)} running references were written anew without them"
    )
    parts = [f"of {n} ids {n - len(unknown)} were found; {written}"]
    if unknown:
        parts.append(f"not found: {_first(unknown)}{'; ' * bool(near)}{others}")
    if still_in:
        anew = format_message(option(rewrite=True))
        parts.append(
            f"{len(still_in)} runs hold some of them as they were published ({_first(still_in)}):"
            f" {anew} too"
        )
    return "; ".join([*parts, *([AFTERWARDS] if runs or references else [])])


def _first(names: Sequence[Any]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more
