"""May a run be written into this store, and is all of it there in the end? For stores without
renames, written in place.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import MemoryStore, ObjectStore, StorePath

from dask_embstab.errors import (
    DamageError,
    EmbstabError,
    InputError,
    NotARunError,
    OutputExistsError,
)
from dask_embstab.files.atomic import new_token
from dask_embstab.files.remote import canonical, is_remote, is_url, require_harmless
from dask_embstab.repairs import option
from dask_embstab.tables.layout import ATTRIBUTE, INCOMPLETE, recorded
from dask_embstab.tables.store import is_place, open_node, place_name
from dask_embstab.tables.store_errors import write_error
from dask_embstab.tables.stores.output_store import Standing, UrlOutput
from dask_embstab.tables.stores.run_files import StoreFiles
from dask_embstab.tables.stores.sending import Sending
from dask_embstab.tables.stores.url_store import UrlStore, zarr_place

GIVEN_UP, WRITER = "given_up", "writer"
"""In the mark of an unfinished run: its own writer says that nobody writes it any more; who that
is.
"""
_AT_ONCE = 32


def require_store(
    out: Any, inputs: tuple[str, ...] = (), *, overwrite: bool = False, claims: bool = False
) -> None:
    """Raise unless ``out`` is a free place in a store that can be written and can replace what it
    holds, outside of every input; to ``overwrite`` it, the place of a run that was not finished.
    Whoever ``claims`` a place at a URL next looks there himself.
    """
    require_harmless(out)
    name, given = place_name(out), out
    out = zarr_place(out)
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
    if overlap := next((one for one in inputs if is_url(given) and _overlap(one, given)), None):
        raise InputError(
            f"the output may not lie inside an input or around one; {name} and {overlap} overlap"
        )
    if out == {}:
        return
    if isinstance(out, UrlStore):
        if not claims:
            _require_free(UrlOutput(out.url), name, overwrite=overwrite)
        return

    with contextlib.suppress(NotARunError):
        node = open_node(out)
        attributes = dict(node.attrs) if isinstance(node, zarr.Group) else {}
        _require_replaceable(attributes, name, overwrite=overwrite)


def _require_free(place: UrlOutput, name: str, *, overwrite: bool) -> Standing | None:
    """What stands at a place and may be written over."""
    standing, left = place.seen()
    if standing is not None:
        _require_replaceable(_attributes(standing.root), name, overwrite=overwrite)
    elif left:
        raise OutputExistsError(
            f"{name} holds {left[0]} and {len(left) - 1} more objects; choose another place"
        )
    return standing


def _attributes(root: bytes) -> dict[str, Any]:
    """Those of a group's metadata, whatever stands there."""
    with contextlib.suppress(ValueError):
        metadata = json.loads(root)
        if isinstance(metadata, dict) and isinstance(
            attributes := metadata.get("attributes"), dict
        ):
            return attributes
    return {}


def _require_replaceable(attributes: dict[str, Any], name: str, *, overwrite: bool) -> None:
    marked = recorded(attributes)
    unfinished = bool(marked.get(INCOMPLETE))
    if unfinished and (marked.get(GIVEN_UP) or overwrite):
        return
    if unfinished:
        raise OutputExistsError(
            f"the writing of a run at {name} was not finished; another process may be at it, or was"
            f" stopped; choose another place or, where nobody writes it, {option(overwrite=True)}"
        )
    if overwrite:
        raise OutputExistsError(
            f"a run in a store without renames cannot be replaced in one step; {name} stands; write"
            " to a new place, or remove it first"
        )
    raise OutputExistsError(f"{name} exists already; choose another place")


def _overlap(one: str, other: str) -> bool:
    """Whether one URL lies below the other or is it; `inputs` at the very place are told of as
    taken.
    """
    first, second = (f"{canonical(url)}/" for url in (one, other))
    return first != second and (first.startswith(second) or second.startswith(first))


class GivenOutput(ObjectStore[Any]):
    """A store of objects that was handed in, for one run: once that is given up, tasks that are
    still at it put nothing there, where the next run may be written meanwhile.
    """

    def __init__(self, store: Any, *, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.sending = Sending(str(self))
        self.root, self.writer = "", ""

    def with_read_only(self, read_only: bool = False) -> GivenOutput:  # noqa: FBT001, FBT002 (Zarr's)
        """Itself: another one would not be given up with it."""
        del read_only
        return self

    def require_ours(self) -> None:
        """Raise where the write was given up; another process looks whose the place is."""
        is_ours = not self.sending.is_copy or sync(self._is_ours())
        self.sending.require_open(is_ours=is_ours)

    async def _is_ours(self) -> bool:
        """Whether the mark of this write stands in the root's metadata."""
        root = await self.get(self.root, default_buffer_prototype())
        mark = recorded({} if root is None else _attributes(root.to_bytes()))
        return mark.get(WRITER) == self.writer and not mark.get(GIVEN_UP)

    async def set(self, key: str, value: Buffer) -> None:
        """As Zarr, while the place is ours."""
        with self.sending.one():
            if self.sending.is_copy:
                self.sending.require_open(is_ours=await self._is_ours())
            await super().set(key, value)


@dataclass(slots=True)
class OutputGroup:
    """The root group of a run that is being written in its place, and the ``mark`` in it: its
    attributes until it is published.
    """

    group: zarr.Group
    mark: dict[str, Any]

    @classmethod
    def begin(cls, out: Any, mark: dict[str, Any], *, over: bool) -> OutputGroup:
        """Claim the place; `OutputExistsError` where another run stands there, or its beginning."""
        name = place_name(out)
        mark = {ATTRIBUTE: {**mark[ATTRIBUTE], WRITER: new_token()}}
        try:
            if is_remote(out):
                return cls(_claimed(UrlOutput(out), mark, name, overwrite=over), mark)
            place = GivenOutput(out.store) if type(out) is ObjectStore else zarr_place(out)
            made = cls(_begun(place, mark, over=over), mark)
            if isinstance(place, GivenOutput):
                place.root = f"{made.group.path}/zarr.json".lstrip("/")
                place.writer = mark[ATTRIBUTE][WRITER]
            return made
        except (FileExistsError, ContainsGroupError, ContainsArrayError) as error:
            raise OutputExistsError(f"{name} exists already; choose another place") from error
        except EmbstabError:
            raise
        except Exception as error:
            raise write_error(error, name) from error

    def publish(self) -> None:
        """Let the run be seen, by the last object that is put, where it is still ours."""
        if isinstance(store := self.group.store, UrlOutput):
            store.publish()

    def sweep(self) -> None:
        """Remove what was written, unless another took the place; the mark that is left gives way
        to the next run.
        """
        with contextlib.suppress(Exception):  # the store may be what failed
            given_up: dict[str, Any] = {ATTRIBUTE: {**self.mark[ATTRIBUTE], GIVEN_UP: True}}
            group = self.group
            if isinstance(store := group.store, UrlOutput):
                store.give_up(_root_metadata(given_up))
                return
            if isinstance(store, GivenOutput):
                store.sending.close()
                group = zarr.open_group(ObjectStore(store.store), path=group.path, mode="r+")
            for key in list(group.keys()):
                del group[key]
            group.attrs.put(dict(given_up))


def _claimed(store: UrlOutput, mark: dict[str, Any], name: str, *, overwrite: bool) -> zarr.Group:
    """The root group at a URL; what an earlier run left there, which gave up or shall be replaced,
    is removed.
    """
    stands = _require_free(store, name, overwrite=overwrite)
    if not store.claim(_root_metadata(mark), over=stands):
        raise FileExistsError(name)
    if stands is not None:
        store.sweep()
    return zarr.open_group(store, mode="r+", use_consolidated=False)


def _begun(store: Any, mark: dict[str, Any], *, over: bool) -> zarr.Group:
    """The same in a store that was handed in."""
    with contextlib.suppress(Exception):
        left = zarr.open_group(store, mode="r+")
        marked = recorded(dict(left.attrs))
        if marked.get(INCOMPLETE) and (over or marked.get(GIVEN_UP)):
            for key in list(left.keys()):
                del left[key]
            left.attrs.put(mark)
            return left
    return zarr.open_group(store, mode="w-", zarr_format=3, attributes=mark)


def _root_metadata(attributes: dict[str, Any]) -> bytes:
    """The bytes of a group's own metadata."""
    made = MemoryStore()
    zarr.open_group(made, mode="w", zarr_format=3, attributes=attributes)
    stored: Any = sync(made.get("zarr.json", default_buffer_prototype()))
    data: bytes = stored.to_bytes()
    return data


def stored_files(group: zarr.Group) -> StoreFiles:
    """The files of a run, every chunk of which can be seen in the store that was asked for;
    `DamageError` where one cannot.

    They are listed once; a chunk that a listing does not know yet is asked for by its name.
    """
    store, below = group.store, f"{group.path}/" if group.path else ""
    names = set(StoreFiles(store, group.path).names())

    async def is_there(name: str) -> bool:
        return await store.exists(f"{below}{name}")

    for name, node in group.members(max_depth=None):
        if not isinstance(node, zarr.Array):
            continue
        sizes = zip(node.shape, node.shards or node.chunks, strict=True)
        grid = np.ndindex(*(-(-n // size) for n, size in sizes))
        wanted = {f"{name}/{node.metadata.encode_chunk_key(at)}" for at in grid}
        lacking = sorted(wanted - names)
        lost = lacking and not all(
            sync(concurrent_map([(n,) for n in lacking], is_there, _AT_ONCE))
        )
        if lost:
            raise DamageError(
                f"every chunk must be seen where the output was asked for; of {len(wanted)} chunks"
                f" of {name} only {len(wanted) - len(lacking)} are in {group.store_path}; its store"
                " lost what was written, or the processes that computed have copies of their own;"
                " nothing was published"
            )
        names |= wanted
    return StoreFiles(store, group.path, tuple(sorted(names)))
