"""What does an export say of where it comes from? Plain values that depend on the run alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from dask_embstab.passes.join.space import space_of_run
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import digest_of

FORMAT = 1


def provenance(run: Run, source: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run: its name, what it was aligned to, the digest of its transform, its version in a
    series (``source``), the fingerprint of its space, and the version of this library.
    """
    transform = run.transform
    reference = None if transform is None else transform.diagnostics.get("reference")
    return {
        "format": FORMAT,
        "kind": "export",
        "run": run.name,
        "reference": reference.get("name") if isinstance(reference, Mapping) else reference,
        "transform": None if transform is None else digest_of(transform),
        **source,
        "space": replace(space_of_run(run), version=source.get("version")).to_dict(),
        "dask_embstab": version("dask_embstab"),
    }
