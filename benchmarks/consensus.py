"""What does the running reference of a series cost? Weekly runs added under each policy: time,
bytes, disk.

    python benchmarks/consensus.py docs/series.md [--rows 400000]

Bytes are those that the process asked the system for (`/proc/self/io`), files in the page cache;
mapped pages are not among them. Every week a share of the ids is replaced. The last of the runs is
measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import write_between

import dask_embstab as es

BEGIN, END = "<!-- cost: written by benchmarks/consensus.py -->", "<!-- end of cost -->"
POLICIES: dict[str, dict[str, Any]] = {
    "`previous`": {"policy": "previous"},
    "`previous --unit-rows`": {"policy": "previous", "unit_rows": True},
    "`consensus`": {"policy": "consensus"},
}
D, WEEKS = 64, 4


def main(docs: Path | None, rows: int) -> None:
    """Measure, print, and write the table where there are docs."""
    megabytes = 2 * rows * D * 4 / 1e6
    lines = [
        (
            f"`python benchmarks/consensus.py docs/series.md --rows {rows}`: the last of {WEEKS}"
            " weeks, two cores (shared:"
        ),
        (
            f"take the ratios). A run has {rows} items and as many users, {D} components, float32:"
            f" {megabytes:.0f} MB."
        ),
        "",
        (
            "| ids replaced a week | policy | seconds of `add` | MB read | MB written | MB on disk"
            " a version |"
        ),
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for share in (0.0, 0.02):
            runs = weeks(Path(folder, f"{share}"), rows, share)
            for name, settings in POLICIES.items():
                seconds, read, written, disk = added(
                    Path(folder, f"{share}-{name.strip('`')}"), runs, settings
                )
                lines.append(
                    f"| {share:.0%} | {name} | {seconds:.2f} | {read:.0f} | {written:.0f} |"
                    f" {disk:.0f} |"
                )
                print(lines[-1], flush=True)
    if docs is not None:
        write_between(docs, BEGIN, END, "\n".join([*lines, ""]))


def weeks(folder: Path, rows: int, share: float) -> list[Path]:
    """Runs of one world in other axes every week; new ids come in the places of old ones."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    items, users = (rng.normal(size=(rows, D)) * 1.05 ** -np.arange(D) for _ in range(2))
    ids, paths = np.arange(rows), []
    for week in range(WEEKS):
        Q = np.linalg.qr(rng.normal(size=(D, D)))[0]
        replaced = rng.choice(rows, int(share * rows), replace=False)
        ids[replaced] = np.arange(len(replaced)) + 10 * rows * (week + 1)
        noisy = items + 0.1 * rng.normal(size=items.shape)
        paths.append(folder / f"week-{week}.zarr")
        es.create_run(
            paths[-1], (noisy @ Q).astype(np.float32), (users @ Q).astype(np.float32), item_ids=ids
        )
    return paths


def added(
    place: Path, runs: Sequence[Path], settings: dict[str, Any]
) -> tuple[float, float, float, float]:
    """Seconds, MB read, MB written and MB kept of the last publish."""
    series = es.Series.init(place, **settings)
    for run in runs[:-1]:
        series.add(run)
    before, start, kept = transferred(), time.perf_counter(), size(place)
    series.add(runs[-1])
    seconds, after = time.perf_counter() - start, transferred()
    read, written = ((b - a) / 1e6 for a, b in zip(before, after, strict=True))
    return seconds, read, written, (size(place) - kept) / 1e6


def transferred() -> tuple[int, int]:
    """Bytes that this process has read and written so far."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["wchar"])


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("docs", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=400_000)
    given = parser.parse_args()
    main(given.docs, given.rows)
