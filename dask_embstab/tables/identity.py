"""Is an array still what it was when a verb began to read it? What its place tells of it, without
reading a row.

Its metadata, and of every chunk the size and time that a folder tells, or the entity tag that a
listing of an object store does. What no place tells, the digests of two reads do
(`tables/inputs.py`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from dask_embstab.files.objects import submit
from dask_embstab.files.regular import read_regular

_TRIES = 3
_MARKER = 7_777_777
_CHANGING_FIELDS = (
    "size",
    "ETag",
    "etag",
    "LastModified",
    "last_modified",
    "generation",
    "updated",
    "modified",
    "mtime",
    "created",
)
"""What file systems call the things that change with an object."""
_UNLISTED = {"http", "https"}
Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ArrayIdentity:
    """What a place tells of a Zarr array: the bytes of its metadata, and a number for what it tells
    of each chunk.

    ``stamps``, (n_chunks,), is 0 where a chunk is missing, and empty where the place tells nothing
    of chunks.
    """

    metadata: bytes
    stamps: Stamps

    def change(self, array: zarr.Array[Any], current: ArrayIdentity | None = None) -> str | None:
        """What is not as it was, in words; None where everything is. ``current``: as it is now,
        where it was asked for already.
        """
        current = current or ArrayIdentity(_metadata(array), _stamps(array))
        if self.metadata != current.metadata:
            return "its metadata was written anew"

        now = current.stamps
        if len(now) != len(self.stamps) or not len(now):
            return None  # a listing that failed: the store tells nothing any more

        changed = np.flatnonzero(now != self.stamps)
        if not len(changed):
            return None
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        return f"{_described(array, int(changed[0]), is_gone=not now[changed[0]])}{more}"

    def opened_before(self, array: zarr.Array[Any]) -> bool:
        """Whether the array was opened before its place was given another shape."""
        shape = json.loads(self.metadata).get("shape") if self.metadata else None
        return shape is not None and tuple(shape) != array.shape


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A local file of another format: its absolute path, and its size and time (in ns) when it was
    opened.
    """

    path: str
    size: int
    modified: int

    @classmethod
    def of(cls, path: str) -> StoredFile:
        """As it is now."""
        status = os.stat(path)  # noqa: PTH116 (once per file)
        return cls(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FilesIdentity:
    """What is known of an array in files of another format: each one's size and time."""

    files: tuple[StoredFile, ...]

    def change(self, _: Any, __: Any = None) -> str | None:
        """What is not as it was, in words; None where everything is."""
        for file in self.files:
            try:
                if StoredFile.of(file.path) != file:
                    return f"file {file.path} was written anew"
            except OSError:
                return f"file {file.path} is gone"
        return None

    def opened_before(self, _: Any) -> bool:
        """The files are as they were when they were opened, or `change` says so."""
        return False


def identities_of(arrays: Sequence[Any]) -> list[ArrayIdentity | FilesIdentity | None]:
    """Of each; what other stores than folders tell is asked for side by side."""
    asked = [
        (submit(_metadata, array), submit(_stamps, array))
        if isinstance(array, zarr.Array) and not isinstance(array.store, LocalStore)
        else None
        for array in arrays
    ]
    return [
        identity_of(array) if ask is None else ArrayIdentity(ask[0].result(), ask[1].result())
        for array, ask in zip(arrays, asked, strict=True)
    ]


def identity_of(array: Any) -> ArrayIdentity | FilesIdentity | None:
    """What the place of an array tells of it; None where it has none, as in memory."""
    if isinstance(array, zarr.Array):
        return ArrayIdentity(_metadata(array), _stamps(array))
    return FilesIdentity(array.files) if hasattr(array, "files") else None


def _metadata(array: zarr.Array[Any]) -> bytes:
    """Empty where they cannot be read: whoever reads rows then says why."""
    store, name = array.store, ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
    with contextlib.suppress(Exception):
        if isinstance(store, LocalStore):
            return read_regular(f"{store.root}/{array.path}/{name}")
        data = sync(store.get(f"{array.path}/{name}".lstrip("/"), default_buffer_prototype()))
        return b"" if data is None else data.to_bytes()
    return b""


def _stamps(array: zarr.Array[Any]) -> Stamps:
    """Of the chunks (or shards) of whole rows, in order."""
    key = array.metadata.encode_chunk_key((_MARKER,) + (0,) * (array.ndim - 1))
    before, _, after = key.partition(str(_MARKER))
    n_chunks = -(-array.shape[0] // (array.shards or array.chunks)[0])
    if not isinstance(array.store, LocalStore):
        listed = _listed(array.store, array.path)
        keys = (f"{before}{number}{after}" for number in range(n_chunks if listed else 0))
        return np.fromiter((listed.get(key, 0) for key in keys), np.int64)

    stamps = np.zeros(n_chunks, np.int64)
    before = f"{array.store.root}/{array.path}/{before}"
    for number in range(n_chunks):
        with contextlib.suppress(OSError):
            status = os.stat(f"{before}{number}{after}")  # noqa: PTH116 (once per chunk)
            stamps[number] = hash((status.st_size, status.st_mtime_ns))
    return stamps


def _listed(store: Store, path: str) -> dict[str, int]:
    """What one listing tells of every object below an array; nothing where it cannot be listed."""
    if isinstance(store, ObjectStore):
        return _listed_objects(store.store, path)
    if not isinstance(store, FsspecStore):
        return {}
    protocols = store.fs.protocol
    if _UNLISTED & {protocols} if isinstance(protocols, str) else _UNLISTED & {*protocols}:
        return {}

    with contextlib.suppress(Exception):
        place = str(store.fs._strip_protocol(f"{store.path}/{path}".rstrip("/")))  # noqa: SLF001
        store.fs.invalidate_cache(place)
        listed: dict[str, dict[str, Any]] = sync(store.fs._find(place, detail=True))  # noqa: SLF001 (its own async form)
        return {
            name[len(place) + 1 :]: hash(tuple(str(info.get(key)) for key in _CHANGING_FIELDS))
            for name, info in listed.items()
        }

    return {}


def _listed_objects(store: Any, path: str) -> dict[str, int]:
    if type(store).__name__ == "HTTPStore":
        return {}  # the web lists nothing, and is asked again and again
    for _ in range(_TRIES):  # an answer may break off
        with contextlib.suppress(Exception):
            before = f"{path}/" if path else ""
            return {
                info["path"].removeprefix(before): hash(
                    (info["size"], info["e_tag"], info["version"])
                )
                if info["e_tag"]
                else hash((info["size"], info["last_modified"]))
                for page in store.list(path or None)
                for info in page
            }
    return {}


def _described(array: zarr.Array[Any], number: int, *, is_gone: bool) -> str:
    key = array.metadata.encode_chunk_key((number,) + (0,) * (array.ndim - 1))
    if not isinstance(array.store, LocalStore):
        return f"chunk {key} of {array.store_path} {'is gone' if is_gone else 'was written anew'}"

    path = f"{array.store.root}/{array.path}/{key}"
    try:
        written = os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return f"chunk file {path} is gone"

    at = dt.datetime.fromtimestamp(written, dt.UTC).isoformat(timespec="milliseconds")
    return f"chunk file {path} was written anew ({at})"
