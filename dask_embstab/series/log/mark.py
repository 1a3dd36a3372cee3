"""``series.json``: what makes a folder a series, and the settings that were given at ``init``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from dask_embstab.arguments import is_a, offers
from dask_embstab.errors import DamageError, EmbstabError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import (
    Url,
    is_read_only,
    is_remote,
    options_of,
    require_harmless,
)
from dask_embstab.files.stored_json import checksum_of, parsed_json
from dask_embstab.repairs import call
from dask_embstab.series.log.version_file import FORMAT
from dask_embstab.series.objects.prefix import ObjectPrefix
from dask_embstab.series.repository.address import is_repository_url
from dask_embstab.series.store import Folder, Store
from dask_embstab.tables.layout import SERIES_MARK, written_later

if TYPE_CHECKING:
    from dask_embstab.series.log.settings import Settings


_NOT_A_MARK = (ValueError, KeyError, TypeError, AttributeError)


def store_at(place: Any) -> Store:
    """The store of a series that is named by its folder, or given as a store."""
    if is_repository_url(place) or is_a(place, "icechunk", "Repository"):
        from dask_embstab.series.repository.home import InRepository  # arrays: Zarr and NumPy

        return InRepository(place)
    if isinstance(place, str | os.PathLike):
        if (local := local_path(place)) is not None:
            return Folder(local)
        if not is_remote(place) or is_read_only(place):
            raise InputError(
                "a series must lie in a folder or on an object store (s3://, gs://, az://,"
                f" icechunk+s3:// and the like); {place} is another URL; give one of these"
            )
        require_harmless(place)
        return ObjectPrefix(Url(place.rstrip("/"), options_of(place)))
    if is_a(place.store if offers(place, "store") else place, "icechunk", "IcechunkStore"):
        raise InputError(
            "a series commits each version by itself, so it must be given the icechunk.Repository"
            " (or its URL, icechunk+s3://bucket/prefix), on an object store; a session came; give"
            " its repository; runs that are added may be read from sessions"
        )
    if not all(offers(place, verb) for verb in ("names", "read", "create")):
        raise InputError(
            f"a series must be named by the path of its folder; a {type(place).__name__} came"
        )
    store: Store = place
    return store


def create_mark(store: Store, settings: Settings) -> None:
    """Make the store a series; FileExistsError where it is one."""
    values = {"format": FORMAT, "kind": "series", "settings": settings.to_dict()}
    values["crc32c"] = checksum_of(values)
    store.create(SERIES_MARK, json.dumps(values, indent=1, sort_keys=True).encode())


def read_mark(store: Store, place: str) -> Settings:
    """The settings given at ``init``."""
    from dask_embstab.series.log.settings import Settings  # knows what a fit is: a log does not

    values = require_mark(store, place)
    try:
        return Settings.of(values)
    except _NOT_A_MARK as error:
        raise _damaged(place, error) from error


def require_mark(store: Store, place: str) -> Any:
    """The same as plain values, unchecked but for their checksum; an error where there is no
    series.
    """
    try:
        values = parsed_json(store.read(SERIES_MARK))
        if values.pop("crc32c") != checksum_of(values):
            raise ValueError("it fails its checksum")
        if isinstance(format_ := values["format"], int) and format_ > FORMAT:
            raise written_later(f"the series at {place}", format_, known=FORMAT)
        return values["settings"]
    except EmbstabError:  # of the place, which says what is wrong with it
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"there is no series at {place}; make one with {call('Series.init')}"
        ) from None
    except _NOT_A_MARK as error:
        raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> DamageError:
    return DamageError(f"{SERIES_MARK} of {place} cannot be read ({error}); restore it from a copy")
