"""A billion rows on this machine: a run of float16 items is stabilized alone, then a second such
run is aligned to it.

    # 1,000,000,000 x 8: 16 GB in, 16 GB out
    python benchmarks/billion.py --markdown docs/billion.md --json billion.json
    python benchmarks/billion.py --rows 1e7

Free disk is looked at first: the second run is left out, or ids are row numbers instead of stored
int64, where it is too small. Every job is the command line in a process of its own behind a tiny
launcher (a child's peak memory starts from its parent's). The *limit* is the serial one of
`dask_embstab.diagnose.rates`, with reads and writes of this very disk, as cold as those of the job.
Items and users of the second run are those of the first in other axes, as a retraining leaves them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from common import command_line, launched, machine, new_ids, new_vectors, parser, publish, table
from pages import timed_job

from dask_embstab.core.tree import micro_block_rows
from dask_embstab.diagnose.rates import (
    compute_steps,
    forget_pages,
    limits,
    measured,
    raw_read,
    raw_write,
)
from dask_embstab.tables.read.limits import physical_memory
from dask_embstab.tables.read.source import default_chunk_rows

DTYPE = np.dtype(np.float16)
_ID_BYTES = 8
_POOL = 1 << 18
"""Distinct vectors that rows are taken from, from another place on in every chunk."""
_SPARE_BYTES = 1 << 28
_SAMPLE_BYTES = 2 << 30
_COMMAND = "from dask_embstab.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the disk allows: the first run alone or both, with stored ids or with row numbers."""

    rows: int
    d: int
    ids: bool
    second: bool

    @property
    def vector_bytes(self) -> int:
        """Bytes of the items' vectors."""
        return self.rows * self.d * DTYPE.itemsize

    @property
    def n_users(self) -> int:
        """Users, so that scores can be kept: few, their table costs nothing."""
        return max(1000, self.rows // 1000)

    @property
    def run_bytes(self) -> int:
        """Bytes of one run on the disk."""
        return (
            self.vector_bytes
            + self.rows * _ID_BYTES * self.ids
            + self.n_users * self.d * DTYPE.itemsize
        )

    @property
    def disk_bytes(self) -> int:
        """Most bytes on the disk at a time: the first input goes before the second is written."""
        return self.run_bytes * (3 if self.second else 2) + _SPARE_BYTES

    @property
    def cold(self) -> bool:
        """Whether the run is too large for the page cache to hold input and output."""
        return 2 * self.run_bytes > physical_memory() // 2


def plan(rows: int, d: int, free: int) -> Plan:
    """The most of the benchmark that ``free`` bytes of disk allow."""
    choices = [
        Plan(rows, d, ids, second) for ids, second in ((True, True), (False, True), (False, False))
    ]
    for choice in choices:
        if choice.disk_bytes <= free:
            return choice
    raise SystemExit(
        f"error: {rows:,} rows need {choices[-1].disk_bytes / 1e9:.1f} GB of free disk and there"
        f" are {free / 1e9:.1f} GB; pass fewer --rows or another --dir"
    )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    place = Path(options.dir or tempfile.gettempdir())
    chosen = plan(int(options.rows), options.d, shutil.disk_usage(place).free)
    results: dict[str, Any] = {
        "command": command_line("billion", argv),
        "machine": machine(options.threads),
        "ids": "stored int64" if chosen.ids else "row numbers",
        "cache": "cold" if chosen.cold else "warm",
        "jobs": [],
    }
    with tempfile.TemporaryDirectory(prefix="embstab-billion-", dir=place) as folder:
        for job in measure(Path(folder), chosen, options.threads, options.seconds, results):
            results["jobs"].append(job)
            print(json.dumps(job), flush=True)
    return publish(results, markdown(results), options)


def measure(
    folder: Path, chosen: Plan, threads: int, seconds: float, results: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """One job after another; the rates of the steps go into ``results`` as soon as there is a file
    to read.
    """
    first, second, transformed = (
        folder / name for name in ("first.zarr", "second.zarr", "transformed.zarr")
    )
    generated = generate(first, chosen, np.eye(chosen.d))
    rates = step_rates(folder, chunk_paths(first), chosen, threads, seconds)
    results["GB/s"] = {name: round(rate / 1e9, 3) for name, rate in rates.items()}
    yield stabilize("alone", first, transformed, None, chosen, threads, rates) | {
        "generated in": generated
    }
    if not chosen.second:
        return
    shutil.rmtree(first)
    generated = generate(second, chosen, _axes(chosen.d))
    yield stabilize("onto it", second, folder / "out.zarr", transformed, chosen, threads, rates) | {
        "generated in": generated
    }


def generate(path: Path, chosen: Plan, A: npt.NDArray[np.float64]) -> float:
    """Write a run chunk by chunk, T A and W A^-T for the same T and W each time; seconds."""
    began = time.perf_counter()
    root = zarr.open_group(path, mode="w", zarr_format=3)
    for key, n, axes in (("items", chosen.rows, A), ("users", chosen.n_users, np.linalg.inv(A).T)):
        pool = np.random.default_rng(len(key) + n).standard_normal((_POOL, chosen.d)) * np.linspace(
            2, 0.5, chosen.d
        )
        pool = np.concatenate([pool, pool]) @ axes
        _fill(root.create_group(key), n, pool.astype(DTYPE), ids=chosen.ids and key == "items")
    return time.perf_counter() - began


def _fill(group: zarr.Group, n: int, pool: npt.NDArray[Any], *, ids: bool) -> None:
    d = pool.shape[1]
    panel = micro_block_rows(d)
    size = min(default_chunk_rows(d, DTYPE.itemsize), -(-n // 4 // panel) * panel)
    vectors = new_vectors(group, n, d, size, dtype=DTYPE)
    column = new_ids(group, n, size) if ids else None
    for start in range(0, n, size):
        stop = min(start + size, n)
        chunk, filled = np.empty((stop - start, d), DTYPE), 0
        while filled < len(chunk):
            taken = min(_POOL, len(chunk) - filled)
            at = (start + filled) * 7919 % _POOL
            chunk[filled : filled + taken] = pool[at : at + taken]
            filled += taken
        vectors[start:stop] = chunk
        if column is not None:
            column[start:stop] = np.arange(start, stop)


def _axes(d: int) -> npt.NDArray[np.float64]:
    """New axes of a condition number that float16 bears."""
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    axes: npt.NDArray[np.float64] = left @ np.diag(np.linspace(1.5, 0.7, d)) @ right
    return axes


def chunk_paths(run: Path) -> list[Path]:
    """Files of the items' vectors, in order."""
    files = (run / "items" / "vectors" / "c").glob("*/0")
    return sorted(files, key=lambda file: int(file.parent.name))


def step_rates(
    folder: Path, files: list[Path], chosen: Plan, threads: int, seconds: float
) -> dict[str, float]:
    """Bytes of table per second of every step; reads and writes are those of this disk, warm or
    cold as the job's.
    """
    sample = files[: max(1, _SAMPLE_BYTES // files[0].stat().st_size)]
    n_bytes = sum(file.stat().st_size for file in sample)
    panel_bytes = micro_block_rows(chosen.d) * chosen.d * DTYPE.itemsize
    if chosen.cold:
        forget_pages(sample)
    else:
        raw_read(sample, panel_bytes, threads)
    raw = folder / "raw"
    disk = {
        "read": timed_job(n_bytes, lambda: raw_read(sample, panel_bytes, threads))(),
        "write": timed_job(
            n_bytes, lambda: raw_write(raw, n_bytes, threads, sync=chosen.cold), raw
        )(),
    }
    return disk | measured(compute_steps(chosen.d, threads, dtype=DTYPE, seconds=seconds), 1)


def limit_seconds(chosen: Plan, rates: dict[str, float], *, onto: bool) -> float:
    """The least time that the steps of a job take one after another: fit, apply, and the ids that
    go along.
    """
    limit = limits(rates, DTYPE)
    ids = chosen.rows * _ID_BYTES * chosen.ids
    copied = ids * (1 / rates["read"] + 2 / rates["crc"] + 1 / rates["write"])
    compared = 2 * ids * (1 / rates["read"] + 1 / rates["crc"]) if onto else 0.0
    fit = chosen.vector_bytes / limit["fit_reference" if onto else "fit"]
    return fit + chosen.vector_bytes / limit["apply"] + copied + compared


def stabilize(
    job: str,
    run: Path,
    out: Path,
    reference: Path | None,
    chosen: Plan,
    threads: int,
    rates: dict[str, float],
) -> dict[str, Any]:
    """Time, throughput, share of the limit, whole-process peak of ``embstab stabilize``."""
    if chosen.cold:
        forget_pages(chunk_paths(run))
    arguments = ["stabilize", str(run), str(out), "--json"]
    arguments += [] if reference is None else ["--reference", str(reference)]
    environment = {"DASK_NUM_WORKERS": str(threads)}
    output, peak = launched(sys.executable, "-c", _COMMAND, *arguments, environment=environment)
    figures = json.loads(output)
    seconds, limit = figures["seconds"], limit_seconds(chosen, rates, onto=reference is not None)
    return {
        "job": job,
        "rows": chosen.rows,
        "bytes in": chosen.vector_bytes,
        "bytes out": sum(file.stat().st_size for file in chunk_paths(out)),
        "seconds": seconds,
        "GB/s": chosen.vector_bytes / seconds / 1e9,
        "limit seconds": limit,
        "share of the limit": limit / seconds,
        "peak bytes": peak,
        "matched": figures["items"]["matched"],
        "relative error": (figures["alignment"] or {}).get("relative_error"),
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    header = (
        "job",
        "rows",
        "GB in",
        "GB out",
        "seconds",
        "GB/s",
        "share of the limit",
        "peak MB",
        "relative error",
    )
    lines = [
        (
            f"Made by `{results['command']}` on {results['machine']}; ids: {results['ids']}; page"
            f" cache {results['cache']}."
        ),
        "",
    ]
    rows = []
    for job in results["jobs"]:
        error = job["relative error"]
        cells = [
            job["job"],
            f"{job['rows']:,}",
            f"{job['bytes in'] / 1e9:.3g}",
            f"{job['bytes out'] / 1e9:.3g}",
            f"{job['seconds']:.1f}",
            f"{job['GB/s']:.3f}",
            f"{job['share of the limit']:.2f}",
            f"{job['peak bytes'] / 1e6:.0f}",
            "-" if error is None else f"{error:.1e}",
        ]
        rows.append(cells)
    steps = results["GB/s"]
    wanted = [name for name in steps if " " not in name]
    lines += [*table(header, rows), "", "The steps by themselves, in GB of table per second:", ""]
    return "\n".join([*lines, *table(wanted, [[steps[name] for name in wanted]]), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--rows", type=float, default=1e9)
    options.add_argument("--d", type=int, default=8)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seconds", type=float, default=0.4, help="for every step of the limit")
    return options


if __name__ == "__main__":
    main()
