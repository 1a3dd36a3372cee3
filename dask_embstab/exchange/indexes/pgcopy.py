"""PostgreSQL's binary COPY files for pgvector: an id and a ``vector`` (of float16 rows a
``halfvec``).

Format: postgresql.org/docs/current/sql-copy.html, "Binary Format"; a vector is its number of
components, two bytes of zeros, and the components, all of them big-endian (pgvector's
``vector_recv``).
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError, IdError, InputError
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room
from dask_embstab.files.atomic import write_whole
from dask_embstab.files.regular import open_regular
from dask_embstab.tables.ids.kinds import IdArray, encoded_texts, listed_ids

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = struct.pack(">h", -1)
_MOST_COMPONENTS = 16_000
_MOST_FIELD = 1 << 20
_AT_A_TIME = 1 << 14


def write_pgcopy(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.pgcopy``, for ``COPY items (id, embedding) FROM ... WITH (FORMAT binary)``."""
    del room
    if spec.d > _MOST_COMPONENTS:
        raise InputError(
            f"pgvector holds at most {_MOST_COMPONENTS} components; these have {spec.d}"
        )
    write_whole(f"{stem}.pgcopy", partial(_fill, spec, panels), sync=False)


def _fill(spec: FileSpec, panels: Panels, file: IO[bytes]) -> None:
    file.write(_SIGNATURE)
    for panel in panels:
        file.write(tuples(spec, panel))
    file.write(_END)


def tuples(spec: FileSpec, panel: Panel) -> bytes:
    """The rows of a panel as COPY has them."""
    if spec.ids == "string":
        texts = encoded_texts(panel.ids, spec.where, int(panel.numbers[0]))
        for number, text in zip(panel.numbers.tolist(), texts, strict=True):
            if b"\0" in text:
                raise IdError(
                    f"PostgreSQL's texts hold no zero character; the id of row {number} of"
                    f" {spec.where} has one; export Parquet instead"
                )
        vectors = _vectors(spec, panel.rows).view(f"V{_vector_bytes(spec)}")[:, 0].tolist()
        return b"".join(
            struct.pack(">hi", 1 + bool(spec.d), len(text)) + text + vector
            for text, vector in zip(texts, vectors, strict=True)
        )
    ids, width = _ids(spec, panel.ids)
    record = np.dtype(
        [("fields", ">i2"), ("bytes", ">i4"), ("id", f"V{width}"), ("v", f"V{_vector_bytes(spec)}")]
    )
    rows = np.zeros(len(panel.ids), record)
    rows["fields"], rows["bytes"], rows["id"] = 1 + bool(spec.d), width, ids
    if spec.d:
        rows["v"] = _vectors(spec, panel.rows).view(f"V{_vector_bytes(spec)}")[:, 0]
    return rows.tobytes()


def _ids(spec: FileSpec, ids: IdArray) -> tuple[Any, int]:
    if spec.ids == "uuid":
        return ids, 16
    return np.ascontiguousarray(ids, dtype=">i8").view("V8"), 8


def _vector_bytes(spec: FileSpec) -> int:
    half = spec.dtype.itemsize == 2
    return 8 + spec.d * (2 if half else 4) if spec.d else 0


def _vectors(spec: FileSpec, rows: Rows) -> Any:
    """The length of the field, the number of components, two bytes of zeros, the components."""
    stored = ">f2" if spec.dtype.itemsize == 2 else ">f4"
    data = np.ascontiguousarray(rows, dtype=stored).view(np.uint8).reshape(len(rows), -1)
    head = struct.pack(">ihh", data.shape[1] + 4, spec.d, 0)
    fields = np.empty((len(rows), len(head) + data.shape[1]), np.uint8)
    fields[:, : len(head)] = np.frombuffer(head, np.uint8)
    fields[:, len(head) :] = data
    return fields


def read_pgcopy(spec: FileSpec, stem: Path) -> Iterator[Panel]:
    """The rows of a file that `write_pgcopy` wrote, or ``COPY ... TO`` of such a table;
    `DamageError` where it is none.
    """
    path = Path(f"{stem}.pgcopy")
    with os.fdopen(open_regular(path), "rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            raise _damaged(path, "it does not begin as one")
        start = 0
        while rows := list(itertools.islice(_rows(spec, file, path), _AT_A_TIME)):
            ids = [row_id for row_id, _ in rows]
            stored = np.frombuffer(
                b"".join(vector for _, vector in rows), f">f{spec.dtype.itemsize}"
            )
            numbers = np.arange(start, start + len(ids))
            native = stored.reshape(len(ids), spec.d).astype(spec.dtype)
            yield Panel(numbers, _named(spec, ids), native)
            start += len(ids)


def _rows(spec: FileSpec, file: IO[bytes], path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Ids and components, as they are stored; ends at the mark of the end."""
    length = spec.d * spec.dtype.itemsize
    while (head := _exactly(file, 2, path)) != _END:
        if head != b"\0\2":
            raise _damaged(path, "a row has other than two fields")
        row_id = _exactly(file, _length(file, path), path)
        if _length(file, path) != length + 4 or _exactly(file, 4, path)[:2] != struct.pack(
            ">h", spec.d
        ):
            raise _damaged(path, f"a vector has other than {spec.d} components")
        yield row_id, _exactly(file, length, path)
    file.seek(-2, os.SEEK_CUR)  # the next panel finds the end there too


def _length(file: IO[bytes], path: Path) -> int:
    (length,) = struct.unpack(">i", _exactly(file, 4, path))
    if not 0 <= length <= _MOST_FIELD:
        raise _damaged(path, "a field is missing or too long")
    return int(length)


def _exactly(file: IO[bytes], n: int, path: Path) -> bytes:
    data = file.read(n)
    if len(data) != n:
        raise _damaged(path, "it ends early")
    return data


def _named(spec: FileSpec, ids: list[bytes]) -> IdArray:
    if spec.ids == "string":
        return listed_ids([one.decode() for one in ids])
    stored = np.frombuffer(b"".join(ids), "V16" if spec.ids == "uuid" else ">i8")
    return stored if spec.ids == "uuid" else stored.astype(np.int64)


def _damaged(path: Path, why: str) -> DamageError:
    return DamageError(f"{path} is no whole COPY file ({why}); write it again")
