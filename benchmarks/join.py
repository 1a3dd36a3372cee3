"""What does it cost to find every row's reference row by its id, in whatever order the two tables
are?

    python benchmarks/join.py --rows 1e6 1e7 2e7 --markdown docs/join.md --json join.json

Each fit runs in a process of its own, behind a tiny launcher. The fit without ids is the measure of
the others; vectors are float32, and every run is the reference in another order, so all transforms
must agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import command_line, launched, machine, new_ids, new_vectors, parser, publish, table

CASES = {"none": "no ids", "same": "same order", "sorted": "both sorted", "random": "random order"}
_POOL = 1 << 15
"""Distinct vectors that rows are made of: a row is the sum of two, picked by its id."""
_FIT = """
import json, resource, sys, time
from dataclasses import replace
import dask, numpy as np
import dask_embstab as es
run, reference, out, threads, scratch, memory, ids = sys.argv[1:]
tables = [es.open_run(path).items for path in (run, reference)]
if ids == "none":
    tables = [replace(table, stored_ids=None) for table in tables]
with dask.config.set(num_workers=int(threads)):
    es.fit(np.eye(64), reference=np.eye(64))  # imports and the first graph are not the join's
    used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    began, before = time.perf_counter(), used()
    found = es.fit(tables[0], reference=tables[1], scratch=scratch, join_memory=memory)
    seconds, cpu = time.perf_counter() - began, used() - before
np.save(out, found.items)
told = found.diagnostics["items"]
print(json.dumps({"seconds": seconds, "cpu": cpu, "matched": told["matched"],
                  "path": told["paired_by"], "vectors": told["vectors"],
                  "scratch": told["scratch_bytes"]}))
"""

_IN_TURN = (("none", "same"), ("sorted",), ("random",))
"""Cases on the same files are measured in turn, so that their ratio does not depend on the hour."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("join", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    for n in map(int, options.rows):
        with tempfile.TemporaryDirectory(prefix="embstab-join-", dir=options.dir) as folder:
            results["rows"] += measure(Path(folder), n, options)
    return publish(results, markdown(results), options)


def measure(folder: Path, n: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time, peak and scratch of a fit in every order, medians over the repeats."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(n).astype(np.int64) * 3 + 10**9
    rows: list[dict[str, Any]] = []
    run, reference = folder / "run.zarr", folder / "reference.zarr"
    for cases in _IN_TURN:
        case = cases[0]
        if case != "random":
            _write(reference, ids if case == "none" else np.sort(ids), options)
        # One new id where both are sorted: else they would be identical.
        orders = {
            "none": ids,
            "sorted": np.append(np.sort(ids), 4 * 10**9 + 3 * n),
            "random": rng.permutation(ids),
        }
        _write(run, orders[case], options)
        taken: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
        for _ in range(options.repeats):
            for case in cases:
                taken[case].append(_fit(run, reference, folder, case, options))
                items = np.load(folder / "out.npy")
        for case in cases:
            rows.append(_row(n, case, taken[case], items, rows[0] if rows else None))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _row(
    n: int, case: str, taken: list[dict[str, Any]], items: Any, base: dict[str, Any] | None
) -> dict[str, Any]:
    figures = {
        key: statistics.median(each[key] for each in taken)
        for key in ("seconds", "cpu", "peak", "scratch")
    }
    return {
        "rows": n,
        "case": CASES[case],
        "path": taken[0]["path"],
        "vectors": taken[0]["vectors"],
        "matched": taken[0]["matched"],
        **figures,
        "ratio": figures["seconds"] / (base["seconds"] if base else figures["seconds"]),
        "cpu_ratio": figures["cpu"] / (base["cpu"] if base else figures["cpu"]),
        "difference": float(np.abs(items - np.eye(len(items))).max()),
    }


def _fit(
    run: Path, reference: Path, folder: Path, case: str, options: argparse.Namespace
) -> dict[str, Any]:
    arguments = [run, reference, folder / "out.npy", options.threads, folder, options.memory, case]
    output, peak = launched(sys.executable, "-c", _FIT, *arguments)
    return {**json.loads(output), "peak": peak}


def _write(path: Path, ids: Any, options: argparse.Namespace) -> None:
    """A run whose vectors follow from its ids."""
    n, d, chunk = len(ids), options.d, max(1, min(64 * 2**20 // (4 * options.d), -(-len(ids) // 4)))
    pool = np.random.default_rng(1).standard_normal((_POOL, d)).astype(np.float32) * np.linspace(
        2, 0.5, d, dtype="f4"
    )
    group = zarr.open_group(path, mode="w", zarr_format=3).create_group("items")
    vectors, column = new_vectors(group, n, d, chunk), new_ids(group, n, chunk)
    for start in range(0, n, chunk):
        part = ids[start : start + chunk]
        vectors[start : start + chunk] = pool[part % _POOL] + pool[part * 7 % (_POOL - 19)]
        column[start : start + chunk] = part


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    lines = [
        (
            f"Made by `{results['command']}` on {results['machine']}; times of one fit with a"
            " reference of the same ids."
        ),
        "The transform is the identity: *off by* is the largest difference from it.",
        "",
    ]
    header = (
        "rows",
        "order",
        "join",
        "vectors",
        "seconds",
        "of no ids",
        "CPU s",
        "of no ids",
        "peak MB",
        "scratch MB",
        "off by",
    )
    rows = []
    for row in results["rows"]:
        cells = [
            f"{row['rows']:,}",
            row["case"],
            row["path"],
            row["vectors"],
            f"{row['seconds']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['cpu']:.2f}",
            f"{row['cpu_ratio']:.2f}",
            f"{row['peak'] / 1e6:.0f}",
            f"{row['scratch'] / 1e6:.0f}",
            f"{row['difference']:.0e}",
        ]
        rows.append(cells)
    return "\n".join([*lines, *table(header, rows), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e7, 2e7])
    options.add_argument("--d", type=int, default=64)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--memory", default="1GiB", help="join_memory of every fit")
    return options


if __name__ == "__main__":
    main()
