"""CSV and word2vec files of a table.

Numbers have so many digits that they read back as they were, whether they are read as float32 or
as float64 and then rounded: 9 for float32 and float16, 17 for float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from dask_embstab.core.types import Rows
from dask_embstab.errors import IdError
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room
from dask_embstab.files.atomic import write_whole
from dask_embstab.repairs import option
from dask_embstab.tables.ids.kinds import encoded_texts, plain

_LINES = 1024
"""Rows that are made text at a time."""
_SHOWN = 60
_FORMULA = tuple("=+-@\t\r")
"""An id that begins so is run by a spreadsheet that opens the file."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
Words = Callable[[FileSpec, Panel], Sequence[bytes]]


def write_csv(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """A header line, then a line per row: the id (a text in quotes) and its components."""
    del room
    header = ",".join(["id", *(f"x{k}" for k in range(spec.d))])

    def fill(file: IO[bytes]) -> None:
        file.write(f"{header}\n".encode())
        for part in _parts(panels):
            ids, numbers = _csv_ids(spec, part), _texts(part.rows, ",")
            file.writelines(b"%b%b\n" % line for line in zip(ids, numbers, strict=True))

    write_whole(f"{stem}.csv", fill, sync=False)


def write_word2vec(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """A line with both sizes, then a line per row: the id and its components. Ids alone become a
    line each, with nothing before them.
    """

    def fill(file: IO[bytes]) -> None:
        n = _sizes(file, spec, room, 0)
        for part in _parts(panels):
            ids, numbers = _words(spec, part), _texts(part.rows, " ")
            file.writelines(b"%b%b\n" % line for line in zip(ids, numbers, strict=True))
            n += len(ids)
        _sizes(file, spec, room, n)

    write_whole(f"{stem}.txt", fill, sync=False)


def write_word2vec_binary(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """The same with components of four bytes each, as the first word2vec wrote them."""
    if not spec.d:
        write_word2vec(spec, stem, panels, room)
        return

    def fill(file: IO[bytes]) -> None:
        n = _sizes(file, spec, room, 0)
        for part in _parts(panels):
            ids, rows = _words(spec, part), part.rows.astype("<f4")
            lines = zip(ids, rows, strict=True)
            file.writelines(b"%b %b\n" % (word, row.tobytes()) for word, row in lines)
            n += len(ids)
        _sizes(file, spec, room, n)

    write_whole(f"{stem}.bin", fill, sync=False)


def _sizes(file: IO[bytes], spec: FileSpec, room: Room, n: int) -> int:
    """The first line, as long for any number of rows that there can be."""
    if spec.d:
        file.seek(0)
        file.write(f"{n:>{len(str(room.rows))}} {spec.d}\n".encode())
    return n


def _parts(panels: Panels) -> Iterator[Panel]:
    for panel in panels:
        for at in range(0, len(panel.ids), _LINES):
            yield Panel(*(part[at : at + _LINES] for part in panel))


def _texts(rows: Rows, separator: str) -> Iterator[bytes]:
    """Every row's components, each behind a separator. Each has a point: a column of whole numbers
    is one of floats, and a negative zero stays one.
    """
    digits = 17 if rows.dtype.itemsize > 4 else 9
    template = f"{separator}%#.{digits}g".encode() * rows.shape[1]
    return (template % tuple(row) for row in rows.tolist())


def _csv_ids(spec: FileSpec, panel: Panel) -> list[bytes]:
    if spec.ids != "string":
        return [str(value).encode() for value in plain(panel.ids)]
    for number, value in zip(panel.numbers.tolist(), panel.ids.tolist(), strict=True):
        if "\0" in value:
            raise IdError(
                f"ids in CSV may have no zero character; {_row(spec, number, value)} has one;"
                " export Parquet instead"
            )
        if value.startswith(_FORMULA) and not spec.formulas:
            raise IdError(
                f"ids in CSV may not begin as formulas do, which spreadsheets run;"
                f" {_row(spec, number, value)} does; export Parquet instead",
                f"{option(formulas=True)} writes them as they are",
            )
    encoded = encoded_texts(panel.ids, spec.where, int(panel.numbers[0]))
    return [b'"%b"' % text.replace(b'"', b'""') for text in encoded]


def _words(spec: FileSpec, panel: Panel) -> list[bytes]:
    if spec.ids != "string":
        return [str(value).encode() for value in plain(panel.ids)]
    for number, value in zip(panel.numbers.tolist(), panel.ids.tolist(), strict=True):
        if len(value.split()) != 1 or value != value.strip() or _CONTROLS.search(value):
            raise IdError(
                "ids in word2vec are words without spaces or control characters;"
                f" {_row(spec, number, value)} is none; export Parquet instead"
            )
    return encoded_texts(panel.ids, spec.where, int(panel.numbers[0]))


def _row(spec: FileSpec, number: int, value: str) -> str:
    return f"that of row {number} of {spec.where}, {value[:_SHOWN]!r},"
