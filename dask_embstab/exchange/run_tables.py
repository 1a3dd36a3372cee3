"""Tables of a run as files of other libraries: what is written of each, and one read of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dask_embstab.errors import InputError
from dask_embstab.exchange.arrow_files import require_pyarrow
from dask_embstab.exchange.changes import Changes
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.panels import FileSpec, Panel, Room
from dask_embstab.exchange.parts import WRITERS, Parts, needs_characters, part_stem, write_parts
from dask_embstab.exchange.place import export_folder, write_record
from dask_embstab.exchange.provenance import provenance
from dask_embstab.options import require_each
from dask_embstab.passes.apply import float_dtype
from dask_embstab.passes.engine.graph import Pass, run_all
from dask_embstab.passes.join.options import join_options
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.reference_rows import plan_reference_read
from dask_embstab.passes.join.space import in_one_space
from dask_embstab.repairs import option
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.ids.row_index import StepIndex
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_PART_BYTES = 128 * 2**20
_MIB = 2**20
_NEED_PYARROW = {
    "parquet": "parquet",
    "arrow": "parquet",
    "lancedb": "lancedb",
    "milvus": "parquet",
}
"""Formats, each with the extra that brings it."""
_ONE_FILE = ("word2vec", "word2vec-binary", "hnswlib", "usearch", "lancedb")
_HALF = np.dtype(np.float16)
_SINGLE = np.dtype(np.float32)
_NO_ROWS = np.empty((ID_RANGE, 0), _SINGLE)


def write_tables(export: Export) -> Mapping[str, Any]:
    """Write every table of a run into a folder of its own below the place, and beside them the
    record of it all, which is returned.
    """
    run, given = export.what, export.options
    assert isinstance(run, Run)
    if (extra := _NEED_PYARROW.get(export.format)) is not None:
        require_pyarrow(export.format.capitalize(), extra=extra)
    _require(given)
    wanted = [given["table"]] if "table" in given else list(TABLES)
    tables = {key: run.table(key) for key in wanted if "table" in given or getattr(run, key)}
    earlier = {} if export.base is None else {key: export.base.table(key) for key in tables}
    record = provenance(run, export.source) | _asked(export)
    specs = {key: _spec(export, table, record) for key, table in tables.items()}
    join = {name: given[name] for name in ("duplicates", "scratch", "join_memory") if name in given}
    with (
        export_folder(export) as folder,
        in_one_space(run, record["space"]["origin"]),
        unchanged(*tables.values(), *earlier.values()),
        join_options(**join) as join_choices,
    ):
        passes: dict[str, Pass[Parts]] = {}
        pairings: dict[str, Pairing] = {}
        for key, table in tables.items():
            (folder / key).mkdir()
            changes = pairs = None
            if key in earlier:
                changes = _changes(given, specs[key])
                pairings[key] = pair(table, earlier[key], join_choices, part=True)
                pairs = plan_reference_read(pairings[key], table, join_choices, label="export")
            passes[key] = write_parts(
                table,
                specs[key],
                folder / key,
                rows_per_file=rows_per_file(export, table, specs[key]),
                label="export",
                changes=changes,
                earlier=pairs,
            )
        written = {
            key: _table_record(done, specs[key], folder / key)
            for key, done in run_all(passes).items()
        }
        for key, pairing in pairings.items():
            written[key] |= _write_removed(
                rows_per_file(export, earlier[key], specs[key]),
                specs[key],
                earlier[key],
                pairing,
                folder / f"{key}-gone",
            )
        write_record(folder, record | written)
    return {name: record[name] for name in ("run", "version") if name in record} | written


def rows_per_file(export: Export, table: Table, spec: FileSpec) -> int:
    """Rows of the table for each file: as asked, else by the bytes of a row alone."""
    given, row_bytes = export.options, spec.d * spec.dtype.itemsize
    if "rows_per_file" in given:
        return int(given["rows_per_file"])
    if "part_mb" in given:
        return max(1, int(given["part_mb"] * _MIB / row_bytes))
    if export.format in _ONE_FILE:
        return table.n_rows
    return 1 << max(0, (_PART_BYTES // row_bytes).bit_length() - 1)


def _require(given: Mapping[str, Any]) -> None:
    """Raise where options cannot be, or not together."""
    if "dtype" in given:
        float_dtype(given["dtype"])
    require_each("export", {name: given[name] for name in given.keys() - {"dtype"}})
    if "rows_per_file" in given and "part_mb" in given:
        raise InputError(
            f"files are cut by {option('rows_per_file')} or by {option('part_mb')}; both came; give"
            " one"
        )
    needed = {
        "where_moved_more_than": "ids_changed_since",
        "moved_by": "where_moved_more_than",
    }
    for name, other in needed.items():
        if name in given and other not in given:
            raise InputError(f"{option(name)} needs {option(other)}, which did not come; give both")


def _asked(export: Export) -> dict[str, Any]:
    """What was asked for, for the record; None where it was not."""
    given = export.options
    moved = "where_moved_more_than" in given
    return {
        "as": export.format,
        "changed_since": given.get("ids_changed_since"),
        "moved_more_than": given.get("where_moved_more_than"),
        "moved_by": given.get("moved_by", "cosine") if moved else None,
        "metric": _metric(export),
    }


def _metric(export: Export) -> str:
    """By which an index finds neighbours."""
    of_run = isinstance(export.what, Run) and export.what.users is not None
    return str(export.options.get("metric", "dot" if of_run else "cosine"))


def _spec(export: Export, table: Table, record: Mapping[str, Any]) -> FileSpec:
    given = export.options
    dtype = float_dtype(given["dtype"]) if "dtype" in given else table.dtype.newbyteorder("=")
    if export.format == "word2vec-binary" and dtype != _SINGLE:
        if "dtype" in given or dtype != _HALF:
            raise InputError(
                f"word2vec-binary holds float32 alone; these are {dtype}",
                f"{option(dtype='float32')} rounds them",
            )
        dtype = _SINGLE
    if export.format == "milvus":  # a FLOAT_VECTOR holds float32 alone
        dtype = _SINGLE
    if export.format in _NEED_PYARROW and dtype == _HALF and "dtype" not in given:
        dtype = _SINGLE
    of_table = {"table": table.key, "dtype": str(dtype), "ids": _ids_of(table)}
    return FileSpec(
        export.format,
        table.d,
        dtype,
        table.row_ids.kind,
        table.where,
        vectors_as=given.get("vectors_as", "list"),
        formulas="formulas" in given,
        metric=_metric(export),
        provenance=json.dumps({**record, **of_table}, sort_keys=True),
    )


def _ids_of(table: Table) -> str:
    return "row numbers" if table.stored_ids is None else table.stored_ids.kind


def _changes(given: Mapping[str, Any], spec: FileSpec) -> Changes:
    return Changes(spec.dtype, given.get("where_moved_more_than"), given.get("moved_by", "cosine"))


def _table_record(parts: Parts, spec: FileSpec, folder: Path) -> dict[str, Any]:
    """What was written of a table; where no row was, an empty file says what there would be."""
    if not parts.files:
        WRITERS[spec.format](spec, part_stem(folder, 0), (), Room(0, 0))
    record = {"rows": parts.rows, "files": max(1, parts.files), "components": spec.d}
    return {
        **record,
        "dtype": str(spec.dtype),
        "ids": spec.ids,
        **dict(sorted(parts.changes.items())),
    }


def _write_removed(
    per_file: int, spec: FileSpec, earlier: Table, pairing: Pairing, folder: Path
) -> dict[str, int]:
    """The ids of the earlier version that have no row any more, as files of ids alone; one file at
    least.
    """
    folder.mkdir()
    alone = replace(spec, d=0, where=earlier.where)
    partners, reader = pairing.inverse or StepIndex(pairing.matched), earlier.row_ids

    def panels(first: int) -> Iterator[Panel]:
        ids, last = reader.open(), min(first + per_file, earlier.n_rows)
        for start in range(first, last, ID_RANGE):
            stop = min(start + ID_RANGE, last)
            numbers = start + np.flatnonzero(partners.take(start, stop) < 0)
            if len(numbers):
                yield Panel(
                    numbers, ids.take(start, stop)[numbers - start], _NO_ROWS[: len(numbers)]
                )

    n = 0
    for number, first in enumerate(range(0, earlier.n_rows, per_file)):
        count = characters = 0
        for panel in panels(first):
            count += len(panel.ids)
            if needs_characters(alone):
                characters = max(characters, *map(len, panel.ids.tolist()))
        if count or (not n and first + per_file >= earlier.n_rows):
            WRITERS[alone.format](
                alone, part_stem(folder, number), panels(first), Room(per_file, characters)
            )
        n += count
    return {"gone": n}
