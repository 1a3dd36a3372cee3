"""Columns of Arrow as NumPy: vectors (m, d) and ids (m,), with every row that cannot be one named.

Offsets and nulls are looked at before values are: a list that is null or of another length would
shift every row behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import IdError, InputError
from dask_embstab.tables.formats.columns import UUID_BYTES, VectorColumns
from dask_embstab.tables.ids.kinds import UUID, IdArray, IdKind, decoded_texts
from dask_embstab.tables.ids.texts import Texts, laid_out

Place = Callable[[int], str]
"""A row of a batch as messages name it: row 5 of FILE."""
_STEP = 1 << 10


def vectors_of(columns: list[Any], chosen: VectorColumns, d: int, place: Place) -> Rows:
    """The rows of a batch, (m, d), from its ``columns``; without a copy where they lie in one
    piece.
    """
    for name, column in zip(chosen.names, columns, strict=True):
        if column.null_count:
            raise _refused(place(_first_null(column)), f"has no value in {name}", "")
    if not len(columns[0]):
        return np.empty((0, d), chosen.dtype)
    if chosen.layout == "columns":
        return _side_by_side([column.to_numpy(zero_copy_only=True) for column in columns], chosen)
    (column,), (name,) = columns, chosen.names
    if chosen.layout == "bytes":
        return _from_bytes(column, name, chosen, d, place)
    if chosen.layout == "list":
        lengths = np.diff(column.offsets.to_numpy())
        if len(bad := np.flatnonzero(lengths != d)):
            raise _refused(
                place(int(bad[0])), f"has {lengths[bad[0]]} values in {name}", f" and others {d}"
            )
    values = column.flatten()
    if values.null_count:
        raise _refused(
            place(_first_null(values) // d), f"has a null among the values of {name}", ""
        )
    return np.asarray(values.to_numpy(zero_copy_only=True).reshape(len(column), d))


def width_of(column: Any, chosen: VectorColumns) -> int:
    """Components of the first row of a batch that has any; 0 where none has."""
    import pyarrow.compute as pc

    is_bytes = chosen.layout == "bytes"
    sizes = (pc.binary_length if is_bytes else pc.list_value_length)(column)
    positive = sizes.filter(pc.greater(sizes, 0))
    return positive[0].as_py() // (chosen.dtype.itemsize if is_bytes else 1) if len(positive) else 0


def _side_by_side(columns: list[Rows], chosen: VectorColumns) -> Rows:
    """One column per component, a few rows at a time: they stay in the processor's cache."""
    rows = np.empty((len(columns[0]), len(columns)), chosen.dtype)
    for at in range(0, len(rows), _STEP):
        np.stack([column[at : at + _STEP] for column in columns], axis=1, out=rows[at : at + _STEP])
    return rows


def _from_bytes(column: Any, name: str, chosen: VectorColumns, d: int, place: Place) -> Rows:
    import pyarrow as pa

    width = d * chosen.dtype.itemsize
    if not pa.types.is_fixed_size_binary(column.type):
        big = pa.types.is_large_binary(column.type)
        offsets = np.frombuffer(column.buffers()[1], np.int64 if big else np.int32)
        offsets = offsets[column.offset : column.offset + len(column) + 1]
        lengths = np.diff(offsets)
        if len(bad := np.flatnonzero(lengths != width)):
            raise _refused(
                place(int(bad[0])),
                f"has {lengths[bad[0]]} bytes in {name}",
                f" and others {width}, {d} components of {chosen.dtype}",
            )
        first, data = int(offsets[0]) if len(offsets) else 0, column.buffers()[2]
    else:
        first, data = column.offset * width, column.buffers()[1]
    values = np.frombuffer(data, np.uint8, len(column) * width, first)
    return np.asarray(values.view(chosen.dtype.newbyteorder("<")).reshape(len(column), d))


def ids_of(column: Any, kind: IdKind, name: str, place: Place) -> IdArray:
    """The ids of a batch: int64, objects that are str, or V16."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = getattr(column, "storage", column)
    if column.null_count:
        raise IdError(
            f"every row must have an id; {place(_first_null(column))} has none in {name}; leave"
            " such rows out, or give them ids"
        )
    if kind == "int64":
        values = column.to_numpy(zero_copy_only=True)
        if values.dtype == np.uint64 and len(bad := np.flatnonzero(values > _INT64_MOST)):
            raise IdError(
                f"ids must fit int64; {place(int(bad[0]))} has {values[bad[0]]} in {name}; store"
                " them as int64 (the same 64 bits) or as texts, in every run alike"
            )
        return np.asarray(values.astype(np.int64, copy=False))
    if kind == "uuid":
        return _uuids(column, name, place)
    return _texts(column, name, place)


def texts_of(column: Any) -> Texts | None:
    """The texts of a batch, without an object for each; None where one is missing, empty or not
    in UTF-8, or holds a zero: `ids_of` says what is wrong with it, if anything is.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = getattr(column, "storage", column)
    if column.null_count or not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        return None
    _, offsets, data = column.buffers()
    step = np.dtype(np.int64 if pa.types.is_large_string(column.type) else np.int32)
    ends = np.frombuffer(offsets, step)[column.offset :][: len(column) + 1].astype(np.int64)
    length = np.diff(ends)
    stored = np.frombuffer(b"" if data is None else data, np.uint8)[ends[0] : ends[-1]]
    if not length.all() or not stored.all():
        return None
    try:
        column.validate(full=True)
    except pa.ArrowException:
        return None
    return laid_out(length, stored)


_INT64_MOST = np.uint64(np.iinfo(np.int64).max)


def id_kind(column: Any, kind: Any) -> IdKind:
    """The kind of ids in a column of the type ``kind``; binary values of the first batch
    (``column``) that all have 16 bytes, and are not all texts, are UUIDs.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return id_kind(column.dictionary_decode(), kind.value_type)
    if types.is_integer(kind):
        return "int64"
    if isinstance(kind, pa.BaseExtensionType):
        return "uuid"
    if types.is_fixed_size_binary(kind):
        return "uuid" if kind.byte_width == UUID_BYTES else "string"
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        return "string"
    values = [value for value in column.to_pylist() if value is not None]
    if not values or any(len(value) != UUID_BYTES for value in values):
        return "string"
    return "string" if all(_is_text(value) for value in values) else "uuid"


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _uuids(column: Any, name: str, place: Place) -> IdArray:
    values = column.to_pylist()
    if bad := [i for i, value in enumerate(values) if len(value) != UUID_BYTES]:
        raise IdError(
            f"UUIDs have {UUID_BYTES} bytes; {place(bad[0])} has {len(values[bad[0]])} in {name};"
            " give all rows such ids"
        )
    return np.frombuffer(b"".join(values), UUID)


def _texts(column: Any, name: str, place: Place) -> IdArray:
    import pyarrow as pa

    try:
        values = column.to_numpy(zero_copy_only=False)
    except pa.ArrowException:  # texts that are not in UTF-8, whatever the column's type says
        as_bytes = column.cast(pa.large_string()).cast(pa.large_binary())
        values = as_bytes.to_numpy(zero_copy_only=False)
    if not len(values) or isinstance(values[0], str):
        return np.asarray(values, object)
    return decoded_texts(
        values.tolist(),
        lambda row, error: (
            f"ids that are texts or binary values must be in UTF-8, or UUIDs of 16 bytes;"
            f" {place(row)} has others in {name} ({error}); store them as texts (such as"
            " hexadecimal ones) in every run alike"
        ),
    )


def _first_null(column: Any) -> int:
    return int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])


def _refused(place: str, received: str, more: str) -> InputError:
    return InputError(
        f"every row must have a vector of one length, without nulls; {place} {received}{more}; drop"
        " or repair such rows"
    )
