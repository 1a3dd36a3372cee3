"""How does a run appear whole or not at all?

On a local file system it is written in a hidden folder beside its place and renamed when the last byte is in it. On any
other store it is written in place, and a mark in its attributes, taken away last, says that it is not whole. The mark
stands in both cases, so a half-written run is refused wherever it is found.

A folder left behind by a kill carries the fingerprint of what was being written; ``resume`` adopts it by renaming it to
a new token (so that two processes cannot both adopt it) and keeps the chunks that are in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from dask_embstab.core.transform import Transform
from dask_embstab.errors import InputError, OutputExistsError
from dask_embstab.files.atomic import new_token
from dask_embstab.files.owned import remove_folder
from dask_embstab.files.place import local_path
from dask_embstab.files.published import publishing
from dask_embstab.files.warning_filters import left_out
from dask_embstab.repairs import option
from dask_embstab.tables.ids.kinds import UUID, IdKind
from dask_embstab.tables.layout import ATTRIBUTE, DIMENSION, INCOMPLETE, run_attributes
from dask_embstab.tables.output import OUTPUT, record_output
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.store import place_name
from dask_embstab.tables.write.object_store import begin_group, require_store, require_stored, sweep
from dask_embstab.tables.write.sink import Sink
from dask_embstab.tables.write.swap import finish_swap, partial_path, put, swap, taken

_ID_DTYPES: dict[IdKind, Any] = {"int64": np.dtype(np.int64), "string": str, "uuid": UUID}


@dataclass(slots=True)
class RunWriter:
    """A run being written; `begin_run` makes one and publishes it."""

    group: zarr.Group
    attributes: dict[str, Any]
    fresh: bool
    _tables: list[str] = field(default_factory=list)

    def table(
        self,
        key: str,
        *,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        chunk_rows: int,
        ids: IdKind | None,
        weights: bool = False,
    ) -> Sink:
        """Make the arrays of one table and give the sink that tasks write it through.

        ``weights``: with one number per row, in an array of that name.
        """
        n, d = shape
        self._tables.append(key)
        if not self.fresh and (made := self._leftover(key, ids, weights=weights)) is not None:
            return made
        node = self.group.create_group(key, overwrite=not self.fresh)
        row, rows = DIMENSION[key], min(chunk_rows, n)
        with _quiet():
            vectors = node.create_array(
                "vectors",
                shape=shape,
                chunks=(rows, d),
                dtype=dtype.newbyteorder("="),
                compressors=[Crc32cCodec()],
                fill_value=math.nan,
                attributes={} if ids is None else {"coordinates": "id"},  # so xarray keeps each row's id beside it
                dimension_names=(row, "component"),
                config={"write_empty_chunks": True},
            )
            of_rows: dict[str, Any] = {
                "shape": (n,),
                "chunks": (rows,),
                "compressors": [Crc32cCodec()],
                "dimension_names": (row,),
                "config": {"write_empty_chunks": True},
            }
            identifiers = None if ids is None else node.create_array("id", dtype=_ID_DTYPES[ids], **of_rows)
            numbers = (
                node.create_array("weight", dtype=dtype.newbyteorder("="), fill_value=math.nan, **of_rows)
                if weights
                else None
            )
        return Sink(vectors, identifiers, resume=False, weights=numbers)

    def _leftover(self, key: str, ids: IdKind | None, *, weights: bool) -> Sink | None:
        """The table as an interrupted write left it; None where its metadata is not there, or not whole."""
        with contextlib.suppress(Exception):
            made = self.group[key]
            numbers = made["weight"] if weights else None  # type: ignore[index]
            return Sink(made["vectors"], made["id"] if ids else None, resume=True, weights=numbers)  # type: ignore[index, arg-type]
        return None

    def transform(
        self, transform: Transform, attributes: Mapping[str, Any], written: Mapping[str, Digests] | None = None
    ) -> None:
        """Write ``transform/``, after the tables: the small matrices, and in its attributes how the run came to be.

        In a folder the digests of all files are recorded with it; ``written`` are those of the vectors, where known.
        """
        node = self.group.create_group("transform", overwrite=True)
        dims = {"singular_values": ("component",), "offsets": ("component",), "users_offsets": ("component",)}
        for name, array in transform.arrays().items():
            names = dims.get(name, ("component_in", "component"))
            names = ("singular_value",) if name == "singular_values" else names
            stored = node.create_array(
                name,
                shape=array.shape,
                chunks=tuple(max(1, n) for n in array.shape),
                dtype=np.float64,
                compressors=[Crc32cCodec()],
                fill_value=math.nan,
                dimension_names=names,
            )
            stored[...] = array
        said = {name: value for name, value in attributes.items() if name != OUTPUT}
        if isinstance(self.group.store, LocalStore):
            said = record_output(Path(self.group.store.root, self.group.path), self.attributes, said, written or {})
        node.attrs.put(said)


@contextlib.contextmanager
def begin_run(
    out: Any,
    *,
    name: str | None,
    fingerprint: str,
    overwrite: bool = False,
    resume: bool = False,
    inputs: tuple[str, ...] = (),
    more: Mapping[str, Any] | None = None,
) -> Iterator[RunWriter]:
    """Write a run at ``out``: it is published when the block ends well, and leaves nothing behind when it does not
    (with ``resume``: its whole chunks, to go on from). ``more`` are further attributes of its root group.
    """
    attributes = run_attributes(name, **(more or {}))
    place = local_path(out)
    if place is None:
        require_place(out, inputs, overwrite=overwrite)
        yield from _in_place(out, attributes, overwrite=overwrite, resume=resume)
        return
    require_place(place, inputs, overwrite=overwrite)
    with _claimed(place, fingerprint, resume=resume) as (folder, fresh):
        group = _root(folder, attributes, fingerprint, fresh=fresh)
        yield RunWriter(group, attributes, fresh)
        _remove_half_written(folder)
        _finish(group, attributes)
        with publishing(place):
            if overwrite and place.exists():
                swap(folder, place)
            else:
                put(folder, place)


def _in_place(out: Any, attributes: dict[str, Any], *, overwrite: bool, resume: bool) -> Iterator[RunWriter]:
    """On a store without renames: the mark alone says when the run is whole."""
    if overwrite or resume:
        raise InputError(
            f"{place_name(out)} is no local folder, so it can be neither overwritten nor resumed; write to a new place"
        )
    group = begin_group(out, _marked(attributes))
    try:
        yield RunWriter(group, attributes, fresh=True)
        require_stored(group)
    except BaseException:
        sweep(group)
        raise
    with publishing(out):
        _finish(group, attributes)


def require_place(out: Any, inputs: tuple[str, ...], *, overwrite: bool) -> None:
    """Raise unless a run may be written at ``out``: a free place (or a run, to overwrite it) outside of every input."""
    place = local_path(out)
    if place is None:
        require_store(out)
        return
    finish_swap(place)
    if not place.parent.is_dir():
        raise InputError(f"the folder {place.parent} does not exist; create it first")
    known = (local for given in inputs if (local := local_path(given)) is not None and os.path.exists(local))  # noqa: PTH110
    for source in (local.resolve() for local in known):
        target = place.resolve()
        if source != target and (source in target.parents or target in source.parents):
            raise InputError(f"the output may not lie inside an input or around one; {place} and {source} overlap")
    if os.path.lexists(place) and not overwrite:
        raise taken(place)
    if os.path.lexists(place) and not any((place / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise OutputExistsError(
            f"{option(overwrite=True)} replaces a run; {place} is no Zarr store; choose another place"
        )


@contextlib.contextmanager
def _claimed(place: Path, fingerprint: str, *, resume: bool) -> Iterator[tuple[Path, bool]]:
    """A locked folder to write in: a leftover with this fingerprint where ``resume`` asks for it, else a new one.

    The lock is on the folder itself: the system frees it when the process dies, however it dies.
    """
    folder, adopted = partial_path(place, new_token()), None
    for leftover in _leftovers(place):
        lock = _try_lock(leftover)
        if lock is None:
            continue
        if resume and adopted is None and _fingerprint(leftover) == fingerprint:
            leftover.rename(folder)
            adopted = lock
            _remove_half_written(folder)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(lock)
    lock = _new_locked(folder) if adopted is None else adopted
    try:
        yield folder, adopted is None
    except BaseException:
        if not resume:
            remove_folder(folder)
        raise
    finally:
        os.close(lock)


def _remove_half_written(folder: Path) -> None:
    """What killed processes, workers of a cluster among them, were writing."""
    for half_written in folder.rglob("*.partial"):
        half_written.unlink()


def _leftovers(place: Path) -> list[Path]:
    """Folders that writes of this very place are in, or were when they were killed."""
    known = re.compile(re.escape(str(partial_path(place, "TOKEN").name)).replace("TOKEN", "[0-9a-f]{12}"))
    return sorted(path for path in place.parent.iterdir() if known.fullmatch(path.name))


def _new_locked(folder: Path) -> int:
    """Make the folder under another name, lock it, and only then let others see it as a write in progress."""
    nursery = folder.with_suffix(".new")
    try:
        nursery.mkdir()
    except OSError as error:
        raise InputError(
            f"a run must be written into a folder that can be written in; {folder.parent} cannot ({error.strerror})"
        ) from error
    lock = _try_lock(nursery)
    assert lock is not None, "nobody else knows this folder yet"
    nursery.rename(folder)
    return lock


def _try_lock(folder: Path) -> int | None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _fingerprint(folder: Path) -> str | None:
    with contextlib.suppress(Exception):
        mark = dict(zarr.open_group(folder, mode="r").attrs)[ATTRIBUTE]
        return str(mark["fingerprint"])  # type: ignore[index, call-overload]
    return None


def _root(folder: Path, attributes: dict[str, Any], fingerprint: str, *, fresh: bool) -> zarr.Group:
    if not fresh:
        return zarr.open_group(folder, mode="r+")
    return zarr.open_group(folder, mode="a", zarr_format=3, attributes=_marked(attributes, fingerprint=fingerprint))


def _marked(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {ATTRIBUTE: {**attributes[ATTRIBUTE], INCOMPLETE: True, **more}}


def _finish(group: zarr.Group, attributes: dict[str, Any]) -> None:
    """Take the mark away, in one write with the consolidated metadata."""
    group.attrs.put(attributes)
    if group.store.supports_consolidated_metadata:
        with _quiet():
            zarr.consolidate_metadata(group.store, path=group.path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Consolidated metadata and strings warn that other Zarr v3 readers may not know them: both are the contract's."""
    unstable = zarr.errors.UnstableSpecificationWarning
    with left_out("Consolidated metadata"), left_out(category=unstable):
        yield
