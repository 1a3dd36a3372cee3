"""Which series, and which version of one, does a place name?"""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.files.place import local_path
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.layout import SERIES_MARK
from dask_embstab.tables.run import Run


def series_at(place: Any) -> SeriesReader | None:
    """The series in the folder that a path names, if one is there."""
    if not isinstance(place, str | os.PathLike) or (local := local_path(place)) is None:
        return None
    return SeriesReader(local) if os.path.lexists(local / SERIES_MARK) else None


def named_version(given: Any) -> tuple[SeriesReader, int | None] | None:
    """The series and the version that ``SERIES@3`` or ``SERIES@head`` (None) names; None for
    anything else.
    """
    if not isinstance(given, str | os.PathLike):
        return None
    place, at, version = os.fspath(given).rpartition("@")
    local = local_path(place) if at and (version == "head" or version.isdecimal()) else None
    if local is None or os.path.lexists(os.fspath(given)) or not (local / SERIES_MARK).is_file():
        return None
    return SeriesReader(local), None if version == "head" else int(version)


def series_version(given: Any) -> Run | None:
    """The run of the version that ``SERIES@3`` or ``SERIES@head`` names; None for anything else."""
    named = named_version(given)
    return None if named is None else named[0].open(named[1])
