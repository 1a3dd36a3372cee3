"""Are the files of a run whole, and by which digests will they be known?"""

from __future__ import annotations

from collections.abc import Mapping

import zarr

from dask_embstab.core.errors import DamageError
from dask_embstab.passes.digest import file_digests
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.source import Digests


def run_digests(store: Store, key: str, vectors: Mapping[str, Digests]) -> dict[str, dict[str, int]]:
    """The crc32c of every file of a run; those of ``vectors`` are known already."""
    known = {f"{table}/vectors/c/{n}/0": crc for table, crcs in vectors.items() for n, crc in crcs.items()}
    files = store.files(key)
    if missing := sorted(set(known) - set(files)):
        raise DamageError(f"chunk {missing[0]} of {key} is missing")
    others = [name for name in files if name not in known]
    found = dict(zip(others, file_digests(store.blocks, [f"{key}/{name}" for name in others]), strict=True))
    chunks, metadata = dict(known), {}
    for name, digest in found.items():
        if digest is None or ("/c/" in name and not digest.checks) or not digest.whole:
            raise DamageError(f"{key}/{name} is not what was written")
        if "/c/" in name:
            chunks[name] = digest.body
        else:
            metadata[name] = digest.whole
    return {"chunks": dict(sorted(chunks.items())), "metadata": metadata}


def whole_digests(store: Store, key: str, run: Run) -> dict[str, dict[str, int]]:
    """The same where nothing has read the run's chunks: all of them must be there."""
    found = run_digests(store, key, {})
    groups = {name: group for name in TABLES if isinstance(group := run.group.get(name), zarr.Group)}
    wanted = (chunk for name, group in groups.items() for chunk in _chunks(name, group))
    if missing := next((chunk for chunk in wanted if chunk not in found["chunks"]), None):
        raise DamageError(f"chunk {missing} of {key} is missing")
    return found


def _chunks(name: str, group: zarr.Group) -> list[str]:
    return [
        f"{name}/{array}/{found.metadata.encode_chunk_key((number,) + (0,) * (found.ndim - 1))}"
        for array, found in group.arrays()
        for number in range(found.nchunks)
    ]
