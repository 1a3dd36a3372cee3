"""What does an export say of where it comes from? Plain values that depend on the run alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from dask_embstab.tables.run import Run
from dask_embstab.tables.transform import Transform

FORMAT = 1


def provenance(run: Run, source: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run: its name, what it was aligned to, the digest of its transform, its version in a
    series (``source``) and that of this library.
    """
    transform = run.transform
    reference = None if transform is None else transform.diagnostics.get("reference")
    return {
        "format": FORMAT,
        "kind": "export",
        "run": run.name,
        "reference": reference.get("name") if isinstance(reference, Mapping) else reference,
        "transform": None if transform is None else transform_digest(transform),
        **source,
        "dask_embstab": version("dask_embstab"),
    }


def transform_digest(transform: Transform) -> str:
    """SHA-256 of its matrices, by name, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, array in sorted(transform.arrays().items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
