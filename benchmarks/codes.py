"""What do codes cost, and what do they save? Encoding, reading and fitting, relative to plain rows.

A run of float32 rows is stabilized (apply), written as codes (compress), and both are read by a fit
of the items alone; warm page cache, one process. ``encode`` is the time of `apply` over that of
`compress`: 0.5 says that coding runs at half the apply's rate. ``fit`` is the time of a fit of the
plain rows over that of the coded ones.

    python benchmarks/codes.py --markdown docs/codes.md
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import common
import dask
import numpy as np

import dask_embstab as es
from dask_embstab.core.codes.code import BITS, FROZEN, Code

CODES = (*BITS, FROZEN[0])


def seconds(work: Callable[[int], Any], repeats: int) -> float:
    """Median time of ``work(repeat)`` after one that does not count."""
    taken = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        work(repeat)
        taken.append(time.perf_counter() - began)
    return median(taken[1:])


def decoding(name: str, d: int) -> float:
    """GB of float32 a second that one core decodes."""
    code = Code(name, d, None, np.full(d, 0.05) if name in FROZEN else None)
    stored = code.encode(np.random.default_rng(0).normal(size=(4096, d)))
    taken = seconds(lambda _: [code.decode(*stored) for _ in range(20)], 5)
    return 20 * 4096 * d * 4 / taken / 1e9


def measure(folder: Path, rows: int, d: int, repeats: int) -> list[dict[str, Any]]:
    """Figures of every code on one run."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(rows, d)).astype(np.float32)
    run = es.create_run(folder / "run.zarr", items, sync=False)
    transform = es.fit(run.table("items"), keep="geometry")
    plain = es.open_run(folder / "run.zarr").table("items")

    def apply(repeat: int) -> None:
        es.apply(transform, run, folder / "applied.zarr", overwrite=repeat > 0, sync=False)

    apply_seconds = seconds(apply, repeats)
    fit_seconds = seconds(partial(_moments, plain), repeats)
    measured = []
    for name in CODES:
        place = folder / f"{name}.zarr"
        taken = seconds(partial(_compress, run, place, name), repeats)
        coded = es.open_run(place).table("items")
        read = seconds(partial(_moments, coded), repeats)
        measured.append(
            {
                "code": name,
                "bytes": row_bytes(coded),
                "encode": apply_seconds / taken,
                "fit": fit_seconds / read,
                "decode": decoding(name, d),
            }
        )
    return measured


def row_bytes(table: es.Table) -> int:
    """Bytes of a row of a coded table."""
    return int(getattr(table.source, "code").row_bytes)  # noqa: B009 (of coded sources alone)


def _compress(run: es.Run, place: Path, name: str, repeat: int) -> None:
    es.compress(run, place, code=name, overwrite=repeat > 0, sync=False)


def _moments(table: es.Table, _: int) -> None:
    es.moments(table)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what the options ask for."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("-d", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as folder,
        dask.config.set(scheduler="threads"),
    ):
        measured = measure(Path(folder), options.rows, options.d, options.repeats)
    header = [
        "code",
        "bytes a row",
        "rate of `compress` over that of `apply`",
        "rate of reading (moments) over that of plain rows",
        "decoding, GB of float32 a second and core",
    ]
    cells = [
        [one["code"], one["bytes"], *(f"{one[name]:.2f}" for name in ("encode", "fit", "decode"))]
        for one in measured
    ]
    command = common.command_line("codes", argv)
    where = f"{common.machine(dask.system.CPU_COUNT)}; {options.rows:,} x {options.d} float32."
    lines = ["# What codes cost and save", "", f"`{command}`, {where}", ""]
    text = "\n".join([*lines, *common.table(header, cells), ""])
    return common.publish({"codes": measured}, text, options)


if __name__ == "__main__":
    main()
