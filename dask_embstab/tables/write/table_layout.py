"""Which arrays does a table have on disk? The contract of DESIGN's disk layout, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from dask_embstab.tables.ids.kinds import UUID, IdKind
from dask_embstab.tables.layout import CODES, DIMENSION, SCALE
from dask_embstab.tables.read.source import default_chunk_rows
from dask_embstab.tables.write.nodes import make_array, make_group, write_matrices

if TYPE_CHECKING:
    from dask_embstab.core.codes.row_code import RowCode

ID_DTYPES: dict[IdKind, Any] = {"int64": np.dtype(np.int64), "string": str, "uuid": UUID}


_NO_SCALE = 0xFFFF
"""The upper half of a float32 that is no number."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """A table ``key`` of ``shape`` (n, d): its rows as they are, of ``dtype`` (``vectors``), as
    codes of a ``code``, or both; ids of a kind (None: no ids), ``weights`` (a number per row).

    With ``inner_rows`` chunks of vectors are shards of inner chunks of so many rows. The index is
    at the start, and behind the inner chunks stands the checksum of all rows, where a reader of
    shards never looks: so a shard's file ends as a chunk's file does, in the digest of its rows.
    """

    key: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk_rows: int
    ids: IdKind | None
    weights: bool = False
    code: RowCode | None = None
    vectors: bool = True
    inner_rows: int | None = None

    @property
    def arrays(self) -> tuple[str | None, ...]:
        """Names of the arrays of ids, vectors, weights, codes and scales; None where there is
        none.
        """
        return (
            None if self.ids is None else "id",
            "vectors" if self.vectors else None,
            "weight" if self.weights else None,
            None if self.code is None else CODES,
            SCALE if self.code is not None and self.code.scaled else None,
        )

    def create(self, group: zarr.Group, *, overwrite: bool) -> tuple[zarr.Array[Any] | None, ...]:
        """Make the group of the table, with all its arrays; those of `arrays`."""
        code = self.code
        node = make_group(group, self.key, self._attributes(), overwrite=overwrite)
        if code is not None:
            write_matrices(node, code.arrays())
        return tuple(None if name is None else self._create(node, name) for name in self.arrays)

    def left(self, group: zarr.Group) -> tuple[zarr.Array[Any] | None, ...]:
        """The arrays as an earlier call left them; an error where any is another or not there."""
        node: Any = group[self.key]
        if self.code is not None and dict(node.attrs) != self._attributes():
            raise ValueError("it is of another code")
        for name, (values, _) in () if self.code is None else self.code.arrays().items():
            if not np.array_equal(node[name][...], values):
                raise ValueError(f"{name} is another")

        arrays = tuple(None if name is None else node[name] for name in self.arrays)
        for name in filter(None, self.arrays):
            array = node[name]
            shape, chunks, dtype = self._of(name)
            stored = (array.shape, array.shards or array.chunks)
            if stored != (shape, chunks) or array.chunks != self._inner(name, chunks):
                raise ValueError(f"{name} has another shape")
            if name != "id" and array.dtype != dtype:
                raise ValueError(f"{name} has another dtype")

        return arrays

    def _attributes(self) -> dict[str, Any]:
        """Of the group: what it records of its code."""
        if self.code is None:
            return {}
        from dask_embstab.tables.read.coded import code_attributes

        return code_attributes(self.code)

    def _of(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
        """Shape, chunks and dtype of an array."""
        n, d = self.shape
        rows, stored = self.chunk_rows, self.dtype.newbyteorder("=")
        if name == "id":
            assert self.ids is not None
            return (n,), (rows,), ID_DTYPES[self.ids]
        if name == CODES:
            assert self.code is not None
            return (n, self.code.n_codes), (rows, self.code.n_codes), np.dtype(np.uint8)
        if name == "vectors":
            return (n, d), (rows, d), stored
        return (n,), (rows,), np.dtype(np.uint16) if name == SCALE else stored

    def _inner(self, name: str, chunks: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is encoded alone: of an inner chunk in a shard."""
        if name != "vectors" or self.inner_rows is None:
            return chunks
        return (self.inner_rows, *chunks[1:])

    def _create(self, node: zarr.Group, name: str) -> zarr.Array[Any]:
        shape, chunks, dtype = self._of(name)
        row = DIMENSION[self.key]
        columns = {"vectors": ("component",), CODES: ("byte",)}.get(name, ())
        more: dict[str, Any] = {} if name in ("id", CODES) else {"fill_value": math.nan}
        if name == SCALE:
            more["fill_value"] = _NO_SCALE
        if columns and self.ids is not None:
            more["attributes"] = {"coordinates": "id"}  # so xarray keeps each row's id beside it
        inner = self._inner(name, chunks)
        if inner != chunks or (name == "vectors" and self.inner_rows is not None):
            codecs: list[Any] = [BytesCodec(), Crc32cCodec()]
            more["serializer"] = ShardingCodec(
                chunk_shape=inner, codecs=codecs, index_location="start"
            )
        names = (row, *columns)
        return make_array(
            node, name, shape=shape, chunks=chunks, dtype=dtype, dimension_names=names, **more
        )


_INNER_BYTES = 1 << 20


def rows_of_objects(
    n_rows: int, row_bytes: int, chunk_rows: int, shard_rows: int | None, inner_rows: int | None
) -> tuple[int, int | None]:
    """Rows of a chunk (of a shard, where ``shard_rows`` are asked for) of a table of ``n_rows``,
    and of an inner chunk (None: there are no shards).

    Inner chunks have ``inner_rows``, or those of a divisor of the shard that are nearest to 1 MiB.
    """
    if shard_rows is None:
        return min(chunk_rows, n_rows), None
    if inner_rows is None and shard_rows > n_rows:
        inner_rows = min(default_chunk_rows(row_bytes, 1, _INNER_BYTES), n_rows)
    if inner_rows is None:
        divisors = {
            divisor
            for small in range(1, math.isqrt(shard_rows) + 1)
            if shard_rows % small == 0
            for divisor in (small, shard_rows // small)
        }
        inner_rows = min(
            sorted(divisors), key=lambda rows: abs(math.log(rows * row_bytes / _INNER_BYTES))
        )
    return min(shard_rows, inner_rows * -(-n_rows // inner_rows)), inner_rows
