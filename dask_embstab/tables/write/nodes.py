"""Groups and arrays of a run that is being written: in a folder by writing their documents at once,
elsewhere through Zarr.

Zarr makes the same documents (`tests/test_written_nodes.py`), one or two milliseconds each in the
thread of its event loop, which a small run waits for twenty times.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import ObjectStore

from dask_embstab.files.objects import submit
from dask_embstab.files.warning_filters import left_out
from dask_embstab.tables.ids.kinds import UUID
from dask_embstab.tables.read.stored.nodes import DOCUMENT, node_of
from dask_embstab.tables.write.output_folder import OutputFolder

Json = dict[str, Any]
Matrices = Mapping[str, tuple[Any, tuple[str, ...]]]
"""Small arrays by name, with the names of their axes."""
_EMPTY: Json = {"kind": "inline", "must_understand": False, "metadata": {}}


def make_group(
    group: zarr.Group, name: str, attributes: Json | None = None, *, overwrite: bool
) -> zarr.Group:
    """A new group in another one; ``overwrite`` what stands there."""
    store, path = group.store, _below(group, name)
    if not isinstance(store, OutputFolder) or os.path.lexists(store.root / path):
        return group.create_group(name, overwrite=overwrite, attributes=attributes)
    made: zarr.Group = _made(store, path, _group(attributes))
    return made


def root_group(folder: OutputFolder, attributes: Json) -> zarr.Group:
    """The root of a new run."""
    folder.root.mkdir()
    made: zarr.Group = _made(folder, "", _group(attributes))
    return made


def put_attributes(group: zarr.Group, attributes: Json) -> None:
    """Give a group these attributes and no others."""
    if isinstance(group.store, OutputFolder):
        _put(group.store, group.path, _group(attributes))
    else:
        group.attrs.put(attributes)


def make_array(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,
    dimension_names: tuple[str, ...],
    fill_value: Any = None,
    attributes: Json | None = None,
    serializer: Any = None,
) -> zarr.Array[Any]:
    """A new array whose chunks end in a checksum (with a ``serializer``: of shards, which see to
    that themselves), all of which are stored.
    """
    store = group.store
    if not isinstance(store, OutputFolder) or serializer is not None or dtype == UUID:
        filled: Any = {} if fill_value is None else {"fill_value": fill_value}
        return group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            serializer="auto" if serializer is None else serializer,
            compressors=[Crc32cCodec()] if serializer is None else None,
            attributes=attributes,
            dimension_names=dimension_names,
            config={"write_empty_chunks": True},
            **filled,
        )

    is_text, width = dtype is str, 0 if dtype is str else np.dtype(dtype).itemsize
    texts: Json = {"name": "vlen-utf8", "configuration": {}}
    numbers: Json = {"name": "bytes"}
    if width > 1:
        numbers["configuration"] = {"endian": "little"}
    missing = "" if is_text else 0 if fill_value is None else fill_value
    document = {
        "shape": list(shape),
        "data_type": "string" if is_text else np.dtype(dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if missing != missing else missing,
        "codecs": [texts if is_text else numbers, {"name": "crc32c"}],
        "attributes": attributes or {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    if dimension_names:
        document["dimension_names"] = list(dimension_names)
    made: zarr.Array[Any] = _made(store, _below(group, name), document)
    return made.with_config({"write_empty_chunks": True})


def write_matrices(group: zarr.Group, matrices: Matrices) -> None:
    """Write small arrays with the names of their axes, float64 in one chunk each; into an object
    store side by side.
    """
    puts = []
    for name, (values, dimensions) in matrices.items():
        stored: Any = np.ascontiguousarray(values, "<f8").reshape(np.shape(values))
        array = make_array(
            group,
            name,
            shape=stored.shape,
            chunks=tuple(max(1, n) for n in stored.shape),
            dtype=np.dtype(np.float64),
            dimension_names=dimensions,
            fill_value=float("nan"),
        )
        if isinstance(group.store, ObjectStore):
            puts.append(submit(array.__setitem__, ..., stored))
        elif not isinstance(group.store, OutputFolder):
            array[...] = stored
        elif stored.size:
            key, data = array.metadata.encode_chunk_key((0,) * stored.ndim), stored.tobytes()
            checksum = int(crc32c.crc32c(data)).to_bytes(4, "little")
            group.store.put(f"{array.path}/{key}", memoryview(data + checksum))
    for put in puts:
        put.result()


def finish(group: zarr.Group, attributes: Json) -> None:
    """Give a root these attributes, and copies of the metadata of all that lies in it, where the
    store can: in a folder in one write.
    """
    if isinstance(group.store, OutputFolder):
        copies = {**_EMPTY, "metadata": dict(_documents(group.store, group.path))}
        _put(group.store, group.path, _group(attributes) | {"consolidated_metadata": copies})
        return
    group.attrs.put(attributes)
    consolidate(group)


def consolidate(group: zarr.Group) -> None:
    """Write copies of the metadata of all that lies in a group into its own, where the store
    can.
    """
    if group.store.supports_consolidated_metadata:
        with quiet_metadata():
            zarr.consolidate_metadata(group.store, path=group.path)


@contextlib.contextmanager
def quiet_metadata() -> Iterator[None]:
    """Consolidated metadata and strings warn that other Zarr v3 readers may not know them: both are
    the contract's.
    """
    unstable = zarr.errors.UnstableSpecificationWarning
    with left_out("Consolidated metadata"), left_out(category=unstable):
        yield


def _documents(folder: OutputFolder, above: str) -> Iterator[tuple[str, Json]]:
    """The document of every node below a group, by its path."""
    root = folder.root / above
    for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        if not (file := root / name / DOCUMENT).is_file():
            continue
        document = json.loads(file.read_bytes())
        if document["node_type"] == "array":
            yield name, document
            continue
        yield name, document | {"consolidated_metadata": _EMPTY}
        for path, inner in _documents(folder, f"{above}/{name}".lstrip("/")):
            yield f"{name}/{path}", inner


def _below(group: zarr.Group, name: str) -> str:
    return f"{group.path}/{name}".lstrip("/")


def _group(attributes: Json | None) -> Json:
    return {"attributes": attributes or {}, "zarr_format": 3, "node_type": "group"}


def _made(folder: OutputFolder, path: str, document: Json) -> Any:
    _put(folder, path, document)
    return node_of(folder, path, document)


def _put(folder: OutputFolder, path: str, document: Json) -> None:
    data = json.dumps(document, indent=2).encode()
    folder.put(f"{path}/{DOCUMENT}".lstrip("/"), memoryview(data))
