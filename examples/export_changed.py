"""Every day a feature store rewrites only what changed: new and changed rows, and the ids that are
gone.

    python examples/export_changed.py SERIES STORE

The store is a DuckDB file here; whatever has an upsert and a delete will do. Its last batch and
the version that it then holds are one transaction, so a job that died is simply run again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb

import dask_embstab as es

TABLES = """
CREATE TABLE IF NOT EXISTS items (id VARCHAR PRIMARY KEY, vector FLOAT[]);
CREATE TABLE IF NOT EXISTS held (version INTEGER);
"""


def update(series: Path, store: Path) -> dict[str, Any]:
    """Bring the store to the head of the series; the counts of what was rewritten."""
    with duckdb.connect(str(store)) as db, tempfile.TemporaryDirectory() as folder:
        db.execute(TABLES)
        held = db.execute("SELECT max(version) FROM held").fetchone()
        since = held[0] if held else None
        out = Path(folder, "out")
        try:
            done = es.export(series, out, table="items", ids_changed_since=since)
        except es.InputError as error:
            if since is None or "stored as it was" not in str(error):
                raise
            since, done = None, es.export(series, out, table="items")  # after a rebase or forget
        db.begin()
        if since is None:
            db.execute("DELETE FROM items")
        else:
            db.execute(
                f"DELETE FROM items WHERE id IN (SELECT id FROM '{out}/items-gone/*.parquet')"
            )
        db.execute(f"INSERT OR REPLACE INTO items SELECT id, vector FROM '{out}/items/*.parquet'")
        db.execute("DELETE FROM held")
        db.execute("INSERT INTO held VALUES (?)", [done["version"]])
        db.commit()
    return {"since": since, "version": done["version"], **done["items"]}


if __name__ == "__main__":
    print(update(Path(sys.argv[1]), Path(sys.argv[2])))
