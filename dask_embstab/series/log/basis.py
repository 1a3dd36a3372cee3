"""In which space is a stored run read? In the one it was stored in, or, since a rebase, one small
matrix further.

Published files never change. A lazy rebase records one matrix per stored run; whoever opens a
version through the series gets tables whose rows are multiplied as they are read, and the transform
composed with the matrix.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import crc32c
import numpy as np

from dask_embstab.core.types import Matrix, Rows
from dask_embstab.errors import DamageError
from dask_embstab.files.npz import read_npz
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.series.log.published import published_run
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Store
from dask_embstab.tables.read.views import MappedSource
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import rebased_origin
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform

Matrices = Mapping[str, Matrix]
"""One (d, k) matrix with orthonormal rows per stored run that is not read as it is stored."""


def read_run(store: Store, version: Version) -> Run:
    """The run of a version (as `Log.located` gives it) in the space in which it is read now."""
    run = published_run(store, version)
    if version.basis.get("file"):
        run = replace(run, origin=rebased_origin(version.basis))
    M = matrix_of(store, version)
    if M is None:
        return run
    then = rotation(M, {"file": version.basis["file"], "onto": version.basis["onto"]})
    return replace(run, items=moved_table(run.items, M), users=moved_table(run.users, M), then=then)


def widened(run: Run, width: int) -> Run:
    """The run with zeros behind its components, up to ``width``."""
    d = run.table("items" if run.items is not None else "users").d
    if d == width:
        return run
    M = np.eye(d, width)
    return replace(run, items=moved_table(run.items, M), users=moved_table(run.users, M))


def of_one_width(a: Run, b: Run) -> tuple[Run, Run]:
    """Two runs of one series in the wider one's space: the narrower has zeros in the last
    components.
    """
    width = max(table.d for run in (a, b) for table in (run.items, run.users) if table is not None)
    return widened(a, width), widened(b, width)


def moved_table(table: Table | None, M: Matrix | None) -> Table | None:
    """A view of the table with every row multiplied by ``M``."""
    if table is None or M is None:
        return table
    return replace(
        table, source=MappedSource(table.source, _Times(M, table.dtype), M.shape[1], table.dtype)
    )


def rotation(M: Matrix, diagnostics: Mapping[str, Any]) -> Transform:
    """The same orthonormal matrix for items and users: every score stays."""
    return Transform(M, M, np.ones(len(M)), diagnostics=diagnostics)


def matrix_of(store: Store, version: Version) -> Matrix | None:
    """The matrix of one stored run; None where it is read as it is stored."""
    return read_matrices(store, version.basis).get(str(version.run))


def read_matrices(store: Store, basis: Mapping[str, Any]) -> Matrices:
    """All matrices that readers multiply by: none where they were written into the runs."""
    return {} if basis.get("applied") else stored_matrices(store, basis)


def stored_matrices(store: Store, basis: Mapping[str, Any]) -> Matrices:
    """All matrices that a rebase recorded, to be read by or written into the runs; none without
    one.
    """
    if not basis.get("file"):
        return {}
    try:
        crc = 0
        for block in store.blocks(basis["file"]):
            crc = crc32c.crc32c(block, crc)
        if crc != basis["crc32c"]:  # as long as its matrices are: seen before it is in memory
            raise ValueError("it fails its checksum")
        arrays = read_npz(io.BytesIO(b"".join(store.blocks(basis["file"]))))
        return {
            name: arrays[f"m{number}"]
            for number, name in enumerate(parsed_json(str(arrays["names"])))
        }
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise DamageError(
            f"{basis['file']} cannot be read ({error}); restore it from a copy"
        ) from error


def store_matrices(store: Store, matrices: Matrices) -> dict[str, Any]:
    """Make them durable under a name of their own content; what a version records of them."""
    if not matrices:
        return {"file": None, "crc32c": None}
    file = io.BytesIO()
    arrays: dict[str, Any] = {f"m{number}": M for number, M in enumerate(matrices.values())}
    np.savez(file, names=np.array(json.dumps(list(matrices))), **arrays)
    data = file.getvalue()
    store.make("bases")
    key = f"bases/{hashlib.sha256(data).hexdigest()[:16]}.npz"
    store.replace(key, data)
    return {"file": key, "crc32c": int(crc32c.crc32c(data))}


@dataclass(frozen=True, slots=True)
class _Times:
    """Rows times a matrix, in float64, back in the rows' dtype."""

    M: Matrix
    dtype: np.dtype[Any]

    def __call__(self, rows: Rows) -> Rows:
        return np.asarray((rows.astype(np.float64) @ self.M).astype(self.dtype))
