"""The run of a version, and the running reference kept with it, opened so that whoever reads them
reads what was published.

Opening compares the metadata with the recorded digests and the chunk files' sizes with the recorded
ones; every chunk is compared with its own digest when it is read, by whatever path
(`tables/read/recorded.py`).
"""

from __future__ import annotations

from typing import Any

from dask_embstab.errors import DamageError
from dask_embstab.files.place import local_path
from dask_embstab.series.log.names import reference_key, run_key
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Store, size_of
from dask_embstab.tables.layout import Files
from dask_embstab.tables.read.recorded import Recorded, require_metadata
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.transform import Transform


def published_run(store: Store, version: Version) -> Run:
    """The run of a version (as `Log.located` gives it), as it is stored."""
    return _opened(store, version, run_key(str(version.run)), "run", version.recorded.run)


def published_reference(store: Store, version: Version) -> Run:
    """Its running reference, which it must have."""
    return _opened(
        store,
        version,
        reference_key(version.reference_name),
        "reference",
        version.recorded.reference,
    )


def transform_of(run: Run, version: Version) -> Transform:
    """The transform of a version's run, opened; DamageError where the run has lost it."""
    if (transform := run.transform) is None:
        raise DamageError(
            f"version {version.version}: {run_key(str(version.run))} has lost its transform;"
            " restore it"
        )
    return transform


def _opened(store: Store, version: Version, key: str, part: str, files: Files) -> Run:
    if version.digests_file is None or version.digests_crc32c is None:
        raise DamageError(f"version {version.version} names no digests; restore it from a copy")
    sizes = store.files(key)
    for path, size in files["bytes"].items():
        stands = sizes[path] if path in sizes else size_of(store, f"{key}/{path}")
        if stands != size:
            what = "is missing" if stands is None else f"should have {size} bytes and has {stands}"
            raise DamageError(f"{key}/{path} {what}; restore it from a copy")
    metadata = files["metadata"]
    missing = (
        path for path in metadata if path not in sizes and size_of(store, f"{key}/{path}") is None
    )
    for path in missing:
        raise DamageError(f"{key}/{path} is missing; restore it from a copy")
    read = store.read_each([f"{key}/{path}" for path in metadata])
    for (path, digest), data in zip(metadata.items(), read, strict=True):
        require_metadata(data, digest, f"{key}/{path}")
    place: Any = store.place(key)
    file = version.digests_file
    local = local_path(place) is not None
    return open_run(
        place,
        digests=Recorded(
            store.name(file),
            version.digests_crc32c,
            (part,),
            within=None if local else store,
            key=file,
        ),
    )
