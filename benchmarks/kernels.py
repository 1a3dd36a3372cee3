"""How fast are the products, the small mathematics and the small jobs by themselves, on this
machine's kernels?

    python benchmarks/kernels.py --docs docs/speed.md
    python benchmarks/kernels.py --sweep --d 32 64 96 128

Every figure is a ratio of two things measured in turn in one process (jobs: in processes that
alternate), by the best of several tries. Products count the processor's time of one thread, so that
other programs disturb them little, and then the clock of all threads together, as a pass computes
them: calls that are short wait for the interpreter then. The small mathematics count the
processor's time. ``--sweep`` tries every cut of a Gramian into strips in all threads: what
`core/products.py` holds in its table, one row per family, is made by it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, machine, parser, publish, table, write_between

import dask_embstab as es
from dask_embstab.core.products import (
    Strips,
    converts,
    cross_product,
    gramian,
    gramian_in_strips,
    joint_gramian,
    multiply,
)
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.kernels import processor
from dask_embstab.passes.engine.blas import kernel_family, one_thread, product_family
from dask_embstab.passes.fit import driver

END = "<!-- kernels: end -->"
WIDTHS = (16, 32, 48, 64, 96, 128, 256, 768)
SMALL = (256, 512, 1024)
ROWS = 6000
_PEAK = 1024
Product = Callable[[], object]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the tables, return every figure."""
    options = _parser().parse_args(argv)
    with one_thread():
        counts = dict.fromkeys((1, options.threads))
        by_threads = {count: square_products(options, count) for count in counts}
        results: dict[str, Any] = {
            "command": command_line("kernels", argv),
            "family": f"{product_family()}: {kernel_family()}; {processor() or 'no AVX-512'}",
            "GFLOP/s": {
                count: {dtype: rate / 1e9 for dtype, rate in peaks.items()}
                for count, peaks in by_threads.items()
            },
            "products": {
                count: [rates(d, peaks, options, count) for d in options.d]
                for count, peaks in by_threads.items()
            },
            "sweep": [sweep(d, options) for d in options.d] if options.sweep else [],
        }
        results["mathematics"] = [mathematics(d, options.repeats) for d in options.small]
    results["jobs"] = jobs(options.jobs) if options.jobs else {}
    text = markdown(results)
    if options.docs:
        write_family(Path(options.docs), text)
    return publish(results, text, options)


def write_family(page: Path, text: str) -> None:
    """Write the figures of this family, next to those of others, into a page with the marks of
    all.
    """
    begin, end = (f"<!-- kernels {product_family()}: {word} -->" for word in ("begin", "end"))
    written = page.read_text()
    if begin not in written:
        page.write_text(written.replace(END, f"{begin}\n{end}\n\n{END}"))
    write_between(page, begin, end, text)


def best(
    candidates: Mapping[str, Product], seconds: float, repeats: int, threads: int = 1
) -> dict[str, float]:
    """Calls per second of every candidate, all in turn, the best of the tries: per second of
    processor time in one thread, or all calls of several threads per second of the clock.
    """
    fastest = dict.fromkeys(candidates, 0.0)
    with ThreadPoolExecutor(threads) as pool:
        clock = time.thread_time if threads == 1 else time.perf_counter

        def calls(product: Product, barrier: threading.Barrier) -> float:
            barrier.wait()
            n, began = 0, clock()
            while (passed := clock() - began) < seconds or not n:
                product()
                n += 1
            return n / passed

        for _ in range(repeats):
            for name, product in candidates.items():
                barrier = threading.Barrier(threads)
                tries = [pool.submit(calls, product, barrier) for _ in range(threads)]
                fastest[name] = max(fastest[name], sum(one.result() for one in tries))
    return fastest


def square_products(options: argparse.Namespace, threads: int) -> dict[str, float]:
    """Flops per second of a large square product, by dtype."""
    squares = {dtype: np.ones((_PEAK, _PEAK), dtype) for dtype in ("float64", "float32")}
    products = {dtype: partial(np.matmul, a, a) for dtype, a in squares.items()}
    fastest = best(products, 0.1, options.repeats, threads)
    return {dtype: rate * 2 * _PEAK**3 for dtype, rate in fastest.items()}


def rates(
    d: int, peaks: Mapping[str, float], options: argparse.Namespace, threads: int
) -> dict[str, Any]:
    """GB of float32 rows per second of every product of a panel, as one product and as it is
    computed here, and the latter's share of the peak. Products of float32 include its conversion.
    """
    n, family = micro_block_rows(d), product_family(is_large=True)
    rng = np.random.default_rng(d)
    joint = rng.standard_normal((n, 2 * d))
    x, y = joint[:, :d].copy(), joint[:, d:].copy()
    z: Any = x.astype(np.float32)
    M: Any = rng.standard_normal((d, d)).astype(np.float32)
    outs = threading.local()

    def out() -> Any:
        if not hasattr(outs, "rows"):
            outs.rows = np.empty_like(z)
        return outs.rows

    copies = threading.local()

    def copied(*parts: Any) -> Any:
        if not hasattr(copies, "rows"):
            copies.rows = {k: np.empty((n, k * d)) for k in (1, 2)}
        rows = copies.rows[len(parts)]
        for i, part in enumerate(parts):
            np.copyto(rows[:, i * d : (i + 1) * d], part)
        return rows

    def from_single(*parts: Any) -> Product:
        if converts(*parts, family=family):
            return lambda: joint_gramian(parts, family=family)
        return lambda: gramian(copied(*parts), family=family)

    contestants: dict[str, tuple[Product, Product, float, str]] = {
        "X'X": (lambda: x.T @ x, lambda: gramian(x, family=family), d * (d + 1), "float64"),
        "[X Y]'[X Y]": (
            lambda: joint.T @ joint,
            lambda: gramian(joint, family=family),
            2 * d * (2 * d + 1),
            "float64",
        ),
        "X'X of float32": (
            lambda: (rows := copied(z)).T @ rows,
            from_single(z),
            d * (d + 1),
            "float64",
        ),
        "[X Y]'[X Y] of float32": (
            lambda: (rows := copied(z, z)).T @ rows,
            from_single(z, z),
            2 * d * (2 * d + 1),
            "float64",
        ),
        "X'Y": (lambda: x.T @ y, lambda: cross_product(x, y, family=family), 2 * d * d, "float64"),
        "X M": (
            lambda: np.matmul(z, M, out=out()),
            lambda: multiply(z, M, out(), family=product_family()),
            2 * d * d,
            "float32",
        ),
    }
    row: dict[str, Any] = {"d": d}
    for name, (one, ours, flops, dtype) in contestants.items():
        fastest = best({"one": one, "ours": ours}, options.seconds, options.repeats, threads)
        row[name] = {
            "one": fastest["one"] * n * d * 4 / 1e9,
            "ours": fastest["ours"] * n * d * 4 / 1e9,
            "share": fastest["ours"] * n * flops / peaks[dtype],
        }
    return row


def sweep(d: int, options: argparse.Namespace) -> dict[str, Any]:
    """Every cut of a Gramian of ``d`` components, fastest first, with its rate over that of one
    product, in all threads together.
    """
    x = np.random.default_rng(d).standard_normal((micro_block_rows(d), d))
    cuts = [Strips(k, w) for k in (128, 256, 512, 1024) for w in (8, 16, 32) if w <= d]
    candidates: dict[str, Product] = {"one": lambda: x.T @ x}
    for cut in cuts:
        candidates[f"{cut.rows} x {cut.columns}"] = partial(gramian_in_strips, x, cut)
    fastest = best(candidates, options.seconds, options.repeats, options.threads)
    one = fastest.pop("one")
    ranked = sorted(fastest.items(), key=lambda item: -item[1])
    return {"d": d, "cuts": {name: rate / one for name, rate in ranked}}


def mathematics(d: int, repeats: int) -> dict[str, Any]:
    """Everything that a fit does after its reads, on ``ROWS`` rows, over one svd of a (d, d)
    matrix.
    """
    rng = np.random.default_rng(d)
    decays = np.geomspace(1, 1e-2, d)
    T, W = ((rng.standard_normal((ROWS, d)) * decays).astype(np.float32) for _ in range(2))
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0].astype(np.float32)
    reference = T @ turn + 1e-3 * rng.standard_normal(T.shape).astype(np.float32)
    A = rng.standard_normal((d, d))
    seconds: dict[str, list[float]] = {"svd": [], "scores": [], "reference": []}
    kept = driver.fit_reads
    for _ in range(min(repeats, 3)):
        began = time.thread_time()
        np.linalg.svd(A)
        seconds["svd"].append(time.thread_time() - began)
        for name, aligned in (("scores", None), ("reference", reference)):

            def timed(*given: Any, name: str = name) -> Any:
                began = time.thread_time()
                made = kept(*given)
                seconds[name].append(time.thread_time() - began)
                return made

            driver.fit_reads = timed  # type: ignore[assignment]
            try:
                es.fit(T, W, reference=aligned)
            finally:
                driver.fit_reads = kept
    least = {name: min(values) for name, values in seconds.items()}
    return {
        "d": d,
        "svd_seconds": least["svd"],
        **{name: least[name] / least["svd"] for name in ("scores", "reference")},
    }


def jobs(repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds of whole processes, and of the processors in them, the best of those that alternate:
    stabilizing 10,000 items and 20,000 users of 64 components, publishing them in a series; and of
    one apply of 300 rows in this process.
    """
    with tempfile.TemporaryDirectory(prefix="embstab-kernels-") as folder:
        place = Path(folder)
        rng = np.random.default_rng(0)
        T, W = (rng.standard_normal((n, 64)).astype(np.float32) for n in (10_000, 20_000))
        run, tiny = (
            es.create_run(place / f"run-{n}.zarr", T[:n], W[: 2 * n]) for n in (10_000, 300)
        )
        transform = es.fit(run)
        taken: dict[str, list[tuple[float, float]]] = {}
        for i in range(repeats):
            series = str(place / f"series-{i}")
            _embstab(place, "series", "init", series)
            work: dict[str, Product] = {
                "embstab stabilize": partial(
                    _embstab, place, "stabilize", str(run.path), str(place / f"out-{i}.zarr")
                ),
                "embstab series add": partial(
                    _embstab, place, "series", "add", series, str(run.path)
                ),
                "es.apply": partial(
                    es.apply, transform, tiny, place / f"tiny-{i}.zarr", sync=False
                ),
            }
            for name, job in work.items():
                began, used = time.perf_counter(), _processor_seconds()
                job()
                passed = time.perf_counter() - began
                taken.setdefault(name, []).append((passed, _processor_seconds() - used))
    return {
        name: (min(wall for wall, _ in times), min(used for _, used in times))
        for name, times in taken.items()
    }


def _processor_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _embstab(place: Path, *command: str) -> None:
    """A command as an installed package runs it: compiled once, whatever this environment says."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(place / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = [sys.executable, "-m", "dask_embstab", *command]
    subprocess.run(program, check=True, capture_output=True, env=environment)


def markdown(results: dict[str, Any]) -> str:
    """The tables for the documents; figures of other families stay in their own columns."""
    lines = [
        f"### {results['family'].partition(':')[0]}",
        "",
        f"Made by `{results['command']}`. Family `{results['family']}`.",
        "",
    ]
    for count, rows in results["products"].items():
        names = [name for name in rows[0] if name != "d"]
        peaks = {dtype: round(rate) for dtype, rate in results["GFLOP/s"][count].items()}
        lines += [
            (
                f"{'One thread, by its processor time' if count == 1 else f'{count} threads'}: a"
                f" large square product makes {peaks['float64']} GFLOP/s in float64 and"
                f" {peaks['float32']} in float32. GB of float32 rows per second as computed here"
                " (as one product; share of that peak):"
            ),
            "",
            *table(
                ("d", *names),
                [
                    [
                        row["d"],
                        *(
                            f"{row[n]['ours']:.2f} ({row[n]['one']:.2f}; {row[n]['share']:.0%})"
                            for n in names
                        ),
                    ]
                    for row in rows
                ],
            ),
            "",
        ]
    if results["sweep"]:
        lines += ["Cuts of a Gramian, rows x columns, over one product:", ""]
        cells = [
            [
                row["d"],
                ", ".join(f"{cut}: {rate:.2f}" for cut, rate in list(row["cuts"].items())[:6]),
            ]
            for row in results["sweep"]
        ]
        lines += [*table(("d", "fastest"), cells), ""]
    if results["mathematics"]:
        lines += [
            (
                f"All d x d mathematics of a fit of two tables of {ROWS} rows, over one"
                " `np.linalg.svd` of a d x d matrix:"
            ),
            "",
            *table(
                ("d", "svd, ms", "scores", "scores, onto a reference"),
                [
                    [
                        row["d"],
                        f"{1000 * row['svd_seconds']:.0f}",
                        f"{row['scores']:.1f}",
                        f"{row['reference']:.1f}",
                    ]
                    for row in results["mathematics"]
                ],
            ),
            "",
        ]
    if results["jobs"]:
        lines += [
            (
                f"Small jobs on {machine(2)}: `embstab` on 10,000 x 64 items and 20,000 users in a"
                " process of its own, `es.apply` of 300 and 600 rows in one that runs; the best"
                " of a few:"
            ),
            "",
            *table(
                ("job", "seconds", "of processors"),
                [
                    [f"`{name}`", f"{wall:.3f}", f"{used:.3f}"]
                    for name, (wall, used) in results["jobs"].items()
                ],
            ),
            "",
        ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, folder=False)
    options.add_argument("--d", type=int, nargs="+", default=list(WIDTHS))
    options.add_argument("--small", type=int, nargs="*", default=list(SMALL))
    options.add_argument("--jobs", type=int, default=3, help="tries of the small jobs; 0: none")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--sweep", action="store_true", help="try every cut of a Gramian")
    options.add_argument("--seconds", type=float, default=0.02, help="of a try")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--docs", metavar="FILE", help="write between its marks there")
    return options


if __name__ == "__main__":
    main()
