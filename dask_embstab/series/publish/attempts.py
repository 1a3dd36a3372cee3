"""What became of the last delivery of each name that was not published? Small files beside the log,
which never needs them.

One file per name, written whole: ``started`` before anything is read, then ``held``, ``failed`` or
``interrupted``. A delivery that is published takes it away; a process that was killed leaves
``started``. The last `_MOST` names are kept.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from dask_embstab.errors import HoldError, InputError, RetryError
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.series.log.names import require_run_name
from dask_embstab.series.publish.gates import are_verdicts
from dask_embstab.series.store import Store
from dask_embstab.tables.run import Run
from dask_embstab.tables.store import is_place, place_name

Outcome = Literal["started", "held", "failed", "interrupted"]
_FOLDER = "attempts"
_FILE = re.compile(r"[0-9a-f]{16}\.json")
_MOST = 100
_LONGEST = 2000
_RECORDED = "recorded_by_series"
"""Set on an error whose delivery is recorded under its lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A delivery of ``run`` from ``source``: what became of it ``at`` which time, and why.

    ``acknowledged`` is None, or what a person said about it (possibly nothing): it is shown to
    nobody then.
    """

    run: str
    source: str
    at: str
    outcome: Outcome
    error: str = ""
    message: str = ""
    verdicts: tuple[Mapping[str, Any], ...] = ()
    acknowledged: str | None = None


@contextlib.contextmanager
def attempting(store: Store, run: str, source: str) -> Iterator[None]:
    """Record what becomes of the block, which delivers a run; the lock of its name is held."""
    started = _begun(run, source)
    _record(store, started)
    try:
        yield
    except BaseException as error:
        _record(store, _ended(started, error))
        raise
    with contextlib.suppress(OSError):
        store.remove(_key(run))


class HasStore(Protocol):
    """A series, as far as its deliveries are recorded."""

    @property
    def store(self) -> Store:
        """Where it lives."""


def delivering(
    series: HasStore, run: Any = None, *, name: Any = None, **_: Any
) -> AbstractContextManager[None]:
    """Record an error of the block as a refused delivery of ``run``, which `Series.status` and
    `metrics` show.

    `Series.add` does so itself; this is for what comes before it, such as connecting to a cluster.
    """
    source = place_name(run) if is_place(run) else f"a {type(run).__name__}"
    named = Path(source).name.removesuffix(".zarr")  # also of what cannot be opened
    if isinstance(run, Run):
        source, named = run.where, run.name
    return recording_refusals(series.store, name if isinstance(name, str) else named, source)


@contextlib.contextmanager
def recording_refusals(store: Store, run: str, source: str) -> Iterator[None]:
    """Record an error of the block as a delivery that could not even begin, unless `attempting` has
    recorded it.

    A delivery of the same name that is at work keeps its own record. What ends well takes away what
    was recorded of the same source before its own name could be read.
    """
    try:
        yield
    except BaseException as error:
        if not getattr(error, _RECORDED, False):
            with contextlib.suppress(RetryError, OSError), _locked(store, run):
                _record(store, _ended(_begun(run, source), error))
        raise
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RetryError):
        if _decoded(store.read(_key(run))).source == source[:_LONGEST]:
            with _locked(store, run):
                store.remove(_key(run))


def attempts_in(store: Store) -> dict[str, Attempt]:
    """By name, the last attempt; what is not such a record is left alone."""
    attempts = []
    for name in store.names(_FOLDER):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if _FILE.fullmatch(name):
                attempts.append(_decoded(store.read(f"{_FOLDER}/{name}")))
    return {attempt.run: attempt for attempt in sorted(attempts, key=lambda attempt: attempt.at)}


def set_acknowledged(store: Store, attempt: Attempt, reason: str) -> Attempt:
    """Show an attempt no more; a later delivery of its name is shown again."""
    known = replace(attempt, acknowledged=reason)
    with _locked(store, attempt.run):
        _write(store, known)
    return known


def _begun(run: str, source: str) -> Attempt:
    return Attempt(run=run[:_LONGEST], source=source[:_LONGEST], at=_now(), outcome="started")


def _ended(attempt: Attempt, error: BaseException) -> Attempt:
    outcome: Outcome = "failed"
    if isinstance(error, HoldError):
        outcome = "held"
    elif not isinstance(error, Exception):
        outcome = "interrupted"
    verdicts = error.verdicts if isinstance(error, HoldError) else ()
    setattr(error, _RECORDED, True)
    return replace(
        attempt,
        at=_now(),
        outcome=outcome,
        error=type(error).__name__,
        message=str(error)[:_LONGEST],
        verdicts=verdicts,
    )


def _record(store: Store, attempt: Attempt) -> None:
    """Write it, as far as the disk lets; the delivery itself says what is wrong with that."""
    with contextlib.suppress(OSError, InputError):
        _write(store, attempt)
        if sum(bool(_FILE.fullmatch(name)) for name in store.names(_FOLDER)) > _MOST:
            known = attempts_in(store).values()
            # What somebody has acknowledged is needed least; then what is oldest.
            oldest_first = sorted(
                known, key=lambda attempt: (attempt.acknowledged is None, attempt.at)
            )
            for old in oldest_first[: max(0, len(known) - _MOST)]:
                store.remove(_key(old.run))


def _write(store: Store, attempt: Attempt) -> None:
    if _FOLDER not in store.names(""):
        store.make(_FOLDER)
    store.replace(_key(attempt.run), json.dumps(asdict(attempt)).encode())


def _decoded(data: bytes) -> Attempt:
    values = parsed_json(data)
    known = {field.name: values[field.name] for field in fields(Attempt)}
    dt.datetime.fromisoformat(known["at"])
    verdicts = known["verdicts"]
    if not all(
        isinstance(known[name], str)
        for name in ("run", "source", "at", "outcome", "error", "message")
    ):
        raise TypeError
    if known["outcome"] not in get_args(Outcome) or not are_verdicts(verdicts):
        raise ValueError
    return Attempt(**known | {"verdicts": tuple(verdicts)})


def _key(run: str) -> str:
    """Named by a hash: a name that was refused may be none for a file."""
    return f"{_FOLDER}/{hashlib.sha256(run.encode(errors='surrogatepass')).hexdigest()[:16]}.json"


def _locked(store: Store, run: str) -> AbstractContextManager[Any]:
    """The lock of a name; nobody else delivers what cannot be a name."""
    try:
        require_run_name(run)
    except InputError:
        return contextlib.nullcontext()
    return store.lock(run)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
