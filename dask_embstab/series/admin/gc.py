"""What may go? Leftovers of publishes that were interrupted and are not at work; never what a
version or a reader holds.

A publish holds the lock of its run's name from before its first chunk until its version is created,
and gc takes the same lock before it looks at the log: what it then finds without a version belongs
to nobody. Locks may not reach every machine, and a candidate that a gate holds waits for somebody
to look at it. So everything of a name stays until the youngest of it is older than a grace period.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from dask_embstab.errors import RetryError
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.series.log.digests import DIGESTS_KEY
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.names import REBASING, candidate_key, reference_key, run_key
from dask_embstab.series.store import Store

DAY, HOUR = 86_400.0, 3600.0
AT_WORK = "another process is at work on it"
_HIDDEN = re.compile(r"\.(?P<name>.+)\.zarr\.[0-9a-f]{12}\.(?:partial|new|trash)")
_LEFT = re.compile(r"\..+\.[0-9a-f]{8,32}\.(tmp|partial)")
"""A small file that was being written; any other hidden file is somebody else's."""
_KNOWN = re.compile(
    r"(?P<folder>.+)/\.(?P<run>.+\.zarr)\.(?:items|users)\.(?:ids|distinct)-[0-9a-f]{16}"
)
"""What is known of a run's ids lies beside it: an index of them, the mark that none is repeated."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What gc ``removed``, and what it ``left`` although no version needs it: keys, and why."""

    removed: list[str]
    left: dict[str, str]


@contextlib.contextmanager
def pin(store: Store, run: str) -> Iterator[None]:
    """While a reader is at it, gc leaves this run alone, whatever becomes of its version."""
    key = f"pins/{uuid.uuid4().hex}.json"
    store.create(key, json.dumps({"run": run}).encode())
    try:
        yield
    finally:
        store.remove(key)


def collect(store: Store, *, pin_age: float, grace: float) -> Collected:
    """Remove what no version needs and was last changed more than ``grace`` seconds ago; readers'
    pins older than ``pin_age`` seconds have ended.

    What belongs to one name goes together or not at all: a candidate without its run, or a run
    without its candidate, would be of no use. Ages are told by the file system's clock.
    """
    removed, left = _swept(store, pin_age, grace), dict[str, str]()
    needed = _needed(read_log(store))
    files, locked = _by_name(store), _locked(store)
    for name in sorted(files.keys() | locked):
        unneeded = [key for key in files.get(name, ()) if _owner(key) not in needed]
        if not unneeded and name not in locked:
            continue
        try:
            with store.transaction() as changed, changed.lock(name) as lock:
                gone: list[str] = []
                needed = _needed(read_log(changed))
                ages = _ages(changed, (key for key in unneeded if _owner(key) not in needed))
                for key in ages:
                    why = _why_left(changed, key, min(ages.values()), grace)
                    if why is not None or not lock.is_held():
                        left[key] = why or AT_WORK
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        changed.remove(key)
                        gone.append(key)
            removed += gone
        except RetryError:
            left |= dict.fromkeys(unneeded, AT_WORK)
    return Collected(removed, left)


def _ages(store: Store, keys: Iterator[str]) -> dict[str, float]:
    """How long ago each was changed; without those that are gone by now."""
    ages = {}
    for key in keys:
        with contextlib.suppress(FileNotFoundError):
            ages[key] = store.age(key)
    return ages


def _why_left(store: Store, key: str, age: float, grace: float) -> str | None:
    """Why something that no version needs stays all the same; None where it may go."""
    if age < grace > 0:  # a clock that was set back dates files in the future
        return f"changed {max(age, 0.0):.0f} s ago, within the grace of {grace:.0f} s"
    return "a reader has pinned it" if _is_pinned(store, _owner(key)) else None


def _is_pinned(store: Store, key: str) -> bool:
    """Whether a reader holds this run: asked right before it would go."""
    return any(key == run_key(name) for name in _pinned(store))


def _needed(log: Log) -> set[str]:
    """The runs of all versions where they are stored now, their running references, digests, the
    matrices of rebases.
    """
    stored = log.stored.values()
    references = {reference_key(v.reference_name) for v in stored if v.has_reference}
    return (
        references
        | {run_key(str(v.run)) for v in stored}
        | log.digests_files.keys()
        | log.bases.keys()
    )


def _pinned(store: Store) -> set[str]:
    """Runs that readers hold."""
    runs = set()
    for name in store.names("pins"):
        if (run := _pin_of(store, name)) is not None:
            runs.add(run)
    return runs


def _pin_of(store: Store, name: str) -> str | None:
    """The run that a reader holds by a file among the pins; None where it is none, or its reader
    has just ended.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        run = parsed_json(store.read(f"pins/{name}"))["run"]
        return run if isinstance(run, str) and not name.startswith(".") else None
    return None


def _by_name(store: Store) -> dict[str, list[str]]:
    """Everything that a publish of each name may have left: its candidate, its run, its hidden
    folders.
    """
    names: dict[str, list[str]] = {}
    entries = [
        (entry, f"{folder}/{entry}")
        for folder in ("runs", "references")
        for entry in store.names(folder)
    ]
    for entry, key in entries:
        hidden, owner = _HIDDEN.fullmatch(entry), _owner(key).rpartition("/")[2]
        if not hidden and (owner.startswith(".") or not owner.endswith(".zarr")):
            continue  # not ours
        name = hidden["name"] if hidden else owner.removesuffix(".zarr")
        names.setdefault(name, []).append(key)
    for entry in store.names("digests"):
        if named := DIGESTS_KEY.fullmatch(f"digests/{entry}"):
            names.setdefault(named["name"], []).append(named[0])
    if bases := store.names("bases"):
        names[REBASING] = [f"bases/{entry}" for entry in bases]
    for name in store.folders("candidates"):
        names.setdefault(name, []).extend(
            f"candidates/{name}/{entry}" for entry in store.names(f"candidates/{name}")
        )
        names[name].append(candidate_key(name))
    return {name: list(dict.fromkeys(keys)) for name, keys in names.items()}


def _locked(store: Store) -> set[str]:
    """Names with a lock, also of a process that was killed or could not remove it: whoever takes it
    removes it.
    """
    return {
        entry.removesuffix(".lock") for entry in store.names("locks") if entry.endswith(".lock")
    }


def _owner(key: str) -> str:
    """The run for whose sake something is there: itself, or the one whose ids it tells of."""
    known = _KNOWN.fullmatch(key)
    return f"{known['folder']}/{known['run']}" if known else key


def _swept(store: Store, pin_age: float, grace: float) -> list[str]:
    """Old pins, and small files that nobody can be writing any more: half-written for a day."""
    removed = []
    for folder in ("pins", "versions", "digests", "bases", "attempts"):
        for name in store.names(folder):
            key = f"{folder}/{name}"
            with contextlib.suppress(FileNotFoundError):
                ours = _LEFT.fullmatch(name) or (
                    folder == "pins" and _pin_of(store, name) is not None
                )
                if ours and store.age(key) > (pin_age if name[0] != "." else max(DAY, grace)):
                    store.remove(key)
                    removed.append(key)
    return removed
