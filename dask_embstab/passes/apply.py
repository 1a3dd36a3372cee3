"""The apply of one run: which matrix and precision for which table, and the record of how the
output came to be.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from dask_embstab.core.types import Matrix, Vector
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import Pass, run_all
from dask_embstab.passes.engine.write import LinearMap, Product, Written, write_table
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import RunWriter


@dataclass(frozen=True, slots=True)
class Apply:
    """One transform, the run that it is applied to, and the dtype of the output (None: each table's
    own).
    """

    transform: Transform
    run: Run
    dtype: np.dtype[Any] | None

    def __post_init__(self) -> None:
        for key, table in self.tables.items():
            if table.d != self.transform.d:
                raise InputError(
                    f"the transform takes rows of {self.transform.d} components; the {key} of"
                    f" {self.run.where} have {table.d}; apply it to the run it was fitted on"
                )
            if getattr(self.transform, key) is None:
                raise InputError(
                    f"{self.run.where} has {key} and the transform was fitted without; fit it on a"
                    " run that has them"
                )

    @property
    def tables(self) -> dict[str, Table]:
        """The run's tables by name."""
        return {key: table for key in TABLES if (table := getattr(self.run, key)) is not None}

    def write(self, writer: RunWriter) -> None:
        """Land every table in one read and one write each, then record the transform."""
        done = run_all({key: self._pass(writer, key, table) for key, table in self.tables.items()})
        digests = {key: [w.read[chunk] for chunk in sorted(w.read)] for key, w in done.items()}
        written = {key: w.written for key, w in done.items()}
        writer.transform(self.transform, self._provenance(digests), written)

    def fingerprint(self) -> str:
        """What must be equal for a write to be resumed: the matrices, the inputs and the
        output's dtype.
        """
        digest = hashlib.sha256()
        for name, array in self.transform.arrays().items():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        shapes = {
            key: [t.where, t.n_rows, t.d, str(t.dtype), t.chunk_rows, t.written]
            for key, t in self.tables.items()
        }
        digest.update(json.dumps([shapes, str(self.dtype)], sort_keys=True).encode())
        return digest.hexdigest()[:32]

    def in_range(self, key: str) -> tuple[int, ...]:
        """Digests of the chunks that the fit read, if none of their rows can leave the range of the
        output; else none.

        The fit found them finite, and no row is longer than the root of the table's energy
        (Cauchy-Schwarz).
        """
        table, known = self.tables[key], self.transform.diagnostics.get(key) or {}
        M, offset = self._matrices(key)
        longest = math.sqrt(
            math.inf if known.get("energy") is None else known["energy"]
        ) * np.linalg.norm(M)
        longest += 0.0 if offset is None else np.linalg.norm(offset)
        largest = min(
            np.finfo(dtype).max for dtype in (self._product(key, table), self._stored_as(table))
        )
        return tuple(known.get("digests") or ()) if 2 * longest <= largest else ()

    def _pass(self, writer: RunWriter, key: str, table: Table) -> Pass[Written]:
        linear_map = LinearMap(
            *self._matrices(key), self._product(key, table), dict(enumerate(self.in_range(key)))
        )
        return copy_table(
            writer,
            key,
            table,
            linear_map,
            dtype=self._stored_as(table),
            width=self.transform.width,
            chunk_rows=table.chunk_rows,
            label="apply",
        )

    def _matrices(self, key: str) -> tuple[Matrix, Vector | None]:
        return getattr(self.transform, key), getattr(self.transform, f"{key}_offset")

    def _stored_as(self, table: Table) -> np.dtype[Any]:
        return self.dtype or table.dtype

    def _product(self, key: str, table: Table) -> Product:
        """float32 only where the fit's estimates allow it and neither side of the multiply is
        float64.
        """
        if 8 in (table.dtype.itemsize, self._stored_as(table).itemsize):
            return "float64"
        allowed: Mapping[str, Any] = self.transform.diagnostics.get("product", {})
        return "float32" if allowed.get(key) == "float32" else "float64"

    def _provenance(self, digests: Mapping[str, list[int]]) -> dict[str, Any]:
        """Attributes of ``transform/``: how the run came to be."""
        known = self.transform.diagnostics
        return {
            "direction": (
                "row vectors: transformed = vectors @ items (or users), plus offsets where there"
                " are any"
            ),
            "run": {"path": self.run.path, "name": self.run.name},
            "reference": known.get("reference"),
            "method": known.get("method"),
            "keep": known.get("keep"),
            "diagnostics": dict(known),
            "products": {key: self._product(key, table) for key, table in self.tables.items()},
            "digests": {
                "algorithm": "crc32c of each chunk's decoded bytes, C order, little-endian",
                **digests,
            },
            "versions": _versions(),
        }


@cache
def _versions() -> dict[str, str]:
    return {
        name: version(name) for name in ("dask_embstab", "numpy", "scipy", "zarr", "dask", "xarray")
    }


def copy_table(
    writer: RunWriter,
    key: str,
    table: Table,
    linear_map: LinearMap,
    *,
    dtype: np.dtype[Any],
    width: int,
    chunk_rows: int,
    label: str,
) -> Pass[Written]:
    """Make the arrays of one output table, and the pass that fills them."""
    ids = None if table.stored_ids is None else table.stored_ids.kind
    sink = writer.table(
        key, shape=(table.n_rows, width), dtype=dtype, chunk_rows=chunk_rows, ids=ids
    )
    return write_table(table, linear_map, sink, label=label)
