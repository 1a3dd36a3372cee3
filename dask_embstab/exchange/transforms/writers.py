"""Which function writes a transform in which format, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dask_embstab.exchange.transforms.files import (
    write_keras,
    write_npz,
    write_numpy_source,
    write_safetensors,
)
from dask_embstab.exchange.transforms.libraries import write_faiss, write_torch
from dask_embstab.exchange.transforms.onnx_model import write_onnx
from dask_embstab.exchange.transforms.sql import write_sql

WRITERS: Mapping[str, Callable[..., Any]] = {
    "safetensors": write_safetensors,
    "npz": write_npz,
    "onnx": write_onnx,
    "torch": write_torch,
    "tf": write_keras,
    "sql": write_sql,
    "faiss": write_faiss,
    "numpy-source": write_numpy_source,
}
