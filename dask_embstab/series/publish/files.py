"""Are the files of a run whole, and by which digests will they be known?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from dask_embstab.errors import DamageError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.files.published import unpublished
from dask_embstab.passes.digest import file_digests
from dask_embstab.series.store import Store, size_of
from dask_embstab.tables.layout import ATTRIBUTE, TABLES
from dask_embstab.tables.read.recorded import CHUNK, METADATA
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.write.run_writer import RunWriter, begin_run


def run_digests(
    store: Store, key: str, vectors: Mapping[str, Digests], run: Run
) -> dict[str, dict[str, int]]:
    """The crc32c of every file of a run, and the bytes of its chunk files; the digests of
    ``vectors`` are known already.

    Files that no run is made of are nobody's.
    """
    known = {
        f"{table}/vectors/c/{n}/0": crc
        for table, crcs in vectors.items()
        for n, crc in crcs.items()
    }
    files = store.files(key)
    for name in _named(run):
        if name not in files and (size := size_of(store, f"{key}/{name}")) is not None:
            files[name] = size
    if missing := sorted(set(known) - set(files)):
        raise DamageError(f"chunk {missing[0]} of {key} is missing")
    others = [
        name
        for name in sorted(files)
        if name not in known and (CHUNK.fullmatch(name) or METADATA.fullmatch(name))
    ]
    digests = dict(
        zip(others, file_digests(store.blocks, [f"{key}/{name}" for name in others]), strict=True)
    )
    chunks, metadata = dict(known), {}
    for name, digest in digests.items():
        is_chunk = CHUNK.fullmatch(name)
        if digest is None or (is_chunk and not digest.checks) or not digest.whole:
            raise DamageError(f"{key}/{name} is not what was written")
        if is_chunk:
            chunks[name] = digest.body
        else:
            metadata[name] = digest.whole
    return {
        "chunks": dict(sorted(chunks.items())),
        "metadata": metadata,
        "bytes": {name: files[name] for name in sorted(chunks)},
    }


def _named(run: Run) -> Iterator[str]:
    """Files of a run by its metadata: where they lie together in its root, as on an object store,
    whose listing may not know yet of all. The listing of a folder does.
    """
    if run.group.metadata.consolidated_metadata is None:
        return
    for path, node in run.group.members(max_depth=None):
        yield f"{path}/zarr.json"
        if isinstance(node, zarr.Array):
            sizes = zip(node.shape, node.shards or node.chunks, strict=True)
            for at in np.ndindex(*(-(-n // size) for n, size in sizes)):
                yield f"{path}/{node.metadata.encode_chunk_key(at)}"
    yield "zarr.json"


def whole_digests(store: Store, key: str, run: Run) -> dict[str, dict[str, int]]:
    """The same where nothing has read the run's chunks: all of them must be there."""
    digests = run_digests(store, key, {}, run)
    groups = {
        name: group for name in TABLES if isinstance(group := run.group.get(name), zarr.Group)
    }
    wanted = (
        f"{name}/{array}/{stored.metadata.encode_chunk_key((number,) + (0,) * (stored.ndim - 1))}"
        for name, group in groups.items()
        for array, stored in group.arrays()
        for number in range(stored.nchunks)
    )
    if missing := next((chunk for chunk in wanted if chunk not in digests["chunks"]), None):
        raise DamageError(f"chunk {missing} of {key} is missing")
    return digests


def made_of(
    store: Store, key: str, origin: str, write: Callable[[str, str], None]
) -> dict[str, dict[str, int]]:
    """A run-format group at ``key`` by ``write(key, origin)``, durable and verified: its files'
    digests.

    What an interrupted call left serves where it was made of the same; what a power cut tore is
    written anew.
    """
    for is_last in (False, True):
        if not is_left(store, key, lambda left: left.attrs[ATTRIBUTE].get("origin") == origin):
            with unpublished():  # a version names it later, or nothing does
                write(key, origin)
        make_durable(store, key)
        with removed_if_torn(store, key, is_last=is_last):
            return whole_digests(store, key, open_run(store.place(key)))
    raise AssertionError("the second attempt returns or raises")


def make_durable(store: Store, key: str) -> None:
    """Sync every file of a group; what a lost worker left half-written is removed, since another
    one has done its task.
    """
    for half_written in (file for file in store.files(key) if file.endswith(".partial")):
        store.remove(f"{key}/{half_written}")
    store.sync(key)


@contextlib.contextmanager
def removed_if_torn(store: Store, key: str, *, is_last: bool) -> Iterator[None]:
    """Remove a group whose verification in the block finds damage, so that it is written anew; the
    last attempt raises.
    """
    try:
        yield
    except DamageError:
        if is_last:
            raise
        store.remove(key)


@contextlib.contextmanager
def resumed_run(
    store: Store, key: str, name: str, origin: str, more: Mapping[str, Any]
) -> Iterator[RunWriter]:
    """Write such a group, going on from the whole chunks that an interrupted call left."""
    place = store.place(key)
    resume, attributes = local_path(place) is not None, {**more, "origin": origin}
    store.make(key.rpartition("/")[0])
    with begin_run(
        place, name=name, fingerprint=origin, resume=resume, for_series=True, more=attributes
    ) as writer:
        yield writer


def is_left(store: Store, key: str, is_ours: Callable[[Run], bool]) -> bool:
    """Whether such a group stands there; any other is removed."""
    folder, _, name = key.rpartition("/")
    if name not in store.names(folder):
        return False
    with contextlib.suppress(InputError, DamageError, KeyError):
        if is_ours(open_run(store.place(key))):
            return True
    store.remove(key)
    return False
