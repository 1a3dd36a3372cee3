"""Compress a whole run: which code for which table, and one read and one write of each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import (
    BITS,
    FROZEN,
    Code,
    frozen_steps,
    leading_directions,
    rotated,
)
from dask_embstab.core.codes.codebooks import CodebookCode
from dask_embstab.core.codes.product import ENTRIES, ProductCode, fit_codebooks
from dask_embstab.core.codes.residual import ResidualCode, fit_residual
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.moments import Panel
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.reduce import Reduction, reduce_table
from dask_embstab.passes.engine.write import LinearMap, write_table
from dask_embstab.passes.fit.reductions import moments_reduction
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.join.space import in_one_space, space_of_run
from dask_embstab.passes.sampled import sampled_rows
from dask_embstab.repairs import option
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES, recorded
from dask_embstab.tables.read.coded import code_attributes
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import RunWriter, begin_run

_SAMPLES, _SAMPLE_ROWS = 16, 256
_PRODUCT = re.compile(r"(?:pq|rq)([1-9][0-9]{0,3})")
LEAST_FITTED, _FITTED = 10_000, 1 << 16
"""Rows that 256 entries need, and at most are fitted to."""


@dataclass(frozen=True, slots=True)
class Compress:
    """A run and the codes of its tables."""

    run: Run
    codes: Mapping[str, RowCode]

    @property
    def tables(self) -> dict[str, Table]:
        """The run's tables by name."""
        return {key: self.run.table(key) for key in self.codes}

    def fingerprint(self) -> str:
        """What must be equal for a write to be resumed: the codes and the inputs."""
        digest = hashlib.sha256()
        for key, table in self.tables.items():
            code = self.codes[key]
            digest.update(repr((key, code_attributes(code), table.written)).encode())
            for values, _ in code.arrays().values():
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:32]

    def write(self, writer: RunWriter, transform: Transform | None, attributes: Any) -> None:
        """Encode every table in one read and one write each; then record the digests of all files,
        with the transform of a stabilized run, which stays what it was.
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
                vectors=False,
            )
            passes[key] = write_table(table, LinearMap(), sink, label="compress")
        written = {key: done.written for key, done in run_all(passes).items()}
        if transform is None:
            writer.record(written)
        else:
            writer.transform(transform, attributes, written)


def codes_of(
    run: Run, name: str, *, rotate: bool, rank: int | None, seed: int, force: bool = False
) -> dict[str, RowCode]:
    """The code of every table: one ``name`` and one matrix for all, codebooks and steps for each.

    ``force``: codebooks may be fitted to fewer rows than they need.
    """
    tables = {key: run.table(key) for key in TABLES if getattr(run, key) is not None}
    d = next(iter(tables.values())).d
    parts = parts_of(name, d if rank is None else rank)
    matrix: Matrix | None = None
    if rank is not None:
        if not 0 < rank <= d:
            raise InputError(f"{option(rank=rank)} must lie between 1 and {d}, the components")
        matrix = _leading(next(iter(tables.values())), rank)
    if rotate:
        matrix = rotated(matrix, d, seed)
    if parts:
        return {
            key: _code_with_books(table, name, matrix, seed=seed, force=force)
            for key, table in tables.items()
        }
    steps = {key: _steps(table, name, matrix) for key, table in tables.items()}
    return {key: Code(name, d, matrix, steps[key]) for key in tables}


def frozen_codes(run: Run, like: Run) -> dict[str, RowCode]:
    """The codes of a compressed run, for another one."""
    codes = {}
    for key in (key for key in TABLES if getattr(run, key) is not None):
        table, other = run.table(key), like.table(key)
        code = getattr(other.source, "code", None)
        if code is None:
            raise InputError(
                f"{option('like')} must be a compressed run; {other.where} is not compressed"
            )
        if code.d != table.d:
            raise InputError(
                f"codes are for rows of one width; those of {other.where} are for {code.d}"
                f" components and {table.where} has {table.d}"
            )
        codes[key] = code
    return codes


def require_code(name: Any) -> None:
    """Raise `InputError` unless this names a code, of rows of any width."""
    match = _PRODUCT.fullmatch(name) if isinstance(name, str) else None
    parts_of(name, 1 if match is None else int(match[1]))


def parts_of(name: str, d: int) -> int:
    """Parts of a product code, or stages of a residual one; 0 for a code without codebooks."""
    if name in (*BITS, *FROZEN):
        return 0
    match = _PRODUCT.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise InputError(
            f"code must be one of {', '.join((*BITS, *FROZEN))}, pq16, rq16 and the like; it is"
            f" {shown(name)}"
        )
    parts = int(match[1])
    if name.startswith("pq") and d % parts:
        raise InputError(f"{name} cuts rows into {parts} parts; {d} components cannot be cut so")
    return parts


def _code_with_books(
    table: Table, name: str, matrix: Matrix | None, *, seed: int, force: bool
) -> RowCode:
    """Codebooks fitted to rows that are drawn by their ids: the same ones in any order of rows."""
    require_fitted(table, force=force)
    rows = sampled_rows(table, _FITTED, seed=seed).rows
    rows = rows if len(rows) else np.zeros((1, table.d), np.float32)
    return code_with_books(rows, name, matrix, seed=seed)


def code_with_books(rows: Rows, name: str, matrix: Matrix | None, *, seed: int) -> RowCode:
    """The code of this name with codebooks fitted to ``rows`` (m, d)."""
    y, d = rows if matrix is None else rows @ matrix, rows.shape[1]
    parts = parts_of(name, y.shape[1])
    if name.startswith("rq"):
        return ResidualCode(d, fit_residual(y, parts, seed), matrix)
    return ProductCode(d, fit_codebooks(y, parts, seed), matrix)


def require_fitted(table: Table, *, force: bool) -> None:
    """Raise where the table has fewer rows than codebooks need."""
    if table.n_rows < LEAST_FITTED and not force:
        raise InputError(
            f"codebooks of {ENTRIES} entries need about {LEAST_FITTED} rows; {table.where} has"
            f" {table.n_rows}",
            f"{option(force=True)} fits them all the same",
        )


@dataclass(frozen=True, slots=True)
class _Largest:
    """The largest size of every component of x @ ``matrix``, of a panel."""

    matrix: Matrix | None

    def __call__(self, panel: Panel) -> Vector:
        """(width,), not finite where a row is not."""
        y = panel.rows if self.matrix is None else panel.rows @ self.matrix
        return np.asarray(np.abs(y).max(axis=0, initial=0.0))


def _steps(table: Table, name: str, matrix: Matrix | None) -> Vector | None:
    """The steps of a code with a scale per component, by one read of the table; None for others."""
    if name not in FROZEN:
        return None
    reduction: Reduction[Vector] = Reduction(_Largest(matrix), np.maximum, np.sum, n_copies=2)
    largest = reduce_table(table, reduction, label="compress: ranges").run().value
    return frozen_steps(largest, name)


def code_figures(run: Run, codes: Mapping[str, RowCode], like: Run | None) -> dict[str, Any]:
    """What is recorded of each table's code: its relative error on rows all over the table, beside
    the error on the day that the code was made, and the share of entries that none of them uses.
    """
    figures: dict[str, Any] = {}
    before = {} if like is None else (recorded(like.attrs).get("compressed") or {})
    for key, code in codes.items():
        rows = _spread(run.table(key))
        stored, scale = code.encode(rows)
        size = float(np.linalg.norm(rows))
        error = float(np.linalg.norm(code.decode(stored, scale) - rows)) / size if size else 0.0
        then = ((before.get("tables") or {}).get(key) or {}).get("error_when_made")
        figures[key] = {
            "error": error,
            "error_when_made": error if like is None else then,
            "unused_entries": (
                code.unused_entries(stored) if isinstance(code, CodebookCode) else None
            ),
        }
    return figures


def _leading(table: Table, rank: int) -> Matrix:
    """The directions of the items (which are those of the users too, where scores were kept)."""
    reduced = reduce_table(table, moments_reduction(centred=False), label="compress: reading").run()
    return leading_directions(reduced.value.gramian, rank)


def _spread(table: Table) -> Matrix:
    """Some 4,096 finite rows all over the table, the same for any chunking."""
    starts = np.linspace(0, max(0, table.n_rows - _SAMPLE_ROWS), _SAMPLES).astype(np.int64)
    stops = np.minimum(starts + _SAMPLE_ROWS, table.n_rows)
    rows = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)]))
    taken = read_rows(table, rows, label="compress: few", verified=False)
    return taken[np.isfinite(taken).all(axis=1)]


def compress_run(
    source: Run,
    out: Any,
    codes: Mapping[str, RowCode],
    *,
    record: Mapping[str, Any],
    name: str | None,
    overwrite: bool,
    resume: bool,
    sync: bool,
    inputs: tuple[str, ...],
) -> Run:
    """Write every table of ``source`` as codes at ``out``, and open the result."""
    work = Compress(source, codes)
    known: dict[str, Any] = {"path": source.path, "name": source.name}
    if source.transform is None and source.path is not None:
        # Nothing else would say whose vectors these are.
        known["space"] = space_of_run(source).origin
    with (
        begin_run(
            out,
            name=name,
            fingerprint=work.fingerprint(),
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            inputs=inputs,
            more={"compressed": {**known, **record}},
        ) as writer,
        in_one_space(source, known["space"]) if "space" in known else nullcontext(),
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
