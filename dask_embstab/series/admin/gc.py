"""What may go? Leftovers of publishes that were interrupted and are not at work; never what a
version or a reader holds.

A publish holds the lock of its run's name from before its first chunk until its version is created,
and gc takes the same lock before it looks at the log: what it then finds without a version belongs
to nobody. On a series that another machine has worked on as well, locks may not reach all, so what
is younger than a grace period stays.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator

from dask_embstab.errors import RetryError
from dask_embstab.series.log.digests import DIGESTS_KEY
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.versions import REBASING, reference_key, run_key
from dask_embstab.series.publish.candidate import candidate_key
from dask_embstab.series.store import Store

DAY, HOUR = 86_400.0, 3600.0
_HIDDEN = re.compile(r"\.(?P<name>.+)\.zarr\.[0-9a-f]{12}\.(?:partial|new|trash)")
_LEFT = re.compile(r"\..+\.[0-9a-f]{8,32}\.(tmp|partial)")
"""A small file that was being written; any other hidden file is somebody else's."""
_KNOWN = re.compile(
    r"(?P<folder>.+)/\.(?P<run>.+\.zarr)\.(?:items|users)\.(?:ids|distinct)-[0-9a-f]{16}"
)
"""What is known of a run's ids lies beside it: an index of them, the mark that none is repeated."""


@contextlib.contextmanager
def pin(store: Store, run: str) -> Iterator[None]:
    """While a reader is at it, gc leaves this run alone, whatever becomes of its version."""
    key = f"pins/{uuid.uuid4().hex}.json"
    store.create(key, json.dumps({"run": run}).encode())
    try:
        yield
    finally:
        store.remove(key)


def collect(store: Store, *, pin_age: float, grace: float) -> list[str]:
    """Remove what no version needs and return the keys; readers' pins older than ``pin_age``
    seconds have ended.

    Where another machine was at work within the last ``grace`` seconds, what is younger than that
    stays.
    """
    removed = _swept(store, pin_age)
    needed = _needed(read_log(store))
    for name, keys in sorted(_by_name(store).items()):
        if keys and needed.issuperset(map(_owner, keys)):
            continue
        with contextlib.suppress(RetryError), store.lock(name) as lock:
            needed = _needed(read_log(store))
            youngest = grace if store.is_shared(grace) else 0.0
            for key in keys:
                owner = _owner(key)
                with contextlib.suppress(FileNotFoundError):
                    is_young = store.age(key) < youngest
                    if (
                        owner not in needed
                        and not is_young
                        and not _is_pinned(store, owner)
                        and lock.is_held()
                    ):
                        store.remove(key)
                        removed.append(key)
    return removed


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
        run = json.loads(store.read(f"pins/{name}"))["run"]
        return run if isinstance(run, str) and not name.startswith(".") else None
    return None


def _by_name(store: Store) -> dict[str, list[str]]:
    """Everything that a publish of each name may have left: its candidate, its run, its hidden
    folders.
    """
    found: dict[str, list[str]] = {}
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
        found.setdefault(name, []).append(key)
    for entry in store.names("digests"):
        if named := DIGESTS_KEY.fullmatch(f"digests/{entry}"):
            found.setdefault(named["name"], []).append(named[0])
    if bases := store.names("bases"):
        found[REBASING] = [f"bases/{entry}" for entry in bases]
    for entry in store.names("locks"):
        if entry.endswith(".lock"):
            found.setdefault(
                entry.removesuffix(".lock"), []
            )  # of a killed process: whoever takes it removes it
    for name in store.folders("candidates"):
        found.setdefault(name, []).extend(
            f"candidates/{name}/{entry}" for entry in store.names(f"candidates/{name}")
        )
        found[name].append(candidate_key(name))
    return {name: list(dict.fromkeys(keys)) for name, keys in found.items()}


def _owner(key: str) -> str:
    """The run for whose sake something is there: itself, or the one whose ids it tells of."""
    known = _KNOWN.fullmatch(key)
    return f"{known['folder']}/{known['run']}" if known else key


def _swept(store: Store, pin_age: float) -> list[str]:
    """Old pins, and half-written small files that nobody can be writing any more."""
    removed = []
    for folder in ("pins", "versions", "digests", "bases", "attempts"):
        for name in store.names(folder):
            key = f"{folder}/{name}"
            with contextlib.suppress(FileNotFoundError):
                ours = _LEFT.fullmatch(name) or (
                    folder == "pins" and _pin_of(store, name) is not None
                )
                if ours and store.age(key) > (pin_age if name[0] != "." else DAY):
                    store.remove(key)
                    removed.append(key)
    return removed
