"""Which series, and which version of one, does a place name?"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from dask_embstab.files.place import local_path
from dask_embstab.files.remote import Url, is_read_only, is_remote, is_url, options_of
from dask_embstab.series.log.mark import store_at
from dask_embstab.series.reader import SeriesReader
from dask_embstab.series.repository.address import is_repository_url
from dask_embstab.tables.layout import SERIES_MARK
from dask_embstab.tables.run import Run


def series_at(place: Any) -> SeriesReader | None:
    """The series in the folder, or below the URL, that a place names, if one is there."""
    return SeriesReader(place) if is_series(place) else None


def named_version(given: Any) -> tuple[SeriesReader, int | None] | None:
    """The series and the version that ``SERIES@3`` or ``SERIES@head`` (None) names; None for
    anything else.
    """
    if not isinstance(given, str | os.PathLike):
        return None
    text, at, version = os.fspath(given).rpartition("@")
    if not at or not (version == "head" or version.isdecimal()):
        return None
    place = Url(text, options_of(given)) if is_url(text) else text
    if (not is_url(text) and os.path.lexists(os.fspath(given))) or not is_series(place):
        return None
    return SeriesReader(place), None if version == "head" else int(version)


def series_version(given: Any) -> Run | None:
    """The run of the version that ``SERIES@3`` or ``SERIES@head`` names; None for anything else."""
    named = named_version(given)
    return None if named is None else named[0].open(named[1])


def is_series(place: Any) -> bool:
    """Whether a series lies at a path or URL."""
    if is_remote(place) or is_repository_url(place):
        if is_remote(place) and is_read_only(place):
            return False
        with contextlib.suppress(FileNotFoundError):
            store_at(place).read(SERIES_MARK)
            return True
        return False
    local = local_path(place) if isinstance(place, str | os.PathLike) else None
    return local is not None and os.path.lexists(local / SERIES_MARK)
