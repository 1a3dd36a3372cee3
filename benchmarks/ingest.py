r"""How fast do Parquet files become a run, beside what only reads the same columns into NumPy?

    python benchmarks/ingest.py --markdown docs/ingest.md

One file of ``--gb`` of float32 vectors and int64 ids for each layout, row groups of 2^18 rows, no
compression, warm page cache. Others read vectors and ids into arrays in memory, whole: pyarrow by
``read_table`` on its threads and ``flatten`` (or one column after the other), pandas by
``read_parquet`` and ``np.stack``, DuckDB by ``fetch_arrow_table``. `es.ingest` reads, checks every
row, writes and checksums the run (``sync=False``: nobody waits for the disk). Best of several,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, machine, parser, publish, table

LAYOUTS = ("list", "list, non-null", "fixed list", "fixed binary", "columns")
READERS = ("pyarrow", "pandas", "DuckDB", "ingest")
_SEED, _GROUP_ROWS = 0, 1 << 18


def write(path: Path, layout: str, n: int, d: int) -> None:
    """One file of this layout."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = np.random.default_rng(_SEED).standard_normal((n, d), np.float32)
    flat = pa.array(rows.ravel())
    if layout == "columns":
        made = {f"v_{j}": pa.array(np.ascontiguousarray(rows[:, j])) for j in range(d)}
    elif layout == "fixed binary":
        raw = [None, pa.py_buffer(rows)]
        made = {"v": pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * d), n, raw)}
    elif layout == "fixed list":
        made = {"v": pa.FixedSizeListArray.from_arrays(flat, d)}
    else:
        lists = pa.ListArray.from_arrays(np.arange(0, n * d + 1, d, dtype=np.int32), flat)
        element = pa.field("element", pa.float32(), nullable=layout == "list")
        made = {"v": lists.cast(pa.list_(element))}
    columns = pa.table({"id": np.arange(n), **made})
    parquet.write_table(columns, path, row_group_size=_GROUP_ROWS, compression="none",
                        use_dictionary=False)  # fmt: skip


def read(path: str, reader: str, layout: str, d: int, out: str) -> float:
    """Seconds of one reader; arrays that are made are looked at, so that none is left lazy."""
    import duckdb
    import pandas as pd
    from pyarrow import parquet

    import dask_embstab as es

    if not path.endswith("tiny.parquet"):  # imports and first calls are off the clock
        read(path.replace("rows.parquet", "tiny.parquet"), reader, layout, d, f"{out}.tiny")
    began = time.perf_counter()
    if reader == "ingest":
        es.ingest(path, out, sync=False)
        return time.perf_counter() - began
    if reader == "pandas":
        frame = pd.read_parquet(path)
        if layout == "columns":
            rows = frame.iloc[:, 1:].to_numpy()
        elif layout == "fixed binary":
            rows = np.stack([np.frombuffer(one, np.float32) for one in frame["v"]])
        else:
            rows = np.stack(frame["v"].to_list())
        ids = frame["id"].to_numpy()
    else:
        if reader == "DuckDB":
            relation: Any = duckdb.sql(f"select * from read_parquet('{path}')")
            table = relation.to_arrow_table()
        else:
            table = parquet.read_table(path)
        ids = table["id"].to_numpy()
        rows = _rows(table, layout, d)
    assert rows.shape == (len(ids), d)
    return time.perf_counter() - began


def _rows(table: Any, layout: str, d: int) -> Any:
    if layout == "columns":
        return np.column_stack([table[f"v_{j}"].to_numpy() for j in range(d)])
    column = table["v"].combine_chunks()
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    if layout == "fixed binary":
        return np.concatenate(
            [np.frombuffer(one.buffers()[-1], np.float32).reshape(-1, d) for one in chunks]
        )
    return np.concatenate([one.flatten().to_numpy().reshape(-1, d) for one in chunks])


def measured(path: Path, reader: str, layout: str, d: int, folder: Path) -> float:
    """Seconds of one reader in a process of its own."""
    out = folder / "out.zarr"
    given = str(path), reader, layout, d, str(out)
    call = f"import ingest; print(ingest.read(*{given!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", call],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    for made in (out, folder / "out.zarr.tiny"):
        shutil.rmtree(made, ignore_errors=True)
    return float(ended.stdout.split()[-1])


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("--gb", type=float, default=0.5)
    made.add_argument("--d", type=int, default=64)
    made.add_argument("--repeats", type=int, default=2)
    made.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    asked: argparse.Namespace = made.parse_args(argv)
    n = int(asked.gb * 1e9 / 4 / asked.d)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=asked.dir) as folder:
        for layout in asked.layouts:
            path = Path(folder) / "rows.parquet"
            write(path, layout, n, asked.d)
            write(path.with_name("tiny.parquet"), layout, 1000, asked.d)
            rates = dict.fromkeys(READERS, 0.0)
            for _ in range(asked.repeats):
                for reader in READERS:
                    seconds = measured(path, reader, layout, asked.d, Path(folder))
                    rates[reader] = max(rates[reader], n * asked.d * 4 / 1e9 / seconds)
            results.append({"layout": layout, **rates})
            print(json.dumps(results[-1]), flush=True)
            path.unlink()
    head = ["layout", *(f"{name}, GB/s" for name in READERS), "ingest / pyarrow"]
    body = [
        [
            one["layout"],
            *(f"{one[name]:.2f}" for name in READERS),
            f"{one['ingest'] / one['pyarrow']:.2f}",
        ]
        for one in results
    ]
    made_by = f"Made by `{command_line('ingest', argv)}` on {machine(os.cpu_count() or 1)}, warm."
    return publish({"rows": results}, "\n".join([made_by, "", *table(head, body), ""]), asked)


if __name__ == "__main__":
    main()
