"""A transform is written by the function of its format: layers, and the format's own options, in;
what fills the file out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.place import require_free
from dask_embstab.exchange.space_file import write_sidecar
from dask_embstab.exchange.transforms import files, libraries, onnx_model, sql
from dask_embstab.exchange.transforms.layer import Write, layers_of
from dask_embstab.files.atomic import write_whole
from dask_embstab.tables.space import space_of_transform
from dask_embstab.tables.transform import Transform

WRITERS: Mapping[str, Callable[..., Write]] = {
    "safetensors": files.safetensors,
    "npz": files.npz,
    "onnx": onnx_model.onnx,
    "torch": libraries.torch,
    "tf": files.keras,
    "sql": sql.sql,
    "faiss": libraries.faiss,
    "numpy-source": files.numpy_source,
}


def write_transform(export: Export) -> dict[str, Any]:
    """Write a transform as one file, which appears whole or not at all, and then beside it the
    fingerprint of the space that it leads into.
    """
    require_free(export)
    options = dict(export.options)
    assert isinstance(export.what, Transform)
    layers = layers_of(export.what, options.pop("table", None))
    write_whole(export.place, WRITERS[export.format](layers, **options), sync=export.sync)
    space = replace(space_of_transform(export.what), version=export.source.get("version"))
    write_sidecar(export.place, space.to_dict(), sync=export.sync)
    return {
        "tables": [layer.key for layer in layers.layers],
        "components": {"in": layers.transform.d, "out": layers.transform.width},
    }
