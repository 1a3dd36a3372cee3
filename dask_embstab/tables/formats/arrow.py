"""Arrow's own files: record batches are pieces of an IPC file (Feather too); a stream, which has no
footer, is one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.tables.formats.columnar import (
    Listed,
    count_filtered,
    filtered,
    named,
    reading_file,
    sliced,
)
from dask_embstab.tables.identity import StoredFile

_MAGIC = b"ARROW1"


@dataclass(frozen=True, slots=True)
class ArrowReader:
    """`BatchReader` of IPC files and streams: batches are views of a memory map where they are not
    compressed.
    """

    def listed(self, files: Sequence[StoredFile], where: Any) -> Listed:
        """From the heads of the batches; of streams, and with a filter, from the batches."""
        schema, pieces = None, []
        for at, file in enumerate(files):
            with reading_file(file.path), _opened(file.path) as reader:
                schema = schema or reader.schema
                require_same(reader.schema, schema, file.path)
                for number, batches in self._pieces(reader):
                    rows = kept = 0
                    for batch in batches:
                        rows += batch.num_rows
                        kept += count_filtered(batch if where is None else _sound(batch), where)
                    pieces.append((at, number, rows, kept))
        numbers = np.array(pieces, np.int64).reshape(-1, 4).T
        return Listed(schema, (), *numbers)

    def batches(self, file: str, number: int, columns: Sequence[str], where: Any) -> Iterator[Any]:
        """Of one piece, a bounded number of rows at a time."""
        with _opened(file) as reader:
            is_file = hasattr(reader, "get_batch")
            for batch in [reader.get_batch(number)] if is_file else reader:
                known = batch.select(list(columns)) if where is None else batch
                yield from sliced(filtered(_sound(known), columns, where))

    def _pieces(self, reader: Any) -> Iterator[tuple[int, Any]]:
        if hasattr(reader, "get_batch"):
            yield from ((i, [reader.get_batch(i)]) for i in range(reader.num_record_batches))
        else:
            yield 0, reader


def _sound(batch: Any) -> Any:
    """A batch whose offsets and lengths are within its buffers: pyarrow takes a file's word for
    them, and would read memory beyond.
    """
    batch.validate(full=True)
    return batch


def _opened(path: str) -> Any:
    """A reader of a file, or of a stream."""
    pa = require_extra("pyarrow", "parquet", what="Arrow")
    ipc = require_extra("pyarrow.ipc", "parquet", what="Arrow")
    mapped = pa.memory_map(path)
    is_file = mapped.read(len(_MAGIC)) == _MAGIC
    mapped.seek(0)
    return ipc.open_file(mapped) if is_file else ipc.open_stream(mapped)


def require_same(stored: Any, schema: Any, path: str) -> None:
    """Raise unless a file has the columns of the first one."""
    if not stored.equals(schema):
        raise InputError(
            f"all files of a table must have the same columns; {path} has {_short(stored)}, and the"
            f" first file {_short(schema)}; give files of one kind"
        )


def _short(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def arrow_schema(path: str) -> Any:
    """That of one file."""
    with reading_file(path), _opened(path) as reader:
        return named(reader.schema)
