"""What can this machine do, and what will a given table cost on it?

Every figure is measured in a few seconds with the threads that a pass would use: the machine's own
limits by its steps (`rates`), what a run will cost by passes over its first rows (`projection`).
Memory is the projection that passes are refused by.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crc32c
import numpy as np

from dask_embstab.core.tree import micro_block_rows
from dask_embstab.diagnose.kernel_gain import kernel_gain
from dask_embstab.diagnose.projection import project_run
from dask_embstab.diagnose.rates import (
    compute_steps,
    forget_pages,
    limits,
    measured,
    raw_read,
    raw_write,
)
from dask_embstab.files.owned import owned_folder
from dask_embstab.files.place import local_path
from dask_embstab.kernels import AVX512_KERNELS, CORETYPE
from dask_embstab.passes.engine.blas import AVX512, own_blas
from dask_embstab.passes.engine.cluster import loaded_family, threads_of_a_process
from dask_embstab.passes.engine.memory import base_bytes
from dask_embstab.tables.read.limits import physical_memory
from dask_embstab.tables.table import Table

_READ_BYTES = 2 << 20
_GIGA = 1e9
_PASS_STEPS = 10
"""A pass is tried for so many times the seconds of a step."""


def trial_folder(path: str | None) -> Path:
    """A folder for the disk's trial: the one that holds ``path``, else the working one, else the
    system's temporary one.
    """
    local = Path.cwd() if path is None else local_path(path)
    folder = local if path is None or local is None else local.parent
    return (
        folder if folder is not None and os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    )


def examine(
    tables: Mapping[str, Table],
    folder: Path,
    *,
    d: int,
    disk_bytes: int,
    seconds: float,
    chosen: str | None,
) -> dict[str, Any]:
    """The report: machine, BLAS, codecs, disk, steps, limits, and the projection for every table.

    Tables of ``d`` float32 components stand for them where there are none; ``disk_bytes`` are
    written into ``folder`` and removed, every step runs for ``seconds``, ``chosen`` is what this
    program set ``OPENBLAS_CORETYPE`` to.
    """
    threads, base = threads_of_a_process(), base_bytes()
    run = None
    if tables:  # first of all, in a process as new as that of a pass
        with owned_folder(folder, "embstab-doctor") as place:
            run = project_run(
                tables, place, threads=threads, base=base, seconds=_PASS_STEPS * seconds
            )
    disk = disk_rates(folder, disk_bytes, threads)
    kinds = {(table.d, table.dtype.newbyteorder("=")) for table in tables.values()} or {
        (d, np.dtype(np.float32))
    }
    steps = {kind: step_rates(*kind, threads, seconds) for kind in kinds}
    return {
        "machine": machine(threads),
        "blas": blas(chosen),
        "codecs": codecs(),
        "disk": {
            "folder": str(folder),
            "free_bytes": shutil.disk_usage(folder).free,
            "GB/s": _giga(disk),
        },
        "steps": {
            f"d = {width}, {dtype}": {
                "GB/s": _giga(rates),
                "limit GB/s": _giga(limits(rates | disk, dtype)),
            }
            for (width, dtype), rates in steps.items()
        },
        "tables": (
            {
                key: describe(table, steps[table.d, table.dtype.newbyteorder("=")] | disk)
                for key, table in tables.items()
            }
            or None
        ),
        "run": None if run is None else from_disk(run, tables, disk),
    }


def machine(threads: int) -> dict[str, Any]:
    """Cores, and memory with what the page cache may take of it."""
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "usable_cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "threads": threads,
        "memory_bytes": physical_memory(),
        "page_cache_bytes": _available_memory(),
    }


def blas(chosen: str | None) -> dict[str, Any]:
    """BLAS libraries, the kernels that they chose, and what ``OPENBLAS_CORETYPE`` would gain: where
    the default are AVX2 kernels on a processor with AVX-512, both are measured.
    """
    family = loaded_family()
    loaded = own_blas()
    gain = kernel_gain()
    helps = (
        gain is not None
        and gain.pays
        and any(
            info["internal_api"] == "openblas" and info.get("architecture") not in AVX512
            for info in loaded
        )
    )
    return {
        "family": family,
        "libraries": [
            {
                "library": info["internal_api"],
                "version": info.get("version"),
                "kernels": info.get("architecture"),
                "threads": info["num_threads"],
            }
            for info in loaded
        ],
        "threads_in_a_pass": 1,
        "coretype": os.environ.get(CORETYPE),
        "set_by": "embstab" if chosen else "user" if CORETYPE in os.environ else None,
        "default_kernels": None if gain is None else gain.default,
        "avx512_gain": None if gain is None else gain.gain,
        "would_help": helps,
        "advice": (
            f"set {CORETYPE}={AVX512_KERNELS} before Python starts: products {gain.gain:.2f} times"
            " as fast, measured; commands do so from now on"
            if helps and gain is not None
            else None
        ),
    }


def codecs() -> dict[str, Any]:
    """What is read and written without Zarr, and whether checksums are computed by the
    processor.
    """
    return {
        "without_zarr": ["none", "crc32c", "blosc", "zstd"],
        "through_zarr": "every other codec, stores of fsspec, ids in object stores",
        "crc32c": "hardware" if crc32c.hardware_based else "software",
    }


def disk_rates(folder: Path, n_bytes: int, threads: int) -> dict[str, float]:
    """Bytes per second: reads from the page cache and from the disk, writes into the cache and down
    to the disk.
    """
    with owned_folder(folder, "embstab-doctor") as place:
        cached, durable = place / "cached", place / "durable"

        def rate(work: Any, *arguments: Any, **options: Any) -> float:
            began = time.perf_counter()
            work(*arguments, **options)
            return n_bytes / (time.perf_counter() - began)

        rates = {
            "write": rate(raw_write, cached, n_bytes, threads),
            "durable_write": rate(raw_write, durable, n_bytes, threads, sync=True),
        }
        files = sorted(durable.iterdir())
        rates["read"] = rate(raw_read, files, _READ_BYTES, threads)
        forget_pages(files)
        return rates | {"cold_read": rate(raw_read, files, _READ_BYTES, threads)}


def step_rates(d: int, dtype: np.dtype[Any], threads: int, seconds: float) -> dict[str, float]:
    """The steps that need no disk, with panels of the pass's own size and its neighbours."""
    panel = micro_block_rows(d)
    jobs = compute_steps(
        d, threads, dtype=dtype, panels=(panel // 2, panel, 2 * panel), seconds=seconds
    )
    return {name: rate for name, rate in measured(jobs, 1).items() if " " not in name}


def describe(table: Table, rates: Mapping[str, float]) -> dict[str, Any]:
    """How a table is stored and read, and the machine's limit for it."""
    n_bytes = _n_bytes(table)
    return {
        "rows": table.n_rows,
        "components": table.d,
        "dtype": str(table.dtype),
        "bytes": n_bytes,
        "chunk_bytes": table.chunk_rows * table.d * table.dtype.itemsize,
        "read": (
            "by panels"
            if table.is_direct
            else "by chunks"
            if table.source.access == "chunks"
            else "by Zarr"
        ),
        "limit GB/s": _giga(limits(rates, table.dtype)),
    }


def from_disk(
    figures: dict[str, Any], tables: Mapping[str, Table], disk: Mapping[str, float]
) -> dict[str, Any]:
    """The projection of the run that these tables are: read from the disk where the page cache is
    too small for them.
    """
    n_bytes = sum(map(_n_bytes, tables.values()))
    cached = 2 * n_bytes < _available_memory()
    if not cached:
        once = n_bytes * (1 / disk["cold_read"] - 1 / disk["read"])
        reads = {"fit": 1, "apply": 1, "stabilize": 2}
        for name in figures["seconds"]:
            figures["seconds"][name] += max(0.0, once) * (
                reads.get(name.removesuffix("_reference"), 1)
            )
            if name.endswith("_reference"):
                figures["seconds"][name] += max(0.0, once) / len(tables)

    return {"fits_page_cache": cached, **figures}


def _n_bytes(table: Table) -> int:
    return table.n_rows * table.d * table.dtype.itemsize


def _available_memory() -> int:
    """Bytes that the page cache may take: what Linux calls available."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return physical_memory()
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")),
        physical_memory(),
    )


def _giga(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: round(rate / _GIGA, 3) for name, rate in rates.items()}
