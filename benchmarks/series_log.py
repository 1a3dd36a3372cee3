"""What do the head and the log of a long series cost, in seconds and memory?

A series of one real run whose version is repeated under other names, with digests of as many chunks
as are asked for: every question is put in a process of its own, which has imported all it needs
before the clock starts.

    python benchmarks/series_log.py docs/scale.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import launched, peak_bytes, table, write_between

import dask_embstab as es
from dask_embstab.cli.streams import json_line
from dask_embstab.series.log.digests import Digests, record_digests
from dask_embstab.series.log.log import rows
from dask_embstab.series.log.names import version_key

BEGIN, END = "<!-- series: written by benchmarks/series_log.py -->", "<!-- end of series -->"
QUESTIONS: dict[str, Callable[[es.Series], Any]] = {
    "head": es.Series.head,
    "open": es.Series.open,
    "log": lambda series: tuple(series.log().versions),
    "status": es.Series.status,
    "`series log --json`": lambda series: json_line({"versions": rows(series.log())}),
}
LENGTHS = ((365, 3800), (10_000, 10))
"""Versions, and chunks of each of a run's two tables."""


def make(place: Path, versions: int, chunks: int) -> None:
    """A series of so many versions; the last one's run is there to be opened, the others'
    are not.
    """
    rng = np.random.default_rng(0)
    series = es.Series.init(place)
    tables = [rng.normal(size=(2000, 64)).astype("f4") for _ in range(2)]
    for day in range(2):  # the second one has been compared by every gate
        later = [table + np.float32(0.1 * day) * table[::-1] for table in tables]
        es.create_run(place / f"in-{day}.zarr", *later, name=f"day-{day}")
        real = series.add(place / f"in-{day}.zarr", accept="a benchmark").version
    details, inputs = real.full_details, real.inputs
    named = {
        f"{key}/vectors/c/{n}/0": int(rng.integers(1 << 32))
        for key in ("items", "users")
        for n in range(chunks)
    }
    with mock.patch.object(os, "fsync"):  # nothing of it is to outlive a power cut
        for number in range(3, versions + 1):
            run = f"day-{number}"
            digests = Digests(run={"chunks": named, "metadata": {}, "bytes": {}}, inputs=inputs)
            place_of_run = (
                {"run": run, **record_digests(series.store, run, digests)}
                if number < versions
                else {}
            )
            made = replace(real, version=number, parent=number - 1, details=details, **place_of_run)
            (place / version_key(number)).write_bytes(made.encoded())


def ask(place: Path, question: str) -> None:
    """Seconds and bytes beyond what the imports take, as JSON on stdout."""
    series = es.Series(place)
    series.head()
    before = peak_bytes() or 0
    began = time.perf_counter()
    QUESTIONS[question](series)
    print(
        json.dumps({"seconds": time.perf_counter() - began, "bytes": (peak_bytes() or 0) - before})
    )


def whole_process(place: Path) -> tuple[str, str, str]:
    """The command as a person waits for it: the best of three."""
    command, seconds = [sys.executable, "-m", "dask_embstab", "series", "log"], []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([*command, place, "--json"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    return "the same, the whole process", f"{min(seconds):.4f}", "-"


def main(docs: Path | None, lengths: tuple[tuple[int, int], ...] = LENGTHS) -> list[list[str]]:
    """Ask everything of every length; rows of the table, written into ``docs`` between its
    marks.
    """
    lines = []
    for versions, chunks in lengths:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "series")
            make(place, versions, chunks)
            for question in QUESTIONS:
                answer = json.loads(launched(sys.executable, __file__, "--ask", question, place)[0])
                figures = f"{answer['seconds']:.4f}", f"{answer['bytes'] / 1e6:.0f}"
                lines.append([f"{versions:,}", f"{chunks:,}", question, *figures])
                print(*lines[-1], flush=True)
            lines.append([f"{versions:,}", f"{chunks:,}", *whole_process(place)])
            print(*lines[-1], flush=True)
    if docs is not None:
        header = ["versions", "chunks a table", "question", "seconds", "MB beyond the imports"]
        write_between(docs, BEGIN, END, "\n".join([*table(header, lines), ""]))
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("docs", type=Path, nargs="?")
    parser.add_argument("--ask", nargs=2, metavar=("QUESTION", "SERIES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        ask(Path(given.ask[1]), given.ask[0])
    else:
        main(given.docs)
