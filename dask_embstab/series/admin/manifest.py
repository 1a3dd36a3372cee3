"""Which files does a copy of a series need?"""

from __future__ import annotations

from typing import Any

from dask_embstab.series.log.log import Log
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.version_file import FORMAT
from dask_embstab.series.log.versions import artifacts
from dask_embstab.tables.layout import SERIES_MARK


def manifest_of(log: Log, settings: Settings) -> dict[str, Any]:
    """Every version in full, and the keys of all files, as plain values."""
    records = [f"versions/{version.version}.json" for version in log.versions]
    files = [key for version in log.stored.values() for key, _, _ in artifacts(version)]
    files += [*log.digests_files, *log.bases]
    return {
        "format": FORMAT,
        "head": None if log.head is None else log.head.version,
        "settings": settings.to_dict(),
        "versions": [version.without_digests() for version in log.versions],
        "files": [SERIES_MARK, *records, *sorted(files)],
    }
