"""Does a table beyond memory go to the disk faster past the page cache?

    python benchmarks/direct_io.py --dir /scratch --gb 30
    python benchmarks/direct_io.py --dir /scratch --gb 30 --docs docs/speed.md

Chunk files of 64 MiB are written and read back, cold, in turn: through the page cache; through it,
with every file sent to the disk and forgotten one file behind the stream; and with O_DIRECT, two
aligned buffers, of which one is filled while the other is on its way. Filling (writes) and adding
up (reads) stand for the products. *cached MB*: by how much the system's cache grew.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, machine, parser, publish, table, write_between

from dask_embstab.files.atomic import begin_sync

CHUNK = 64 * 2**20
PIECE = 4 * 2**20
BEGIN, END = "<!-- direct io: begin -->", "<!-- direct io: end -->"
WAYS = ("cached", "forgotten", "direct")
Work = Callable[[Path, int, str], None]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    n = max(2, int(options.gb * 1e9 / CHUNK))
    seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="embstab-direct-") as folder:
        for _ in range(options.repeats):
            for cache in WAYS:
                works: dict[str, Work] = {"write": write, "read": read}
                for name, work in works.items():
                    forget(Path(folder), n)
                    before, began = cached(), time.perf_counter()
                    work(Path(folder), n, cache)
                    passed = time.perf_counter() - began
                    seen.setdefault((name, cache), []).append(
                        (n * CHUNK / 1e9 / passed, (cached() - before) / 1e6)
                    )
    figures = {
        f"{name} {cache}": {
            "GB/s": statistics.median(rate for rate, _ in measured),
            "least": min(rate for rate, _ in measured),
            "cached MB": statistics.median(grown for _, grown in measured),
        }
        for (name, cache), measured in seen.items()
    }
    lines = [
        f"Made by `{command_line('direct_io', argv)}` on {machine(1)}, one thread.",
        "",
        *table(
            ("", "GB/s", "least", "cached MB"),
            [
                [name, f"{f['GB/s']:.2f}", f"{f['least']:.2f}", f"{f['cached MB']:.0f}"]
                for name, f in figures.items()
            ],
        ),
        "",
    ]
    text = "\n".join(lines)
    if options.docs:
        write_between(Path(options.docs), BEGIN, END, text)
    return publish({"rates": figures}, text, options)


def write(folder: Path, n: int, cache: str) -> None:
    """Every chunk filled, written, and all of them on the disk in the end, as a durable run is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if cache == "direct" else 0)
    before = -1
    with ThreadPoolExecutor(1) as pool, mmap.mmap(-1, 2 * PIECE) as memory:
        halves = np.frombuffer(memory, np.float32).reshape(2, -1)
        for i in range(n):
            descriptor, waiting = os.open(folder / str(i), flags, 0o600), None
            for at in range(0, CHUNK, PIECE):
                half = halves[at // PIECE % 2]
                half[:] = at + i
                if waiting is not None:
                    waiting.result()
                waiting = pool.submit(os.pwrite, descriptor, half, at)
            assert waiting is not None
            waiting.result()
            if cache != "direct":
                begin_sync(descriptor)
            if cache == "forgotten":
                _forget_one(before)
                before = descriptor
            else:
                os.close(descriptor)
        _forget_one(before)
        del half, halves, waiting
    for i in range(n):
        _synced(folder / str(i))


def read(folder: Path, n: int, cache: str) -> None:
    """Every chunk read and added up, one piece behind the disk."""
    flags = os.O_RDONLY | (os.O_DIRECT if cache == "direct" else 0)
    with ThreadPoolExecutor(1) as pool, mmap.mmap(-1, 2 * PIECE) as memory:
        halves = np.frombuffer(memory, np.float32).reshape(2, -1)
        for i in range(n):
            descriptor = os.open(folder / str(i), flags)
            waiting = pool.submit(os.preadv, descriptor, [halves[0]], 0)
            for at in range(0, CHUNK, PIECE):
                assert waiting.result() == PIECE
                if at + PIECE < CHUNK:
                    other = halves[(at // PIECE + 1) % 2]
                    waiting = pool.submit(os.preadv, descriptor, [other], at + PIECE)
                halves[at // PIECE % 2].sum()
            if cache == "forgotten":
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        del halves, other, waiting


def _forget_one(descriptor: int) -> None:
    if descriptor >= 0:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def forget(folder: Path, n: int) -> None:
    """Files as cold as after a restart: on the disk, and not in the page cache."""
    for path in (folder / str(i) for i in range(n)):
        if path.exists():
            _forget_one(os.open(path, os.O_RDONLY))


def cached() -> int:
    """Bytes in the system's page cache."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["Cached"].split()[0]) * 1024


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--gb", type=float, default=2.0)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--docs", metavar="FILE", help="write between its marks there")
    return options


if __name__ == "__main__":
    main()
