"""May a run be written into this store, and is all of it there in the end? For stores without
renames, written in place.
"""

from __future__ import annotations

import contextlib
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import StorePath

from dask_embstab.errors import (
    DamageError,
    EmbstabError,
    InputError,
    NotARunError,
    OutputExistsError,
)
from dask_embstab.files.remote import require_harmless
from dask_embstab.tables.layout import INCOMPLETE, recorded
from dask_embstab.tables.store import is_place, open_node, place_name
from dask_embstab.tables.store_errors import write_error
from dask_embstab.tables.stores.url_store import zarr_place


def require_store(out: Any) -> None:
    """Raise unless ``out`` is a free place in a store that can be written and can replace what it
    holds.
    """
    require_harmless(out)
    out = zarr_place(out)
    name = place_name(out)
    if not is_place(out) or isinstance(out, zarr.Group):
        raise InputError(
            f"the output must be a path, a URL or a Zarr store; a {type(out).__name__} came"
        )

    store = out.store if isinstance(out, StorePath) else out
    if isinstance(store, Store) and store.read_only:
        raise InputError(f"the output store must be open for writing; {name} is read-only")
    if isinstance(store, Store) and not store.supports_deletes:
        raise InputError(
            "the output store must be able to replace what it holds: a run is marked as unfinished"
            f" until its last byte is written; {name} cannot; write to a folder and put that"
            " into it"
        )
    if out == {}:
        return

    try:
        node = open_node(out)
    except NotARunError:
        return

    if not _is_swept(node):
        raise OutputExistsError(f"{name} exists already; choose another place")


def sweep(group: zarr.Group) -> None:
    """Remove the tables of a run whose writing failed; what is left, its mark, gives way to the
    next run.
    """
    with contextlib.suppress(Exception):  # the store may be what failed
        for key in list(group.keys()):
            del group[key]


def _is_swept(node: Any) -> bool:
    return (
        isinstance(node, zarr.Group)
        and bool(recorded(dict(node.attrs)).get(INCOMPLETE))
        and not list(node.keys())
    )


def begin_group(out: Any, attributes: dict[str, Any]) -> zarr.Group:
    """The run's root group, in its place, with these attributes."""
    out = zarr_place(out)
    try:
        with contextlib.suppress(Exception):
            if _is_swept(left := zarr.open_group(out, mode="r+")):
                left.attrs.put(attributes)
                return left
        return zarr.open_group(out, mode="w-", zarr_format=3, attributes=attributes)
    except (FileExistsError, ContainsGroupError, ContainsArrayError) as error:
        raise OutputExistsError(
            f"{place_name(out)} exists already; choose another place"
        ) from error
    except EmbstabError:
        raise
    except Exception as error:
        raise write_error(error, place_name(out)) from error


def require_stored(group: zarr.Group) -> None:
    """Raise unless every chunk that was written can be seen in the store that was asked for."""
    for name, node in group.members(max_depth=None):
        if isinstance(node, zarr.Array) and (seen := node.nchunks_initialized) != node.nchunks:
            raise DamageError(
                f"every chunk must be seen where the output was asked for; of {node.nchunks} chunks"
                f" of {name} only {seen} are in {group.store_path}; its store lost what was"
                " written, or the processes that computed have copies of their own; nothing was"
                " published"
            )
