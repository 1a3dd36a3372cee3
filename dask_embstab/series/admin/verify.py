"""Is every published version whole? Every file of every run is read and compared with what was
recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from dask_embstab.errors import DamageError
from dask_embstab.passes.digest import file_digests, problem, require_none
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.versions import artifacts
from dask_embstab.series.store import Store

_BATCH = 1 << 14
_Wanted = tuple[str, str, str, int]
"""Whose, key, kind, digest."""


@dataclass(frozen=True, slots=True)
class Verified:
    """How much was read, and what is wrong: one line for every damaged file."""

    versions: int
    runs: int
    files: int
    damage: tuple[str, ...]

    def require_whole(self) -> Verified:
        """Itself; `DamageError` naming the first damaged files."""
        require_none(
            self.damage, "Restore what is named from a copy, or roll back to a whole version"
        )
        return self


def verify(store: Store, log: Log) -> Verified:
    """Read every file of every published run and running reference once; candidates are nobody's
    yet, so not looked at.
    """
    damage: list[str] = []
    n_files = 0
    for version in log.versions:
        try:
            version.full_details  # noqa: B018 (what lies behind its checksum may still be no version's)
        except DamageError as error:
            damage.append(f"version {version.version}: {error}")

    now = {
        version.digests_file for version in log.stored.values()
    }  # these are read to know what to compare with
    small = [
        ("digests", key, "metadata", crc)
        for key, crc in log.digests_files.items()
        if key not in now
    ]
    small += [("rebase", key, "metadata", crc) for key, crc in log.bases.items()]
    for batch in _batches(chain(small, _artifacts(log, damage))):
        n_files += len(batch)
        digests = file_digests(store.blocks, [key for _, key, _, _ in batch])
        for (whose, key, kind, crc), digest in zip(batch, digests, strict=True):
            if (wrong := problem(digest, crc, kind)) is not None:
                damage.append(f"{whose}: {key} {wrong}")

    return Verified(len(log.versions), len(log.runs), n_files, tuple(damage))


def _artifacts(log: Log, damage: list[str]) -> Iterator[_Wanted]:
    """Files of one version after another; where they cannot be told, ``damage`` has that
    already.
    """
    for version in log.stored.values():
        try:
            recorded = artifacts(version)
            yield from ((f"version {version.version}", *file) for file in recorded)
        except DamageError as error:
            damage.append(f"version {version.version}: {error}")


def _batches(files: Iterable[_Wanted]) -> Iterator[list[_Wanted]]:
    """Bounded, whatever the series holds."""
    source = iter(files)
    while batch := list(islice(source, _BATCH)):
        yield batch
