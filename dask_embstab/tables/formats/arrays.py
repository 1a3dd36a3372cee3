"""Tables in files of arrays (npy, npz, HDF5, safetensors) and of words (word2vec, GloVe): pieces of
named arrays.

A format is an `ArrayFormat`: it lists the arrays of a file and reads rows of one. Where rows can be
read from any place on, a piece is a few thousand of them; else it is the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError, IdError, InputError
from dask_embstab.repairs import call, option
from dask_embstab.tables.formats.columnar import Numbers, reading_file
from dask_embstab.tables.formats.piece_source import PieceArray, PieceSource
from dask_embstab.tables.formats.pieces import Offsets
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.ids.ids import Ids
from dask_embstab.tables.ids.kinds import UUID, IdArray, IdKind, checked_ids, kind_of
from dask_embstab.tables.layout import DIMENSION
from dask_embstab.tables.read.limits import require_task_count
from dask_embstab.tables.table import Table

_PIECE_ROWS = 1 << 13
_MOST_VALUES = 1 << 59
"""Of an array: their bytes are counted in 64 bits."""


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """An array of a file: its shape, and the dtype that its rows are read as."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class ArrayFormat(Protocol):
    """One format."""

    any_row: ClassVar[bool]
    """Whether reading can begin at any row."""

    def arrays(self, path: str) -> Mapping[str, ArrayInfo]:
        """The arrays of a file, from its header."""

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows ``start`` to ``stop`` of one array, a bounded number at a time."""


@dataclass(frozen=True, slots=True)
class ArrayPieces:
    """`Pieces` of files of arrays: ``file`` and ``first`` say in which file and at which row each
    begins. Ids are in ``id_files``, which are the same files but for npy.
    """

    format: ArrayFormat
    vector_files: tuple[StoredFile, ...]
    id_files: tuple[StoredFile, ...]
    file: Numbers
    first: Numbers
    offsets: Offsets
    vector: str
    id: str | None
    info: ArrayInfo
    id_kind: IdKind

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Of vectors and of ids."""
        return tuple(dict.fromkeys((*self.vector_files, *self.id_files)))

    @property
    def d(self) -> int:
        """Components."""
        return self.info.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a component."""
        return self.info.dtype

    @property
    def what(self) -> str:
        """Which arrays are read."""
        return f"{self.vector} {self.dtype} {self.id}"

    def rows(self, piece: int) -> Iterator[Rows]:
        """The vectors of one piece."""
        path, start, stop = self._range(self.vector_files, piece)
        with reading_file(path):
            yield from self.format.read(path, self.vector, start, stop)

    def ids(self, piece: int) -> Iterator[IdArray]:
        """The ids of one piece."""
        assert self.id is not None
        path, at, stop = self._range(self.id_files, piece)
        with reading_file(path):
            for values in self.format.read(path, self.id, at, stop):
                yield checked_ids(values, self.id_kind, path, at)
                at += len(values)

    def part(self, first: int, last: int) -> Self:
        """Pieces ``first`` up to ``last`` alone, and their files."""
        known, file = np.unique(self.file[first:last], return_inverse=True)
        return replace(
            self,
            vector_files=tuple(self.vector_files[i] for i in known),
            id_files=tuple(self.id_files[i] for i in known) if self.id_files else (),
            file=file,
            first=self.first[first:last],
            offsets=self.offsets[first : last + 1] - self.offsets[first],
        )

    def place(self, row: int) -> str:
        """Row of a file."""
        piece = min(int(np.searchsorted(self.offsets, row, side="right")) - 1, len(self.file) - 1)
        path, start, _ = self._range(self.vector_files, piece)
        return f"row {start + row - int(self.offsets[piece])} of {path}"

    def _range(self, files: Sequence[StoredFile], piece: int) -> tuple[str, int, int]:
        start, rows = int(self.first[piece]), int(np.diff(self.offsets)[piece])
        return files[self.file[piece]].path, start, start + rows


def array_table(
    format: ArrayFormat,
    files: tuple[StoredFile, ...],
    *,
    key: str,
    where: str,
    id: str | None,
    vector: str | None,
    id_files: tuple[StoredFile, ...] = (),
) -> Table:
    """The table of files of arrays, of which the headers are read.

    ``id_files``: files of ids of their own (npy). Raises `InputError` where it is not clear which
    arrays are meant, or they do not fit.
    """
    headers = _headers(format, files)
    name = _vector_name(headers[0], vector, where)
    of_ids = _id_name(headers[0], id, name, key, where) if not id_files else ""
    infos = [_info(header, name, file.path) for header, file in zip(headers, files, strict=True)]
    for info, file in zip(infos, files, strict=True):
        _require_alike(info, infos[0], name, file.path)
    if of_ids is not None:
        stored = _headers(format, id_files) if id_files else headers
        _require_lengths(stored, infos, id_files or files, of_ids)
    step = _PIECE_ROWS if format.any_row else _MOST_VALUES
    require_task_count(sum(-(-info.shape[0] // step) for info in infos), where)
    cuts = [
        (at, first, min(step, info.shape[0] - first))
        for at, info in enumerate(infos)
        for first in range(0, info.shape[0], step)
    ]
    file_numbers, first, lengths = np.array(cuts, np.int64).reshape(-1, 3).T
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if not offsets[-1] or not infos[0].shape[1]:
        raise InputError(
            f"a table needs at least one row and one component; {where} has the shape"
            f" {(int(offsets[-1]), infos[0].shape[1])}"
        )
    pieces = ArrayPieces(
        format,
        files,
        id_files or files,
        file_numbers,
        first,
        offsets,
        name,
        of_ids,
        infos[0],
        "int64",
    )
    if of_ids is None:
        return Table(PieceSource(pieces), None, where, key)
    kind = _kind(pieces, where)
    pieces = replace(pieces, id_kind=kind)
    return Table(
        PieceSource(pieces), Ids(PieceArray(pieces, "ids", where, kind), kind, where), where, key
    )


def _headers(format: ArrayFormat, files: Sequence[StoredFile]) -> list[Mapping[str, ArrayInfo]]:
    headers = []
    for file in files:
        with reading_file(file.path):
            header = format.arrays(file.path)
        _require_possible(header, file.path)
        headers.append(header)
    return headers


def _require_possible(header: Mapping[str, ArrayInfo], path: str) -> None:
    """Raise where a header counts more than any file holds: its lengths are computed with."""
    for name, info in header.items():
        if not all(isinstance(length, int) for length in info.shape) or not all(
            0 <= length <= _MOST_VALUES for length in (*info.shape, prod(info.shape))
        ):
            raise DamageError(
                f"{path} must hold the values that its header counts; by it"
                f" {name or 'the array'} has the shape {info.shape!s:.60}; restore it from its"
                " source"
            )


def _kind(pieces: ArrayPieces, where: str) -> IdKind:
    """That of the first ids."""
    assert pieces.id is not None
    path, start, stop = pieces._range(pieces.id_files, 0)  # noqa: SLF001 (the two are one)
    with reading_file(path):
        return kind_of(next(pieces.format.read(path, pieces.id, start, stop)), where)


def _vector_name(arrays: Mapping[str, ArrayInfo], vector: str | None, where: str) -> str:
    if vector is not None:
        if vector not in arrays:
            raise InputError(f"{where} has no array {vector!r}; it has {_listed(arrays)}")
        return vector
    if len(arrays) == 1:
        return next(iter(arrays))
    able = [n for n, info in arrays.items() if len(info.shape) == 2 and info.dtype.kind == "f"]
    if len(able) != 1:
        several = f"{', '.join(able)} could be" if able else "no array of floats has two axes"
        raise InputError(
            f"the vectors of {where} must be one array or be named; {several}; it has"
            f" {_listed(arrays)}",
            f"name them by {option('vector')}",
            f"import them by {call('ingest', vector=None)}",
        )
    return able[0]


def _id_name(
    arrays: Mapping[str, ArrayInfo], id: str | None, vector: str, key: str, where: str
) -> str | None:
    if id is not None:
        if id not in arrays:
            raise IdError(f"{where} has no array {id!r}; it has {_listed(arrays)}")
        return id
    n, row = arrays[vector].shape[0], DIMENSION[key]
    able = [
        name
        for name, info in arrays.items()
        if info.shape == (n,) and (info.dtype.kind in "iuUSO" or info.dtype == UUID)
    ]
    for usual in ("id", "ids", f"{row}_id", f"{row}_ids", row):
        if usual in able:
            return usual
        if usual in arrays and usual != vector and len(arrays[usual].shape) == 1:
            raise IdError(
                f"ids must be {n} whole numbers, texts or UUIDs, one for each row; {usual} of"
                f" {where} has the shape {arrays[usual].shape} and is {arrays[usual].dtype}; store"
                f" such ids, or name others by {option('id')}: it has {_listed(arrays)}"
            )
    if len(able) > 1:
        raise IdError(
            f"the ids of {where} must be one array or be named; {', '.join(able)} could be; name"
            f" them by {option('id')}: it has {_listed(arrays)}"
        )
    return able[0] if able else None


def _info(arrays: Mapping[str, ArrayInfo], name: str, path: str) -> ArrayInfo:
    if name not in arrays:
        raise InputError(f"all files of a table must have the same arrays; {path} has no {name}")
    info = arrays[name]
    if len(info.shape) != 2 or info.dtype.kind != "f" or info.dtype.itemsize > 8:
        raise InputError(
            "vectors must be float16, float32 or float64 with two axes, (row, component);"
            f" {name or 'the array'} of {path} is {info.dtype} of the shape {info.shape}"
        )
    return info


def _require_alike(info: ArrayInfo, first: ArrayInfo, name: str, path: str) -> None:
    if (info.shape[1], info.dtype) != (first.shape[1], first.dtype):
        raise InputError(
            f"all files of a table must be of one width and dtype; {name or 'the array'} of {path}"
            f" has {info.shape[1]} components of {info.dtype} and others {first.shape[1]} of"
            f" {first.dtype}"
        )


def _require_lengths(
    headers: Sequence[Mapping[str, ArrayInfo]],
    infos: Sequence[ArrayInfo],
    files: Sequence[StoredFile],
    name: str,
) -> None:
    for header, info, file in zip(headers, infos, files, strict=True):
        array = header.get(name)
        if array is None or array.shape != info.shape[:1]:
            shape = "no such array" if array is None else f"the shape {array.shape}"
            raise IdError(
                f"there must be one id per row, {info.shape[:1]}; {name or 'the array'} of"
                f" {file.path} has {shape}"
            )


def _listed(arrays: Mapping[str, ArrayInfo]) -> str:
    return ", ".join(
        f"{name} {info.shape} {info.dtype}" for name, info in list(arrays.items())[:12]
    )
