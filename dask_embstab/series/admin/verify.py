"""Is every published version whole? Every file of every run is read and compared with what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from dask_embstab.errors import DamageError
from dask_embstab.passes.digest import FileDigest, file_digests
from dask_embstab.series.log.log import Log
from dask_embstab.series.store import Store

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """How much was read, and what is wrong: one line for every damaged file."""

    versions: int
    runs: int
    files: int
    damage: tuple[str, ...]

    def require_whole(self) -> Verified:
        """Itself; `DamageError` naming the first damaged files."""
        if not self.damage:
            return self
        named = "; ".join(self.damage[:_MOST_NAMED])
        more = f"; and {len(self.damage) - _MOST_NAMED} more" if len(self.damage) > _MOST_NAMED else ""
        raise DamageError(f"{named}{more}. Restore what is named from a copy, or roll back to a whole version")


def verify(store: Store, log: Log) -> Verified:
    """Read every file of every published run and running reference once; candidates are nobody's yet, so not looked at."""
    wanted = [(f"version {version.version}", *file) for version in log.stored.values() for file in version.files]
    wanted += [("rebase", key, "metadata", crc) for key, crc in log.bases.items()]
    keys = [key for _, key, _, _ in wanted]
    found = file_digests(store.blocks, keys)
    damage = [
        f"{whose}: {key} {problem}"
        for (whose, key, kind, crc), digest in zip(wanted, found, strict=True)
        if (problem := _problem(digest, crc, kind)) is not None
    ]
    return Verified(len(log.versions), len(log.runs), len(keys), tuple(damage))


def _problem(digest: FileDigest | None, recorded: int, kind: str) -> str | None:
    if digest is None:
        return "is missing"
    if kind == "metadata":
        return None if digest.whole == recorded else "is not what was published"
    if not digest.checks:
        return "fails its checksum"
    return None if digest.body == recorded else "is not what was published"
