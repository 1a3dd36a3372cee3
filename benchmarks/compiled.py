"""What does the extra `fast` bring? Fits with the compiled kernel and without, in turn, in one
process.

    python benchmarks/compiled.py --markdown docs/speed.md

A fit of one table, and a fit onto a reference of the same ids in the same order; seconds of the
clock and of all processors, the median of the ratios of neighbouring tries.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import dask
from common import command_line, machine, parser, publish, table, write_between
from speed import new_run

import dask_embstab as es
from dask_embstab.core.products import COMPILED
from dask_embstab.passes.engine import plan
from dask_embstab.passes.engine.blas import product_family

BEGIN, END = "<!-- compiled: begin -->", "<!-- compiled: end -->"
CHUNK_BYTES = 64 * 2**20
NEVER, ALWAYS = 2**62, 0
"""From how many multiplications on the kernel is used."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    if product_family(is_large=True) != COMPILED:
        raise SystemExit("there is no kernel to compare: pip install 'dask_embstab[fast]', x86-64")
    results: dict[str, Any] = {
        "command": command_line("compiled", argv),
        "machine": machine(options.threads),
    }
    with dask.config.set(num_workers=options.threads):
        results["rows"] = [measure(d, options) for d in options.d]
    text = markdown(results)
    if options.markdown:
        write_between(Path(options.markdown), BEGIN, END, text)
        options.markdown = None
    return publish(results, text, options)


def measure(d: int, options: argparse.Namespace) -> dict[str, Any]:
    """Ratios of both fits of ``d`` components: seconds without the kernel over those with it."""
    n = int(options.gb * 1e9) // (4 * d)
    chunk_rows = CHUNK_BYTES // (4 * d)
    with tempfile.TemporaryDirectory(prefix="embstab-compiled-", dir=options.dir) as folder:
        run, reference = (
            new_run(Path(folder) / name, n, d, chunk_rows, "none") for name in ("run", "reference")
        )
        row: dict[str, Any] = {"d": d, "GB": n * d * 4 / 1e9}
        for job, onto in (("fit", None), ("fit onto a reference", reference.items)):
            tries = [
                [seconds_of(run, onto, least) for least in (NEVER, ALWAYS)]
                for _ in range(options.repeats + 1)
            ][1:]
            row[job] = {
                clock: statistics.median(without[i] / with_it[i] for without, with_it in tries)
                for i, clock in enumerate(("clock", "processors"))
            }
    return row


def seconds_of(run: Any, onto: Any, least: int) -> tuple[float, float]:
    """Of one fit, of the clock and of all processors."""
    with mock.patch.object(plan, "_LARGE", least):
        began, used = time.perf_counter(), time.process_time()
        es.fit(run.items, reference=onto)
        return time.perf_counter() - began, time.process_time() - used


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    jobs = ("fit", "fit onto a reference")
    return "\n".join(
        [
            (
                f"Made by `{results['command']}` on {results['machine']}: seconds without the"
                " extra over seconds with it, of the clock (of all processors)."
            ),
            "",
            *table(
                ("d", *jobs),
                [
                    (
                        row["d"],
                        *(
                            f"{row[job]['clock']:.2f} ({row[job]['processors']:.2f})"
                            for job in jobs
                        ),
                    )
                    for row in results["rows"]
                ],
            ),
            "",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--gb", type=float, default=1.0, help="size of each table")
    options.add_argument("--d", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=7)
    return options


if __name__ == "__main__":
    main()
