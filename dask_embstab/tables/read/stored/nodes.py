"""Groups and arrays of Zarr v3 in a local folder, opened from their documents at once.

Zarr's own calls each go through a thread that runs an event loop, and its pool of threads: one to
three milliseconds, where the document itself is read and understood in a fifth of one. A run is a
dozen of them. Whatever is no such document is left to Zarr, with its rules and errors.
"""

from __future__ import annotations

import json
from typing import Any

import zarr
from zarr.storage import LocalStore, StorePath

from dask_embstab.files.regular import read_regular
from dask_embstab.tables.read.recorded import RunStore

DOCUMENT = "zarr.json"
Node = zarr.Group | zarr.Array[Any]


def stored_document(store: Any, path: str) -> dict[str, Any] | None:
    """The document of a node of Zarr v3 in a local folder, as it was recorded, where it was; None
    where Zarr is to be asked.
    """
    if type(store) not in (LocalStore, RunStore):  # another one may have files of its own
        return None
    key = f"{path}/{DOCUMENT}" if path else DOCUMENT
    data = store.read(key) if isinstance(store, RunStore) else read_regular(store.root / key)
    document = json.loads(data)
    return document if isinstance(document, dict) and document.get("zarr_format") == 3 else None


def node_of(store: Any, path: str, document: dict[str, Any]) -> Node:
    """The group or array that a document describes, without consolidated copies of what lies in
    it.
    """
    at = StorePath(store, path)
    if document["node_type"] == "array":
        return zarr.Array.from_dict(at, document)
    known = {name: value for name, value in document.items() if name != "consolidated_metadata"}
    return zarr.Group(zarr.AsyncGroup.from_dict(at, known))


def local_node(store: Any, path: str = "") -> Node | None:
    """The node of Zarr v3 at a path in a local folder; None where Zarr is to be asked.

    Raises FileNotFoundError where there is no document.
    """
    try:
        document = stored_document(store, path)
        return None if document is None else node_of(store, path, document)
    except Exception as error:
        # Of another type of node Zarr raises a subclass, as if nothing were there.
        if type(error) is FileNotFoundError:
            raise
        return None


def child(group: zarr.Group, name: str) -> Node | None:
    """The group or array of this name in a group, as it is now; None where there is none."""
    node = None
    if group.metadata.consolidated_metadata is None and group.metadata.zarr_format == 3:
        try:
            node = local_node(group.store, f"{group.path}/{name}".lstrip("/"))
        except FileNotFoundError:
            return None
    return group.get(name) if node is None else node
