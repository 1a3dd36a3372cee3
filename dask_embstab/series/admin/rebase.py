"""All that is stored, moved onto another reference: every score stays, no published file changes.

Every stored run gets a rotation of its own, onto the rows that it shares with the reference: for
standardized runs that is where aligning them to this reference would have put them. A run that
shares too few rows with it moves as its nearest neighbour in the series does, with which it is in
one space already.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.core.codes.row_code import RowCode, turned
from dask_embstab.core.types import Matrix
from dask_embstab.errors import HoldError, InputError, TooFewMatchedError
from dask_embstab.passes.apply import NO_CODES, Codes, plan_apply, write_planned
from dask_embstab.passes.fit.driver import fit_tables
from dask_embstab.passes.fit.reference import Reference, as_reference
from dask_embstab.passes.running_mean import rewrite_means
from dask_embstab.repairs import call
from dask_embstab.series.log.basis import read_matrices, rotation, store_matrices, stored_matrices
from dask_embstab.series.log.codes import stamps, stored_codes
from dask_embstab.series.log.digests import Digests, record_digests
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.names import REBASING, reference_key, run_key
from dask_embstab.series.log.published import published_reference, published_run, transform_of
from dask_embstab.series.log.settings import Settings, settings_in
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.commit import again_as, create_version
from dask_embstab.series.publish.files import made_of, resumed_run
from dask_embstab.series.publish.publish import Added
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.run import Run
from dask_embstab.tables.transform import Transform

LAZILY = (
    "no stored vector changes; whoever opens a version through the series reads rows times one"
    " small matrix, and transforms composed with it. Copies and indexes made of earlier reads hold"
    " vectors of the old space: build them anew"
)
REWRITTEN = (
    "all stored vectors have moved, to new files; the old ones stay until `series gc`. Build"
    " indexes of them anew: rotating the vectors under an IVFFlat index cut its recall from .853 to"
    " .308 until it was rebuilt"
)


Moves = dict[str, Any]


def rebase(store: Store, initial: Settings, onto: Run | int | None, *, rewrite: bool) -> Added:
    """Move all stored runs onto a version's run, onto another run, or (None) back to before the
    last rebase.
    """
    with (
        store.transaction() as store,
        store.lock(REBASING) as lock,
        contextlib.ExitStack() as held,
    ):
        log = read_log(store)
        log.version(None)  # something must be published
        settings = settings_in(log, initial)
        matrices, moves = _back(store, log) if onto is None else _onto(store, log, onto, settings)
        changed = {name: M for name, M in matrices.items() if not _is_identity(M)}
        basis: Moves = {
            "onto": _described(onto),
            "moves": moves,
            "file": None,
            "crc32c": None,
            "applied": rewrite,
        }
        moved: dict[str, Moves] = {}
        if rewrite:
            codes = _moved_codes(store, log, changed)
            moved = {
                name: _rewritten(store, name, located, changed[str(located.run)], codes, held)
                for name, located in log.stored.items()
                if located.run in changed
            }
        made = again_as(
            log.version(None),
            log,
            "rebase",
            settings,
            restores=None,
            basis=basis | store_matrices(store, changed),
            moved=moved,
        )
        create_version(store, made, lock)
    return Added(made, published=True, note=REWRITTEN if rewrite else LAZILY)


def _onto(
    store: Store, log: Log, onto: Run | int, settings: Settings
) -> tuple[dict[str, Matrix], Moves]:
    """Every stored run's rotation onto the reference, by the name under which it is stored."""
    target = log.located(log.with_run(onto)) if isinstance(onto, int) else None
    itself = None if target is None else str(target.run)
    reference = as_reference(onto if target is None else published_run(store, target))
    assert reference is not None
    matrices: dict[str, Matrix] = {}
    moves: Moves = {}
    for name, located in log.stored.items():
        run = published_run(store, located)
        if itself is not None and located.run == itself:
            matrices[itself], moves[name] = np.eye(run.table("items").d), "itself"
            continue
        with contextlib.suppress(TooFewMatchedError):
            fitted = _rotation(run, reference, settings)
            matrices[str(located.run)] = fitted.items
            alignment = fitted.diagnostics["alignment"]
            moves[name] = {key: alignment[key] for key in ("rows", "relative_error")}
    if not matrices:
        raise HoldError(
            "no stored run shares enough rows with the reference, so nothing was moved; take a run"
            " with the ids of the series",
            f"{call('Series.change', min_matched=1)} accepts fewer",
        )
    return _followed(store, log, matrices, moves)


def _rotation(run: Run, reference: Reference, settings: Settings) -> Transform:
    items = run.table("items")
    theirs = [table.d for table in (reference.items, reference.users) if table is not None]
    options = settings.fitting(
        keep="geometry", center=False, rank=None, width=max(items.d, *theirs), balance="rows"
    )
    return fit_tables(items, run.users, reference, options)


def _back(store: Store, log: Log) -> tuple[dict[str, Matrix], Moves]:
    """The matrices that undo the last rebase: those from before it, less what it wrote into the
    runs themselves.
    """
    last = next((v for v in reversed(log.versions) if v.kind == "rebase"), None)
    if last is None:
        raise InputError(
            "there is no rebase to go back from; give the version or the run to rebase onto"
        )
    before = Log(log.versions[: last.version - 1])
    earlier = read_matrices(store, before.basis)
    applied = stored_matrices(store, last.basis) if last.basis["applied"] else {}
    matrices: dict[str, Matrix] = {}
    moves: Moves = {}
    now = log.stored
    for name, then in before.stored.items():
        start = np.eye(published_run(store, now[name]).table("items").d)
        undone = applied[str(then.run)].T if then.run in applied else start
        matrices[str(now[name].run)] = (
            undone @ earlier[str(then.run)] if then.run in earlier else undone
        )
        moves[name] = "back"
    return _followed(store, log, matrices, moves)


def _followed(
    store: Store, log: Log, matrices: dict[str, Matrix], moves: Moves
) -> tuple[dict[str, Matrix], Moves]:
    """With matrices for the runs that have none yet: now they are in one space with their nearest,
    and shall stay so.
    """
    known = {
        located.version: (name, str(located.run))
        for name, located in log.stored.items()
        if located.run in matrices
    }
    now = read_matrices(store, log.basis)
    made = dict(matrices)
    for name, located in log.stored.items():
        if located.run in matrices:
            continue
        nearest, theirs = known[min(known, key=lambda number: abs(number - located.version))]
        d = published_run(store, located).table("items").d
        ours = now.get(str(located.run), np.eye(d))
        step = matrices[theirs] if theirs not in now else now[theirs].T @ matrices[theirs]
        k = min(ours.shape[1], len(step))  # the narrower space is the wider one's first components
        made[str(located.run)] = ours[:, :k] @ step[:k]
        moves[name] = f"as {nearest}"
    return made, moves


def _moved_codes(
    store: Store, log: Log, changed: Mapping[str, Matrix]
) -> dict[tuple[int, int], dict[str, RowCode]]:
    """The codes of the new space, by the version that made them and by width: one for all runs that
    share one now, that of a run that stays or else turned as the last of these runs is; what trains
    nothing is the same anywhere.
    """
    codes: dict[tuple[int, int], dict[str, RowCode]] = {}
    runs = reversed(log.stored.values())
    for located in sorted(runs, key=lambda located: located.run in changed):
        if not (known := located.figures.get("codes")):
            continue
        run = published_run(store, located)
        M = changed.get(str(located.run))
        width = run.table("items").d if M is None else M.shape[1]
        if (at := (known["made"], width)) in codes:
            continue
        codes[at] = {
            key: replace(code, d=width) if M is None or not code.arrays() else turned(code, M)
            for key, code in stored_codes(run).items()
        }
    return codes


def _rewritten(
    store: Store,
    name: str,
    located: Version,
    M: Matrix,
    codes: Mapping[tuple[int, int], Codes],
    held: contextlib.ExitStack,
) -> Moves:
    """A run and the running reference kept with it, written anew in the new space; where they are
    from now on.
    """
    made = (located.figures.get("codes") or {}).get("made", 0)
    coded = codes.get((made, M.shape[1]), NO_CODES)
    read = json.dumps([located.place, stamps(coded)], sort_keys=True).encode() + M.tobytes()
    origin = hashlib.sha256(read).hexdigest()[:32]
    new = f"{name}@{origin[:8]}"
    held.enter_context(store.lock(new))
    digests = made_of(
        store, run_key(new), origin, partial(_write_run, store, located, M, name, coded)
    )
    means: Mapping[str, Any] = {}
    if located.has_reference:
        means = made_of(
            store, reference_key(new), origin, partial(_write_mean, store, located, M, name)
        )
    rewritten = Digests(run=digests, reference=means, inputs=located.inputs)
    return {"run": new, "reference_at": None, **record_digests(store, new, rewritten)}


def _write_run(
    store: Store, located: Version, M: Matrix, name: str, codes: Codes, key: str, origin: str
) -> None:
    source, then = published_run(store, located), rotation(M, {"origin": origin})
    transformed = transform_of(replace(source, then=then), located)
    attributes: Any = dict(source.group["transform"].attrs) | {
        "diagnostics": dict(transformed.diagnostics)
    }
    with resumed_run(store, key, name, origin, {}) as writer:
        write_planned(plan_apply(then, source, None, codes), writer)
        writer.transform(transformed, attributes)


def _write_mean(
    store: Store, located: Version, M: Matrix, name: str, key: str, origin: str
) -> None:
    state = published_reference(store, located)
    more = {
        which: state.attrs[ATTRIBUTE][which]
        for which in ("kind", "live", "forgotten")
        if which in state.attrs[ATTRIBUTE]
    }
    tables = {which: state.table(which) for which in more["live"]}
    with resumed_run(store, key, name, origin, more) as writer:
        rewrite_means(
            writer, tables, {which: state.group[f"{which}/weight"] for which in tables}, M
        )


def _described(onto: Run | int | None) -> Moves | None:
    if onto is None:
        return None
    return (
        {"version": onto, "path": None}
        if isinstance(onto, int)
        else {"version": None, "path": onto.path}
    )


def _is_identity(M: Matrix) -> bool:
    return M.shape[0] == M.shape[1] and bool((np.eye(len(M)) == M).all())
