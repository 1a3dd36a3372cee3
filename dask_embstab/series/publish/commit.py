"""The next version of a series: what it holds besides what is new, and how one of all who try
creates it.

Locks keep gc from what is being published. Where a file system does not carry them to another
machine, and that machine saw no sign of life of this one for a minute, it may have removed a run
between its last chunk and its version. So a version is looked at once more when it is there, and
taken back, loudly, where something that it names is gone.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from dask_embstab.errors import DamageError, RetryError
from dask_embstab.files.published import publishing
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.names import version_key
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.version_file import Details
from dask_embstab.series.log.versions import MOVING, Kind, Version, artifacts
from dask_embstab.series.store import Held, Store, size_of


def next_version(store: Store, log: Log, kind: Kind, settings: Settings, **known: Any) -> Version:
    """The version that follows the log."""
    given: dict[str, Any] = {"store": store, "details": Details(settings=settings.to_dict())}
    version = Version(**given | _follows(log, kind, settings) | known)
    return replace(version, references=log.references_with(version, settings.keep_references))


def again_as(version: Version, log: Log, kind: Kind, settings: Settings, **more: Any) -> Version:
    """The next version with the run of an earlier one."""
    details = replace(version.full_details, settings=settings.to_dict())
    made = replace(version, details=details, **(_follows(log, kind, settings) | more))
    return replace(made, references=log.references_with(made, settings.keep_references))


def _follows(log: Log, kind: Kind, settings: Settings) -> dict[str, Any]:
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


def create_version(store: Store, version: Version, lock: Held | None = None) -> None:
    """Create the version's file; one of all who try for this number wins. The one before is made
    durable first.

    What the version needs was made under ``lock``. Raises `RetryError` where another process was
    quicker, or removed what this one had made.
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
            _withdraw_unless_whole(store, version)
    except FileExistsError:
        raise RetryError(
            f"version {version.version} was published by another process meanwhile, so the parent"
            " has changed; call again (what need not be fitted anew is kept)"
        ) from None


def _withdraw_unless_whole(store: Store, version: Version) -> None:
    """Remove the version, which has just been created, where a file that was made for it is gone.

    Raises `RetryError` then, `DamageError` where others have followed on it already.
    """
    missing = _missing(store, version)
    if missing is None:
        return
    key, after = version_key(version.version), version_key(version.version + 1)
    why = f"{missing} was removed by another process while it was published"
    if size_of(store, after) is None:
        store.remove(key)
        if size_of(store, after) is None:
            raise RetryError(f"{why}; version {version.version} was withdrawn; call again")
        store.create(key, version.encoded())  # a log has no gaps
    raise DamageError(
        f"{why}; version {version.version} cannot be withdrawn, since others follow on it; roll"
        " back to one before it"
    )


def _missing(store: Store, version: Version) -> str | None:
    """A file that was made for this version and is not there."""
    made = [version.at(place, {}) for place in version.moved.values()]
    made += [version] if version.kind == "publish" else []
    listed: list[str | None] = [stored.digests_file for stored in made] + [
        version.basis.get("file") if version.kind in MOVING else None
    ]
    there = {f"{folder}/{name}" for folder in ("digests", "bases") for name in store.names(folder)}
    for key in filter(None, listed):  # what tells which files a run has, first
        if key not in there and size_of(store, key) is None:
            return key
    files = [key for stored in made for key, _, _ in artifacts(stored)]
    for run in dict.fromkeys("/".join(key.split("/")[:2]) for key in files):
        there |= {f"{run}/{path}" for path in store.files(run)}
    return next((key for key in files if key not in there and size_of(store, key) is None), None)
