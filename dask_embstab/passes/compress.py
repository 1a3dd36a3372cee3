"""Compress a whole run: which code for which table, and one read and one write of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import (
    BITS,
    Code,
    leading_directions,
    random_rotation,
    unit_of,
)
from dask_embstab.core.types import Matrix
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.engine.write import LinearMap, write_table
from dask_embstab.passes.fit.reductions import moments_reduction
from dask_embstab.repairs import option
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.read.coded import code_attributes
from dask_embstab.tables.read.direct_source import few_rows
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import RunWriter, begin_run

_SAMPLES, _SAMPLE_ROWS = 16, 256


@dataclass(frozen=True, slots=True)
class Compress:
    """A run and the codes of its tables."""

    run: Run
    codes: Mapping[str, Code]

    @property
    def tables(self) -> dict[str, Table]:
        """The run's tables by name."""
        return {key: self.run.table(key) for key in self.codes}

    def fingerprint(self) -> str:
        """What must be equal for a write to be resumed: the codes and the inputs."""
        digest = hashlib.sha256()
        for key, table in self.tables.items():
            matrix = self.codes[key].matrix
            digest.update(repr((key, code_attributes(self.codes[key]), table.written)).encode())
            digest.update(b"" if matrix is None else np.ascontiguousarray(matrix).tobytes())
        return digest.hexdigest()[:32]

    def write(self, writer: RunWriter, transform: Transform | None, attributes: Any) -> None:
        """Encode every table in one read and one write each; then record the transform of a
        stabilized run, which stays what it was.
        """
        passes = {}
        for key, table in self.tables.items():
            sink = writer.table(
                key,
                shape=(table.n_rows, table.d),
                dtype=np.dtype(np.float32),
                chunk_rows=table.chunk_rows,
                ids=None if table.stored_ids is None else table.stored_ids.kind,
                code=self.codes[key],
            )
            passes[key] = write_table(table, LinearMap(), sink, label="compress")
        written = {key: done.written for key, done in run_all(passes).items()}
        if transform is not None:
            writer.transform(transform, attributes, written)


def codes_of(run: Run, name: str, *, rotate: bool, rank: int | None, seed: int) -> dict[str, Code]:
    """The code of every table: one ``name`` and one matrix for all, a unit for each."""
    if name not in BITS:
        raise InputError(f"code must be one of {', '.join(BITS)}; it is {shown(name)}")
    tables = {key: run.table(key) for key in TABLES if getattr(run, key) is not None}
    d = next(iter(tables.values())).d
    matrix: Matrix | None = None
    if rank is not None:
        if not 0 < rank <= d:
            raise InputError(f"{option(rank=rank)} must lie between 1 and {d}, the components")
        matrix = _leading(next(iter(tables.values())), rank)
    if rotate:
        matrix = (
            random_rotation(d, seed)
            if matrix is None
            else matrix @ random_rotation(matrix.shape[1], seed)
        )
    if "float" in name:
        return {key: Code(name, d, 1.0, matrix) for key in tables}
    return {key: Code(name, d, _unit(table), matrix) for key, table in tables.items()}


def _leading(table: Table, rank: int) -> Matrix:
    """The directions of the items (which are those of the users too, where scores were kept)."""
    found = reduce_table(table, moments_reduction(centred=False), label="compress: reading").run()
    return leading_directions(found.value.gramian, rank)


def _unit(table: Table) -> float:
    """By the size of a few rows all over the table, the same for any chunking."""
    starts = np.linspace(0, max(0, table.n_rows - _SAMPLE_ROWS), _SAMPLES).astype(np.int64)
    stops = np.minimum(starts + _SAMPLE_ROWS, table.n_rows)
    rows = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)]))
    block = few_rows(table.source, rows)
    opened = block.compute() if hasattr(block, "compute") else block
    taken = np.asarray(opened.open().take(0, len(rows)), np.float64)
    finite = taken[np.isfinite(taken).all(axis=1)]
    return unit_of(float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0)


def compress_run(
    source: Run,
    out: Any,
    codes: Mapping[str, Code],
    *,
    record: Mapping[str, Any],
    name: str | None,
    overwrite: bool,
    resume: bool,
    sync: bool,
    inputs: tuple[str, ...],
) -> Run:
    """Write every table of ``source`` as codes at ``out``, and open the result."""
    require_output(out, inputs, overwrite=overwrite)
    work = Compress(source, codes)
    with (
        begin_run(
            out,
            name=name,
            fingerprint=work.fingerprint(),
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            inputs=inputs,
            more={"compressed": {"path": source.path, "name": source.name, **record}},
        ) as writer,
        unchanged(*work.tables.values()),
    ):
        work.write(writer, source.transform, _attributes(source))
    return open_run(out)


def _attributes(source: Run) -> dict[str, Any]:
    """Those of a stabilized run's transform, which its codes keep."""
    transform = source.transform
    if transform is None:
        return {}
    attributes: dict[str, Any] = dict(source.group["transform"].attrs)
    return {**attributes, "diagnostics": dict(transform.diagnostics)}
