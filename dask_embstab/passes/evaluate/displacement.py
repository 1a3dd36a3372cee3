"""How far has every id moved? A table of one line per id that both runs have, as Zarr or Parquet.

The pass over the matched rows leaves every pair's figures in scratch files; from there they are
written with their ids, a range at a time, into a hidden folder that is renamed when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dask_embstab.arguments import shown as as_shown
from dask_embstab.core.types import Vector
from dask_embstab.errors import InputError, OutputExistsError
from dask_embstab.extras import require_extra
from dask_embstab.files.atomic import create_new
from dask_embstab.files.place import local_path
from dask_embstab.passes.evaluate.matched import COLUMNS, PairFiles
from dask_embstab.repairs import option
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.ids.kinds import IdArray, plain
from dask_embstab.tables.layout import DIMENSION
from dask_embstab.tables.table import Table
from dask_embstab.tables.write.nodes import consolidate, quiet_metadata
from dask_embstab.tables.write.table_layout import ID_DTYPES
from dask_embstab.tables.write.workplace import work_place

Part = tuple[Table, PairFiles, int]
"""A table, the figures of its pairs, and how many pairs there are."""


def displacement_place(given: Any) -> Path:
    """Where the table goes, checked before anything is read."""
    place = local_path(given) if isinstance(given, str | os.PathLike) else None
    if place is None:
        raise InputError(
            f"the displacements must be written to a local place; {as_shown(given)} came; give a"
            " path"
        )
    if not place.parent.is_dir():
        raise InputError(f"the folder {place.parent} does not exist; create it first")
    if place.exists() or place.is_symlink():
        raise OutputExistsError(
            f"{option('displacement')} writes to a new place; {place} stands already; remove it or"
            " choose another"
        )
    if place.suffix == ".parquet":
        _pyarrow()
    return place


def write_displacement(place: Path, parts: Mapping[str, Part]) -> None:
    """Write the tables by name: a Zarr group of arrays each, or a Parquet data set with one
    partition each (``table=items``). Memory: one range of rows.
    """
    write = _to_parquet if place.suffix == ".parquet" else _to_zarr
    with work_place(place, "", resume=False) as work:
        work.run.mkdir(exist_ok=True)
        write(work.run, parts)
        work.publish(overwrite=False, sync=True)


def _pairs(part: Part) -> Iterator[tuple[IdArray, list[Vector]]]:
    """The ids and columns of all pairs, a range of rows at a time."""
    table, files, _ = part
    ids = table.row_ids.open()
    for start in range(0, table.n_rows, ID_RANGE):
        stop = min(start + ID_RANGE, table.n_rows)
        columns = files.take(start, stop)
        kept = np.flatnonzero(~np.isnan(columns[0]))
        yield ids.take(start, stop)[kept], [column[kept] for column in columns]


def _to_zarr(folder: Path, parts: Mapping[str, Part]) -> None:
    root = zarr.open_group(folder, mode="a", zarr_format=3)
    for key, part in parts.items():
        table, _, n = part
        group = root.create_group(key)
        dtypes = {"id": ID_DTYPES[table.row_ids.kind]} | dict.fromkeys(COLUMNS, np.float64)
        with quiet_metadata():
            arrays = [
                group.create_array(
                    name,
                    shape=(n,),
                    chunks=(min(ID_RANGE, max(n, 1)),),
                    dtype=dtype,
                    dimension_names=(DIMENSION[key],),
                    config={"write_empty_chunks": True},
                )
                for name, dtype in dtypes.items()
            ]
        for first, columns in _rechunked(_pairs(part)):
            for array, values in zip(arrays, columns, strict=True):
                array[first : first + len(values)] = values
    consolidate(root)


def _rechunked(pairs: Iterator[tuple[IdArray, list[Vector]]]) -> Iterator[tuple[int, list[Any]]]:
    """The same as columns with the ids first, in whole chunks: none is written twice."""
    first, held = 0, None
    for ids, columns in pairs:
        new = [ids, *columns]
        held = (
            new if held is None else [np.concatenate(both) for both in zip(held, new, strict=True)]
        )
        if len(held[0]) >= ID_RANGE:
            yield first, [column[:ID_RANGE] for column in held]
            first, held = first + ID_RANGE, [column[ID_RANGE:] for column in held]
    if held is not None and len(held[0]):
        yield first, held


def _to_parquet(folder: Path, parts: Mapping[str, Part]) -> None:
    pa, parquet = _pyarrow()
    for key, part in parts.items():
        kind = part[0].row_ids.kind
        schema = pa.schema(
            [("id", pa.int64() if kind == "int64" else pa.string())]
            + [(name, pa.float64()) for name in COLUMNS]
        )
        partition = folder / f"table={key}"
        partition.mkdir()
        with (
            open(create_new(partition / "part-0.parquet"), "wb") as file,  # noqa: PTH123 (a descriptor)
            parquet.ParquetWriter(file, schema) as writer,
        ):
            for ids, columns in _pairs(part):
                named = ids if kind == "int64" else plain(ids)
                writer.write_table(pa.table([named, *columns], schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    what = "a table of displacements in Parquet"
    pa = require_extra("pyarrow", "parquet", what=what)
    return pa, require_extra("pyarrow.parquet", "parquet", what=what)
