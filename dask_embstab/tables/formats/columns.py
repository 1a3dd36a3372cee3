"""Which columns hold the ids and the vectors? Asked of a schema, before a row is read.

What is not named is found where there is one candidate; else the error lists the columns there are.
Only this module and its neighbours `arrow_values` and `columnar` know Arrow's types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.repairs import call, option
from dask_embstab.tables.layout import DIMENSION
from dask_embstab.tables.read.column_names import (
    in_order,
    known_column,
    named_columns,
    series_of,
    shown_names,
)

Layout = Literal["list", "fixed list", "bytes", "columns"]
_LEAST_COMPONENTS = 2
_BYTES_DTYPES = ("float16", "float32", "float64")
UUID_BYTES = 16


@dataclass(frozen=True, slots=True)
class VectorColumns:
    """The columns of the vectors, how they hold them, and the dtype of a component; ``d`` is 0
    where the rows alone tell it.
    """

    names: tuple[str, ...]
    layout: Layout
    dtype: np.dtype[Any]
    d: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns of a table, and the type of its ids as the schema has it; ``id`` None: its rows
    have none.
    """

    vector: VectorColumns
    id: str | None
    id_type: Any = None


def choose_columns(
    schema: Any, id: Any, vector: Any, key: str, where: str, partitions: Sequence[str] = ()
) -> Chosen:
    """The columns of vectors and ids of a table ``key`` in a ``schema`` of Arrow.

    ``id`` and ``vector`` name them; None: they are found. ``partitions`` are columns that the names
    of folders give.
    """
    fields = {field.name: field for field in schema}
    if len(fields) != len(schema.names):
        raise InputError(
            f"columns must have names of their own; {where} has {', '.join(schema.names)}"
        )
    columns = _vector_columns(fields, vector, where)
    rest = {name: field for name, field in fields.items() if name not in columns.names}
    name = _id_column(rest, id, key, where, partitions)
    return Chosen(columns, name, None if name is None else fields[name].type)


def _vector_columns(fields: dict[str, Any], vector: Any, where: str) -> VectorColumns:
    if vector is None:
        return _only_vectors(fields, where)
    names = _named(fields, vector, where)
    if len(names) == 1 and (one := _whole(fields[names[0]], _dtype_of(vector))) is not None:
        return one
    types = {name: fields[name].type for name in names}
    if others := [f"{name} ({kind})" for name, kind in types.items() if not _is_float(kind)]:
        raise InputError(
            "vectors are a column of lists, fixed-size lists or fixed-size binary values, or one"
            f" column per component, of float16, float32 or float64; {where} has"
            f" {', '.join(others[:5])}; name others by {option('vector')}"
        )
    if len(kinds := {str(kind) for kind in types.values()}) > 1:
        raise InputError(
            f"all components must have one type; those of {where} have {', '.join(sorted(kinds))}"
        )
    dtype = np.dtype(next(iter(types.values())).to_pandas_dtype())
    return VectorColumns(tuple(names), "columns", dtype, len(names))


def id_column(schema: Any, key: str, where: str, partitions: Sequence[str] = ()) -> str | None:
    """The column of the ids in a schema without vectors: the only one, or that with the usual name;
    None where vectors are there.
    """
    fields = {field.name: field for field in schema}
    whole, numbered = _candidates(fields, where)
    if whole or numbered:
        return None
    try:
        column = _id_column(fields, None, key, where, partitions)
    except InputError:
        column = None
    if column is None:
        raise InputError(
            f"ids must be the only column that can hold them, or be named id or {DIMENSION[key]}_id"
            f"; {where} has {_listed(fields)}, and no vectors"
        )
    return column


def _only_vectors(fields: dict[str, Any], where: str) -> VectorColumns:
    """The only column of vectors, or the only numbered columns of floats (emb_0, emb_1, ...)."""
    whole, able = _candidates(fields, where)
    if len(whole) == 1:
        return whole[0]
    if not whole and len(able) == 1:
        return _vector_columns(fields, in_order(able[0]), where)
    raise _unclear("the vectors", "vector", [one.names[0] for one in whole], fields, where)


def _candidates(fields: dict[str, Any], where: str) -> tuple[list[VectorColumns], list[list[str]]]:
    """Columns of whole vectors, and numbered columns of floats."""
    pa = require_extra("pyarrow", "parquet", what=f"reading {where}")
    whole = [
        one
        for name, field in fields.items()
        if not (pa.types.is_binary(field.type) or _is_uuid(field.type, pa))
        and (one := _whole(field, None)) is not None
    ]
    numbered: dict[str, list[str]] = {}
    for name, field in fields.items():
        if _is_float(field.type) and (series := series_of(name)) is not None:
            numbered.setdefault(series, []).append(name)
    return whole, [names for names in numbered.values() if len(names) >= _LEAST_COMPONENTS]


def _whole(field: Any, dtype: np.dtype[Any] | None) -> VectorColumns | None:
    """The column as one that holds whole vectors; None where it does not."""
    pa = require_extra("pyarrow", "parquet", what="this format")
    kind, lists = field.type, pa.types
    if lists.is_list(kind) or lists.is_large_list(kind) or lists.is_fixed_size_list(kind):
        if not _is_float(kind.value_type):
            return None
        is_fixed = lists.is_fixed_size_list(kind)
        made = np.dtype(kind.value_type.to_pandas_dtype())
        layout: Layout = "fixed list" if is_fixed else "list"
        return VectorColumns((field.name,), layout, made, kind.list_size if is_fixed else 0)
    named = (field.metadata or {}).get(b"dtype", b"").decode()
    made = dtype or np.dtype(named if named in _BYTES_DTYPES else "float32")
    if lists.is_fixed_size_binary(kind) and kind.byte_width % made.itemsize == 0:
        return VectorColumns((field.name,), "bytes", made, kind.byte_width // made.itemsize)
    if lists.is_binary(kind) or lists.is_large_binary(kind):
        return VectorColumns((field.name,), "bytes", made, 0)
    return None


def _named(fields: dict[str, Any], vector: Any, where: str) -> list[str]:
    """The names that are meant; behind a colon stands the dtype of bytes."""
    if isinstance(vector, str) and _dtype_of(vector) is not None and vector not in fields:
        vector = vector.rpartition(":")[0]
    return named_columns(list(fields), vector, where, _listed(fields))


def _dtype_of(vector: Any) -> np.dtype[Any] | None:
    """That of the bytes in ``emb:float16``."""
    named = vector.rpartition(":")[2] if isinstance(vector, str) else ""
    return np.dtype(named) if named in _BYTES_DTYPES else None


def _id_column(
    rest: dict[str, Any], id: Any, key: str, where: str, partitions: Sequence[str]
) -> str | None:
    pa = require_extra("pyarrow", "parquet", what=f"reading {where}")
    if id is not None:
        name = known_column(list(rest), id, where, _listed(rest))
        if name in partitions:
            raise InputError(
                f"ids are a column of the files; {name} of {where} is the name of a folder, which"
                f" all of its rows share; it has {_listed(rest)}"
            )
        if not _may_be_ids(rest[name].type, pa):
            raise InputError(
                f"ids must be whole numbers, texts, binary values or UUIDs; {name} of {where} is"
                f" {rest[name].type}; it has {_listed(rest)}"
            )
        return str(name)
    able = [n for n, f in rest.items() if n not in partitions and _may_be_ids(f.type, pa)]
    row = DIMENSION[key]
    for usual in ("id", f"{row}_id", row):
        if usual in able:
            return usual
        if usual in rest and usual not in partitions:
            raise InputError(
                f"ids must be whole numbers, texts, binary values or UUIDs; {usual} of {where} is"
                f" {rest[usual].type}; convert it, or name others by {option('id')}: it has"
                f" {_listed(rest)}"
            )
    if len(able) > 1:
        raise _unclear("the ids", "id", able, rest, where)
    return able[0] if able else None


def _may_be_ids(kind: Any, pa: Any) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _may_be_ids(kind.value_type, pa)
    tests = "integer", "string", "large_string", "string_view", "binary", "large_binary"
    return any(getattr(types, f"is_{name}", bool)(kind) for name in tests) or (
        types.is_fixed_size_binary(kind) or _is_uuid(kind, pa)
    )


def _is_uuid(kind: Any, pa: Any) -> bool:
    """Arrow's UUIDs, and what looks like them: 16 bytes are no vector unless they are named."""
    return str(getattr(kind, "extension_name", "")) == "arrow.uuid" or (
        pa.types.is_fixed_size_binary(kind) and kind.byte_width == UUID_BYTES
    )


def _is_float(kind: Any) -> bool:
    return str(kind) in ("halffloat", "float16", "float", "float32", "double", "float64")


def _unclear(
    what: str, name: str, candidates: list[str], fields: dict[str, Any], where: str
) -> InputError:
    several = f"{', '.join(candidates)} could be" if candidates else "no column could be"
    return InputError(
        f"{what} of {where} must be one column or be named; {several}; it has {_listed(fields)}",
        f"name them by {option(name)}",
        f"import them by {call('ingest', **{name: None})}",
    )


def _listed(fields: dict[str, Any]) -> str:
    return shown_names([f"{name} ({field.type})" for name, field in fields.items()])
