"""How near to the machine's own limit are fit and apply? Every rate in one run, on hot data, with
the same threads.

    python benchmarks/speed.py --gb 2.02 --d 32 64 256 768 --repeats 5 --markdown docs/speed.md
    python benchmarks/speed.py --gb 2.02 --d 64 --codec blosc zstd --repeats 5

Rates are bytes of table per second. The serial limit of a job is 1 / sum(1 / rate) over the steps
that its work needs: raw file read, crc32c, upcast, product (at the best panel size) and raw write.
Reads, products and writes of two threads overlap, so a job can pass its limit. Whatever writes
finds memory pages alike (`pages`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr
from common import command_line, machine, new_vectors, parser, publish, table
from pages import timed_job
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

import dask_embstab as es
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.diagnose.rates import (
    Job,
    compute_steps,
    limits,
    measured,
    on_threads,
    raw_read,
    raw_write,
    steps_of,
)
from dask_embstab.tables.read.source import DEFAULT_CHUNK_BYTES

CODECS: dict[str, Any] = {
    "none": [Crc32cCodec()],
    "blosc": [BloscCodec(cname="lz4", clevel=5)],
    "zstd": [ZstdCodec(level=1)],
}
STEPS = steps_of()
KERNELS = "## Kernels\n"
"""Heading of the last part of docs/speed.md, which another benchmark makes."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("speed", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    for d in options.d:
        for codec in options.codec:
            with tempfile.TemporaryDirectory(prefix="embstab-speed-", dir=options.dir) as folder:
                row = measure(
                    Path(folder), d, int(options.gb * 1e9), codec, options.threads, options.repeats
                )
            results["rows"].append(row)
            print(json.dumps(row), flush=True)
    return publish(results, markdown(results) + kernels_section(options.markdown), options)


def measure(
    folder: Path, d: int, n_bytes: int, codec: str, threads: int, repeats: int
) -> dict[str, Any]:
    """All rates, limits and ratios for one width and codec; steps and jobs are measured in turn."""
    chunk_rows = max(1, min(DEFAULT_CHUNK_BYTES, n_bytes // (2 * threads)) // (4 * d))
    n = max(threads, n_bytes // (4 * d * chunk_rows)) * chunk_rows
    size = n * d * 4
    run, reference = (
        new_run(folder / name, n, d, chunk_rows, codec) for name in ("run.zarr", "reference.zarr")
    )
    os.sync()  # else the system is still writing the tables to the disk while they are timed
    array = run.items.source.array
    transform = es.fit(run.items)
    jobs: dict[str, Job] = {
        "fit": timed_job(size, lambda: es.fit(run.items)),
        "zarr_read": timed_job(size, lambda: zarr_read(array, threads)),
        "fit_reference": timed_job(size, lambda: es.fit(run.items, reference=reference.items)),
        "apply": timed_job(
            size,
            lambda: es.apply(transform, run, folder / "out.zarr", sync=False),
            folder / "out.zarr",
        ),
        "zarr_copy": timed_job(
            size,
            lambda: zarr_copy(array, folder / "copy.zarr", threads, codec),
            folder / "copy.zarr",
        ),
    }
    steps = step_jobs(array, folder, d, threads) if codec == "none" else {}
    with dask.config.set(num_workers=threads):
        rates = measured(jobs | steps, repeats)
    limited = limits(rates) if steps else {}
    ratios = {f"{job}/limit": rates[job] / limit for job, limit in limited.items()}
    ratios["fit time/zarr read time"] = rates["zarr_read"] / rates["fit"]
    ratios["apply time/zarr copy time"] = rates["zarr_copy"] / rates["apply"]
    figures = {
        "GB/s": _giga(rates),
        "limit GB/s": _giga(limited),
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
    }
    return {"d": d, "codec": codec, "rows": n, "bytes": size, **figures}


def step_jobs(array: zarr.Array[Any], folder: Path, d: int, threads: int) -> dict[str, Job]:
    """The steps by themselves, each a function that gives bytes of table per second with all
    threads at work.
    """
    files = sorted((folder / "run.zarr" / "items" / "vectors").glob("c/*/0"))
    n_bytes = array.shape[0] * d * 4
    return {
        "read": timed_job(n_bytes, lambda: raw_read(files, micro_block_rows(d) * d * 4, threads)),
        "write": timed_job(
            n_bytes, lambda: raw_write(folder / "raw", n_bytes, threads), folder / "raw"
        ),
        **compute_steps(d, threads),
    }


def zarr_read(array: zarr.Array[Any], threads: int) -> None:
    """Read a table with zarr-python, a chunk at a time, and forget it."""
    rows = (array.shards or array.chunks)[0]
    starts = range(0, array.shape[0], rows)
    on_threads(
        lambda i: [array[start : start + rows].shape for start in starts[i::threads]],  # type: ignore[union-attr]
        threads,
    )


def zarr_copy(array: zarr.Array[Any], path: Path, threads: int, codec: str) -> None:
    """Copy a table with zarr-python, a chunk at a time."""
    rows = array.chunks[0]
    out = new_vectors(
        zarr.open_group(path, mode="w", zarr_format=3),
        array.shape[0],
        array.shape[1],
        rows,
        codecs=CODECS[codec],
    )
    starts = range(0, array.shape[0], rows)

    def work(i: int) -> None:
        for start in starts[i::threads]:
            out[start : start + rows] = array[start : start + rows]

    on_threads(work, threads)


def new_run(path: Path, n: int, d: int, chunk_rows: int, codec: str) -> Any:
    """A run of random float32 items, written chunk by chunk with zarr-python."""
    group = zarr.open_group(path, mode="w", zarr_format=3).create_group("items")
    array = new_vectors(group, n, d, chunk_rows, codecs=CODECS[codec])
    rows = np.random.default_rng(d).standard_normal((chunk_rows, d)).astype(np.float32)
    for start in range(0, n, chunk_rows):
        array[start : start + chunk_rows] = rows
    return es.open_run(path)


def _giga(rates: dict[str, float]) -> dict[str, float]:
    return {name: round(rate / 1e9, 3) for name, rate in rates.items()}


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    lines = [
        (
            f"Made by `{results['command']}` on {results['machine']}; GB of table per second,"
            " medians, warm."
        ),
        "",
    ]
    header = ["d", "codec"]
    for job in ("fit", "fit with reference", "apply"):
        header += [job, "its limit", "ratio"]
    header += ["Zarr read", "Zarr copy", "fit time / Zarr read time", "apply time / Zarr copy time"]
    rows = []
    for row in results["rows"]:
        rates, limits, ratios = row["GB/s"], row["limit GB/s"], row["ratios"]
        cells = [row["d"], row["codec"]]
        for job in STEPS:
            cells += [rates[job], limits.get(job, "-"), ratios.get(f"{job}/limit", "-")]
        cells += [rates["zarr_read"], rates["zarr_copy"]]
        cells += [ratios["fit time/zarr read time"], ratios["apply time/zarr copy time"]]
        rows.append(cells)
    lines += [*table(header, rows), ""]
    wanted = ("read", "crc", "upcast", "syrk", "gemm64", "gemm32", "write")
    steps = [
        [row["d"], *(row["GB/s"][step] for step in wanted)]
        for row in results["rows"]
        if "read" in row["GB/s"]
    ]
    if steps:
        lines += [
            "The steps by themselves, in GB of table per second:",
            "",
            *table(("d", *wanted), steps),
            "",
        ]
    return "\n".join(lines)


def kernels_section(page: str | None) -> str:
    """What `benchmarks/kernels.py` wrote at the end of the page; nothing where it did not."""
    path = None if page is None else Path(page)
    written = path.read_text() if path is not None and path.exists() else ""
    return written[written.index(KERNELS) :] if KERNELS in written else ""


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--gb", type=float, default=2.0, help="size of the table")
    options.add_argument("--d", type=int, nargs="+", default=[32, 64, 256, 768])
    options.add_argument("--codec", nargs="+", choices=CODECS, default=["none"])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    return options


if __name__ == "__main__":
    main()
