"""The table that stands in files of another format: the one place that asks which format it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.repairs import option
from dask_embstab.tables.formats.arrays import ArrayFormat, array_table
from dask_embstab.tables.formats.arrow import ArrowReader, arrow_schema
from dask_embstab.tables.formats.columnar import column_ids, column_table, reading_file
from dask_embstab.tables.formats.csv import csv_reader
from dask_embstab.tables.formats.hdf5 import Hdf5
from dask_embstab.tables.formats.parquet import parquet_reader
from dask_embstab.tables.formats.places import Place, files_at
from dask_embstab.tables.formats.raw import Npy, Npz, Safetensors
from dask_embstab.tables.formats.where import row_filter
from dask_embstab.tables.formats.words import Words
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.ids.ids import Ids, as_ids
from dask_embstab.tables.table import Table


def ids_in_files(source: Any, key: str) -> Ids | None:
    """The ids in a file, a folder or a pattern of Parquet, Arrow, CSV or npy that holds no vectors;
    None where it holds some, or where none of these formats is meant.
    """
    place = files_at(source)
    if place is None:
        return None
    paths = [file.path for file in place.files]
    if place.format == "npy" and len(paths) == 1:
        with reading_file(paths[0]):
            ids = np.load(paths[0], mmap_mode="r", allow_pickle=False)
        return as_ids(ids, len(ids), where=place.name) if ids.ndim == 1 else None
    if place.format not in ("parquet", "arrow", "csv"):
        return None
    reader, _ = _column_reader(place, paths)
    return column_ids(reader, place.files, key=key, where=place.name)


def table_of_files(
    place: Place, key: str, *, id: Any = None, vector: Any = None, where: Any = None
) -> Table:
    """The table that these files hold.

    Raises `InputError` where it is not clear which columns are meant, or a row cannot be one.
    """
    paths = [file.path for file in place.files]
    if place.format in _ARRAYS:
        if where is not None:
            raise InputError(
                f"{option('where')} is a filter of files of columns (Parquet, Arrow, CSV);"
                f" {place.name} is {place.format}"
            )
        return _of_arrays(place, key, id, vector)
    reader, schema = _column_reader(place, paths)
    return column_table(
        reader,
        place.files,
        key=key,
        where=place.name,
        id=id,
        vector=vector,
        row_filter=row_filter(where, schema),
        row_filter_text="" if where is None else str(where),
    )


def _column_reader(place: Place, paths: list[str]) -> tuple[Any, Any]:
    """The reader of a format of columns, and the schema."""
    if place.format == "arrow":
        return ArrowReader(), arrow_schema(paths[0])
    if place.format == "parquet":
        reader: Any = parquet_reader(place.root, paths)
    elif place.format == "csv":
        reader = csv_reader(paths[0])
    else:
        raise InputError(
            f"{place.name} is {place.format}, which is not read; convert it to Parquet or npy"
        )
    return reader, reader.schema


_ARRAYS: dict[str, ArrayFormat] = {
    "npy": Npy(),
    "npz": Npz(),
    "hdf5": Hdf5(),
    "safetensors": Safetensors(),
    "words": Words(),
}


def _of_arrays(place: Place, key: str, id: Any, vector: Any) -> Table:
    """Of npy, ``id`` names files of ids: as many as there are of vectors."""
    id_files: tuple[StoredFile, ...] = ()
    if place.format == "npy" and id is not None:
        id_place = files_at(id)
        if id_place is None or id_place.format != "npy" or len(id_place.files) != len(place.files):
            raise InputError(
                f"the ids of npy files are npy files themselves, one for each; {option('id')} is"
                f" {shown(id)} for {len(place.files)} files of vectors"
            )
        id_files, id = id_place.files, None
    return array_table(
        _ARRAYS[place.format],
        place.files,
        key=key,
        where=place.name,
        id=id,
        vector=vector,
        id_files=id_files,
    )
