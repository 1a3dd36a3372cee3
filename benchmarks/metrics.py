"""How fast is the search for the nearest rows of sampled queries, and how much memory does
`evaluate` take?

Against a loop written by hand over the same stored table: read a block, one NumPy product in
float32 with every BLAS thread, its best k by `argpartition`, merged with the best so far. The bare
product (no search at all) is shown beside it. All start with a warm cache and take turns, so that
what else the machine does concerns all alike: the fastest of ``--repeats`` is told, and the median
of the ratios of a turn.

    python benchmarks/metrics.py --rows 1000000 --components 64 --markdown docs/metrics-speed.md
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import command_line, launched, machine, new_ids, new_vectors, parser, publish, table
from common import scheduler as running

import dask_embstab as es
from dask_embstab.passes.evaluate.ranked import rank_tables

Array = np.ndarray[Any, Any]
_BLOCK = 8192


def make_run(path: Path, rows: int, users: int, d: int, seed: int) -> None:
    """A run of related rows: the same for every seed, and a little noise of its own."""
    root = zarr.open_group(path, mode="w")
    for key, n in (("items", rows), ("users", users)):
        group = root.create_group(key)
        chunk = min(n, max(1, (1 << 26) // (4 * d)))
        vectors, ids = new_vectors(group, n, d, chunk), new_ids(group, n, chunk)
        for start in range(0, n, chunk):
            stop = min(start + chunk, n)
            common = np.random.default_rng([0, start, len(key)]).normal(size=(stop - start, d))
            own = np.random.default_rng([seed, start, 7]).normal(size=(stop - start, d))
            vectors[start:stop] = (common + 0.3 * own).astype(np.float32)
            ids[start:stop] = np.arange(start, stop)


def bare_product(vectors: zarr.Array[Any], queries: Array) -> None:
    """Every score, and nothing done with them."""
    scores = np.empty((len(queries), _BLOCK), np.float32)
    for start in range(0, vectors.shape[0], vectors.chunks[0]):
        chunk: Array = np.asarray(vectors[start : start + vectors.chunks[0]])
        for at in range(0, len(chunk), _BLOCK):
            block = chunk[at : at + _BLOCK]
            np.matmul(queries, block.T, out=scores if len(block) == _BLOCK else None)


def by_hand(vectors: zarr.Array[Any], queries: Array, k: int) -> Array:
    """The best rows, (q, k), as one would write it: a block's best, merged with the best so far."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1)
    for start in range(0, vectors.shape[0], vectors.chunks[0]):
        chunk: Array = np.asarray(vectors[start : start + vectors.chunks[0]])
        for at in range(0, len(chunk), _BLOCK):
            scores = queries @ chunk[at : at + _BLOCK].T
            kept = min(k, scores.shape[1])
            taken = np.argpartition(scores, -kept, axis=1)[:, -kept:]
            both = np.hstack([best, np.take_along_axis(scores, taken, 1)])
            numbers = np.hstack([rows, taken + start + at])
            taken = np.argpartition(both, -k, axis=1)[:, -k:]
            best = np.take_along_axis(both, taken, 1)
            rows = np.take_along_axis(numbers, taken, 1)
    order = np.argsort(-best, axis=1)
    return np.take_along_axis(rows, order, 1)


def in_turns(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way in each turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each way, whether they agree, and the peak of a process that evaluates."""
    paths = [folder / "a.zarr", folder / "b.zarr"]
    for seed, path in enumerate(paths):
        make_run(path, options.rows, options.users, options.components, seed)
    run = es.open_run(paths[0])
    vectors = zarr.open_array(paths[0] / "items" / "vectors", mode="r")
    queries = np.random.default_rng(0).normal(size=(options.queries, options.components))
    rounded = queries.astype(np.float32)
    k, repeats = options.k, options.repeats

    def ours() -> Any:
        return rank_tables([run.table("items")], queries, k, metric="dot")[0].rows

    agree = float(
        np.mean(
            [
                len(set(a) & set(b))
                for a, b in zip(ours(), by_hand(vectors, rounded, k), strict=True)
            ]
        )
        / k
    )
    turns = in_turns(
        {
            "search": ours,
            "by_hand": lambda: by_hand(vectors, rounded, k),
            "bare_product": lambda: bare_product(vectors, rounded),
        },
        repeats,
    )
    figures: dict[str, Any] = {name: min(seconds) for name, seconds in turns.items()}
    figures["agree"] = agree
    figures["ratios"] = {
        name: statistics.median(a / b for a, b in zip(turns["search"], seconds, strict=True))
        for name, seconds in turns.items()
    }
    evaluated = (
        "import dask_embstab as es, sys, time; es.evaluate;"
        "began = time.perf_counter();"
        f"es.evaluate(sys.argv[1], sys.argv[2], k={k}, users={options.queries});"
        "print(time.perf_counter() - began)"
    )
    output, figures["evaluate_peak_bytes"] = launched(sys.executable, "-c", evaluated, *paths)
    figures["evaluate"] = float(output)
    imported = "import dask_embstab.passes.evaluate.driver, dask_embstab.api"
    _, figures["imported_bytes"] = launched(sys.executable, "-c", imported)
    return figures


def report(figures: dict[str, Any], options: argparse.Namespace, command: str) -> str:
    """The figures as Markdown."""
    ways = {
        "search": "search (top k, exact in float64)",
        "by_hand": "by hand: product, argpartition, merge",
        "bare_product": "the product alone",
    }
    rows = [
        [text, f"{figures[name]:.2f}", f"{figures['ratios'][name]:.2f}"]
        for name, text in ways.items()
    ]
    table_bytes = 4 * options.rows * options.components
    made = (
        f"{options.rows} rows of {options.components} components, {options.queries} queries, k ="
        f" {options.k}; both ways agree on {figures['agree']:.2%} of the rows found."
    )
    evaluated = (
        f"`es.evaluate` of two such runs ({options.users} users each): {figures['evaluate']:.1f} s,"
        f" peak {figures['evaluate_peak_bytes'] / 2**20:.0f} MiB, of which"
        f" {figures['imported_bytes'] / 2**20:.0f} MiB are imports; one items table is"
        f" {table_bytes / 2**20:.0f} MiB."
    )
    head = ["# How fast is `evaluate`?", "", f"Made by `{command}` on {machine(options.threads)}."]
    lines = table(["way", "seconds", "search / this, median"], rows)
    return "\n".join([*head, made, "", *lines, "", evaluated, ""])


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure and publish."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000)
    made.add_argument("--users", type=int, default=100_000)
    made.add_argument("--components", type=int, default=64)
    made.add_argument("--queries", type=int, default=1000)
    made.add_argument("--k", type=int, default=100)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--repeats", type=int, default=3)
    options = made.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as folder,
        running(None, options.threads),
    ):
        figures = measure(Path(folder), options)
    text = report(figures, options, command_line("metrics", argv))
    return publish(figures, text, options)


if __name__ == "__main__":
    main()
