"""LanceDB: a folder that is a database with one table, ``vectors``, of a column ``id`` and one of
fixed-size vectors, written a panel at a time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dask_embstab.exchange.arrow_files import arrow_schema, columns_of, require_pyarrow
from dask_embstab.exchange.indexes.graphs import native_path
from dask_embstab.exchange.panels import FileSpec, Panels, Room, grouped
from dask_embstab.extras import require_extra

TABLE = "vectors"


def write_lance(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.lance-db``: a folder for ``lancedb.connect``."""
    del room
    library = require_extra("lancedb", "lancedb", what="a table of LanceDB")
    pa, fixed = require_pyarrow("LanceDB"), replace(spec, vectors_as="fixed-list")
    schema = arrow_schema(fixed)
    table = library.connect(native_path(stem, "lance-db")).create_table(TABLE, schema=schema)
    # Not as an iterator: its rows would be made in LanceDB's own event loop, where a panel that is
    # itself read from LanceDB waits for ever.
    for panel in grouped(panels, spec.group_rows):
        table.add(pa.Table.from_arrays(columns_of(fixed, panel), schema=schema))
