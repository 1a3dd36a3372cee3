"""An index moved into another space by one matrix: every stored vector is read from it, multiplied,
and a new index of the same kind is built. Graphs are built anew, since the neighbours that they
link are others: rotated in place, an approximate index fell from .853 to .308 of recall.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from dask_embstab.errors import DamageError, InputError, NotFiniteError
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.opened_index import Index
from dask_embstab.exchange.panels import Panel, Room
from dask_embstab.exchange.parts import WRITERS, part_stem
from dask_embstab.exchange.place import export_folder, write_record
from dask_embstab.tables.space import Space, digest_of
from dask_embstab.tables.transform import Transform


def move_index(index: Index, transform: Transform, space: Space, export: Export) -> dict[str, Any]:
    """Build the index of the transformed vectors at the place of ``export``; the record, which
    says ``space``.

    Memory: that of the new index (a few panels for pgvector). Raises `InputError` where the
    transform takes other vectors.
    """
    if transform.d != index.d:
        raise InputError(
            f"the transform takes vectors of {transform.d} components, and the index holds"
            f" {index.d}; fit it on the run that was indexed"
        )
    spec, told = index.spec, index.record[index.table]
    spec = replace(spec, d=transform.width)
    rows = 0
    with export_folder(export) as folder:
        (folder / index.table).mkdir()
        for number, panels in index.parts():
            moved = _Moved(index, transform, panels)
            room = Room(index.rows, _characters(index))
            WRITERS[index.engine](spec, part_stem(folder / index.table, number), moved, room)
            rows += moved.rows
        if rows != index.rows:
            raise DamageError(
                f"{index.folder} should hold {index.rows} vectors and holds {rows}; build it anew"
            )
        record = {
            **{name: index.record[name] for name in index.record if name not in ("items", "users")},
            "transform": digest_of(transform),
            "space": space.to_dict(),
            index.table: {**told, "components": transform.width},
        }
        write_record(folder, record)
    return record


class _Moved:
    """The panels, multiplied; ``rows`` of them came so far."""

    def __init__(self, index: Index, transform: Transform, panels: Iterator[Panel]) -> None:
        items = index.table == "items"
        self._through = transform.transform_items if items else transform.transform_users
        self._panels, self._where, self.rows = panels, index.folder, 0

    def __iter__(self) -> Iterator[Panel]:
        for panel in self._panels:
            moved = self._through(panel.rows)
            if not np.isfinite(moved).all():
                raise NotFiniteError(f"a vector of {self._where} is not finite once it is moved")
            self.rows += len(moved)
            yield Panel(panel.numbers, panel.ids, moved)


def _characters(index: Index) -> int:
    """Of the longest id, where ids are an npy file."""
    if index.engine in ("lancedb", "pgvector") or index.ids.dtype.kind != "U":
        return 0
    return int(index.ids.dtype.itemsize // 4)
