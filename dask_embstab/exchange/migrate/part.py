"""A part of a backfill: an index of some rows of the new run, of the kind of the old index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dask_embstab.errors import NotFiniteError
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.opened_index import Index
from dask_embstab.exchange.panels import FileSpec, Panel, Room
from dask_embstab.exchange.parts import WRITERS, part_stem
from dask_embstab.exchange.place import export_folder, write_record
from dask_embstab.exchange.provenance import provenance
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.join.space import in_one_space
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run

_PANEL = 1 << 14


def write_rows(run: Run, space: str, old: Index, place: Path, start: int, stop: int) -> None:
    """An index at ``place`` of rows of the new run, of the old index's kind and table, whole or not
    at all; ``space`` is the origin of the run's space.
    """
    table = run.table(old.table)
    names = ids_at(table.row_ids, np.arange(start, stop))
    spec = FileSpec(
        old.engine,
        table.d,
        np.dtype(np.float32),
        table.row_ids.kind,
        table.where,
        metric=old.metric,
    )

    def panels() -> Iterator[Panel]:
        for first in range(start, stop, _PANEL):
            numbers = np.arange(first, min(first + _PANEL, stop))
            rows = read_rows(table, numbers, label="backfill")
            if not np.isfinite(rows).all():
                raise NotFiniteError(f"rows {first} on of {table.where} are not finite; mend them")
            own = numbers - start
            yield Panel(own, names[own], rows.astype(np.float32))

    place.parent.mkdir(exist_ok=True)
    characters = max(map(len, names.tolist())) if spec.ids == "string" else 0
    with (
        export_folder(Export(run, place, old.engine, {}, {}, overwrite=True)) as folder,
        in_one_space(run, space),
        unchanged(table),
    ):
        (folder / old.table).mkdir()
        room = Room(stop - start, characters)
        WRITERS[old.engine](spec, part_stem(folder / old.table, 0), panels(), room)
        described = {"rows": stop - start, "files": 1, "components": table.d, "dtype": "float32"}
        record = provenance(run, {}) | {"as": old.engine, "metric": old.metric}
        write_record(folder, record | {old.table: {**described, "ids": spec.ids}})
