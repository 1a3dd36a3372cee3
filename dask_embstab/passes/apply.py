"""The apply of a whole run: planned per table (which matrix, which precision), then one read and
one write each, and the record of how the output came to be.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.options import require_each
from dask_embstab.passes.engine.graph import Pass, run_all
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.engine.write import LinearMap, Product, Written, write_table
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import RunWriter, begin_run

if TYPE_CHECKING:
    from dask_embstab.core.codes.row_code import RowCode

Codes: TypeAlias = "Mapping[str, RowCode]"
"""The codes in which tables are stored beside their vectors, by table."""
NO_CODES: Codes = {}
_LIBRARIES = ("numpy", "scipy", "zarr", "dask", "xarray")


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A table, what its rows are multiplied by, the dtype in which the result is stored, and the
    code in which it is stored too.
    """

    table: Table
    linear_map: LinearMap
    dtype: np.dtype[Any]
    code: RowCode | None = None


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """One transform, the run that it aligns, and the plan of each table; ``dtype`` was asked for
    (None: each table's own). Vectors are written as shards of ``shard_rows``, where there are any.
    """

    transform: Transform
    run: Run
    dtype: np.dtype[Any] | None
    tables: Mapping[str, TablePlan]
    shard_rows: int | None = None


def transform_run(
    transform: Transform,
    source: Run,
    out: Any,
    *,
    name: str | None,
    dtype: Any,
    overwrite: bool,
    resume: bool,
    sync: bool = True,
    for_series: bool = False,
    inputs: tuple[str, ...],
    codes: Codes = NO_CODES,
    shard_rows: int | None = None,
) -> Run:
    """Write every table of ``source`` as a stabilized run at ``out``, outside of every input, and
    open it; with ``codes`` the codes of its rows too, in the same read.
    """
    require_each("apply", {"shard_rows": shard_rows})
    require_output(out, inputs, overwrite=overwrite, for_series=for_series)
    plan = plan_apply(transform, source, None if dtype is None else float_dtype(dtype), codes)
    plan = replace(plan, shard_rows=shard_rows)
    with (
        begin_run(
            out,
            name=name,
            fingerprint=fingerprint(plan),
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            for_series=for_series,
            inputs=inputs,
        ) as writer,
        unchanged(*(planned.table for planned in plan.tables.values())),
    ):
        write_planned(plan, writer)
    return open_run(out)


def plan_apply(
    transform: Transform, run: Run, dtype: np.dtype[Any] | None, codes: Codes = NO_CODES
) -> ApplyPlan:
    """What is computed for each table of the run; raises `InputError` where the transform is not
    for these tables.

    The product is float32 only where the fit's estimates allow it and neither side of the multiply
    is float64. Chunks that the fit found finite need no check, if none of their rows can leave the
    range of the output: no row is longer than the root of the table's energy (Cauchy-Schwarz).
    """
    tables = {}
    for key in TABLES:
        table: Table | None = getattr(run, key)
        if table is None:
            continue
        M, offset = getattr(transform, key), getattr(transform, f"{key}_offset")
        if table.d != transform.d:
            raise InputError(
                f"the transform takes rows of {transform.d} components; the {key} of"
                f" {run.where} have {table.d}; apply it to the run it was fitted on"
            )
        if M is None:
            raise InputError(
                f"{run.where} has {key} and the transform was fitted without; fit it on a run that"
                " has them"
            )

        stored_as, known = dtype or table.dtype, transform.diagnostics.get(key) or {}
        allowed = transform.diagnostics.get("product", {}).get(key)
        is_double = 8 in (table.dtype.itemsize, stored_as.itemsize)
        product: Product = "float32" if allowed == "float32" and not is_double else "float64"
        longest = math.sqrt(math.inf if known.get("energy") is None else known["energy"])
        longest *= float(np.linalg.norm(M))
        longest += 0.0 if offset is None else float(np.linalg.norm(offset))
        largest = min(float(np.finfo(product).max), float(np.finfo(stored_as).max))
        digests = tuple(known.get("digests") or ()) if 2 * longest <= largest else ()
        linear_map = LinearMap(M, offset, product, dict(enumerate(digests)))
        tables[key] = TablePlan(table, linear_map, stored_as, codes.get(key))
    return ApplyPlan(transform, run, dtype, tables)


def fingerprint(plan: ApplyPlan) -> str:
    """What must be equal for a write to be resumed: the matrices, the inputs and the output's
    dtype.
    """
    digest = hashlib.sha256()
    for name, array in plan.transform.arrays().items():
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    shapes = {
        key: [t.where, t.n_rows, t.d, str(t.dtype), t.chunk_rows, t.written]
        for key, t in ((key, planned.table) for key, planned in plan.tables.items())
    }
    what = [shapes, str(plan.dtype), *([] if plan.shard_rows is None else [plan.shard_rows])]
    digest.update(json.dumps(what, sort_keys=True).encode())
    for key, planned in plan.tables.items():
        if planned.code is not None:
            from dask_embstab.tables.read.coded import code_attributes

            digest.update(repr((key, code_attributes(planned.code))).encode())
    return digest.hexdigest()[:32]


def write_planned(plan: ApplyPlan, writer: RunWriter) -> None:
    """Transform every table in one read and one write each, then record the transform."""
    passes = {
        key: copy_table(
            writer,
            key,
            planned.table,
            planned.linear_map,
            dtype=planned.dtype,
            width=plan.transform.width,
            chunk_rows=planned.table.chunk_rows,
            label="apply",
            code=planned.code,
            shard_rows=plan.shard_rows,
        )
        for key, planned in plan.tables.items()
    }
    done = run_all(passes)
    known = plan.transform.diagnostics
    provenance = {
        "direction": (
            "row vectors: transformed = vectors @ items (or users), plus offsets where there"
            " are any"
        ),
        "run": {"path": plan.run.path, "name": plan.run.name},
        "reference": known.get("reference"),
        "method": known.get("method"),
        "keep": known.get("keep"),
        "diagnostics": dict(known),
        "products": {key: planned.linear_map.product for key, planned in plan.tables.items()},
        "digests": {
            "algorithm": "crc32c of each chunk's decoded bytes, C order, little-endian",
            **{key: [w.read[chunk] for chunk in sorted(w.read)] for key, w in done.items()},
        },
        "versions": _versions(),
    }
    written = {key: w.written for key, w in done.items()}
    writer.transform(plan.transform, provenance, written)


@cache
def _versions() -> dict[str, str]:
    """Of what computed; a module that is loaded knows its own, without a search of the path."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in _LIBRARIES}
    return {"dask_embstab": version("dask_embstab")} | {
        name: known or version(name) for name, known in loaded.items()
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
    code: RowCode | None = None,
    shard_rows: int | None = None,
    inner_rows: int | None = None,
) -> Pass[Written]:
    """Make the arrays of one output table, and the pass that fills them; with a ``code`` those of
    the codes too, with ``shard_rows`` in shards.
    """
    ids = None if table.stored_ids is None else table.stored_ids.kind
    sink = writer.table(
        key,
        shape=(table.n_rows, width),
        dtype=dtype,
        chunk_rows=chunk_rows,
        ids=ids,
        code=code,
        shard_rows=shard_rows,
        inner_rows=inner_rows,
    )
    return write_table(table, linear_map, sink, label=label)


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype that is asked for; `InputError` where vectors cannot have it."""
    made = np.dtype(object)
    if isinstance(
        dtype, str | type | np.dtype
    ):  # what merely has a dtype is something else, given by mistake
        with contextlib.suppress(TypeError, ValueError):
            made = np.dtype(dtype)
    if made.kind != "f" or made.itemsize > 8:
        raise InputError(f"dtype must be float16, float32 or float64; it is {shown(dtype)}")
    return made
