"""How near to the machine's own limit are fit and apply? Every rate in one run, on hot data, with the same threads.

    python benchmarks/speed.py --gb 2 --d 32 64 256 768 --repeats 5 --markdown docs/speed.md

Rates are bytes of table per second. The serial limit of a job is 1 / sum(1 / rate) over the steps that its work needs:
raw file read, crc32c, upcast, product (at the best panel size) and raw write. Reads, products and writes of two threads
overlap, so a job can pass its limit.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
import dask
import numpy as np
import threadpoolctl
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

import dask_embstab as es
from dask_embstab.core.tree import micro_block_rows

CHUNK_BYTES = 64 * 2**20
PANELS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
CODECS: dict[str, Any] = {
    "none": [Crc32cCodec()],
    "blosc": [BloscCodec(cname="lz4", clevel=5)],
    "zstd": [ZstdCodec(level=1)],
}
STEPS = {
    "fit": ["read", "crc", "upcast", "syrk"],
    "fit_reference": ["read", "crc", "upcast", "syrk"] * 2 + ["gemm64"],
    "apply": ["read", "crc", "gemm32", "crc", "write"],
}
_SLICE_SECONDS = 0.4
_WRITE_BYTES = 1 << 20


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    command = "python benchmarks/speed.py " + " ".join(sys.argv[1:] if argv is None else argv)
    results: dict[str, Any] = {"command": command, "machine": _machine(options.threads), "rows": []}
    for d in options.d:
        for codec in options.codec:
            folder = Path(tempfile.mkdtemp(prefix="embstab-speed-", dir=options.dir))
            try:
                row = measure(folder, d, int(options.gb * 1e9), codec, options.threads, options.repeats)
            finally:
                shutil.rmtree(folder)
            results["rows"].append(row)
            print(json.dumps(row), flush=True)
    print(markdown(results))
    if options.markdown:
        Path(options.markdown).write_text(markdown(results))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return results


def measure(folder: Path, d: int, n_bytes: int, codec: str, threads: int, repeats: int) -> dict[str, Any]:
    """All rates, limits and ratios for one width and codec; steps and jobs are measured in turn."""
    chunk_rows = max(1, min(CHUNK_BYTES, n_bytes // (2 * threads)) // (4 * d))
    n = max(threads, n_bytes // (4 * d * chunk_rows)) * chunk_rows
    size = n * d * 4
    run, reference = (_make_run(folder / name, n, d, chunk_rows, codec) for name in ("run.zarr", "reference.zarr"))
    array = run.items.source.array
    transform = es.fit(run.items)
    jobs: dict[str, Callable[[], float]] = {
        "fit": _job(size, lambda: es.fit(run.items)),
        "zarr_read": _job(size, lambda: _zarr_read(array, threads)),
        "fit_reference": _job(size, lambda: es.fit(run.items, reference=reference.items)),
        "apply": _job(size, lambda: es.apply(transform, run, folder / "out.zarr"), folder / "out.zarr"),
        "zarr_copy": _job(size, lambda: _zarr_copy(array, folder / "copy.zarr", threads, codec), folder / "copy.zarr"),
    }
    steps = step_jobs(array, folder, d, threads) if codec == "none" else {}
    with dask.config.set(num_workers=threads):
        rates = _in_turn(jobs | steps, repeats)
    if steps:
        for kind in ("syrk", "gemm64", "gemm32"):
            rates[kind] = max(rate for name, rate in rates.items() if name.startswith(f"{kind} "))
    limits = {job: 1 / sum(1 / rates[step] for step in needs) for job, needs in STEPS.items()} if steps else {}
    ratios = {f"{job}/limit": rates[job] / limit for job, limit in limits.items()}
    ratios["fit time/zarr read time"] = rates["zarr_read"] / rates["fit"]
    ratios["apply time/zarr copy time"] = rates["zarr_copy"] / rates["apply"]
    figures = {"GB/s": _giga(rates), "limit GB/s": _giga(limits), "ratios": {k: round(v, 3) for k, v in ratios.items()}}
    return {"d": d, "codec": codec, "rows": n, "bytes": size, **figures}


def step_jobs(array: zarr.Array[Any], folder: Path, d: int, threads: int) -> dict[str, Callable[[], float]]:
    """The steps by themselves, each a function that gives bytes of table per second with all threads at work."""
    files = sorted((folder / "run.zarr" / "items" / "vectors").glob("c/*/0"))
    n_bytes = array.shape[0] * d * 4
    panel = micro_block_rows(d)
    jobs: dict[str, Callable[[], float]] = {
        "read": _job(n_bytes, lambda: _threads(lambda i: _raw_read(files[i::threads], panel * d * 4), threads)),
        "write": _job(n_bytes, lambda: _raw_write(folder / "raw", n_bytes, threads), folder / "raw"),
        "crc": lambda: _steady(_crc_step(panel, d), panel * d * 4, threads),
        "upcast": lambda: _steady(_upcast_step(panel, d), panel * d * 4, threads),
    }
    for rows in PANELS:
        if rows * d * 8 <= 128 * 2**20:
            for kind in ("syrk", "gemm64", "gemm32"):
                step = _product_step(kind, rows, d)
                jobs[f"{kind} {rows}"] = lambda step=step, rows=rows: _steady(step, rows * d * 4, threads)  # type: ignore[misc]
    return jobs


def _job(n_bytes: int, run: Callable[[], object], leaves: Path | None = None) -> Callable[[], float]:
    """Bytes per second of one call; what it leaves behind is removed off the clock.

    A virtual machine gives free memory back to its host, and the first write to such a page costs several times a
    write to one just freed. So every job that writes finds as many pages as it needs freshly freed, all alike.
    """

    def timed() -> float:
        if leaves is not None:
            _raw_write(leaves.with_suffix(".pages"), n_bytes, 1)
            shutil.rmtree(leaves.with_suffix(".pages"))
        began = time.perf_counter()
        run()
        rate = n_bytes / (time.perf_counter() - began)
        if leaves is not None:
            shutil.rmtree(leaves)
        return rate

    return timed


def _crc_step(rows: int, d: int) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        x: Any = np.ones((rows, d), np.float32)
        return lambda: crc32c.crc32c(x)

    return make


def _upcast_step(rows: int, d: int) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        x, y = np.ones((rows, d), np.float32), np.ones((rows, d))
        return lambda: np.copyto(y, x)

    return make


def _product_step(kind: str, rows: int, d: int) -> Callable[[], Callable[[], object]]:
    """X'X and X'Y in float64, X M in float32, into buffers made once."""

    def make() -> Callable[[], object]:
        dtype = np.float32 if kind == "gemm32" else np.float64
        x, y, square = np.ones((rows, d), dtype), np.ones((rows, d), dtype), np.eye(d, dtype=dtype)
        if kind == "gemm32":
            return lambda: np.matmul(x, square, out=y)
        other = x if kind == "syrk" else y
        return lambda: np.matmul(x.T, other, out=square)

    return make


def _steady(make: Callable[[], Callable[[], object]], n_bytes: int, threads: int) -> float:
    """Bytes per second of a step repeated in every thread."""
    rates: list[float] = []

    def work(_: int) -> None:
        step = make()
        step()
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < _SLICE_SECONDS:
            step()
            n += 1
        rates.append(n * n_bytes / (time.perf_counter() - began))

    with threadpoolctl.threadpool_limits(1):
        _threads(work, threads)
    return sum(rates)


def _raw_read(files: list[Path], panel_bytes: int) -> None:
    buffer = memoryview(bytearray(panel_bytes))
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        offset = 0
        while got := os.preadv(descriptor, [buffer], offset):
            offset += got
        os.close(descriptor)


def _raw_write(folder: Path, n_bytes: int, threads: int) -> None:
    folder.mkdir()
    n_files = max(threads, n_bytes // CHUNK_BYTES)

    def work(i: int) -> None:
        data = memoryview(bytearray(b"x" * _WRITE_BYTES))
        for number in range(i, n_files, threads):
            descriptor, left = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT), n_bytes // n_files
            while left > 0:
                left -= os.write(descriptor, data[:left])
            os.close(descriptor)

    _threads(work, threads)


def _zarr_read(array: zarr.Array[Any], threads: int) -> None:
    rows = array.chunks[0]
    starts = range(0, array.shape[0], rows)
    _threads(lambda i: [array[start : start + rows].shape for start in starts[i::threads]], threads)  # type: ignore[union-attr]


def _zarr_copy(array: zarr.Array[Any], path: Path, threads: int, codec: str) -> None:
    rows = array.chunks[0]
    out = zarr.create_array(
        path,
        shape=array.shape,
        chunks=array.chunks,
        dtype=np.float32,
        compressors=CODECS[codec],
        fill_value=float("nan"),
    )
    starts = range(0, array.shape[0], rows)

    def work(i: int) -> None:
        for start in starts[i::threads]:
            out[start : start + rows] = array[start : start + rows]

    _threads(work, threads)


def _threads(work: Callable[[int], object], threads: int) -> None:
    started = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def _in_turn(jobs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median rate of every job, all of them in turn, after one round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            gc.collect()
            rate = job()
            if turn:
                rates[name].append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


def _make_run(path: Path, n: int, d: int, chunk_rows: int, codec: str) -> Any:
    """A run of random float32 items, written chunk by chunk with zarr-python."""
    array = zarr.open_group(path, mode="w", zarr_format=3).create_array(
        "items/vectors",
        shape=(n, d),
        chunks=(chunk_rows, d),
        dtype=np.float32,
        compressors=CODECS[codec],
        fill_value=float("nan"),
        dimension_names=("item", "component"),
    )
    rows = np.random.default_rng(d).standard_normal((chunk_rows, d)).astype(np.float32)
    for start in range(0, n, chunk_rows):
        array[start : start + chunk_rows] = rows
    return es.open_run(path)


def _giga(rates: dict[str, float]) -> dict[str, float]:
    return {name: round(rate / 1e9, 3) for name, rate in rates.items()}


def _machine(threads: int) -> str:
    loaded = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    blas = {f"{info['internal_api']} {info.get('architecture')}" for info in loaded}
    return f"{os.cpu_count()} CPUs, {threads} threads, {', '.join(sorted(blas))}"


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    lines = [f"Made by `{results['command']}` on {results['machine']}; GB of table per second, medians, warm.", ""]
    header = ["d", "codec"]
    for job in ("fit", "fit with reference", "apply"):
        header += [job, "its limit", "ratio"]
    header += ["Zarr read", "Zarr copy", "fit time / Zarr read time", "apply time / Zarr copy time"]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in results["rows"]:
        rates, limits, ratios = row["GB/s"], row["limit GB/s"], row["ratios"]
        cells = [row["d"], row["codec"]]
        for job in STEPS:
            cells += [rates[job], limits.get(job, "-"), ratios.get(f"{job}/limit", "-")]
        cells += [rates["zarr_read"], rates["zarr_copy"]]
        cells += [ratios["fit time/zarr read time"], ratios["apply time/zarr copy time"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "The steps by themselves, in GB of table per second:", ""]
    wanted = ("read", "crc", "upcast", "syrk", "gemm64", "gemm32", "write")
    lines += ["| d | " + " | ".join(wanted) + " |", "|" + "---|" * (len(wanted) + 1)]
    for row in results["rows"]:
        if "read" in row["GB/s"]:
            lines.append(f"| {row['d']} | " + " | ".join(str(row["GB/s"][step]) for step in wanted) + " |")
    return "\n".join([*lines, ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the table")
    parser.add_argument("--d", type=int, nargs="+", default=[32, 64, 256, 768])
    parser.add_argument("--codec", nargs="+", choices=CODECS, default=["none"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dir", help="folder for the data; the system's temporary one by default")
    parser.add_argument("--markdown")
    parser.add_argument("--json")
    return parser


if __name__ == "__main__":
    main()
