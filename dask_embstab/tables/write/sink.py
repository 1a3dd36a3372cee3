"""Where tasks put the rows of a table that is being written: whole chunks only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.core.types import Rows, Vector
from dask_embstab.errors import IdError, NotFiniteError
from dask_embstab.tables.ids.ids import ID_RANGE, IdBlock
from dask_embstab.tables.ids.keys import read_texts, texts_in
from dask_embstab.tables.ids.kinds import digest_of_ids, require_stored
from dask_embstab.tables.ids.stored_texts import store_texts
from dask_embstab.tables.ids.texts import Texts
from dask_embstab.tables.inputs import needs_digests
from dask_embstab.tables.read.bounded import MOST_TEXT_BYTES, most_text_bytes
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.source import Digests, chunk_digest
from dask_embstab.tables.read.stored.files import require_visible_dir
from dask_embstab.tables.store_errors import writing
from dask_embstab.tables.write.chunk_writer import (
    DirectWriter,
    require_end,
    require_room,
)
from dask_embstab.tables.write.journal import Journal, Recovered, made_of
from dask_embstab.tables.write.object_writer import SENDING_BYTES, chunk_writer

if TYPE_CHECKING:
    from dask_embstab.core.codes.row_code import RowCode


@dataclass(frozen=True, slots=True)
class Sink:
    """A picklable handle on the arrays of one table of ``shape`` (n, d), in chunks of
    ``chunk_rows`` rows, and the journal of its chunks (None off local disks).

    ``resume``: chunks that an earlier call left are looked for. ``sync``: all will be synced in the
    end. With a ``code`` there are ``codes`` (and ``scales``, where it has them), beside
    ``vectors`` or in their place.
    """

    ids: zarr.Array[Any] | None
    vectors: zarr.Array[Any] | None
    weights: zarr.Array[Any] | None
    codes: zarr.Array[Any] | None
    scales: zarr.Array[Any] | None
    journal: Journal | None
    shape: tuple[int, int]
    chunk_rows: int
    resume: bool = False
    sync: bool = False
    code: RowCode | None = None

    @property
    def sending_bytes(self) -> int:
        """Most bytes on their way to an object store, besides the buffers of a multiply."""
        rows = self.codes if self.vectors is None else self.vectors
        files = None if rows is None else chunk_files(rows)
        return SENDING_BYTES if files is not None and files.store is not None else 0

    def chunks(self, start: int, stop: int) -> range:
        """Numbers of the chunks of these rows."""
        return range(start // self.chunk_rows, -(-stop // self.chunk_rows))

    def recovered(self, start: int, stop: int) -> Recovered | None:
        """The chunks of these rows, where an earlier call left them whole, in all arrays; ids are
        written again.
        """
        return (
            self.journal.recovered(self.chunks(start, stop))
            if self.resume and self.journal is not None
            else None
        )

    def made_of(
        self, start: int, stop: int, digests: Digests, input_rows: int
    ) -> dict[int, int | None]:
        """What the chunks of these rows are made of, by the digests of the input, whose chunks hold
        ``input_rows`` rows.
        """
        return made_of(
            digests, input_rows, self.chunks(start, stop), self.chunk_rows, self.shape[0]
        )

    def record(self, made_of: Mapping[int, int | None], *checksums: Digests) -> None:
        """Note chunks that were written, with their checksums in every array, to be kept by a later
        call.
        """
        if self.journal is not None:
            self.journal.record(made_of, *checksums)

    def writer(self, start: int, stop: int) -> RowWriter | DirectWriter | CodeWriter:
        """A writer for these rows, which must be whole chunks of the table."""
        if start % self.chunk_rows or (stop % self.chunk_rows and stop != self.shape[0]):
            raise AssertionError(f"rows {start} to {stop} split a chunk of {self.chunk_rows} rows")
        writers: list[RowWriter | DirectWriter | None] = []
        for array in (self.vectors, self.codes, self.scales):
            files = None if array is None else chunk_files(array)
            if files is not None and files.is_written_here:
                writers.append(chunk_writer(files, start, stop, sync=self.sync))
            else:
                whole = None if array is None else RowWriter(array, start, stop, self.chunk_rows)
                writers.append(whole)
        vectors, codes, scales = writers
        if self.code is None or codes is None:
            assert vectors is not None
            return vectors
        return CodeWriter(self.code, vectors, codes, scales, start)

    def write_weights(self, start: int, values: Vector) -> Digests:
        """Write the numbers of whole chunks, from row ``start`` on."""
        assert self.weights is not None
        files = chunk_files(self.weights)
        if files is None:
            with writing(str(self.weights.store_path)):
                self.weights[start : start + len(values)] = values
            return {}
        writer = chunk_writer(files, start, start + len(values), sync=self.sync)
        writer.put(values[:, None])
        writer.finish()
        return writer.digests

    def write_ids(self, start: int, stop: int, block: IdBlock) -> int:
        """Write the ids of whole chunks: int64 streamed to chunk files, others a chunk at a time
        through Zarr.

        Returns their digest, or 0 where their place tells whether they change.
        """
        assert self.ids is not None
        reader, shift = block.ids.open(), block.start - start
        compared, digest = needs_digests(block.ids), 0
        files, where = chunk_files(self.ids), str(self.ids.store_path)
        if files is None:
            for at in range(start, stop, self.chunk_rows):
                end = min(at + self.chunk_rows, stop)
                texts = None if compared else read_texts(reader, at + shift, end + shift)
                if texts is None:
                    ids = reader.take(at + shift, end + shift)
                    require_stored(ids, where, at)
                    texts = texts_in(ids, at) if ids.dtype.kind == "O" else None
                    digest += digest_of_ids(ids, at) if compared else 0
                require_end(at + len(ids if texts is None else texts), end, where)
                _require_folder(self.ids)
                if texts is not None:
                    _require_short(texts, self.ids, at)
                with writing(where):
                    if texts is None:
                        self.ids[at:end] = ids
                    else:
                        store_texts(self.ids, at // self.chunk_rows, texts)
            return digest

        writer = chunk_writer(files, start, stop, sync=self.sync)
        for at in range(start, stop, ID_RANGE):
            end = min(at + ID_RANGE, stop)
            ids = reader.take(at + shift, end + shift)
            writer.put(ids[:, None])
            digest += digest_of_ids(ids, at) if compared else 0

        writer.finish()
        return digest


class CodeWriter:
    """Encodes panels, and writes codes and scales side by side, with the rows themselves where
    there are ``vectors``.
    """

    def __init__(
        self,
        code: RowCode,
        vectors: RowWriter | DirectWriter | None,
        codes: RowWriter | DirectWriter,
        scales: RowWriter | DirectWriter | None,
        start: int,
    ) -> None:
        self._code, self._codes, self._scales, self._at = code, codes, scales, start
        self._vectors = vectors
        self.dtype = np.dtype(np.float32) if vectors is None else vectors.dtype
        self.checksums = tuple(w.digests for w in (vectors, codes, scales) if w is not None)

    def put(self, rows: Rows) -> None:
        """Append rows; what is encoded is what is stored of them."""
        if self._vectors is not None:
            rows = rows.astype(self.dtype, copy=False)
            self._vectors.put(rows)
        codes, scale = self._code.encode(rows)
        if self._code.overflows(codes, scale):
            beyond = [self._code.overflows(*self._code.encode(row)) for row in rows[:, None]]
            raise NotFiniteError(
                f"row {self._at + beyond.index(True)} lies beyond the range of {self._code.name}"
                " codes; bfloat16 and int8 hold what float32 holds"
            )
        self._codes.put(codes)
        if self._scales is not None and scale is not None:
            self._scales.put(scale[:, None])
        self._at += len(rows)

    def finish(self) -> None:
        """Raise unless every row was put."""
        for writer in (self._vectors, self._codes, self._scales):
            if writer is not None:
                writer.finish()


class RowWriter:
    """Collects panels into one chunk and writes every chunk once, whole."""

    def __init__(self, vectors: zarr.Array[Any], start: int, stop: int, chunk_rows: int) -> None:
        self._vectors, self._at, self._stop, self._size = vectors, start, stop, chunk_rows
        self._chunk = self._next_chunk()
        self._filled = 0
        self.digests: Digests = {}
        self.checksums: tuple[Digests, ...] = (self.digests,)
        self.dtype = vectors.dtype

    def put(self, rows: Rows) -> None:
        """Append rows."""
        require_room(self._at + self._filled, len(rows), self._stop, str(self._vectors.store_path))
        while len(rows):
            taken = min(len(rows), len(self._chunk) - self._filled)
            self._chunk[self._filled : self._filled + taken] = rows[:taken].reshape(
                taken, *self._chunk.shape[1:]
            )
            self._filled += taken
            rows = rows[taken:]
            if self._filled == len(self._chunk):
                self._flush()

    def finish(self) -> None:
        """Raise unless every row was put."""
        require_end(self._at + self._filled, self._stop, str(self._vectors.store_path))

    def _flush(self) -> None:
        _require_folder(self._vectors)
        with writing(str(self._vectors.store_path)):
            self._vectors[self._at : self._at + len(self._chunk)] = self._chunk
        self.digests[self._at // self._size] = chunk_digest(
            self._chunk, self._size, self._vectors.fill_value
        )
        self._at += len(self._chunk)
        self._chunk, self._filled = self._next_chunk(), 0

    def _next_chunk(self) -> Rows:
        rows = min(self._size, self._stop - self._at)
        return np.empty((rows, *self._vectors.shape[1:]), self._vectors.dtype)


def _require_short(texts: Texts, array: zarr.Array[Any], start: int) -> None:
    """Raise `IdError` where a chunk of texts is longer than readers take."""
    size = int(texts.length.sum())
    if size > (most := most_text_bytes(array.chunks[0])):
        longest = int(texts.length.argmax())
        raise IdError(
            f"ids that are strings must take {MOST_TEXT_BYTES} bytes on the average of a chunk, or"
            f" {most} bytes in all; {array.store_path} was to get {len(texts)} ids of {size} bytes"
            f" from row {start} on, the longest of {texts.length[longest]} in row"
            f" {start + longest}; give shorter ids"
        )


def _require_folder(array: zarr.Array[Any]) -> None:
    """Raise where the array's folder is gone: the write was given up, and Zarr would bring the
    folder back.
    """
    if isinstance(array.store, LocalStore):
        require_visible_dir(Path(array.store.root) / array.path)
