"""Are compressed tables read at the rate of their codec? Beside zarr-python's bare read of them.

    python benchmarks/compressed.py --rows 4e5 --markdown docs/compressed.md

Each table is written once and read in turn by the codec library alone (from memory into one
buffer), by zarr-python (a chunk at a time), by this library (with the digest of every chunk) and by
a whole fit, in one process; the least of the repeats. Seconds are those of the processors, since
how they spread over threads depends on the machine. *rounded*: float32 whose last 16 bits are zero.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numcodecs
import numpy as np
import zarr
from common import command_line, least_cpu_seconds, machine, parser, publish, table
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

import dask_embstab as es

_PANEL = 4096
CODECS: dict[str, tuple[Any, Any, bool]] = {
    "zstd": (ZstdCodec(), numcodecs.Zstd(), False),
    "zstd, rounded": (ZstdCodec(), numcodecs.Zstd(), True),
    "Blosc lz4": (BloscCodec(cname="lz4", shuffle="shuffle"), numcodecs.Blosc(), False),
    "Blosc zstd": (BloscCodec(cname="zstd", shuffle="shuffle"), numcodecs.Blosc(), False),
    "Blosc zstd, rounded": (
        BloscCodec(cname="zstd", shuffle="bitshuffle"),
        numcodecs.Blosc(),
        True,
    ),
    "gzip": (GzipCodec(level=1), numcodecs.GZip(), False),
}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("compressed", argv),
        "machine": machine(1),
        "rows": [],
    }
    with dask.config.set(scheduler="synchronous"):
        for name in options.codecs or CODECS:
            with tempfile.TemporaryDirectory(prefix="embstab-", dir=options.dir) as folder:
                results["rows"].append(measure(Path(folder), name, options))
                print(results["rows"][-1], flush=True)
    return publish(results, markdown(results), options)


def measure(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of every reader of one table."""
    codec, bare, rounded = CODECS[name]
    n, d = int(options.rows), options.d
    rows = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    if rounded:
        rows = (rows.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    chunk = min(n, options.chunk_rows)
    array = zarr.create_array(
        folder / "rows", shape=(n, d), chunks=(chunk, d), dtype="f4", compressors=[codec]
    )
    array[:] = rows
    del rows
    files = sorted(path for path in (folder / "rows/c").rglob("*") if path.is_file())
    encoded = [path.read_bytes() for path in files]
    source = es.table(array).source
    buffer = np.empty((chunk, d), np.float32)

    def read() -> None:
        for start in range(0, n, chunk):
            stop = min(start + chunk, n)
            reader = source.block(start, stop).open()
            for at in range(start, stop, _PANEL):
                reader.take(at, min(at + _PANEL, stop))

    contestants: dict[str, Callable[[], Any]] = {
        "codec": lambda: [bare.decode(data, out=buffer) for data in encoded],
        "zarr": lambda: [array[start : start + chunk] for start in range(0, n, chunk)],
        "read": read,
        "fit": lambda: es.fit(array),
    }
    return {
        "codec_name": name,
        "ratio": sum(map(len, encoded)) / (n * d * 4),
        **least_cpu_seconds(contestants, options.repeats),
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    header = ("codec", "size", "codec alone", "zarr-python", "read", "of zarr-python", "fit")
    rows = [
        (
            row["codec_name"],
            f"{row['ratio']:.2f}",
            *(f"{row[key]:.3f}" for key in ("codec", "zarr", "read")),
            f"{row['read'] / row['zarr']:.2f}",
            f"{row['fit']:.3f}",
        )
        for row in results["rows"]
    ]
    lines = [
        f"Made by `{results['command']}` on {results['machine']}.",
        "CPU seconds; *size*: of what is stored, of the rows' own.",
        "",
    ]
    return "\n".join([*lines, *table(header, rows), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--rows", type=float, default=4e5)
    options.add_argument("--d", type=int, default=64)
    options.add_argument("--chunk-rows", type=int, default=1 << 16)
    options.add_argument("--codecs", nargs="+", choices=CODECS)
    options.add_argument("--repeats", type=int, default=3)
    return options


if __name__ == "__main__":
    main()
