"""Open whatever Zarr node stands at a place, with one clear error where none does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import zarr
from zarr.abc.store import Store
from zarr.errors import GroupNotFoundError
from zarr.storage import LocalStore, MemoryStore, StoreLike, StorePath

from dask_embstab.arguments import is_a, shown
from dask_embstab.errors import EmbstabError, InputError, NotARunError, RetryError
from dask_embstab.files.npz import npz_kind
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import open_regular
from dask_embstab.files.remote import require_harmless
from dask_embstab.files.swap import finish_swap
from dask_embstab.repairs import call
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.read.recorded import Recorded, RunStore
from dask_embstab.tables.read.stored.nodes import local_node
from dask_embstab.tables.store_errors import reading
from dask_embstab.tables.stores.compared_store import ComparedStore
from dask_embstab.tables.stores.url_store import UrlStore, zarr_place

_MOST_READS = 100
V = TypeVar("V")
_METADATA = ("zarr.json", ".zgroup", ".zarray")
_FORMATS = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"PAR1": "Parquet",
    b"\x93NUMPY": "NumPy (npy)",
    b"PK\x03\x04": "ZIP (or npz)",
    b"ARROW1": "Arrow",
    b"CDF": "NetCDF",
    b"SQLite format 3": "SQLite",
}
_NOT_READ = ("NetCDF", "SQLite")


def is_place(given: Any) -> bool:
    """Whether this names a place where a Zarr group can stand: a path, a URL, a store, a dict or
    the group itself.
    """
    return isinstance(given, str | os.PathLike | Store | StorePath | dict | zarr.Group)


def place_name(place: Any) -> str:
    """What messages call a place."""
    if isinstance(place, zarr.Group):
        return str(place.store_path)
    if isinstance(place, dict):
        return f"the dict {hex(id(place))}"
    path, store = "", place
    if isinstance(place, StorePath):
        path, store = place.path, place.store
    if isinstance(store, ComparedStore):
        store = store.inner
    if is_a(store, "icechunk", "IcechunkStore"):
        session = store.session
        return (
            f"the Icechunk session of {session.branch or session.snapshot_id}{path and '/'}{path}"
        )
    return str(place) if is_place(place) else shown(place)


def open_node(
    place: str | os.PathLike[str] | StoreLike, digests: Recorded | None = None
) -> zarr.Group | zarr.Array[Any]:
    """The Zarr group or array at ``place``, after finishing a swap that an interruption left half
    done.

    Whatever is read of a local path, or below a prefix of an object store, must have the
    ``digests``, if any were recorded.
    """
    if isinstance(place, zarr.Group | zarr.Array):
        return fresh(place)
    if not is_place(place) or (
        isinstance(place, dict) and not any(str(key).endswith(_METADATA) for key in place)
    ):
        raise InputError(
            f"a run must be given by its path, URL or Zarr store; a {type(place).__name__} came;"
            f" write arrays as a run with {call('create_run')}"
        )

    require_harmless(place)
    local, name = local_path(place), place_name(place)
    with reading_metadata(name):
        if local is not None:
            finish_swap(local)
            if not local.exists():
                raise NotARunError(
                    f"there is nothing at {name}; give the path of a run (a Zarr group)"
                )
        try:
            if local is None and type(place) is not LocalStore:
                node_store = _compared_with(zarr_place(place), digests)
                if isinstance(node_store, UrlStore):
                    # One request where a group of Zarr v3 stands, as in most places.
                    with contextlib.suppress(FileNotFoundError, ValueError):
                        return zarr.open_group(node_store, mode="r", zarr_format=3)
                return fresh(
                    zarr.open(node_store, mode="r" if _can_be_read_only(node_store) else "r+")
                )
            root = place.root if local is None else local  # type: ignore[union-attr]
            store = RunStore(root, read_only=True, recorded=digests)
            # At once without the consolidated copies; whatever is no such group is opened, or
            # refused, by Zarr's own rules.
            with contextlib.suppress(Exception):
                if isinstance(known_node := local_node(store), zarr.Group):
                    return known_node
                return zarr.open_group(store, mode="r", use_consolidated=False)
            return fresh(zarr.open(store, mode="r"))
        except (FileNotFoundError, GroupNotFoundError, NotADirectoryError) as error:
            raise NotARunError(_no_node(place, local)) from error


def _compared_with(place: Any, digests: Recorded | None) -> Any:
    """A place on an object store, or in a snapshot of Icechunk, of which nothing is read but what
    has these digests; any other store as it is.
    """
    path = place.path if isinstance(place, StorePath) else ""
    store: Any = place.store if isinstance(place, StorePath) else place
    in_snapshot = is_a(store, "icechunk", "IcechunkStore")
    if digests is None or not (in_snapshot or isinstance(store, UrlStore)):
        return place
    digests = replace(digests, below=f"{path}/" if path else "")
    compared = ComparedStore(store, digests) if in_snapshot else store.compared_with(digests)
    return StorePath(compared, path) if path else compared


def of_one_folder(place: Any, read: Callable[[], V]) -> V:
    """What ``read`` finds at a place; read again where another run took the place meanwhile, so
    that it is all of one.
    """
    local = local_path(place)
    for _ in range(_MOST_READS):
        before = _folder(local)
        try:
            result = read()
        except EmbstabError:
            if _folder(local) == before:
                raise
        else:
            if _folder(local) == before:
                return result

    raise RetryError(
        f"{place_name(place)} was replaced {_MOST_READS} times while it was opened; call again"
    )


def _folder(local: Path | None) -> tuple[int, int] | None:
    with contextlib.suppress(OSError, ValueError):  # no path at all: whoever opens it says so
        if local is not None:
            status = local.stat()
            return status.st_dev, status.st_ino
    return None


def fresh(node: zarr.Group | zarr.Array[Any]) -> zarr.Group | zarr.Array[Any]:
    """A group on this machine with the metadata of its arrays as they are now.

    Consolidated metadata is as it was when the run was written: rows that were appended since and
    ids that were added would not be seen. Elsewhere it saves requests.
    """
    fs = getattr(node.store, "fs", None)
    protocols = (
        () if fs is None else (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    )
    is_near = isinstance(node.store, LocalStore | MemoryStore) or {"file", "local", "memory"} & set(
        protocols
    )
    if (
        not isinstance(node, zarr.Group)
        or not is_near
        or node.metadata.consolidated_metadata is None
    ):
        return node
    return zarr.open_group(
        node.store, path=node.path, mode="r" if node.read_only else "r+", use_consolidated=False
    )


@contextlib.contextmanager
def reading_metadata(where: str) -> Iterator[None]:
    """Whatever Zarr raises over metadata that it cannot make sense of becomes one clear error."""
    with reading(f"the metadata of {where}"):
        yield


def table_without_group(place: Any, keys: Iterable[str] = TABLES) -> str | None:
    """A table (of these) whose vectors stand at a place although a group above them has no
    metadata.
    """
    for key in keys:
        with contextlib.suppress(Exception):
            zarr.open_array(zarr_place(place), path=f"{key}/vectors", mode="r")
            return key
    return None


def without_group(name: str, key: str) -> str:
    """What messages say then."""
    return (
        f"a run must be a Zarr group of groups; {name} holds the array {key}/vectors and no group"
        f" metadata above it; make the groups, e.g. zarr.open_group({name!r},"
        f" mode='a').require_group({key!r})"
    )


def _can_be_read_only(place: Any) -> bool:
    """Whether Zarr can open the store for reading alone; one that is open for writing may have no
    such copy.
    """
    if not isinstance(place, Store) or place.read_only:
        return True
    try:
        place.with_read_only(read_only=True)
    except NotImplementedError:
        return False
    return True


def _no_node(place: Any, local: Path | None) -> str:
    """Why there is no Zarr node, as far as a look at the place tells."""
    name = place_name(place)
    if isinstance(other := zarr_place(place), UrlStore):
        other.require_bucket()
    if key := table_without_group(place if local is None else RunStore(local, read_only=True)):
        return without_group(name, key)
    if local is not None and (saved := npz_kind(local)) in ("moments", "transform"):
        verb = call("fit" if saved == "moments" else "apply")
        return (
            f"{name} must hold rows; it holds {'moments' if saved == 'moments' else 'a transform'};"
            f" give the run, or give this file to {verb}"
        )
    if local is not None and (other := _other_format(local)):
        way = f"write it as a run with {call('ingest')}"
        if other.endswith(_NOT_READ):
            way = f"read its arrays and write them as a run with {call('create_run')}"
        return f"{name} must be a Zarr store; it is {other}; {way}"
    return f"{name} is not a Zarr store: it has no zarr.json, .zgroup or .zarray"


def _other_format(path: Path) -> str | None:
    """What a file's first bytes, or the names in a folder, say it is."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        return (
            "a folder of Parquet files"
            if any(name.endswith(".parquet") for name in names)
            else None
        )

    with os.fdopen(open_regular(path), "rb") as file:
        head = file.read(16)
    return next(
        (
            f"a file in the format {name}"
            for magic, name in _FORMATS.items()
            if head.startswith(magic)
        ),
        None,
    )
