"""A table whose rows are stored as codes: decoded a panel at a time by whoever reads them.

In its group ``codes`` (n, bytes) uint8 stands in the place of ``vectors``, ``scale`` (n,) beside
it where rows have one, ``steps`` where components have one, and ``matrix`` where components were
rotated or left out; the attributes say what they mean.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.core.codes.code import BITS, BY_COMPONENT, FROZEN, Code
from dask_embstab.core.codes.product import ENTRIES, ProductCode
from dask_embstab.core.codes.residual import ResidualCode
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import DamageError, EmbstabError, InputChangedError, InputError
from dask_embstab.files.regular import read_regular
from dask_embstab.tables.layout import ATTRIBUTE, CODES, SCALE, recorded
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.dask_source import as_dask
from dask_embstab.tables.read.direct_source import DirectSource, small_array
from dask_embstab.tables.read.source import Digests, Reader, Source
from dask_embstab.tables.read.stored.nodes import child
from dask_embstab.tables.read.views import View, ViewReader, column_source, view_block
from dask_embstab.tables.read.zarr_source import ZarrSource, require_full_width
from dask_embstab.tables.store_errors import reading

STEPS, MATRIX, CODEBOOK = "steps", "matrix", "codebook"


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The record of a code in the metadata file of a group."""

    file: str
    record: Any

    def require(self) -> None:
        """Raise where the table was written anew, with another code."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(read_regular(self.file))["attributes"][ATTRIBUTE]["code"] == self.record:
                return
        raise InputChangedError(
            f"the codes of {Path(self.file).parent} are of another code than when it was opened;"
            " open it again"
        )


@dataclass(frozen=True, slots=True)
class CodedSource(View):
    """The decoded rows, float32; ``source`` holds the codes and ``scale`` the rows' scales.

    Where the group is local ``stamp`` says which code it had when it was opened: whoever reads rows
    looks whether it has it still.
    """

    scale: Source | None
    code: RowCode
    stamp: _Stamp | None = None

    @property
    def array(self) -> Any:
        """A lazy Dask array."""
        codes = as_dask(self.source.array, self.chunk_rows, unique=True)
        parts = [codes]
        if self.scale is not None:
            scale = as_dask(self.scale.array, self.chunk_rows, unique=True)
            scale = scale[:, None] if scale.ndim == 1 else scale
            parts.append(scale.rechunk((codes.chunks[0], (1,))))
        rows, *more = parts
        chunks = (rows.chunks[0], (self.code.d,))
        return rows.map_blocks(partial(_decoded, self.code), *more, dtype=self.dtype, chunks=chunks)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.source.shape[0], self.code.d

    @property
    def dtype(self) -> np.dtype[Any]:
        """What decoding gives."""
        return np.dtype(np.float32)

    def block(self, start: int, stop: int) -> Any:
        """A block of the rows."""
        scales = [] if self.scale is None else [self.scale.block(start, stop)]
        return self._made(self.source.block(start, stop), *scales)

    def gather(self, rows: RowNumbers) -> Any:
        """These rows."""
        scales = [] if self.scale is None else [self.scale.gather(rows)]
        return self._made(self.source.gather(rows), *scales)

    def _made(self, *blocks: Any) -> Any:
        return view_block(partial(_CodedReader, self.code, self.stamp), *blocks)


class _CodedReader(ViewReader):
    def __init__(self, code: RowCode, stamp: _Stamp | None, *readers: Reader) -> None:
        super().__init__(*readers)
        self._code = code
        if stamp is not None:
            stamp.require()

    def take(self, start: int, stop: int) -> Rows:
        """The decoded rows."""
        return _decoded(self._code, *self.stored(start, stop))

    def stored(self, start: int, stop: int) -> list[Rows]:
        """The codes (m, bytes) and, where rows have one, the scales (m, 1), as they are stored."""
        return [reader.take(start, stop) for reader in self._readers]

    def digests(self) -> Digests:
        """Of the chunks of codes and of scales together."""
        codes, *scales = (reader.digests() for reader in self._readers)
        for of in scales:
            codes = {n: (c * 31 + of[n]) % 2**32 for n, c in codes.items() if n in of}
        return codes


def stored_rows(reader: Any, start: int, stop: int) -> list[Rows]:
    """What a reader of a coded table has stored of these rows: codes and, mostly, scales."""
    assert isinstance(reader, _CodedReader)
    return reader.stored(start, stop)


def _checksum(code: RowCode) -> int:
    """Of all that decoding needs."""
    crc = crc32c.crc32c(f"{code.name} {code.d}".encode())
    for name, (values, _) in sorted(code.arrays().items()):
        array: Any = np.ascontiguousarray(values, "<f8")
        crc = crc32c.crc32c(name.encode() + array.tobytes(), crc)
    return int(crc)


def _decoded(code: RowCode, codes: Any, scale: Any = None) -> Rows:
    return code.decode(codes, None if scale is None else scale[:, 0])


def code_attributes(code: RowCode) -> dict[str, Any]:
    """What the group of a coded table records of its code; `code_of` reads it."""
    record = {"name": code.name, "components": code.d, "crc32c": _checksum(code)}
    return {ATTRIBUTE: {"code": record, "meaning": meaning(code)}}


def meaning(code: RowCode) -> str:
    """How to decode the arrays, in words."""
    numbers = {
        "float16": "codes.view('<f2')",
        "bfloat16": "the upper halves of float32 numbers",
        "int8": "codes.view('i1')",
        "sign": f"bits, lowest first: (2 bit - 1) / sqrt({code.width})",
    }
    name = code.name.removesuffix(BY_COMPONENT)
    joined = "added up" if name.startswith("rq") else "side by side"
    text = numbers.get(name, f"codebook[part, codes[:, part]] of all parts {joined}")
    if name in ("int6", "int5", "int4"):
        bits = BITS[name]
        text = f"numbers of {bits} bits, lowest first, minus {(1 << (bits - 1)) - 1}"
    text = f"y = {text}" + (" * scale" * code.scaled or " * steps" * (code.name in FROZEN))
    return text if code.matrix is None else f"{text}; rows are y @ matrix.T"


def code_of(group: zarr.Group, where: str) -> RowCode:
    """The code of the table in a group; `InputError` where its record is no such code."""
    record: Any = recorded(dict(group.attrs)).get("code")
    try:
        if not isinstance(record, Mapping):
            raise ValueError("its attributes name no code")
        name, d = record["name"], record["components"]
        if not isinstance(d, int) or isinstance(d, bool) or d < 1:
            raise ValueError("its number of components is none")
        matrix = _small(group, MATRIX, where)
        if matrix is not None and (matrix.ndim != 2 or matrix.shape[0] != d):
            raise ValueError("its matrix has another shape than its components ask for")
        code = _stored_code(group, where, name, d, matrix)
    except EmbstabError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"a coded table records its code in its attributes; {where} does not ({error});"
            " compress the run again"
        ) from error
    if record != code_attributes(code)[ATTRIBUTE]["code"]:
        raise DamageError(
            f"the code of {where} is not the one that it was written with (its attributes, matrix"
            " or codebook are others); restore it or compress the run again"
        )
    return code


def _stored_code(group: zarr.Group, where: str, name: Any, d: int, matrix: Any) -> RowCode:
    """The code of this name, with the group's arrays; `ValueError` where they do not fit to it."""
    if name in BITS:
        return Code(name, d, matrix)
    if name in FROZEN:
        code = Code(name, d, matrix, _small(group, STEPS, where))
        if code.steps is None or code.steps.shape != (code.width,):
            raise ValueError(f"{name!r} needs a step for every component that is stored")
        return code

    books = _small(group, CODEBOOK, where)
    if books is None or books.ndim != 3 or books.shape[1] != ENTRIES:
        raise ValueError(f"{name!r} needs a codebook of {ENTRIES} entries")
    kind = ResidualCode if str(name).startswith("rq") else ProductCode
    made = kind(d, books.astype(np.float32), matrix)
    if made.name != name or made.width != (d if matrix is None else matrix.shape[1]):
        raise ValueError(f"it is coded as {name!r}, to which its codebook does not fit")
    return made


def _small(group: zarr.Group, name: str, where: str) -> Any:
    """A small array of the group, float64; None where there is none of that name."""
    array = child(group, name)
    if not isinstance(array, zarr.Array):
        return None
    with reading(f"{where}/{name}"):
        values = np.asarray(small_array(array, f"{where}/{name}"), np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"its {name} is not finite")
    return values


def coded_source(group: zarr.Group, where: str) -> CodedSource:
    """The rows of the coded table in a group."""
    code, codes, scale = code_of(group, where), child(group, CODES), child(group, SCALE)
    if not isinstance(codes, zarr.Array) or codes.dtype != np.uint8 or codes.ndim != 2:
        raise InputError(f"codes must be (row, byte) of uint8; those of {where} are not")
    if codes.shape[1] != code.n_codes:
        raise InputError(
            f"a row of {code.name} codes has {code.n_codes} bytes for {code.width} components;"
            f" those of {where} have {codes.shape[1]}"
        )
    require_full_width(codes, f"{where}/{CODES}")
    stamp, store = None, group.store
    if isinstance(store, LocalStore) and group.metadata.zarr_format == 3:
        file = str(Path(store.root, group.path, "zarr.json"))
        stamp = _Stamp(file, code_attributes(code)[ATTRIBUTE]["code"])
    # Writers leave out no chunk of codes, although its fill is a number.
    files = chunk_files(codes, unique=True)
    source: Source = (
        ZarrSource(codes, unique=True) if files is None else DirectSource.of(codes, files)
    )
    if not code.scaled:
        return CodedSource(source, None, code, stamp)
    if not isinstance(scale, zarr.Array) or scale.shape != codes.shape[:1]:
        raise InputError(f"{code.name} codes need one scale per row; {where} has none or others")
    if scale.dtype != np.uint16 or scale.chunks[0] != codes.chunks[0]:
        raise InputError(
            f"scales must be uint16 in the row chunks of the codes; those of {where} are not"
        )
    return CodedSource(source, column_source(scale, unique=True), code, stamp)
