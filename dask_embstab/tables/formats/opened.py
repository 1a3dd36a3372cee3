"""The table that stands in files of another format: the one place that asks which format it is."""

from __future__ import annotations

from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.repairs import option
from dask_embstab.tables.formats.columnar import column_table
from dask_embstab.tables.formats.parquet import parquet_reader
from dask_embstab.tables.formats.places import Place, files_at
from dask_embstab.tables.formats.where import row_filter
from dask_embstab.tables.table import Table


def table_in_files(
    source: Any, *, key: str, id: Any = None, vector: Any = None, where: Any = None
) -> Table | None:
    """The table that a file, a folder, a pattern or a list of these holds; None where none of these
    formats is meant.

    Raises `InputError` where it is not clear which columns are meant, or a row cannot be one.
    """
    place = files_at(source)
    return None if place is None else _opened(place, key, id, vector, where)


def is_in_files(source: Any) -> bool:
    """Whether a source names files of these formats."""
    return files_at(source) is not None


def _opened(place: Place, key: str, id: Any, vector: Any, where: Any) -> Table:
    if place.format == "parquet":
        paths = [file.path for file in place.files]
        reader = parquet_reader(place.root, paths)
        expression = row_filter(where, reader.schema)
        return column_table(
            reader,
            place.files,
            key=key,
            where=place.name,
            id=id,
            vector=vector,
            row_filter=expression,
            row_filter_text="" if where is None else str(where),
        )
    raise InputError(f"{place.name} is {place.format}, which cannot be read yet; {option('where')}")
