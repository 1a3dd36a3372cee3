"""What does it cost to find the partner of every id, beside DuckDB's join of the same ids?

    python benchmarks/id_join.py --rows 1.5e6 --markdown docs/id-join.md

Ids of either table are in a random order; ours are read from a run, DuckDB's from Parquet (with the
row numbers, which it is asked for). Both have two threads and run in turn in one process, so that
their ratio does not hang on what else the machine does; seconds are those of its processors. *Out
of core*: neither may hold more than ``--little``.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
from common import command_line, least_cpu_seconds, machine, parser, publish, table

import dask_embstab as es
from dask_embstab.passes.join.options import join_options
from dask_embstab.passes.join.pairing import pair

_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835
KINDS: dict[str, Callable[[list[int]], Any]] = {
    "int64": lambda numbers: np.array(numbers, np.int64),
    "short texts": lambda numbers: [f"item-{number:x}" for number in numbers],
    "UUIDs as texts": lambda numbers: [str(_uuid(number)) for number in numbers],
    "UUIDs": lambda numbers: np.frombuffer(b"".join(_uuid(n).bytes for n in numbers), "V16"),
}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("id_join", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    with dask.config.set(num_workers=options.threads):
        for n in map(int, options.rows):
            for kind in options.kinds or KINDS:
                with tempfile.TemporaryDirectory(prefix="embstab-", dir=options.dir) as folder:
                    results["rows"] += measure(Path(folder), n, kind, options)
    return publish(results, markdown(results), options)


def measure(folder: Path, n: int, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both joins of ids of one kind, in memory and out of core; the least of the repeats."""
    rng = np.random.default_rng(0)
    numbers = rng.permutation(3 * n)[:n]
    for name, order in (("reference", numbers), ("run", rng.permutation(numbers))):
        _write(folder / name, KINDS[kind](order.tolist()))
    rows = []
    for memory in (options.memory, options.little):
        seconds = least_cpu_seconds(
            {
                name: partial(_require_all, n, join, folder, memory, options.threads)
                for name, join in (("ours", _ours), ("duckdb", _duckdb))
            },
            options.repeats,
        )
        where = "in memory" if memory == options.memory else "out of core"
        rows.append({"rows": n, "kind": kind, "where": where, **seconds})
        print(rows[-1], flush=True)
    return rows


def _require_all(
    n: int, join: Callable[[Path, str, int], int], folder: Path, memory: str, threads: int
) -> None:
    n_joined = join(folder, memory, threads)
    assert n_joined == n, (join.__name__, n_joined)


def _ours(folder: Path, memory: str, threads: int) -> int:
    del threads
    tables = [es.open_run(folder / f"{name}.zarr").items for name in ("run", "reference")]
    run, reference = (table for table in tables if table is not None)
    with join_options(join_memory=memory, scratch=str(folder)) as join:
        return pair(run, reference, join).matched


def _duckdb(folder: Path, memory: str, threads: int) -> int:
    import duckdb

    with duckdb.connect(config={"threads": threads, "temp_directory": str(folder)}) as database:
        database.execute(f"set memory_limit = '{memory}'; set preserve_insertion_order = false")
        joined = database.execute(
            f"select a.row, b.row from '{folder}/run.parquet' a"
            f" join '{folder}/reference.parquet' b using (id)"
        ).fetchnumpy()
    return len(joined["row"])


def _write(path: Path, ids: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    vectors = np.ones((len(ids), 1), np.float32)
    es.create_run(path.with_suffix(".zarr"), vectors, item_ids=ids, chunk_rows=1 << 18)
    is_raw = isinstance(ids, np.ndarray) and ids.dtype.kind == "V"
    column = pa.array(ids.tolist(), pa.binary(16)) if is_raw else pa.array(ids)
    rows = pa.array(np.arange(len(ids)))
    parquet.write_table(pa.table({"id": column, "row": rows}), path.with_suffix(".parquet"))


def _uuid(number: int) -> uuid.UUID:
    return uuid.UUID(int=number * _SPREAD % (1 << 128))


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    header = ("rows", "ids", "", "CPU s", "DuckDB's CPU s", "ratio")
    rows = [
        (
            f"{row['rows']:,}",
            row["kind"],
            row["where"],
            f"{row['ours']:.2f}",
            f"{row['duckdb']:.2f}",
            f"{row['ours'] / row['duckdb']:.2f}",
        )
        for row in results["rows"]
    ]
    lines = [
        f"Made by `{results['command']}` on {results['machine']}.",
        "Reading the ids of both tables, in random orders, and finding the partner of every row.",
        "",
    ]
    return "\n".join([*lines, *table(header, rows), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--rows", type=float, nargs="+", default=[1.5e6])
    options.add_argument("--kinds", nargs="+", choices=KINDS)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--memory", default="1GiB", help="of a join that is to fit")
    options.add_argument("--little", default="192MiB", help="of one that is not")
    return options


if __name__ == "__main__":
    main()
