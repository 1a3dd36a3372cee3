r"""How long do others take for the same work on the same bytes, and how much memory? One command,
one run, one table.

    python benchmarks/rivals.py --markdown docs/rivals.md --picture docs/rivals.svg \
        --json docs/rivals.json
    # the same for your own data and cluster
    python benchmarks/rivals.py --table RUN_OR_ARRAY --scheduler ADDRESS
    python benchmarks/rivals.py --jobs cluster --gb 3.221225472 --contestants embstab \
        --markdown docs/cluster.md

*fit*: a table to its d x d factor. *apply*: a table times a d x d matrix, to disk. *whole*: two
tables aligned to a reference (fit, cross-product, apply of both). *cluster*: fit and apply on
worker processes and on threads, in turn. Every contestant runs in a process of its own: start-up
and one round on a tiny table are off the clock, its input is read once before (warm page cache),
what it writes need not be durable. Peak memory is the sum of the peaks (VmHWM) of the process and
of all that it started. Results are compared, so nobody does easier work. Others need ``pip install
dask_embstab[benchmarks]``, Spark also Java; who is missing here is left out, with a line that says
so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, machine, parser, publish, table
from contestants import CONTESTANTS, PRODUCT
from rival_data import Data, Rows, make, random_rows
from rival_picture import Bar, bars_svg

import dask_embstab as es
from dask_embstab.tables.coerce import as_table

JOBS = ("fit", "apply", "whole", "cluster")
TITLES = {
    "fit": "fit: a table to d x d",
    "apply": "apply: a table times a matrix, written",
    "whole": "whole: two tables aligned to a reference, written",
}
AGREE = 1e-4
"""Largest relative difference between results: float32 sums and products are allowed."""
WHY = {
    "memmap": (
        "a plain file without checksums, ids or metadata, and no scheduler: nothing but the loop"
    ),
    "jax": "as the memory-map loop, with a compiler in place of NumPy's calls",
    "tensorstore": "it reads and checks chunks as we do; no digests and no ids are written",
    "zarrs": "it does no arithmetic at all; it is a bound for whoever reads or writes through it",
    "zarr": (
        "it does no arithmetic at all; it is a bound for whoever reads or writes through"
        " zarr-python"
    ),
    "dask": "float32 sums, half the arithmetic of float64 ones, at float32's accuracy",
    "dask-1": "float32 sums, half the arithmetic of float64 ones, at float32's accuracy",
}
_HERE = Path(__file__).resolve().parent
_TINY_ROWS = 20_000


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the tables, return every figure."""
    options = _parser().parse_args(argv)
    names = list(taking_part(options.contestants))
    results: dict[str, Any] = {
        "command": command_line("rivals", argv),
        "machine": machine(options.threads),
        "versions": _versions(names),
        "rows": [],
        "cluster": [],
    }
    with tempfile.TemporaryDirectory(prefix="embstab-rivals-", dir=options.dir) as made:
        folder = Path(made)
        worlds = write_worlds(folder, names, options)
        results["data"] = {
            "rows": dict(worlds["large"].rows),
            "d": worlds["large"].d,
            "dtype": worlds["large"].dtype,
        }
        for name, job, size in plan(names, options):
            row = measure(folder, name, job, size, worlds, options)
            results["rows"].append(row)
            print(
                json.dumps({key: value for key, value in row.items() if key != "sample"}),
                flush=True,
            )
        if "cluster" in options.jobs:
            results["cluster"] = _child(
                folder, PRODUCT, "cluster", worlds["large"], worlds, options.repeats, options
            )
    compare(results["rows"])
    if options.picture:
        Path(options.picture).write_text(picture(results))
    return publish(results, markdown(results), options)


def taking_part(names: list[str]) -> Iterator[str]:
    """The contestants that can run here, the product always; one line says who cannot."""
    left_out: dict[str, list[str]] = {}
    for name in names:
        needed, spark = CONTESTANTS[name].needs, CONTESTANTS[name].spark
        missing = [what for what in needed if not importlib.util.find_spec(what)]
        if spark and not (shutil.which("java") or os.environ.get("JAVA_HOME")):
            missing.append("java")
        if missing:
            left_out[name] = missing
    if left_out:
        lacking = dict.fromkeys(what for missing in left_out.values() for what in missing)
        print(
            f"left out: {', '.join(left_out)}; missing here: {', '.join(lacking)}", file=sys.stderr
        )
    yield PRODUCT
    yield from (name for name in names if name != PRODUCT and name not in left_out)


def plan(names: list[str], options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Who does which job on which world; the product does it on every world where another does."""
    made = []
    for job in (
        job for job in JOBS[:3] if job in options.jobs and not (job == "whole" and options.table)
    ):
        doing = [name for name in names if job in CONTESTANTS[name].jobs]
        sizes = {
            name: "small" if job == "whole" or CONTESTANTS[name].small else "large"
            for name in doing
        }
        made += [
            (PRODUCT, job, size)
            for size in ("large", "small")
            if size in sizes.values() and size != sizes[PRODUCT]
        ]
        made += [(name, job, sizes[name]) for name in doing]
    return made


# --- data


def write_worlds(folder: Path, names: list[str], options: argparse.Namespace) -> dict[str, Data]:
    """The large table, the small world of three tables, and the tiny one to warm up on."""
    kinds = {CONTESTANTS[name].kind for name in names}
    rows: Callable[[str, int, int], Rows]
    if options.table:
        given = as_table(options.table)
        d, dtype, n, rows = given.d, given.dtype.str, given.n_rows, partial(_given_rows, given)
    else:
        d, dtype, rows = options.d, "<f4", random_rows(options.d)
        n = max(8, int(options.gb * 1e9) // (4 * d))
    per_row = d * np.dtype(dtype).itemsize
    small = max(8, min(n, int(options.small_gb * 1e9) // per_row))
    sizes = {
        "large": n,
        "small": small,
        "tiny": min(small, _TINY_ROWS),
        "tiny whole": min(small, _TINY_ROWS),
    }
    return {
        size: make(
            folder / size, _described(folder / size, size, n, d, dtype, options), kinds, rows
        )
        for size, n in sizes.items()
    }


def _given_rows(given: es.Table, _: str, start: int, stop: int) -> Rows:
    return np.asarray(given.vectors[start:stop].compute())


def _described(
    folder: Path, size: str, n: int, d: int, dtype: str, options: argparse.Namespace
) -> Data:
    alone = options.table or size in ("large", "tiny")
    counts = {"items": n} if alone else {"items": n, "users": max(4, n // 4), "reference": n}
    return Data(str(folder), counts, d, dtype, options.table if size == "large" else None)


# --- measuring


def measure(
    folder: Path,
    name: str,
    job: str,
    size: str,
    worlds: dict[str, Data],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One row of the table; ``sample`` is what the results are compared by."""
    data, contestant = worlds[size], CONTESTANTS[name]
    n_bytes = data.n_bytes(*(("items", "users") if job == "whole" else ("items",)))
    repeats = 1 if contestant.slow else options.repeats
    figures = _child(folder, name, job, data, worlds, repeats, options)
    return {
        "name": name,
        "contestant": contestant.label,
        "job": job,
        "bytes": n_bytes,
        "GB/s": n_bytes / figures["seconds"] / 1e9,
        **figures,
    }


def _child(
    folder: Path,
    name: str,
    job: str,
    data: Data,
    worlds: dict[str, Data],
    repeats: int,
    options: argparse.Namespace,
) -> Any:
    place = folder / "work"
    place.mkdir()
    environment = {
        key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")
    }
    if CONTESTANTS[name].spark:
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    files = [
        Path(world.folder) / "data.json"
        for world in (data, worlds["tiny whole" if job == "whole" else "tiny"])
    ]
    arguments = [name, job, *files, place, repeats, options.threads, options.scheduler or ""]
    command = [sys.executable, str(_HERE / "contestants.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name}, {job}: {done.stderr[-4000:]}")
    figures = json.loads(done.stdout.splitlines()[-1])
    if job != "cluster":
        figures["sample"] = np.load(place / "sample.npy").tolist()
    shutil.rmtree(place)
    return figures


def compare(rows: list[dict[str, Any]]) -> None:
    """Add how often the product's time a contestant took on the same bytes, and how far its result
    is off.
    """
    ours = {(row["job"], row["bytes"]): row for row in rows if row["name"] == PRODUCT}
    samples = {id(row): np.asarray(row.pop("sample")) for row in rows}
    for row in rows:
        product = ours[row["job"], row["bytes"]]
        wanted, got = samples[id(product)], samples[id(row)]
        row["of ours"] = row["seconds"] / product["seconds"]
        row["off by"] = (
            float(np.abs(got - wanted).max() / np.abs(wanted).max()) if got.size else None
        )
        if row["off by"] is not None and not row["off by"] <= AGREE:
            raise RuntimeError(
                f"results must agree to {AGREE:g}; {row['name']}, {row['job']} is"
                f" {row['off by']:.1e} off the product's"
            )


# --- publishing


def markdown(results: dict[str, Any]) -> str:
    """The tables for the documents, who wins where, and why."""
    data = results["data"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"Made by `{results['command']}` on {results['machine']}; {versions}.",
        (
            f"Tables of {data['rows']['items']:,} x {data['d']} {np.dtype(data['dtype']).name} and"
            " less (*GB*). Page cache"
        ),
        (
            "warm, output not synced; seconds are medians of the repeats, without start-up and a"
            " first round."
        ),
    ]
    if results["rows"]:
        lines += [
            (
                "One process per line; the first round is on a tiny table (*start*). *times ours*:"
                " seconds over those of"
            ),
            (
                "dask_embstab on the same bytes. *peak*: VmHWM summed over the process and all that"
                " it started; about 150 MB of"
            ),
            (
                "every line are what this benchmark imports. *off by*: largest difference from our"
                " result (singular values, or"
            ),
            "rows of the output) over the largest value.",
        ]
    lines.append("")
    for job, title in TITLES.items():
        if rows := [row for row in results["rows"] if row["job"] == job]:
            lines += [f"## {title}", "", *_table(rows), "", *_wins(rows)]
    if results["cluster"]:
        lines += [
            "## Two worker processes of one thread against two threads",
            "",
            *_cluster_table(results["cluster"]),
            "",
        ]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    header = (
        "contestant",
        "GB",
        "repeats",
        "seconds",
        "GB/s",
        "times ours",
        "peak MB",
        "start s",
        "off by",
    )
    return table(
        header,
        [
            [
                row["contestant"],
                f"{row['bytes'] / 1e9:.3g}",
                len(row["repeats"]),
                f"{row['seconds']:.2f}",
                f"{row['GB/s']:.3f}",
                f"{row['of ours']:.2f}",
                f"{row['peak'] / 1e6:.0f}",
                f"{row['startup']:.1f}",
                "-" if row["off by"] is None else f"{row['off by']:.0e}",
            ]
            for row in rows
        ],
    )


def _wins(rows: list[dict[str, Any]]) -> list[str]:
    """Where a rival is faster or smaller than the product, and why."""
    ours = {row["bytes"]: row for row in rows if row["name"] == PRODUCT}
    lines = []
    for row in rows:
        won = [f"{1 / row['of ours']:.2f} times as fast"] * (row["of ours"] < 1)
        won += [f"{row['peak'] / ours[row['bytes']]['peak']:.2f} of the memory"] * (
            row["peak"] < ours[row["bytes"]]["peak"]
        )
        if won and row["name"] != PRODUCT:
            lines.append(
                f"- {row['contestant']} wins: {' and '.join(won)};"
                f" {WHY.get(row['name'], 'not explained yet')}."
            )
    return [*lines, ""] if lines else []


def _cluster_table(rows: list[dict[str, Any]]) -> list[str]:
    keys = [f"{job} {what}" for job in ("fit", "apply") for what in ("threads", "cluster", "ratio")]
    return table(
        ("task MiB", *keys),
        [[row["task MiB"], *(f"{row[key]:.2f}" for key in keys)] for row in rows],
    )


def picture(results: dict[str, Any]) -> str:
    """Bars of the throughput of every contestant."""
    groups: dict[str, list[Bar]] = {}
    for row in results["rows"]:
        label = f"{row['contestant']}, {row['bytes'] / 1e9:.2g} GB"
        groups.setdefault(TITLES[row["job"]], []).append(
            (label, row["GB/s"], row["name"] == PRODUCT)
        )
    return bars_svg(groups, title="GB of table per second (log scale)")


def _versions(names: list[str]) -> dict[str, str]:
    """Of all libraries that take part."""
    needed = {what for name in names for what in CONTESTANTS[name].needs}
    return {what: version(what) for what in sorted({"dask", "numpy", "zarr"} | needed)}


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument(
        "--gb", type=float, default=2.0, help="size of the large table, for fit and apply"
    )
    options.add_argument(
        "--small-gb",
        type=float,
        default=0.5,
        help="items of the whole job, and the table of RowMatrix",
    )
    options.add_argument("--d", type=int, default=64)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument(
        "--repeats", type=int, default=5, help="of the fast ones; the slow ones run once"
    )
    options.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS[:3]))
    options.add_argument(
        "--table",
        help="a run or Zarr array of your own (fit, apply); converted for whoever needs it",
    )
    options.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler for dask_embstab and Dask"
    )
    options.add_argument("--picture", metavar="FILE", help="write a bar chart there (SVG)")
    return options


if __name__ == "__main__":
    main()
