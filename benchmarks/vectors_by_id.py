"""How long does it take to fetch vectors by id, through the index beside a run?

Ids in no order, of int64; 1,000 of them are fetched at a time from a table whose index is there and
whose files are in the page cache. The law (the right rows, no chunk opened that holds none of them)
is tests/test_lookup.py's.

    python benchmarks/vectors_by_id.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np

import dask_embstab as es

FETCHED = 1000


def measure(folder: Path, rows: int, d: int, repeats: int) -> dict[str, Any]:
    """Median time of a fetch of 1,000 random ids of so many rows."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(rows) * 11
    vectors = rng.normal(size=(rows, d)).astype(np.float32)
    run = es.create_run(folder / f"{rows}-{d}.zarr", vectors, item_ids=ids)
    table = run.table("items")

    began = time.perf_counter()
    table.rows_of(ids[:1])
    index = time.perf_counter() - began

    taken = []
    for _ in range(repeats):
        wanted = rng.permutation(rows)[:FETCHED]
        began = time.perf_counter()
        selected = table.rows_of(ids[wanted])
        taken.append(time.perf_counter() - began)
        np.testing.assert_array_equal(selected, vectors[wanted])
    return {"rows": rows, "d": d, "index": index, "seconds": median(taken)}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what the options ask for."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 3_000_000])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        rows = [measure(Path(folder), n, 64, options.repeats) for n in options.rows]
    cells = [
        [f"{one['rows']:,}", one["d"], f"{one['index']:.2f}", f"{1e3 * one['seconds']:.1f}"]
        for one in rows
    ]
    header = ["rows", "d", "first fetch, with making the index: s", "1,000 ids: ms"]
    text = "\n".join(
        [f"`{common.command_line('vectors_by_id', argv)}`", "", *common.table(header, cells)]
    )
    return common.publish({"lookups": rows}, text, options)


if __name__ == "__main__":
    main()
