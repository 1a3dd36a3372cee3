"""At what share of the rate of plain chunks are shards read? Fits of the same rows, in pairs.

    python benchmarks/shards.py --gb 2.02 --d 64 --repeats 7 --markdown docs/shards.md

Rates are bytes of table per second, medians of runs in turn, warm. ``inner`` are the bytes of an
inner chunk; Zarr's own read of the same shards stands beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr
from common import command_line, machine, new_vectors, parser, publish, table
from pages import timed_job
from speed import zarr_read
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

import dask_embstab as es
from dask_embstab.diagnose.rates import Job, measured
from dask_embstab.tables.read.source import DEFAULT_CHUNK_BYTES

KINDS: dict[str, list[Any]] = {
    "bytes": [BytesCodec()],
    "crc32c": [BytesCodec(), Crc32cCodec()],
    "zstd": [BytesCodec(), ZstdCodec(level=1)],
}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("shards", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    for d in options.d:
        with tempfile.TemporaryDirectory(prefix="embstab-shards-", dir=options.dir) as folder:
            results["rows"] += measure(Path(folder), d, options)
    return publish(results, markdown(results), options)


def measure(folder: Path, d: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All layouts of one width, in turn with plain chunks."""
    n_bytes, threads = int(options.gb * 1e9), options.threads
    shard_rows = max(1, min(DEFAULT_CHUNK_BYTES, n_bytes // (2 * threads)) // (4 * d))
    n = max(threads, n_bytes // (4 * d * shard_rows)) * shard_rows
    layouts = {
        (kind, inner): max(1, min(shard_rows, inner // (4 * d)))
        for kind in options.kind
        for inner in options.inner
    }
    plain = new_vectors(zarr.open_group(folder / "plain", zarr_format=3), n, d, shard_rows)
    arrays = {
        layout: _sharded(folder / f"{layout[0]}-{layout[1]}", (n, d), shard_rows, rows, layout[0])
        for layout, rows in layouts.items()
    }
    rows = np.random.default_rng(d).standard_normal((shard_rows, d)).astype(np.float32)
    for array in (plain, *arrays.values()):
        for start in range(0, n, shard_rows):
            array[start : start + shard_rows] = rows
    os.sync()

    size = n * d * 4
    jobs: dict[str, Job] = {"plain": timed_job(size, lambda: es.fit(plain))}
    for (kind, inner), array in arrays.items():
        jobs[f"{kind} {inner}"] = timed_job(size, lambda array=array: es.fit(array))  # type: ignore[misc]
        jobs[f"zarr {kind} {inner}"] = timed_job(
            size,
            lambda array=array: zarr_read(array, threads),  # type: ignore[misc]
        )
    with dask.config.set(num_workers=threads):
        rates = measured(jobs, options.repeats)
    compared = [
        {
            "d": d,
            "kind": kind,
            "inner": inner,
            "fit of chunks": round(rates["plain"] / 1e9, 3),
            "fit of shards": round(rates[f"{kind} {inner}"] / 1e9, 3),
            "ratio": round(rates[f"{kind} {inner}"] / rates["plain"], 3),
            "Zarr read": round(rates[f"zarr {kind} {inner}"] / 1e9, 3),
        }
        for kind, inner in layouts
    ]
    for row in compared:
        print(json.dumps(row), flush=True)
    return compared


def _sharded(
    path: Path, shape: tuple[int, int], shard_rows: int, inner_rows: int, kind: str
) -> zarr.Array[Any]:
    while shard_rows % inner_rows:
        inner_rows -= 1
    sharding = ShardingCodec(chunk_shape=(inner_rows, shape[1]), codecs=KINDS[kind])
    return zarr.create_array(
        path,
        shape=shape,
        chunks=(shard_rows, shape[1]),
        dtype="f4",
        serializer=sharding,
        compressors=None,
        fill_value=math.nan,
    )


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    names = ("d", "kind", "inner", "fit of chunks", "fit of shards", "ratio", "Zarr read")
    header = ("d", "inner codecs", "bytes of an inner chunk", *names[3:])
    rows = [[row[name] for name in names] for row in results["rows"]]
    lines = [
        (
            f"Made by `{results['command']}` on {results['machine']}; GB of table per second,"
            " medians of runs in turn, warm."
        ),
        "",
        *table(header, rows),
        "",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--gb", type=float, default=2.0, help="size of the table")
    options.add_argument("--d", type=int, nargs="+", default=[64])
    options.add_argument("--inner", type=int, nargs="+", default=[1 << 16, 1 << 20, 1 << 22])
    options.add_argument("--kind", nargs="+", choices=KINDS, default=["bytes", "crc32c"])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    return options


if __name__ == "__main__":
    main()
