"""Transforms as files of plain arrays: NumPy's npz, safetensors, Keras weights, and a module of
Python source.

Safetensors is written here: a length of 8 bytes, a JSON header, the arrays (github.com/huggingface/
safetensors); 15 lines need no package.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from dask_embstab.exchange.transforms.layer import Arrays, Layers, Write

_ALIGNED = 8
_TYPES = {"float64": "F64", "float32": "F32"}
_OFFSETS = {"items": "offsets", "users": "users_offsets"}


def npz(layers: Layers) -> Write:
    """Arrays by the names of a saved transform, with its diagnostics and the convention: where the
    items are among them `load_transform` reads it.
    """
    arrays: dict[str, Any] = {
        **_arrays(layers),
        "diagnostics": np.array(json.dumps(dict(layers.transform.diagnostics))),
        "convention": np.array(layers.described["embstab.convention"]),
    }
    return lambda file: np.savez(file, **arrays)


def safetensors(layers: Layers) -> Write:
    """float64 arrays by the names of a saved transform; the convention and how the transform came
    to be are in the header's ``__metadata__``.
    """
    header: dict[str, Any] = {"__metadata__": dict(layers.described)}
    parts, at = list[bytes](), 0
    for name, array in _arrays(layers).items():
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)

    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return lambda file: file.writelines([len(text).to_bytes(8, "little"), text, *parts])


def keras(layers: Layers) -> Write:
    """An npz of what ``Dense.set_weights`` takes: ``kernel`` (in, out) and ``bias``, float32."""
    arrays: dict[str, Any] = layers.named("kernel", "bias", "_", what="format tf", transposed=False)
    return lambda file: np.savez(file, **arrays)


def numpy_source(layers: Layers) -> Write:
    """A module that needs NumPy alone: ``transform_items(rows)``, ``transform_users(rows)``.

    Matrices are its base64 literals of float64, bit for bit.
    """
    comment = "\n".join(f"{name}: {text}" for name, text in layers.described.items())
    source = _HEAD.format(comment=comment.replace("\\", "\\\\").replace('"', '\\"'))
    for layer in layers.layers:
        source += _FUNCTION.format(
            key=layer.key,
            d=layer.d,
            k=layer.width,
            weight=_literal(layer.weight),
            bias=_literal(layer.bias),
        )
    return lambda file: file.write(source.encode())


def _arrays(layers: Layers) -> Arrays:
    """By the names that they have in a saved transform."""
    arrays: Arrays = {"singular_values": layers.transform.singular_values}
    for layer in layers.layers:
        arrays[layer.key] = layer.weight
        if layer.has_offset:
            arrays[_OFFSETS[layer.key]] = layer.bias
    return arrays


def _literal(array: Any) -> str:
    """Adjacent string literals of the array's bytes, little-endian."""
    text = base64.b64encode(np.ascontiguousarray(array, dtype="<f8").tobytes()).decode()
    return "\n".join(f'    "{text[at : at + 88]}"' for at in range(0, len(text), 88))


_HEAD = '''\
"""A transform of embedding rows, written by dask_embstab; it needs NumPy alone.

{comment}
"""

import base64

import numpy as np


def _array(text, *shape):
    return np.frombuffer(base64.b64decode(text), dtype="<f8").reshape(shape)
'''
_FUNCTION = '''

_{key}_weight = _array(
{weight},
    {d},
    {k},
)
_{key}_bias = _array(
{bias},
    {k},
)


def transform_{key}(rows):
    """Rows (n, {d}) or ({d},) to (n, {k}) or ({k},): float64 products, the rows' float dtype."""
    rows = np.asarray(rows)
    kind = rows.dtype if rows.dtype.kind == "f" else np.dtype(np.float64)
    return (rows.astype(np.float64) @ _{key}_weight + _{key}_bias).astype(kind)
'''
