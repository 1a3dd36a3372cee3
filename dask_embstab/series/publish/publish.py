"""fit, apply, verify, publish: how a run comes into a series, and goes on coming after an
interruption.

The order is the whole of it: the transform is durable before the first chunk is written, every
chunk is durable and verified before the version is created, and the version is created by one of
all who try.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dask_embstab.errors import (
    HoldError,
    InputChangedError,
    InputError,
    NotFiniteError,
    RetryError,
    TooFewMatchedError,
)
from dask_embstab.files.place import local_path
from dask_embstab.files.published import publishing
from dask_embstab.passes.digest import table_digests
from dask_embstab.passes.transform_run import transform_run
from dask_embstab.repairs import call
from dask_embstab.series.log.basis import read_run
from dask_embstab.series.log.digests import Digests, record_digests
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.policies import reference_in
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.versions import (
    REBASING,
    Details,
    Kind,
    Version,
    require_model,
    require_run_name,
    run_key,
    version_key,
)
from dask_embstab.series.publish.attempts import attempting
from dask_embstab.series.publish.candidate import (
    Candidate,
    candidate_key,
    candidate_of,
    described,
    held_key,
)
from dask_embstab.series.publish.consensus import advance_consensus
from dask_embstab.series.publish.figures import content_of, delivered, figures_of
from dask_embstab.series.publish.files import ensure_group
from dask_embstab.series.publish.gates import Verdict, held, hold, judge, refused
from dask_embstab.series.publish.planned import narrowed_basis, planned_change
from dask_embstab.series.publish.readback import Checked, check, is_transformed_by
from dask_embstab.series.publish.selecting import Selected, selected
from dask_embstab.series.publish.withdraw import withdraw_unless_whole
from dask_embstab.series.store import Held, Store
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES, recorded
from dask_embstab.tables.run import Run, open_run


@dataclass(frozen=True, slots=True)
class Added:
    """What came of it: the version, and whether this call published it."""

    version: Version
    published: bool
    note: str


def add_run(
    store: Store,
    settings: Settings,
    source: Run,
    *,
    name: str | None,
    model: str | None,
    shadow: bool = False,
    accept: str | None = None,
    planned: bool = False,
    own: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
) -> Added:
    """Publish a run as the next version; a run that is published already is left as it is.

    ``own`` are settings of this run alone, ``selection`` `fit`'s options that say which of its rows
    decide. ``planned``: it is the first run of the new model ``model`` (`publish/planned.py`).

    Where a gate holds it, its candidate stays as an interrupted publish leaves it, so that the same
    call with ``accept`` (a reason) publishes it without fitting or writing again.
    """
    name = name or source.name
    model_named = model or model_of(source) or name
    require_run_name(name)
    require_model(model_named)
    with (
        store.lock(name) as lock,
        attempting(store, name, source.where),
        contextlib.ExitStack() as locks,
    ):
        log = read_log(store)
        if name in log.runs:
            added = _again(log.runs[name], source, model)
            _cleared(store, name)
            return added
        if shadow and log.head is None:
            raise InputError(
                "a shadow stands beside a run that is live, and none is yet; add the first run"
                " without shadow"
            )
        recorded_settings = _settled(settings_in(log, settings), log, source, name)
        settings = recorded_settings.changed(own or {})
        _require_free(name, log)
        narrower = None
        if planned and log.head is not None:
            asked = settings.width if own and "width" in own else None
            change = planned_change(
                store, log, source, model_named, settings, recorded_settings, asked
            )
            settings, recorded_settings = change.settings, change.recorded
            if change.narrows:
                change.require_no_shadow(shadow=shadow)
                moving = locks.enter_context(store.lock(REBASING))
                basis = narrowed_basis(store, log, settings, change.width)
                narrower = again_as(
                    log.head, log, "rebase", recorded_settings, restores=None, basis=basis
                )
                log = Log((*log.versions, narrower))  # published with the run, or not at all
        reference = reference_in(log, settings.policy)
        first = _compared(log, reference, settings)
        theirs = _first_run(store, first, reference, settings)
        with _one_delivery(store, source, name):
            with _refusals_hold(name):
                lagged = log.lagged(settings.lags.keys())
                chosen = selected(source, settings, selection or {})
                candidate = candidate_of(store, source, name, reference, lagged, chosen, settings)
                checked = _transformed(store, source, candidate, theirs, chosen)
            transformed = open_run(store.place(run_key(name)))
            verdicts, sampled = _verdicts(
                store, log, source, transformed, checked, chosen, settings
            )
        if held(verdicts) and accept is None:
            store.replace(held_key(name), json.dumps({"run": name, "verdicts": verdicts}).encode())
            raise hold(name, verdicts)
        fitted = candidate.transform.diagnostics
        shared = {
            key: fitted[key]["matched"] + fitted[key].get("returned", 0)
            for key in settings.aligned
            if reference is not None and chosen.joined(key)
        }
        moved = advance_consensus(
            store, transformed, checked.digests, reference, settings, shared, chosen
        )
        chain = 0.0 if first is not None and theirs is None else checked.chain_minus_first
        figures = {
            **_figures(candidate, checked, chain),
            "running_reference": moved.rows or None,
            "sampled": sampled,
        }
        figures["selected"] = dict(chosen.recorded) or None
        details = Details(
            verdicts=verdicts,
            settings=recorded_settings.to_dict(),
            figures=figures,
            spectra=checked.spectra,
        )
        version = next_version(
            store,
            log,
            "publish",
            settings,
            run=name,
            model=model_named,
            reference=None if reference is None else reference.version,
            state="shadow" if shadow else "live",
            accepted=accept if held(verdicts) else None,
            content=content_of(checked.inputs["tables"]),
            details=details,
            **record_digests(
                store,
                name,
                Digests(run=checked.digests, reference=moved.digests, inputs=checked.inputs),
            ),
        )
        if narrower is not None:
            publish(store, narrower, moving)
        publish(store, version, lock)
        with contextlib.suppress(
            OSError
        ):  # what is left is known to be nobody's: the run is published
            _cleared(store, name)
    seen = ", a shadow that readers of the head do not see" if shadow else ""
    return Added(version, published=True, note=f"{name} is version {version.version}{seen}")


@contextlib.contextmanager
def _one_delivery(store: Store, source: Run, name: str) -> Iterator[None]:
    """What was made of a run that changed meanwhile goes again: neither the transform nor the rows
    serve any more.
    """
    try:
        with unchanged(source.items, source.users):
            yield
    except InputChangedError:
        store.remove(run_key(name))
        store.remove(candidate_key(name))
        raise


def _cleared(store: Store, name: str) -> None:
    """Nothing of a publish is left but what it published."""
    store.remove(held_key(name))
    store.remove(candidate_key(name))


def _verdicts(
    store: Store,
    log: Log,
    source: Run,
    transformed: Run,
    checked: Checked,
    chosen: Selected,
    settings: Settings,
) -> tuple[tuple[Verdict, ...], dict[str, dict[str, int]]]:
    """What the gates say of a landed run, beside the run that is live now; over how many sampled
    rows of each table.
    """
    head = None if log.head is None else read_run(store, log.located(log.head))
    figures, sampled = figures_of(log, head, transformed, source, settings, checked, chosen.rows)
    again = delivered(log, transformed.name, checked.inputs["tables"])
    return (
        judge(figures | {"delivered": {"run": float(again is not None)}}, settings.gates),
        sampled,
    )


def next_version(store: Store, log: Log, kind: Kind, settings: Settings, **known: Any) -> Version:
    """The version that follows the log."""
    given: dict[str, Any] = {"store": store, "details": Details(settings=settings.to_dict())}
    return _with_references(log, Version(**given | _next(log, kind, settings) | known), settings)


def again_as(version: Version, log: Log, kind: Kind, settings: Settings, **more: Any) -> Version:
    """The next version with the run of an earlier one."""
    details = replace(version.full_details, settings=settings.to_dict())
    made = replace(version, details=details, **(_next(log, kind, settings) | more))
    return _with_references(log, made, settings)


def _with_references(log: Log, version: Version, settings: Settings) -> Version:
    """The version with the runs whose running references are kept from it on."""
    return replace(version, references=log.references_with(version, settings.keep_references))


def _next(log: Log, kind: Kind, settings: Settings) -> dict[str, Any]:
    return {
        "version": len(log.versions) + 1,
        "kind": kind,
        "parent": None if log.head is None else log.head.version,
        "rebased": log.moves[-1].version if log.moves else None,
        "policy": settings.policy,
        "basis": {},
        "moved": {},
        "forgot": {},
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def publish(store: Store, version: Version, lock: Held | None = None) -> None:
    """Create the version's file; one of all who try for this number wins. The one before is made
    durable first.

    What the version needs was made under ``lock``. It is looked at once more when the version is
    there: where another machine removed it, because its locks and its clock told it that this
    process is gone, the version is withdrawn.
    """
    if version.version > 1:
        store.sync(version_key(version.version - 1))
    if lock is not None and not lock.is_held():
        raise RetryError(
            f"another process has taken over the work on {version.run}; nothing was published; call"
            " again"
        )
    try:
        with publishing(f"version {version.version}"):
            store.create(version_key(version.version), version.encoded())
            withdraw_unless_whole(store, version)
    except FileExistsError:
        raise RetryError(
            f"version {version.version} was published by another process meanwhile, so the parent"
            " has changed; call again (what need not be fitted anew is kept)"
        ) from None


def settings_in(log: Log, initial: Settings) -> Settings:
    """The settings of the last version, or those of ``init``."""
    return Settings.of(log.versions[-1].settings) if log.versions else initial


def _settled(settings: Settings, log: Log, source: Run, name: str) -> Settings:
    """The settings with the mode and the tables that the first run fixed; a run with other tables
    is held.
    """
    tables = [key for key in TABLES if getattr(source, key) is not None]
    first = tables if log.first is None else [key for key in TABLES if log.first.figures.get(key)]
    settled = settings.settled(first)
    wanted = list(TABLES) if settled.tables == "both" else ["items"]
    if tables == wanted:
        return settled
    changes = {"tables": "both"} if tables == list(TABLES) else {"tables": "items"}
    if changes["tables"] == "items":
        changes |= {"keep": "geometry"} if settled.keep == "scores" else {}
        changes |= {"align_on": "items"} if settled.align_on != "items" else {}
    raise HoldError(
        f"{name} is held and not published: every run of this series has {' and '.join(wanted)}; it"
        f" has {' and '.join(tables)}; deliver {' and '.join(wanted)}",
        *(
            [f"{call('Series.change', **changes)} changes what the series holds"]
            if "items" in tables
            else []
        ),
        verdicts=[refused("tables")],
    )


def _compared(log: Log, reference: Version | None, settings: Settings) -> Version | None:
    """The first version, where the run to come is a link of a chain that is to be compared
    with it.
    """
    wanted = reference is not None and settings.policy != "first" and settings.chain_minus_first
    return log.located(log.first) if wanted and log.first is not None else None


def _first_run(
    store: Store, first: Version | None, reference: Version | None, settings: Settings
) -> Run | None:
    """Its run, where the comparison needs another read: on the first link both are one (but for
    lengths of rows).
    """
    alike = settings.units or settings.policy != "consensus"
    if first is None or reference is None or (first.run == reference.run and alike):
        return None
    return read_run(store, first)


@contextlib.contextmanager
def _refusals_hold(name: str) -> Iterator[None]:
    """What cannot be landed for what it holds is held; there is nothing that could be accepted."""
    try:
        yield
    except TooFewMatchedError as error:
        raise _held_by(error, name, "matched") from error
    except NotFiniteError as error:
        raise _held_by(error, name, "finite") from error


def _held_by(error: InputError, name: str, gate: str) -> HoldError:
    message = f"{name} is held and not published: {error.message}"
    return HoldError(message, *error.repairs, verdicts=[refused(gate)])


def _transformed(
    store: Store, source: Run, candidate: Candidate, first: Run | None, chosen: Selected
) -> Checked:
    """The run written (as far as it is not), durable and verified."""
    name = candidate.plan["run"]
    key = run_key(name)
    return ensure_group(
        store,
        key,
        is_ours=lambda left: is_transformed_by(left, candidate.transform),
        write=partial(_write, store.place(key), source, candidate),
        check=lambda transformed: check(store, key, transformed, candidate, first, chosen.rows),
    )


def _write(place: Any, source: Run, candidate: Candidate) -> None:
    transform_run(
        candidate.transform,
        source,
        place,
        name=candidate.plan["run"],
        dtype=candidate.plan["settings"]["dtype"],
        overwrite=False,
        resume=local_path(place) is not None,
        for_series=True,
        inputs=() if source.path is None else (source.path,),
    )


def model_of(run: Run) -> str | None:
    """The model that a run's own attributes name."""
    named = recorded(run.attrs).get("model")
    return None if named is None else str(named)


def _again(version: Version, source: Run, model: str | None) -> Added:
    """The same run once more: nothing to do; other content under a name that is taken is an
    error.
    """
    given = described(source)
    names = list(given)
    for name, digests in zip(
        names, table_digests([source.table(name) for name in names]), strict=True
    ):
        given[name] = {key: value for key, value in given[name].items() if key != "written"} | {
            "digests": digests
        }
    if given != version.inputs["tables"]:
        raise InputError(
            f"{version.run} is published already (version {version.version}), with other content"
            f" than {source.path}; a published run never changes: give this one another name"
        )
    if model not in (None, version.model):
        raise InputError(
            f"{version.run} is published as a run of the model {version.model!r}; {model!r} came"
        )
    seen = (
        "" if version.state == "live" else f" (a shadow: promote {version.version} makes it live)"
    )
    note = f"{version.run} is published already as version {version.version}{seen}; nothing to do"
    return Added(version, published=False, note=note)


def _figures(candidate: Candidate, checked: Checked, chain: float | None) -> dict[str, Any]:
    known: Mapping[str, Any] = candidate.transform.diagnostics
    tables = {
        key: (
            {
                name: known[key].get(name)
                for name in ("rows", "matched", "new", "unmatched_reference", "returned", "lags")
            }
            | {"zero_rows": checked.zero_rows.get(key)}
        )
        for key in ("items", "users")
        if known.get(key)
    }
    named = {name: known.get(name) for name in ("keep", "method", "rank", "balance", "alignment")}
    return {**tables, **named, "chain_minus_first": chain}


def _require_free(name: str, log: Log) -> None:
    """Raise where another run, or its running reference, is stored under this name since it was
    written anew.
    """
    if taken := [
        run for run, place in log.moved.items() if name in (place["run"], place["reference_at"])
    ]:
        raise InputError(
            f"{name} is where the run {taken[0]} was written anew; give this one another name"
        )
