"""Is everything that a version names still there, now that the version is? If not, it is taken
back, loudly.

Locks keep gc from what is being published. Where a file system does not carry them to another
machine, and that machine saw no sign of life of this one for a minute, it may have removed a run
between its last chunk and its version.
"""

from __future__ import annotations

from dask_embstab.errors import DamageError, RetryError
from dask_embstab.series.log.versions import MOVING, Version, artifacts, version_key
from dask_embstab.series.store import Store


def withdraw_unless_whole(store: Store, version: Version) -> None:
    """Remove the version, which has just been created, where a file that was made for it is gone.

    Raises `RetryError` then, `DamageError` where others have followed on it already.
    """
    missing = _missing(store, version)
    if missing is None:
        return
    key, after = version_key(version.version), f"{version.version + 1}.json"
    why = f"{missing} was removed by another process while it was published"
    if after not in store.names("versions"):
        store.remove(key)
        if after not in store.names("versions"):
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
    there = {
        f"{folder}/{name}"
        for folder in ("digests", "bases", "runs", "references")
        for name in store.names(folder)
    }
    if lost := [key for key in listed if key is not None and key not in there]:
        return lost[0]
    files = [key for stored in made for key, _, _ in artifacts(stored)]
    runs = {"/".join(key.split("/")[:2]) for key in files} & there
    there = {f"{run}/{path}" for run in runs for path in store.files(run)}
    return next((key for key in files if key not in there), None)
