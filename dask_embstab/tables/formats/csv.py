"""CSV and TSV with a header: a file is one piece, parsed by pyarrow a block at a time.

A component is a column of float64; the types are those that the first block of the first file
shows, and columns of one numbered series (emb_0, emb_1, ...) are all fractions where one is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.tables.formats.arrow import require_same
from dask_embstab.tables.formats.columnar import (
    Listed,
    count_filtered,
    filtered,
    named,
    reading_file,
    sliced,
)
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.read.column_names import series_of


@dataclass(frozen=True, slots=True)
class CsvReader:
    """`BatchReader` of CSV; the types are those that the first block of the first file has."""

    schema: Any = None

    def listed(self, files: Sequence[StoredFile], where: Any) -> Listed:
        """By parsing the files once."""
        pieces = []
        for at, file in enumerate(files):
            rows = kept = 0
            with reading_file(file.path):
                reader = _opened(file.path, self.schema)
                require_same(reader.schema, self.schema, file.path)
                for batch in reader:
                    rows += batch.num_rows
                    kept += count_filtered(batch, where)
            pieces.append((at, 0, rows, kept))
        return Listed(self.schema, (), *np.array(pieces, np.int64).reshape(-1, 4).T)

    def batches(self, file: str, _: int, columns: Sequence[str], where: Any) -> Iterator[Any]:
        """All of a file."""
        for batch in _opened(file, self.schema, None if where is not None else columns):
            yield from sliced(filtered(batch, columns, where))


def csv_reader(path: str) -> CsvReader:
    """With the types that the first block tells."""
    pa = require_extra("pyarrow", "parquet", what="CSV")
    with reading_file(path):
        fields = list(named(_opened(path, None).schema))
    series = {series_of(field.name) for field in fields if field.type == pa.float64()} - {None}
    made = [f.with_type(pa.float64()) if series_of(f.name) in series else f for f in fields]
    numbers = [f.name for f in made if f.type == pa.int64()]
    with reading_file(path):
        for batch in itertools.islice(_parsed(path, _texts(pa.schema(made)), numbers or None), 1):
            codes = {name for name in numbers if _not_numbers(batch.column(name)) is not None}
            made = [f.with_type(pa.string()) if f.name in codes else f for f in made]
    return CsvReader(pa.schema(made))


def _opened(path: str, schema: Any, columns: Sequence[str] | None = None) -> Any:
    """The batches of a file; whole numbers only where they are written as such: 007 is a text."""
    if schema is None:
        return _parsed(path, None, columns)
    return _Batches(path, schema, columns)


class _Batches:
    """Batches whose whole numbers were read as texts and compared with what is written."""

    def __init__(self, path: str, schema: Any, columns: Sequence[str] | None) -> None:
        self._reader = _parsed(path, _texts(schema), columns)
        self._path, self._schema = path, schema

    @property
    def schema(self) -> Any:
        """The types that are handed out."""
        pa = require_extra("pyarrow", "parquet", what="CSV")
        return pa.schema([self._schema.field(name) for name in self._reader.schema.names])

    def __iter__(self) -> Iterator[Any]:
        pa = require_extra("pyarrow", "parquet", what="CSV")
        schema, row = self.schema, 0
        for batch in self._reader:
            arrays = []
            for field, array in zip(schema, batch.columns, strict=True):
                if field.type == pa.int64() and array.type == pa.string():
                    if (bad := _not_numbers(array)) is not None:
                        raise InputError(
                            f"the column {field.name} of {self._path} holds whole numbers; row"
                            f" {row + bad} has {shown(array[bad].as_py())}, another text than that"
                            " of a number; write the column as texts from its first row on, such as"
                            " Parquet holds them"
                        )
                    array = _numbers(array)
                arrays.append(array)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            row += batch.num_rows


def _texts(schema: Any) -> Any:
    pa = require_extra("pyarrow", "parquet", what="CSV")
    return pa.schema([f.with_type(pa.string()) if f.type == pa.int64() else f for f in schema])


def _numbers(texts: Any) -> Any:
    """Whole numbers; null where nothing is written."""
    pa = require_extra("pyarrow", "parquet", what="CSV")
    compute = require_extra("pyarrow.compute", "parquet", what="CSV")
    written = compute.if_else(compute.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    return written.cast(pa.int64())


def _not_numbers(texts: Any) -> int | None:
    """The first row that is no whole number as a number is written; None where there is none."""
    pa = require_extra("pyarrow", "parquet", what="CSV")
    compute = require_extra("pyarrow.compute", "parquet", what="CSV")
    canonical = compute.match_substring_regex(texts, r"^(0|-?[1-9][0-9]{0,18}|)$")
    first = compute.index(canonical, pa.scalar(value=False)).as_py()
    return None if first < 0 else int(first)


def _parsed(path: str, schema: Any, columns: Sequence[str] | None = None) -> Any:
    csv = require_extra("pyarrow.csv", "parquet", what="CSV")
    convert = csv.ConvertOptions(
        column_types=schema, include_columns=None if columns is None else list(columns)
    )
    parse = csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
    return csv.open_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=parse,
        convert_options=convert,
    )
