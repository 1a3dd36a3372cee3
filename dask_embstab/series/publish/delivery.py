"""One delivery of a run: what `Series.add` was asked for, and what the series says of it before
its first step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_embstab.errors import HoldError, InputError
from dask_embstab.passes.digest import ids_digest, table_digests
from dask_embstab.passes.join.queries import QueryLog
from dask_embstab.repairs import call
from dask_embstab.series.log.basis import read_run
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.names import REBASING, run_key
from dask_embstab.series.log.policies import reference_in
from dask_embstab.series.log.settings import Settings, settings_in
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.commit import again_as
from dask_embstab.series.publish.consensus import Consensus, consensus_of
from dask_embstab.series.publish.gates import refused
from dask_embstab.series.publish.planned import narrowed_basis, planned_change
from dask_embstab.series.store import Held, Store
from dask_embstab.tables.layout import TABLES, recorded
from dask_embstab.tables.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of `Series.add`: ``own`` are settings of this run alone, ``selection`` `fit`'s
    options that say which of its rows decide.

    ``planned``: it is the first run of the new model ``model`` (`publish/planned.py`).
    ``refit_code``: a new code is made for it. The gates ask the ``queries`` of a log.
    """

    name: str
    model: str | None = None
    planned: bool = False
    shadow: bool = False
    accept: str | None = None
    refit_code: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    queries: QueryLog | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What this call alone said, as plain values: what a replay gives again. None stands for
        arrays and tables, which are not kept.
        """
        options = {name: value for name, value in self.selection.items() if value is not None}
        named = {name: _plain(value) for name, value in (options | dict(self.own)).items()}
        named |= {"refit_code": True} if self.refit_code else {}
        return named | ({"new_model": self.model} if self.planned else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A run that is to be published as the version after ``log``.

    ``settings`` are those of this run, ``recorded`` those of the runs that follow; ``reference`` is
    the version that it is aligned to, and ``before`` the average as of it, where the policy keeps
    one. ``first`` is the first version, where the chain is compared
    with it, and ``first_run`` its run, where that takes another read. ``narrower`` is the lazy
    rebase that is published with it, where a planned change narrows the space, under ``moving``.
    """

    store: Store
    log: Log
    source: Run
    request: Request
    model: str
    settings: Settings
    recorded: Settings
    reference: Version | None
    before: Consensus | None
    first: Version | None
    first_run: Run | None
    narrower: Version | None
    moving: Held | None

    @property
    def name(self) -> str:
        """Of the run."""
        return self.request.name

    @property
    def key(self) -> str:
        """Where the run is written."""
        return run_key(self.name)


def prepare(
    store: Store,
    log: Log,
    initial: Settings,
    source: Run,
    request: Request,
    locks: contextlib.ExitStack,
) -> Delivery:
    """What the series says of the run, before anything of it but its metadata is read.

    Raises `HoldError` where it has other tables than the series, `InputError` where it cannot be
    published under this name or in this way.
    """
    model = request.model or model_of(source) or request.name
    if request.shadow and log.head is None:
        raise InputError(
            "a shadow needs a live run to be compared with, and there is none yet; add the first"
            " run without shadow"
        )
    recorded_settings = _settled(settings_in(log, initial), log, source, request.name)
    settings = recorded_settings.changed(request.own)
    taken = [
        name for name, at in log.moved.items() if request.name in (at["run"], at["reference_at"])
    ]
    if taken:
        raise InputError(
            f"{request.name} is where the run {taken[0]} was written anew; give this one another"
            " name"
        )

    narrower = moving = None
    if request.planned and log.head is not None:
        asked = settings.width if "width" in request.own else None
        change = planned_change(store, log, source, model, settings, recorded_settings, asked)
        settings, recorded_settings = change.settings, change.recorded
        if change.narrows:
            change.require_no_shadow(shadow=request.shadow)
            moving = locks.enter_context(store.lock(REBASING))
            basis = narrowed_basis(store, log, settings, change.width)
            narrower = again_as(
                log.head, log, "rebase", recorded_settings, restores=None, basis=basis
            )
            log = Log((*log.versions, narrower))  # published with the run, or not at all

    averages = settings.policy == "consensus"
    reference, first, first_run = reference_in(log, settings.policy), None, None
    if settings.policy != "first" and settings.chain_minus_first and reference and log.first:
        first = log.located(log.first)
        # On the first link both are one read (but for lengths of rows).
        alike = settings.units or not averages
        first_run = None if first.run == reference.run and alike else read_run(store, first)
    return Delivery(
        store=store,
        log=log,
        source=source,
        request=request,
        model=model,
        settings=settings,
        recorded=recorded_settings,
        reference=reference,
        before=consensus_of(store, reference, settings) if averages and reference else None,
        first=first,
        first_run=first_run,
        narrower=narrower,
        moving=moving,
    )


def model_of(run: Run) -> str | None:
    """The model that a run's own attributes name."""
    named = recorded(run.attrs).get("model")
    return None if named is None else str(named)


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


def require_same(version: Version, source: Run, model: str | None) -> None:
    """Raise unless a run that is published under this name is the one that came once more."""
    given = described(source)
    digests = table_digests([source.table(name) for name in given])
    for table, digest in zip(given.values(), digests, strict=True):
        del table["written"]
        table["digests"] = digest
    if given != version.inputs["tables"]:
        raise InputError(
            f"{version.run} is published already (version {version.version}), with other content"
            f" than {source.path}; a published run never changes: give this one another name"
        )
    if model not in (None, version.model):
        raise InputError(
            f"{version.run} is published as a run of the model {version.model!r}; {model!r} came"
        )


def _plain(value: Any) -> Any:
    """A number, a text, or a dict of them by table; None for anything else."""
    if isinstance(value, Mapping):
        by_table = {str(key): _plain(one) for key, one in value.items()}
        return None if None in by_table.values() else by_table
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else None


def _settled(settings: Settings, log: Log, source: Run, name: str) -> Settings:
    """The settings with the mode and the tables that the first run fixed; a run with other tables
    is held.
    """
    tables = [key for key in TABLES if getattr(source, key) is not None]
    known = None if log.first is None else log.first.figures
    first = tables if known is None else [key for key in TABLES if known.get(key)]
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
