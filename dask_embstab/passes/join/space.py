"""The fingerprint of a run's space, also of one that is as training left it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from dask_embstab.passes.join.rows import read_rows
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import Space, space_of_transform

_FIRST = 64


def space_of_run(run: Run) -> Space:
    """The space of a run's vectors; of one that no transform made, by its first rows: a retraining
    changes all of them.
    """
    made = run.transform
    if made is not None:
        found = replace(space_of_transform(made), name=run.name)
        return found if run.origin is None else replace(found, origin=run.origin)

    digest = hashlib.sha256()
    for key in TABLES:
        if (table := getattr(run, key)) is not None:
            rows = read_rows(
                table, np.arange(min(table.n_rows, _FIRST)), label="space", verified=False
            )
            digest.update(f"{key} {table.n_rows} {table.d}".encode())
            digest.update(np.ascontiguousarray(rows, "<f8").tobytes())
    return Space(digest.hexdigest()[:32], None, run.name)
