"""npy files of a table: one of vectors, one of ids, neither with a Python object in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from dask_embstab.errors import IdError
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room
from dask_embstab.files.atomic import write_whole
from dask_embstab.tables.ids.kinds import encoded_texts, shown

_MOST_CHARACTERS = 1024
"""Of an id: every id of a file has the room of the longest."""


def write_npy(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.vectors.npy`` (n, d) and ``.ids.npy`` (n,): int64, texts of one length, or 16 bytes."""
    kinds = {"int64": np.dtype("<i8"), "uuid": np.dtype("V16")}
    ids = kinds.get(spec.ids, np.dtype(f"<U{max(1, min(room.characters, _MOST_CHARACTERS))}"))

    def fill_ids(file: IO[bytes], vectors: _Npy | None) -> None:
        to = _Npy(file, ids, ())
        for panel in panels:
            if spec.ids == "string":
                _require_fitting(spec, panel)
            to.put(panel.ids)
            if vectors is not None:
                vectors.put(panel.rows)
        to.finish()

    def fill_both(file: IO[bytes]) -> None:
        to = _Npy(file, spec.dtype.newbyteorder("<"), (spec.d,))
        write_whole(f"{stem}.ids.npy", partial(fill_ids, vectors=to), sync=False)
        to.finish()

    if spec.d:
        write_whole(f"{stem}.vectors.npy", fill_both, sync=False)
    else:
        write_whole(f"{stem}.ids.npy", partial(fill_ids, vectors=None), sync=False)


class _Npy:
    """An npy file that grows: its header has room for any number of rows."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._file, self._dtype, self._shape, self._n = file, dtype, shape, 0
        self._header()

    def put(self, values: Any) -> None:
        """Append rows."""
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self._n += len(values)

    def finish(self) -> None:
        """Write the number of rows into the header."""
        self._file.seek(0)
        self._header()

    def _header(self) -> None:
        known = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._n, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, known)


def _require_fitting(spec: FileSpec, panel: Panel) -> None:
    """Raise where a text would not read back: NumPy takes zeros at its end for padding."""
    encoded_texts(panel.ids, spec.where, int(panel.numbers[0]))
    for number, value in zip(panel.numbers.tolist(), panel.ids.tolist(), strict=True):
        if value.endswith("\0") or len(value) > _MOST_CHARACTERS:
            why = (
                "ends with a zero character, which is lost there"
                if value.endswith("\0")
                else f"has {len(value)} characters and {_MOST_CHARACTERS} can be held"
            )
            (named,) = shown(np.array([value[:_SHOWN]], object))
            raise IdError(
                f"ids in npy are texts of one length; that of row {number} of {spec.where},"
                f" {named}, {why}; export Parquet instead"
            )


_SHOWN = 60
