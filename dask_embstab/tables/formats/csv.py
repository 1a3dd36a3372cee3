"""CSV and TSV with a header: a file is one piece, parsed by pyarrow a block at a time.

A component is a column of float64; the types are those that the first block of the first file
shows, and columns of one numbered series (emb_0, emb_1, ...) are all fractions where one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.extras import require_extra
from dask_embstab.tables.formats.arrow import require_same
from dask_embstab.tables.formats.columnar import Listed, filtered, reading_file, sliced
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.read.column_names import series_of


@dataclass(frozen=True, slots=True)
class CsvReader:
    """`BatchReader` of CSV; the types are those that the first block of the first file has."""

    schema: Any = None

    def listed(self, files: Sequence[StoredFile], where: Any) -> Listed:
        """By parsing the files once."""
        found = []
        for at, file in enumerate(files):
            rows = kept = 0
            with reading_file(file.path):
                reader = _opened(file.path, self.schema)
                require_same(reader.schema, self.schema, file.path)
                for batch in reader:
                    rows += batch.num_rows
                    names = batch.schema.names[:1]
                    kept += (batch if where is None else filtered(batch, names, where)).num_rows
            found.append((at, 0, rows, kept))
        return Listed(self.schema, (), *np.array(found, np.int64).reshape(-1, 4).T)

    def batches(self, file: str, _: int, columns: Sequence[str], where: Any) -> Iterator[Any]:
        """All of a file."""
        for batch in _opened(file, self.schema, None if where is not None else columns):
            kept = batch if where is None else filtered(batch, columns, where)
            yield from sliced(kept)


def csv_reader(path: str) -> CsvReader:
    """With the types that the first block tells."""
    pa = require_extra("pyarrow", "parquet", what="CSV")
    with reading_file(path):
        fields = list(_opened(path, None).schema)
    series = {series_of(field.name) for field in fields if field.type == pa.float64()} - {None}
    made = [f.with_type(pa.float64()) if series_of(f.name) in series else f for f in fields]
    return CsvReader(pa.schema(made))


def _opened(path: str, schema: Any, columns: Sequence[str] | None = None) -> Any:
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
