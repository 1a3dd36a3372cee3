"""What kind of ids are these, and is every one of them of that kind? However they are stored or
held, they pass here.

int64 (whatever integers fit it), strings (bytes are read as UTF-8) or 16-byte UUIDs; one kind per
table, none missing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID as UuidObject  # noqa: N811 (the dtype has the name)

import numpy as np

from dask_embstab.errors import DamageError, IdError, first_few

IdKind = Literal["int64", "string", "uuid"]
IdArray = np.ndarray[Any, Any]
"""int64, objects that are str, or 16-byte voids."""
UUID = np.dtype("V16")
_INT64 = np.iinfo(np.int64)


def listed_ids(values: list[Any] | tuple[Any, ...]) -> IdArray:
    """A list as an array of its objects: NumPy would make texts or floats of what is mixed with
    such.
    """
    return np.fromiter(values, dtype=object, count=len(values))


def kind_of(array: Any, where: str) -> IdKind:
    """The kind of an array of ids by its dtype; objects in memory tell it themselves, elsewhere the
    codec has decided.
    """
    dtype = array.dtype
    if dtype.kind in "iu":
        return "int64"
    if dtype == UUID:
        return "uuid"
    if dtype.kind == "O" and isinstance(array, np.ndarray):
        return _kind_of_objects(array.tolist())
    if dtype.kind in "USTO":
        return "string"

    missing = (
        np.flatnonzero(np.isnan(array))
        if isinstance(array, np.ndarray) and dtype.kind == "f"
        else ()
    )
    none = f" and have none in row {first_few(missing)}" if len(missing) else ""
    raise IdError(
        f"ids must be int64 or strings (or 16-byte UUIDs); those of {where} are {dtype}{none};"
        " convert them, or leave them out where the rows are to be known by their number"
    )


def checked_ids(values: IdArray, kind: IdKind, where: str, start: int) -> IdArray:
    """Ids from row ``start`` on in the form of their kind.

    Raises `IdError`, naming the first few rows, where one is missing, of another type or out of
    range.
    """
    return {"int64": as_int64, "uuid": _as_uuids, "string": _as_texts}[kind](values, where, start)


def require_stored(ids: IdArray, where: str, start: int, *fills: Any) -> None:
    """Raise where two ids or more are all zero, empty or one of ``fills``: so reads a chunk that is
    missing.
    """
    nothing = np.zeros(1, ids.dtype)[0] if ids.dtype.kind != "O" else ""
    for fill in (nothing, *fills):
        if len(ids) > 1 and ids[0] == fill and bool((ids == fill).all()):
            break
    else:
        return

    raise DamageError(
        f"the ids of {where} are all {shown(ids[:1])[0]} from row {start} to {start + len(ids)}, as"
        " a missing chunk reads; restore it from its source, or give every row an id of its own"
    )


def shown(ids: IdArray) -> list[str]:
    """Ids as messages show them."""
    return [
        str(UuidObject(bytes=value)) if ids.dtype == UUID else repr(value) for value in ids.tolist()
    ]


def plain(ids: IdArray) -> list[Any]:
    """Whole numbers and texts as Python has them; UUIDs as texts."""
    return shown(ids) if ids.dtype == UUID else ids.tolist()


def hashable(ids: IdArray) -> IdArray:
    """UUIDs as bytes objects, which pandas can hash."""
    return np.array([value.tobytes() for value in ids], object) if ids.dtype.kind == "V" else ids


def _kind_of_objects(values: list[Any]) -> IdKind:
    """That of the first value that can be an id; bytes are UUIDs where each has 16 of them, else
    texts.
    """
    for value in values:
        if isinstance(value, str):
            return "string"
        if _is_whole(value):
            return "int64"
        if isinstance(value, UuidObject):
            return "uuid"
        if isinstance(value, bytes):
            every = all(len(raw) == UUID.itemsize for raw in values if isinstance(raw, bytes))
            return "uuid" if every else "string"
    return "string"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_int64(values: IdArray, where: str, start: int) -> IdArray:
    """Whole numbers from row ``start`` on as int64; raises `IdError` as `checked_ids` does."""
    bad: Any = ()
    if values.dtype.kind == "O":
        listed = values.tolist()
        _refuse([i for i, value in enumerate(listed) if not _is_whole(value)], values, where, start)
        bad = [i for i, value in enumerate(listed) if not _INT64.min <= value <= _INT64.max]
    elif values.dtype.kind == "u" and values.dtype.itemsize == _INT64.bits // 8:
        bad = np.flatnonzero(values > np.uint64(_INT64.max))

    if len(bad):
        raise IdError(
            f"ids must fit int64; {where} has {values[bad[0]]} in row {first_few(bad, start)}; give"
            " them as .view('int64') (the same 64 bits) or as strings, in every run alike"
        )
    return values.astype(np.int64, copy=False)


def _as_texts(values: IdArray, where: str, start: int) -> IdArray:
    listed = values.tolist()
    kind = bytes if listed and isinstance(listed[0], bytes) else str
    if set(map(type, listed)) - {kind}:
        bad = [i for i, value in enumerate(listed) if not isinstance(value, kind)]
        _refuse(bad, values, where, start)
    if kind is str:
        return values.astype(object, copy=False)

    return decoded_texts(
        listed,
        lambda _, error: (
            f"ids that are bytes must be texts in UTF-8; {where} has others ({error}); give UUIDs"
            " as V16"
        ),
    )


def _as_uuids(values: IdArray, where: str, start: int) -> IdArray:
    if values.dtype == UUID:
        return values

    raw = [getattr(value, "bytes", value) for value in values.tolist()]
    bad = [
        i
        for i, value in enumerate(raw)
        if not isinstance(value, bytes) or len(value) != UUID.itemsize
    ]
    _refuse(bad, values, where, start)
    return np.frombuffer(b"".join(raw), UUID)


def decoded_texts(
    values: list[bytes], refused: Callable[[int, UnicodeDecodeError], str]
) -> IdArray:
    """Bytes as the texts that they are in UTF-8; `IdError` where one is none, in the words of
    ``refused``, which is given the first such position.
    """
    try:
        return listed_ids([value.decode() for value in values])
    except UnicodeDecodeError as error:
        raise IdError(refused(values.index(error.object), error)) from error


def encoded_texts(ids: IdArray, where: str, start: int) -> list[bytes]:
    """Texts as UTF-8; `IdError` naming the rows where one cannot be (half of a pair of
    surrogates).
    """
    try:
        return [value.encode() for value in ids.tolist()]
    except UnicodeEncodeError:
        bad = [
            i
            for i, value in enumerate(ids.tolist())
            if value.encode(errors="ignore").decode() != value
        ]
        raise IdError(
            f"ids that are strings must be valid Unicode; {where} has halves of surrogate pairs in"
            f" row {first_few(bad, start)}; decode these ids again, or drop the rows"
        ) from None


def _refuse(bad: list[int], values: IdArray, where: str, start: int) -> None:
    if bad:
        named = ", ".join(f"{values[i]!r} in row {start + i}" for i in bad[:5])
        more = f" and {len(bad) - 5} more near them" if len(bad) > 5 else ""
        raise IdError(
            f"ids must be int64 or strings, all of one type and none null; {where} has"
            f" {named}{more}; give all rows such ids"
        )


def digest_of_ids(ids: IdArray, start: int) -> int:
    """Sum of (2 i + 1) x_i modulo 2^64 over rows i from ``start`` on; x_i is an int64 id, or the
    crc32 of a text.
    """
    numbers: Any
    if ids.dtype.kind == "O":
        numbers = np.fromiter(
            map(zlib.crc32, encoded_texts(ids, "a table", start)), np.uint64, len(ids)
        )
    elif ids.dtype.kind == "V":
        halves = np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)
        numbers = halves[:, 0] + halves[:, 1] * np.uint64(0x9E3779B97F4A7C15)
    else:
        numbers = ids.view(np.uint64)

    return int(numbers @ np.arange(2 * start + 1, 2 * (start + len(ids)) + 1, 2, dtype=np.uint64))
