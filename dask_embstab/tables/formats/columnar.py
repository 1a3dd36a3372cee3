"""Tables in files of columns (Parquet, Arrow, CSV): pieces of Arrow's record batches.

A format is a `BatchReader`: it lists its pieces from what stands in the footers, and reads the
batches of one piece. What is a vector, what is an id, and what is refused is here, once for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError, EmbstabError, InputError
from dask_embstab.extras import require_extra
from dask_embstab.repairs import option
from dask_embstab.tables.formats.arrow_values import (
    id_kind,
    ids_of,
    texts_of,
    vectors_of,
    width_of,
)
from dask_embstab.tables.formats.columns import (
    Chosen,
    VectorColumns,
    choose_columns,
    id_column,
)
from dask_embstab.tables.formats.piece_source import PieceArray, PieceSource
from dask_embstab.tables.formats.pieces import BATCH_ROWS, NotTexts, Offsets
from dask_embstab.tables.formats.places import what_it_must_be
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.ids.ids import Ids
from dask_embstab.tables.ids.kinds import IdArray, IdKind
from dask_embstab.tables.ids.texts import Texts
from dask_embstab.tables.store_errors import read_error
from dask_embstab.tables.table import Table

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Listed:
    """What the footers tell: the schema (with columns that folders name), which of them these are,
    and of every piece its file, its number there and its rows.

    ``rows`` are those of the file; ``kept`` those that a filter leaves (the same without one).
    """

    schema: Any
    partitions: tuple[str, ...]
    file: Numbers
    number: Numbers
    rows: Numbers
    kept: Numbers


class BatchReader(Protocol):
    """One format."""

    def listed(self, files: Sequence[StoredFile], where: Any) -> Listed:
        """The pieces of the files, in order, and their schema."""

    def batches(self, file: str, number: int, columns: Sequence[str], where: Any) -> Iterator[Any]:
        """Record batches of these columns of one piece, of bounded size; only rows that ``where``
        keeps.
        """


@dataclass(frozen=True, slots=True)
class ColumnPieces:
    """`Pieces` of files of columns; ``first`` are the rows of its file before each piece."""

    reader: BatchReader
    files: tuple[StoredFile, ...]
    file: Numbers
    number: Numbers
    first: Numbers
    offsets: Offsets
    vector: VectorColumns
    id: str | None
    id_kind: IdKind
    filter: Any = None
    row_filter: str = ""

    @property
    def d(self) -> int:
        """Components."""
        return self.vector.d

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a component."""
        return self.vector.dtype

    @property
    def what(self) -> str:
        """Which columns and rows are read."""
        return f"{self.vector.names} {self.vector.layout} {self.dtype} {self.id} {self.row_filter}"

    def rows(self, piece: int) -> Iterator[Rows]:
        """The vectors of one piece."""
        for at, batch in self._batches(piece, self.vector.names):
            columns = [batch.column(name) for name in self.vector.names]
            yield vectors_of(columns, self.vector, self.d, partial(self._at, piece, at))

    def ids(self, piece: int) -> Iterator[IdArray]:
        """The ids of one piece."""
        assert self.id is not None
        for at, batch in self._batches(piece, (self.id,)):
            column = batch.column(self.id)
            yield ids_of(column, self.id_kind, self.id, partial(self._at, piece, at))

    def texts(self, piece: int) -> Iterator[Texts]:
        """The same of texts, without an object for each, up to the first batch that has others."""
        assert self.id is not None
        for _, batch in self._batches(piece, (self.id,)):
            if (texts := texts_of(batch.column(self.id))) is None:
                raise NotTexts
            yield texts

    def part(self, first: int, last: int) -> Self:
        """Pieces ``first`` up to ``last`` alone, and their files."""
        files = self.file[first:last]
        known, file = np.unique(files, return_inverse=True)
        return replace(
            self,
            files=tuple(self.files[i] for i in known),
            file=file,
            number=self.number[first:last],
            first=self.first[first:last],
            offsets=self.offsets[first : last + 1] - self.offsets[first],
        )

    def place(self, row: int) -> str:
        """Row of a file; with a filter, of the rows that it keeps of a part of the file."""
        piece = min(int(np.searchsorted(self.offsets, row, side="right")) - 1, len(self.file) - 1)
        return self._at(piece, 0, row - int(self.offsets[piece]))

    def _at(self, piece: int, before: int, row: int) -> str:
        path, row = self.files[self.file[piece]].path, before + row
        if self.filter is None:
            return f"row {int(self.first[piece]) + row} of {path}"
        return f"row {row} of those kept of row group {self.number[piece]} of {path}"

    def _batches(self, piece: int, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Batches of a piece and the number of rows before each."""
        path, at = self.files[self.file[piece]].path, 0
        with reading_file(path):
            for batch in self.reader.batches(path, int(self.number[piece]), columns, self.filter):
                yield at, batch
                at += batch.num_rows


@contextlib.contextmanager
def reading_file(path: str) -> Iterator[None]:
    """Whatever a library raises over a file becomes one error that names it."""
    try:
        yield
    except EmbstabError:
        raise
    except PermissionError as error:
        raise read_error(error, path) from error
    except FileNotFoundError as error:
        raise InputError(f"{path} is gone; give files that stay while they are read") from error
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise DamageError(
            f"{path} must be {what_it_must_be(path)}; it cannot be read ({reason}); restore it from"
            " its source"
        ) from error


def named(schema: Any) -> Any:
    """The schema; an error, within `reading_file`, where a name is no text: pyarrow decodes names
    when they are asked for.
    """
    _ = schema.names
    return schema


def column_table(
    reader: BatchReader,
    files: tuple[StoredFile, ...],
    *,
    key: str,
    where: str,
    id: Any = None,
    vector: Any = None,
    row_filter: Any = None,
    row_filter_text: str = "",
) -> Table:
    """The table of files of columns: footers are read, and one batch that tells what they do not.

    Raises `InputError` where columns are not clear, or there is no row.
    """
    listed = reader.listed(files, row_filter)
    chosen = choose_columns(listed.schema, id, vector, key, where, listed.partitions)
    pieces = _pieces(reader, files, listed, chosen)
    pieces = replace(pieces, filter=row_filter, row_filter=row_filter_text)
    if not pieces.offsets[-1]:
        of = (
            f"{int(listed.rows.sum())} rows, and {option('where')} keeps none"
            if listed.rows.sum()
            else "none"
        )
        raise InputError(f"a table needs at least one row; {where} has {of}")
    pieces = _width_and_kind_read(pieces, chosen.id_type)
    if not pieces.d:
        raise InputError(f"a table needs at least one component; the vectors of {where} have none")
    array = PieceArray(pieces, "ids", where, pieces.id_kind)
    ids = None if chosen.id is None else Ids(array, pieces.id_kind, where)
    return Table(PieceSource(pieces), ids, where, key)


def column_ids(
    reader: BatchReader, files: tuple[StoredFile, ...], *, key: str, where: str
) -> Ids | None:
    """The ids in files of columns that hold no vectors; None where they hold some."""
    listed = reader.listed(files, None)
    name = id_column(listed.schema, key, where, listed.partitions)
    if name is None:
        return None
    no_vectors = VectorColumns((), "columns", np.dtype(np.float32), 1)
    chosen = Chosen(no_vectors, name, listed.schema.field(name).type)
    pieces = _pieces(reader, files, listed, chosen)
    if not pieces.offsets[-1]:
        raise InputError(f"a column of ids needs at least one row; {where} has none")
    pieces = _width_and_kind_read(pieces, chosen.id_type)
    return Ids(PieceArray(pieces, "ids", where, pieces.id_kind), pieces.id_kind, where)


def _pieces(
    reader: BatchReader, files: tuple[StoredFile, ...], listed: Listed, chosen: Chosen
) -> ColumnPieces:
    before = np.cumsum(listed.rows) - listed.rows
    of_file = np.flatnonzero(np.diff(listed.file, prepend=-1))
    first = before - np.repeat(before[of_file], np.diff([*of_file, len(before)]))
    kept = listed.kept > 0
    return ColumnPieces(
        reader,
        files,
        listed.file[kept],
        listed.number[kept],
        first[kept],
        np.concatenate([[0], np.cumsum(listed.kept[kept])]).astype(np.int64),
        chosen.vector,
        chosen.id,
        "int64",
    )


def _width_and_kind_read(pieces: ColumnPieces, id_type: Any) -> ColumnPieces:
    """With the width and the kind of ids, which the schema does not always tell."""
    path, number = pieces.files[pieces.file[0]].path, int(pieces.number[0])
    d, names, kind = pieces.d, pieces.vector.names, pieces.id_kind
    with reading_file(path):
        if not d:
            batches = pieces.reader.batches(path, number, names, pieces.filter)
            widths = (width_of(batch.column(names[0]), pieces.vector) for batch in batches)
            d = next((width for width in widths if width), 0)
        if pieces.id is not None:
            # With a filter the first batches may have no row.
            batches = pieces.reader.batches(path, number, (pieces.id,), pieces.filter)
            batch = next(batch for batch in batches if batch.num_rows)
            kind = id_kind(batch.column(pieces.id), id_type)
    return replace(pieces, vector=replace(pieces.vector, d=d), id_kind=kind)


def filtered(batch: Any, columns: Sequence[str], where: Any) -> Any:
    """These columns of the rows of a batch that a filter keeps: of all where there is none."""
    if where is None:
        return batch.select(list(columns))
    pa = require_extra("pyarrow", "parquet", what="a filter of rows")
    kept = pa.Table.from_batches([batch]).filter(where).select(list(columns)).combine_chunks()
    batches = kept.to_batches()
    return batches[0] if batches else batch.slice(0, 0).select(list(columns))


def count_filtered(batch: Any, where: Any) -> int:
    """How many rows of a batch a filter keeps."""
    return int(filtered(batch, batch.schema.names[:1], where).num_rows)


def sliced(batch: Any) -> Iterator[Any]:
    """A batch a bounded number of rows at a time."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)
