"""Parquet and Arrow IPC files of a table: a column ``id`` and a column ``vector``.

Neither column holds a null, and the type says so: readers then need no look at each element.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room, grouped
from dask_embstab.extras import require_extra
from dask_embstab.files.atomic import write_whole
from dask_embstab.tables.ids.kinds import IdArray, encoded_texts
from dask_embstab.tables.layout import ATTRIBUTE


def require_pyarrow(name: str, *, extra: str = "parquet") -> Any:
    """pyarrow, of the extra that brings all that the format needs."""
    return require_extra("pyarrow", extra, what=f"a table in {name}")


def write_parquet(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """One file, a row group for each panel: floats as they are (they hardly shrink), ids Snappy."""
    del room
    pa = require_pyarrow("Parquet")
    parquet = require_extra("pyarrow.parquet", "parquet", what="a table in Parquet")
    schema = arrow_schema(spec)

    def fill(file: IO[bytes]) -> None:
        with parquet.ParquetWriter(
            file,
            schema,
            compression={"id": "SNAPPY", "vector": "NONE", "vector.list.element": "NONE"},
            use_dictionary=False,
            write_statistics=["id"],
        ) as writer:
            for panel in grouped(panels, spec.group_rows):
                table = pa.Table.from_arrays(columns_of(spec, panel), schema=schema)
                writer.write_table(table, row_group_size=spec.group_rows)

    write_whole(f"{stem}.parquet", fill, sync=False)


def write_arrow(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """One IPC file, a record batch for each panel, not compressed: it can be memory-mapped."""
    del room
    pa = require_pyarrow("Arrow")
    schema = arrow_schema(spec)

    def fill(file: IO[bytes]) -> None:
        with pa.ipc.new_file(file, schema) as writer:
            for panel in grouped(panels, spec.group_rows):
                columns = columns_of(spec, panel)
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    write_whole(f"{stem}.arrow", fill, sync=False)


def arrow_schema(spec: FileSpec) -> Any:
    """The columns' types, and the provenance as the metadata ``embstab``."""
    pa = require_pyarrow("Arrow")
    ids = {"int64": pa.int64(), "string": pa.string(), "uuid": pa.binary(16)}[spec.ids]
    fields = [pa.field("id", ids, nullable=False)]
    if spec.d:
        # Bytes alone do not say what they are.
        known = {"dtype": spec.dtype.name} if spec.vectors_as == "binary" else None
        fields.append(pa.field("vector", _vector_type(spec), nullable=False, metadata=known))
    return pa.schema(fields, metadata={ATTRIBUTE: spec.provenance})


def _vector_type(spec: FileSpec) -> Any:
    pa = require_pyarrow("Arrow")
    if spec.vectors_as == "binary":
        return pa.binary(spec.d * spec.dtype.itemsize)
    element = pa.field("element", pa.from_numpy_dtype(spec.dtype), nullable=False)
    return pa.list_(element, spec.d) if spec.vectors_as == "fixed-list" else pa.list_(element)


def columns_of(spec: FileSpec, panel: Panel) -> list[Any]:
    """The columns of a panel, as `arrow_schema` has them."""
    ids = _ids(spec, panel.ids, int(panel.numbers[0]))
    return [ids, _vectors(spec, panel.rows)] if spec.d else [ids]


def _ids(spec: FileSpec, ids: IdArray, start: int) -> Any:
    pa = require_pyarrow("Arrow")
    if spec.ids == "uuid":
        data = np.ascontiguousarray(ids)
        return pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(ids), [None, pa.py_buffer(data.tobytes())]
        )
    if spec.ids == "string":
        return pa.array(encoded_texts(ids, spec.where, start), pa.binary()).cast(pa.string())
    return pa.array(np.ascontiguousarray(ids))


def _vectors(spec: FileSpec, rows: Rows) -> Any:
    """No copy is made of the rows."""
    pa, kind = require_pyarrow("Arrow"), _vector_type(spec)
    rows = np.ascontiguousarray(rows)
    if spec.vectors_as == "binary":
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(rows)])
    values = pa.array(rows.reshape(-1))
    if spec.vectors_as == "fixed-list":
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    offsets = pa.array(np.arange(0, rows.size + 1, spec.d, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, values, type=kind)
