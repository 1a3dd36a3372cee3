"""Were the tables that a verb read the same from its first read to its last?

`unchanged` looks at the place of each table before and after (`tables/identity.py`); what every
pass read is compared with what earlier ones did, by the digests of its chunks. No row is read for
it. `one_reading` joins the passes of several verbs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import zarr
from zarr.storage import LocalStore

from dask_embstab.errors import InputChangedError
from dask_embstab.tables.identity import (
    ArrayIdentity,
    FilesIdentity,
    identities_of,
)
from dask_embstab.tables.read.source import Digests

ALL_IDS = -1
"""Stands for a chunk number where a digest is that of all ids of a table."""
ID_DIGESTS = 1 << 64
"""Sums of digests of ids are compared modulo this."""
_Key = tuple[Any, ...]


class Watched(Protocol):
    """A table, as far as it is looked at here: where it is read from, its ids, and what messages
    call it.
    """

    @property
    def source(self) -> Any:
        """Of the vectors."""

    @property
    def stored_ids(self) -> Any:
        """Ids, or None."""

    @property
    def where(self) -> str:
        """Its name in messages."""


@dataclass(frozen=True, slots=True)
class _Input:
    """An array that is read, what messages call it, and its identity before the first read."""

    array: Any
    where: str
    identity: ArrayIdentity | FilesIdentity | None


@dataclass(slots=True)
class _Inputs:
    """What was read so far, and the digests of it."""

    known: dict[_Key, _Input] = field(default_factory=dict)
    digests: dict[_Key, Digests] = field(default_factory=dict)


_inputs: ContextVar[_Inputs | None] = ContextVar("embstab_inputs", default=None)


@contextlib.contextmanager
def one_reading() -> Iterator[None]:
    """Within it every table is one thing, whichever verbs and passes read it."""
    token = _inputs.set(_inputs.get() or _Inputs())
    try:
        yield
    finally:
        _inputs.reset(token)


@contextlib.contextmanager
def unchanged(*given: Watched | zarr.Array[Any] | None) -> Iterator[None]:
    """Raise `InputChangedError` at the end of the block unless these tables are what they were when
    it began.

    Or when an outer `one_reading` first saw them. Whatever went wrong within is reported as a
    change, where there was one.
    """
    with one_reading():
        inputs = _inputs.get()
        assert inputs is not None
        watched = [entry for table in given if table is not None for entry in _arrays(table)]
        new: dict[_Key, tuple[Any, str]] = {}
        for array, where in watched:
            if (key := _key(array)) not in inputs.known:
                new.setdefault(key, (array, where))
        identities = identities_of([array for array, _ in new.values()])
        for (key, (array, where)), identity in zip(new.items(), identities, strict=True):
            if identity is not None and identity.opened_before(array):
                raise _changed_by(
                    where, "it has another shape than when it was opened; open it again"
                )
            inputs.known[key] = _Input(array, where, identity)
        try:
            yield
        except InputChangedError:
            raise
        except Exception as error:
            if (changed := _changed(inputs, watched)) is not None:
                raise changed from error
            raise
        if (changed := _changed(inputs, watched)) is not None:
            raise changed


@contextlib.contextmanager
def unwatched(*given: Watched | None) -> Iterator[None]:
    """Within it nobody looks at the files of these tables; what is read of them is compared all the
    same. For trials of a few rows of a table of a million files.
    """
    with one_reading():
        inputs = _inputs.get()
        assert inputs is not None
        for array, where in (entry for table in given if table for entry in _arrays(table)):
            inputs.known[_key(array)] = _Input(array, where, None)
        yield


def compare(sources: Sequence[Any], read: Sequence[Digests]) -> None:
    """Compare what a pass has read of these sources (or ids; None: nothing) with what earlier
    passes did.

    Raises `InputChangedError`.
    """
    inputs = _inputs.get()
    for source, digests in zip(sources, read, strict=True):
        if inputs is not None and source is not None:
            array = source.array if hasattr(source, "kind") else list(_behind(source))[-1]
            _compare(inputs, array, digests)


def files_of(*tables: Watched) -> list[str]:
    """The files of other formats that these tables are read from, whatever stood for them."""
    arrays = (array for table in tables for array, _ in _arrays(table))
    files = (file.path for array in arrays for file in getattr(array, "files", ()))
    return list(dict.fromkeys(files))


def needs_digests(ids: Any) -> bool:
    """Whether ids (of a table or of one task) must be read to know that they are the same: their
    place does not tell.
    """
    array = getattr(ids, "array", None)
    if isinstance(array, zarr.Array):
        return not isinstance(array.store, LocalStore)
    return array is not None and not hasattr(array, "files")


def compare_ids(ids: Any, digest: int) -> None:
    """The same of all ids of a table that were read here, not by a pass."""
    if (inputs := _inputs.get()) is not None:
        _compare(inputs, ids.array, {ALL_IDS: digest % ID_DIGESTS})


def is_watched(array: Any) -> bool:
    """Whether what is read of the array here is compared with what others read."""
    inputs = _inputs.get()
    return inputs is not None and _key(array) in inputs.known


def _compare(inputs: _Inputs, array: Any, digests: Digests) -> None:
    known = inputs.known.get(key := _key(array))
    if known is None or not digests:
        return

    before = inputs.digests.setdefault(key, digests)
    if before is digests:
        return

    for chunk, now in digests.items():
        if before.get(chunk, now) != now:
            which = "they" if chunk == ALL_IDS else f"chunk {chunk}"
            change = (
                f"{which} had the digest {before[chunk]:#010x} in one read and {now:#010x} in a"
                " later one"
            )
            if not isinstance(array, zarr.Array):
                change += (
                    " (what is computed anew at every read must be equal each time; else store it"
                    " first)"
                )
            raise _changed_by(known.where, change)

    if digests.keys() - before.keys():
        inputs.digests[key] = before | digests


def _changed(inputs: _Inputs, watched: Sequence[tuple[Any, str]]) -> InputChangedError | None:
    known = [inputs.known[_key(array)].identity for array, _ in watched]
    before = [(one, *entry) for one, entry in zip(known, watched, strict=True) if one is not None]
    identities: list[Any] = identities_of([array for _, array, _ in before])
    for (identity, array, where), now in zip(before, identities, strict=True):
        if (change := identity.change(array, now)) is not None:
            return _changed_by(where, change)
    return None


def _changed_by(where: str, change: str) -> InputChangedError:
    return InputChangedError(
        f"an input must stay as it is while it is read; {where} changed: {change}; nothing was"
        " published; call again when nobody writes it"
    )


def _arrays(table: Watched | zarr.Array[Any]) -> Iterator[tuple[Any, str]]:
    """The arrays behind a table, those of its ids and of what stands side by side with it
    included.
    """
    if isinstance(table, zarr.Array):
        yield table, str(table.store_path)
        return
    yield from ((array, table.where) for array in _behind(table.source))
    if table.stored_ids is not None:
        yield table.stored_ids.array, f"the ids of {table.where}"


def _behind(source: Any) -> Iterator[Any]:
    while hasattr(source, "source"):  # a view, known by what it is a view of
        for other in ("right", "scale"):
            if getattr(source, other, None) is not None:
                yield from _behind(getattr(source, other))
        source = source.source
    yield source.array


def _key(array: Any) -> _Key:
    """Of one array however often it is opened: its place, its files and what is read of them, the
    name of a Dask array, the object itself in memory.
    """
    if isinstance(array, zarr.Array):
        place = str(array.store.root) if isinstance(array.store, LocalStore) else id(array.store)
        return place, array.path
    if hasattr(array, "files"):
        return array.files, array.what
    return (array.name,) if hasattr(array, "to_delayed") else (id(array),)
