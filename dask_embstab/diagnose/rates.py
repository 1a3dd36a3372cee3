"""How fast is each step of a fit and of an apply by itself, on this machine?

Rates are bytes of table per second with all threads at work. The serial limit of a job is 1 / sum(1
/ rate) over the steps that its work needs: raw file read, crc32c, upcast, product (at the best
panel size) and raw write. Reads, products and writes of two threads overlap, so a job can pass its
limit.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from dask_embstab.core.products import COMPILED, cross_product, gramian
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.files.regular import drop_pages
from dask_embstab.passes.engine.blas import one_thread, product_family
from dask_embstab.tables.read.source import DEFAULT_CHUNK_BYTES

Step = Callable[[], object]
Job = Callable[[], float]
"""Gives bytes of table per second."""

PANELS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
PRODUCTS = ("syrk", "gemm64", "gemm32")
_MOST_PANEL_BYTES = 128 * 2**20
_WRITE_BYTES = 1 << 20


def steps_of(dtype: npt.DTypeLike = np.float32) -> dict[str, list[str]]:
    """The steps of every job on a table of this dtype, one after another."""
    size = np.dtype(dtype).itemsize
    read = ["read", "crc"] + ["upcast"] * (size < 8) + ["syrk"]
    cast = ["cast"] * (size < 4)
    apply = ["read", "crc", *cast, "gemm64" if size == 8 else "gemm32", *cast, "crc", "write"]
    return {"fit": read, "fit_reference": [*read, *read, "gemm64"], "apply": apply}


def limits(rates: Mapping[str, float], dtype: npt.DTypeLike = np.float32) -> dict[str, float]:
    """Serial limit of every job, from the rates of the steps."""
    return {
        job: 1 / sum(1 / rates[step] for step in needs) for job, needs in steps_of(dtype).items()
    }


def measured(jobs: Mapping[str, Job], repeats: int) -> dict[str, float]:
    """Median rate of every job, all of them in turn, after one round to warm up; of every product
    that of its best panel.
    """
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    gc.freeze()  # a collection before a job looks at what the jobs made alone
    try:
        for turn in range(repeats + 1):
            for name, job in jobs.items():
                gc.collect()
                rate = job()
                if turn:
                    rates[name].append(rate)
    finally:
        gc.unfreeze()

    medians = {name: statistics.median(values) for name, values in rates.items()}
    panels = {
        kind: [values for name, values in rates.items() if name.startswith(f"{kind} ")]
        for kind in PRODUCTS
    }
    return medians | {kind: best_of(of_panels) for kind, of_panels in panels.items() if of_panels}


def best_of(contestants: Sequence[Sequence[float]]) -> float:
    """Median rate of the fastest contestant: in every turn the one that was fastest in the others.

    The largest of many noisy medians is larger than any contestant is fast.
    """
    rates = np.asarray(contestants)
    turns = range(rates.shape[1])
    if len(turns) == 1:
        return float(rates.max())
    chosen = [np.median(np.delete(rates, turn, axis=1), axis=1).argmax() for turn in turns]
    return float(np.median(rates[chosen, turns]))


def compute_steps(
    d: int,
    threads: int,
    *,
    dtype: npt.DTypeLike = np.float32,
    panels: Sequence[int] = PANELS,
    seconds: float = 0.4,
) -> dict[str, Job]:
    """The steps that need no disk: checksum, casts, products of every panel size (``seconds``
    each).
    """
    size = d * np.dtype(dtype).itemsize

    def job(make: Callable[[], Step], rows: int) -> Job:
        return lambda: _steady(make, rows * size, threads, seconds)

    panel = micro_block_rows(d)
    jobs = {
        "crc": job(lambda: _crc_step(panel, d, dtype), panel),
        "upcast": job(lambda: _cast_step(panel, d, dtype, np.float64), panel),
        "cast": job(lambda: _cast_step(panel, d, dtype, np.float32), panel),
    }
    if "cast" not in steps_of(dtype)["apply"]:
        del jobs["cast"]
    for rows in panels:
        if rows * d * 8 <= _MOST_PANEL_BYTES:
            for kind in PRODUCTS:
                jobs[f"{kind} {rows}"] = job(
                    lambda kind=kind, rows=rows: _product_step(kind, rows, d),  # type: ignore[misc]
                    rows,
                )
    if product_family(is_large=True) == COMPILED:
        for kind in ("syrk", "gemm64"):
            jobs[f"{kind} {panel} compiled"] = job(partial(_compiled_step, kind, panel, d), panel)
    return jobs


def raw_read(files: Sequence[Path], buffer_bytes: int, threads: int) -> None:
    """Read files to their ends into one small buffer per thread."""

    def work(i: int) -> None:
        buffer = memoryview(bytearray(buffer_bytes))
        for file in files[i::threads]:
            descriptor = os.open(file, os.O_RDONLY)
            offset = 0
            while got := os.preadv(descriptor, [buffer], offset):
                offset += got
            os.close(descriptor)

    on_threads(work, threads)


def raw_write(folder: Path, n_bytes: int, threads: int, *, sync: bool = False) -> None:
    """Make a folder of files near the size of a chunk; with ``sync`` they are on the disk
    afterwards.
    """
    folder.mkdir()
    n_files = max(threads, n_bytes // DEFAULT_CHUNK_BYTES)

    def work(i: int) -> None:
        data = memoryview(bytearray(b"x" * _WRITE_BYTES))
        for number in range(i, n_files, threads):
            descriptor, left = (
                os.open(folder / str(number), os.O_WRONLY | os.O_CREAT),
                n_bytes // n_files,
            )
            while left > 0:
                left -= os.write(descriptor, data[:left])
            if sync:
                os.fsync(descriptor)
            os.close(descriptor)

    on_threads(work, threads)


def forget_pages(files: Sequence[Path]) -> None:
    """Write the files out and drop them from the page cache, as far as the system follows the
    advice.
    """
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        drop_pages(descriptor)
        os.close(descriptor)


def on_threads(work: Callable[[int], object], threads: int) -> None:
    """``work(0)`` to ``work(threads - 1)``, each in a thread; what one of them raises is raised
    here.
    """
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, i) for i in range(threads)]:
            done.result()


def _crc_step(rows: int, d: int, dtype: npt.DTypeLike) -> Step:
    x: Any = np.ones((rows, d), dtype)
    return lambda: crc32c.crc32c(x)


def _cast_step(rows: int, d: int, dtype: npt.DTypeLike, to: npt.DTypeLike) -> Step:
    x, y = np.ones((rows, d), dtype), np.ones((rows, d), to)
    return lambda: np.copyto(y, x)


def _product_step(kind: str, rows: int, d: int) -> Step:
    """X'X and X'Y in float64, X M in float32, into buffers made once."""
    dtype = np.float32 if kind == "gemm32" else np.float64
    x, y, square = np.ones((rows, d), dtype), np.ones((rows, d), dtype), np.eye(d, dtype=dtype)
    if kind == "gemm32":
        return lambda: np.matmul(x, square, out=y)
    other = x if kind == "syrk" else y
    return lambda: np.matmul(x.T, other, out=square)


def _compiled_step(kind: str, rows: int, d: int) -> Step:
    """X'X and X'Y as a pass over a large table computes them."""
    x, y = np.ones((rows, d)), np.ones((rows, d))
    if kind == "syrk":
        return partial(gramian, x, family=COMPILED)
    return partial(cross_product, x, y, family=COMPILED)


def _steady(make: Callable[[], Step], n_bytes: int, threads: int, seconds: float) -> float:
    """Bytes per second of a step repeated in every thread."""
    rates: list[float] = []

    def work(_: int) -> None:
        step = make()
        step()
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds or not n:
            step()
            n += 1
        rates.append(n * n_bytes / (time.perf_counter() - began))

    with one_thread():
        on_threads(work, threads)
    return sum(rates)
