"""Parquet: a row group is a piece. Footers tell the rows of each, and the pages of one are decoded
as they are read.

A filter goes down to pyarrow's own scan, which leaves out the row groups and folders that cannot
hold a row of it; how many rows it keeps of each group is counted first, from the columns that it
names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.tables.formats.columnar import Listed, named, reading_file
from dask_embstab.tables.formats.pieces import BATCH_ROWS
from dask_embstab.tables.identity import StoredFile

_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ParquetReader:
    """`BatchReader` of Parquet; ``root`` is the folder below which names such as ``day=2026-01-02``
    are columns. ``schema`` is that of all files, partitions included.
    """

    root: str
    schema: Any

    def listed(self, files: Sequence[StoredFile], where: Any) -> Listed:
        """From the footers alone, and with a filter from its columns."""
        parquet = require_extra("pyarrow.parquet", "parquet", what="Parquet")
        schema, partitions = self.schema, self._partitions(files[0])
        pieces: list[tuple[int, int, int, int]] = []
        for at, file in enumerate(files):
            with reading_file(file.path):
                footer = parquet.read_metadata(file.path)
                require_schema(footer.schema.to_arrow_schema(), schema, partitions, file.path)
                rows = [footer.row_group(g).num_rows for g in range(footer.num_row_groups)]
                kept = rows
                if where is not None:
                    # Where folders alone tell, pyarrow counts the whole file.
                    kept = [
                        min(n, self._count_filtered(file.path, g, schema, where))
                        for g, n in enumerate(rows)
                    ]
            pieces += [(at, g, n, k) for g, (n, k) in enumerate(zip(rows, kept, strict=True))]
        numbers = np.array(pieces, np.int64).reshape(-1, 4).T
        return Listed(schema, partitions, *numbers)

    def batches(self, file: str, number: int, columns: Sequence[str], where: Any) -> Iterator[Any]:
        """Decoded as they are read: a row group is never held whole."""
        parquet = require_extra("pyarrow.parquet", "parquet", what="Parquet")
        if where is None:
            with parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
                yield from opened.iter_batches(
                    BATCH_ROWS, [number], list(columns), use_threads=False
                )
            return
        fragment = self._fragment(file, number, self.schema)
        yield from fragment.to_batches(
            schema=self.schema,
            columns=list(columns),
            filter=where,
            batch_size=BATCH_ROWS,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        )

    def _count_filtered(self, file: str, number: int, schema: Any, where: Any) -> int:
        """Rows of a group that a filter keeps; only the columns that it names are read."""
        scanner = self._fragment(file, number, schema).scanner(
            schema=schema, filter=where, use_threads=False
        )
        return int(scanner.count_rows())

    def _fragment(self, file: str, number: int, schema: Any) -> Any:
        """One row group, with what its folders say of it."""
        dataset = require_extra("pyarrow.dataset", "parquet", what="Parquet")
        more = {}
        if self.root:
            below = dataset.partitioning(schema, flavor="hive")
            more["partition_expression"] = below.parse(file.removeprefix(self.root))
        local = require_extra("pyarrow.fs", "parquet", what="Parquet").LocalFileSystem()
        return dataset.ParquetFileFormat().make_fragment(file, local, row_groups=[number], **more)

    def _partitions(self, file: StoredFile) -> tuple[str, ...]:
        """The columns that folders alone give."""
        if not self.root:
            return ()
        parquet = require_extra("pyarrow.parquet", "parquet", what="Parquet")
        with reading_file(file.path):
            stored = set(parquet.read_schema(file.path).names)
        return tuple(name for name in self.schema.names if name not in stored)


def parquet_reader(root: str, paths: Sequence[str]) -> ParquetReader:
    """The reader of these files; folders below ``root`` that are named as hive's are columns."""
    dataset = require_extra("pyarrow.dataset", "parquet", what="Parquet")
    parquet = require_extra("pyarrow.parquet", "parquet", what="Parquet")
    if not root or not any("=" in path.removeprefix(root) for path in paths):
        with reading_file(paths[0]):
            return ParquetReader("", named(parquet.read_schema(paths[0])))
    with reading_file(root):
        opened = dataset.dataset(
            list(paths), format="parquet", partitioning="hive", partition_base_dir=root
        )
        return ParquetReader(root, named(opened.schema))


def require_schema(stored: Any, schema: Any, partitions: Sequence[str], path: str) -> None:
    """Raise unless the columns of a file are those of the first one, of the same types."""
    for field in schema:
        if field.name in partitions:
            continue
        at = stored.get_field_index(field.name)
        if at < 0 or not stored.field(at).type.equals(field.type):
            has = "no such column" if at < 0 else f"{stored.field(at).type}"
            raise InputError(
                f"all files of a table must have the same columns; {field.name} is {field.type},"
                f" and {path} has {has}; give files of one kind"
            )
