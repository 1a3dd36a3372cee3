"""Tables of vectors and ids in files of columns, written plainly with pyarrow."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pyarrow as pa

LAYOUTS = ("list", "large list", "fixed list", "fixed binary", "binary", "columns")
DTYPES = ("float16", "float32", "float64")
IDS = ("int64", "int8", "uint32", "uint64", "string", "large string", "dictionary", "binary")
IDS += ("uuid", "binary uuid", "none")


def vectors(n: int, d: int, dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    """Any numbers."""
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def vector_columns(rows: np.ndarray[Any, Any], layout: str) -> dict[str, pa.Array]:
    """The columns of one layout; ``v`` names the vectors (of ``columns``: v_0, v_1, ...)."""
    n, d = rows.shape
    flat, offsets = pa.array(rows.ravel()), np.arange(n + 1) * d
    if layout == "columns":
        shuffled = np.random.default_rng(d).permutation(d)
        return {f"v_{j}": pa.array(np.ascontiguousarray(rows[:, j])) for j in shuffled}
    if layout == "list":
        return {"v": pa.ListArray.from_arrays(offsets.astype(np.int32), flat)}
    if layout == "large list":
        return {"v": pa.LargeListArray.from_arrays(offsets.astype(np.int64), flat)}
    if layout == "fixed list":
        return {"v": pa.FixedSizeListArray.from_arrays(flat, d)}
    kind = pa.binary(d * rows.itemsize) if layout == "fixed binary" else pa.binary()
    return {"v": pa.array([row.tobytes() for row in rows], kind)}


def id_column(n: int, kind: str) -> tuple[pa.Array | None, list[Any]]:
    """A column of ids, no two alike, in no order, and what the library must make of them."""
    numbers = [int(i) for i in np.random.default_rng(n).permutation(n)]
    texts = [f"item-{i}é" for i in numbers]
    raw = [uuid.UUID(int=(i + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128) for i in numbers]
    if kind == "none":
        return None, []
    if kind in ("uuid", "binary uuid"):
        type_ = pa.uuid() if kind == "uuid" else pa.binary()
        return pa.array([one.bytes for one in raw], type_), [one.bytes for one in raw]
    if kind == "binary":
        return pa.array([text.encode() for text in texts], pa.binary()), texts
    if kind == "dictionary":
        return pa.array(texts).dictionary_encode(), texts
    if kind in ("string", "large string"):
        return pa.array(texts, pa.string() if kind == "string" else pa.large_string()), texts
    return pa.array(numbers, getattr(pa, kind)()), numbers


def vector_name(layout: str, dtype: str) -> str:
    """How `ingest` is told which columns these are."""
    return "v_*" if layout == "columns" else f"v:{dtype}" if "binary" in layout else "v"


def listed_ids(table: Any) -> list[Any]:
    """The ids of a table, UUIDs as bytes."""
    if table.ids is None:
        return []
    return [
        one.tobytes()
        if hasattr(one, "tobytes") and one.dtype.kind == "V"
        else one.item()
        if hasattr(one, "item")
        else one
        for one in table.ids.compute()
    ]
