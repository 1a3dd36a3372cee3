"""An index moved into another space by one matrix: every stored vector is read from it, multiplied,
and a new index of the same kind is built. Graphs are built anew, since the neighbours that they
link are others: rotated in place, an approximate index fell from .853 to .308 of recall.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.core.moments import unit
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import DamageError, InputError, NotFiniteError
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.indexes.faiss_file import (
    IDS_SUFFIX,
    built_anew,
    copy_ids,
    hidden_ids,
    layers,
    of_cosines,
    publish_file,
    stored,
)
from dask_embstab.exchange.opened_index import Index
from dask_embstab.exchange.panels import Panel, Room
from dask_embstab.exchange.parts import WRITERS, part_stem
from dask_embstab.exchange.place import export_folder, require_free, write_record
from dask_embstab.exchange.space_file import sidecar
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
    if index.engine == "hnswlib" and index.metric == "cosine":
        _require_linear(index, transform)
    if index.folder.is_file():
        return _move_file(index, transform, space, export)
    spec, described = index.spec, index.record[index.table]
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
            index.table: {**described, "components": transform.width},
        }
        write_record(folder, record)
    return record


def _move_file(index: Index, transform: Transform, space: Space, export: Export) -> dict[str, Any]:
    """Of faiss: vectors are taken out, multiplied, and an index of the same kind is built."""
    require_free(export)
    cosine, inner, labels = layers(index.opened, index.folder)
    if cosine:
        _require_linear(index, transform)

    def moved() -> Iterator[tuple[RowNumbers, Rows]]:
        for names, rows in stored(inner, labels):
            (panel,) = _Moved(index, transform, iter([Panel(names, names, rows)]))
            single = unit(panel.rows.astype(np.float64)) if cosine else panel.rows
            yield names, np.ascontiguousarray(single, np.float32)

    made = built_anew(inner, labels, moved)
    if made.ntotal != index.rows:
        raise DamageError(
            f"{index.folder} should hold {index.rows} vectors and holds {made.ntotal}; build it"
            " anew"
        )
    own = sidecar(index.folder, IDS_SUFFIX) if index.ids is not None else None
    with hidden_ids(export.place, None if own is None else partial(copy_ids, own)) as written:
        known = {**space.to_dict(), "table": index.table}
        whole = of_cosines(made) if cosine else made
        publish_file(whole, export.place, known, written(), sync=export.sync)
    described = {**index.record[index.table], "components": transform.width}
    return {
        **index.record,
        "transform": digest_of(transform),
        "space": space.to_dict(),
        index.table: described,
    }


def _require_linear(index: Index, transform: Transform) -> None:
    """Raise where rows were brought to length 1 and are to be shifted."""
    shift = transform.items_offset if index.table == "items" else transform.users_offset
    if shift is not None:
        raise InputError(
            f"an index of cosines in {index.engine} holds rows of length 1, and a centred transform"
            " takes rows as long as they were; build the index anew of the run"
        )


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
    ids = None if index.engine in ("lancedb", "pgvector") else index.ids
    return 0 if ids is None or ids.dtype.kind != "U" else int(ids.dtype.itemsize // 4)
