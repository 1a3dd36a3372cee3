"""Does `embstab doctor` project what `embstab stabilize` then takes, in seconds and in memory of
the whole process?

Tables of random numbers; chunk files beyond a few thousand are links to the same few. Every command
runs in a process of its own; ``seconds`` are those that it reports itself (its passes), peaks are
the system's. About ten minutes on two idle CPUs; what each case took is printed on stderr, and
``--cases 1,7`` measures some of them.

    python benchmarks/projection.py --docs docs/doctor.md
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import (
    command_line,
    launched,
    machine,
    new_vectors,
    parser,
    publish,
    table,
    write_between,
)

from dask_embstab.passes.engine.cluster import threads_of_a_process
from dask_embstab.tables.layout import TABLES

_LINKS, _PIECE = 4_000, 1 << 14
_EMBSTAB = (sys.executable, "-m", "dask_embstab")


@dataclass(frozen=True, slots=True)
class Case:
    """Rows and components of every table, rows of a chunk; ``verbs`` to be measured, items alone
    where not ``users``.
    """

    d: int
    rows: int
    chunk_rows: int
    verbs: tuple[str, ...] = ("stabilize", "stabilize_reference")
    users: bool = True

    @property
    def n_chunks(self) -> int:
        """In all tables."""
        return -(-self.rows // self.chunk_rows) * (1 + self.users)


CASES = (
    Case(64, 1_000_000, 1 << 17),
    Case(64, 64_000, 64),
    Case(256, 200_000, 1 << 15),
    Case(512, 64_000, 1 << 13),
    Case(1024, 16_384, 1 << 11),
    Case(2048, 4_096, 1 << 9, ("stabilize",)),
    Case(4096, 8_192, 1 << 9, ("stabilize",), users=False),
    Case(16, 40_000, 8, ("stabilize",)),
    Case(16, 400_000, 8, ("fit",)),
    Case(16, 4_000_000, 8, ("fit",)),
)
"""The last ones have 10,000 to 1,000,000 chunks of 512 bytes. Tables have twice as many rows as
components at least: a fit of nearly square ones reads them again.
"""
BEGIN, END = (
    "<!-- projections: written by benchmarks/projection.py -->",
    "<!-- end of projections -->",
)


def make(place: Path, case: Case) -> None:
    """The run of a case."""
    group = zarr.open_group(place, mode="w", zarr_format=3)
    rng = np.random.default_rng(0)
    for key in TABLES[: 1 + case.users]:
        vectors = new_vectors(group.create_group(key), case.rows, case.d, case.chunk_rows)
        n_chunks = case.rows // case.chunk_rows
        real = case.rows if n_chunks < _LINKS else -(-n_chunks // _LINKS) * case.chunk_rows
        step = max(case.chunk_rows, _PIECE // case.chunk_rows * case.chunk_rows)
        for start in range(0, real, step):
            size = min(step, real - start)
            vectors[start : start + size] = rng.standard_normal((size, case.d), dtype=np.float32)
        for number in range(real // case.chunk_rows, n_chunks if real < case.rows else 0):
            chunk = place / key / "vectors/c" / str(number)
            chunk.mkdir()
            os.link(chunk.parent / str(number % (real // case.chunk_rows)) / "0", chunk / "0")


def measure(case: Case, folder: Path) -> list[dict[str, Any]]:
    """Projected and measured figures of every verb."""
    run, out, again = folder / "run.zarr", folder / "out.zarr", folder / "again.zarr"
    make(run, case)
    projection = json.loads(launched(*_EMBSTAB, "doctor", run, "--json")[0])["run"]
    commands = {
        "fit": ("fit", run, folder / "transform.npz"),
        "stabilize": ("stabilize", run, out),
        "stabilize_reference": ("stabilize", run, again, "--reference", out),
    }
    measured = []
    for verb in case.verbs:
        words, peak = launched(*_EMBSTAB, *commands[verb], "--json")
        seconds = json.loads(words)["seconds"]
        projected = projection["peak_bytes"][verb]
        figures = {"d": case.d, "chunks": case.n_chunks, "verb": verb, "users": case.users}
        figures |= {"projected_seconds": projection["seconds"][verb], "seconds": seconds}
        measured.append(figures | {"projected_bytes": projected, "bytes": peak})
        print(figures, projected, peak, file=sys.stderr, flush=True)
    for place in (run, out, again):
        shutil.rmtree(place, ignore_errors=True)
    return measured


def main(argv: list[str] | None = None, cases: Sequence[Case] = CASES) -> dict[str, Any]:
    """Measure all cases; the figures, printed as a Markdown table, and written into the docs
    between their marks.
    """
    given = parser(__doc__)
    given.add_argument("--docs", metavar="FILE", help="write the table between its marks there")
    given.add_argument("--cases", metavar="NUMBERS", help="measure these alone, from 1 on")
    options = given.parse_args(argv)
    if options.cases is not None:
        cases = [cases[int(number) - 1] for number in options.cases.split(",")]
    results = []
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        for case in cases:
            began = time.monotonic()
            results += measure(case, Path(folder))
            print(f"{time.monotonic() - began:.0f} s for {case}", file=sys.stderr, flush=True)
    lines = [
        [
            f"{one['d']:,}",
            f"{one['chunks']:,}",
            one["verb"].replace("_", " onto a ") + ("" if one["users"] else ", items alone"),
            f"{one['projected_seconds']:.2f}",
            f"{one['seconds']:.2f}",
            f"{one['projected_seconds'] / one['seconds']:.2f}",
            f"{one['projected_bytes'] / 1e6:.0f}",
            f"{one['bytes'] / 1e6:.0f}",
            f"{one['projected_bytes'] / one['bytes']:.2f}",
        ]
        for one in results
    ]
    header = [
        "d",
        "chunks",
        "verb",
        "seconds projected",
        "measured",
        "ratio",
        "MB projected",
        "measured",
        "ratio",
    ]
    where = machine(threads_of_a_process())
    text = "\n".join(
        [f"`{command_line('projection', argv)}` on {where}:", "", *table(header, lines), ""]
    )
    if options.docs:
        write_between(Path(options.docs), BEGIN, END, text)
    return publish({"machine": where, "cases": results}, text, options)


if __name__ == "__main__":
    main()
