"""Are compressed tables read at the rate of their codec? Beside zarr-python's bare read of them.

    python benchmarks/compressed.py --rows 4e5 --markdown docs/compressed.md

Each table is written once and read in turn by the codec library alone (from memory into one
buffer), by zarr-python (a chunk at a time), by this library (with the digest of every chunk) and by
a whole fit, in one process; the least of the repeats. Seconds are those of the processors, since
how they spread over threads depends on the machine. A fit also multiplies: its limit is the codec
alone and then a fit of the same rows uncompressed. *wall*: medians, with two threads, of a fit and
of zarr-python's bare read. *rounded*: float32 whose last 16 bits are zero.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import numcodecs
import numpy as np
import zarr
from common import command_line, least_cpu_seconds, machine, parser, publish, table
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.codecs import numcodecs as wrapped

import dask_embstab as es
from dask_embstab.diagnose.rates import measured, on_threads

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
    "gzip, rounded": (GzipCodec(level=1), numcodecs.GZip(), True),
}
if find_spec("pcodec"):
    with warnings.catch_warnings(action="ignore"):
        for _name, _rounded in (("pcodec", False), ("pcodec, rounded", True)):
            _bare = numcodecs.get_codec({"id": "pcodec"})
            CODECS[_name] = wrapped.PCodec(), _bare, _rounded
_THREADS = 2


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("compressed", argv),
        "machine": machine(1),
        "rows": [],
    }
    warnings.filterwarnings("ignore", message="Numcodecs codecs")
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
    layout: dict[str, Any] = {"shape": (n, d), "chunks": (chunk, d), "dtype": "f4"}
    codecs: dict[str, Any] = (
        {"serializer": codec, "compressors": None}
        if isinstance(codec, ArrayBytesCodec)
        else {"compressors": [codec]}
    )
    array = zarr.create_array(folder / "rows", **layout, **codecs)
    plain = zarr.create_array(folder / "plain", **layout, compressors=None)
    array[:], plain[:] = rows, rows
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

    starts = range(0, n, chunk)

    def bare_read(number: int) -> None:
        for start in starts[number::_THREADS]:
            array[start : start + chunk]

    def wall(run: Callable[[], Any]) -> Callable[[], float]:
        def timed() -> float:
            began = time.perf_counter()
            run()
            return time.perf_counter() - began

        return timed

    contestants: dict[str, Callable[[], Any]] = {
        "codec": lambda: [bare.decode(data, out=buffer) for data in encoded],
        "zarr": lambda: [array[start : start + chunk] for start in starts],
        "read": read,
        "fit": lambda: es.fit(array),
        "plain fit": lambda: es.fit(plain),
    }
    with dask.config.set(scheduler="threads", num_workers=_THREADS):
        pair = {
            "zarr, wall": wall(lambda: on_threads(bare_read, _THREADS)),
            "fit, wall": wall(lambda: es.fit(array)),
        }
        walls = measured(pair, options.repeats)
    return {
        "codec_name": name,
        "ratio": sum(map(len, encoded)) / (n * d * 4),
        **least_cpu_seconds(contestants, options.repeats),
        **walls,
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    first = ("codec", "size", "codec alone", "zarr-python", "read", "of zarr-python", "fit")
    header = (*first, "of its limit", "zarr-python, wall", "fit, wall", "of zarr-python")
    rows = [
        (
            row["codec_name"],
            f"{row['ratio']:.2f}",
            *(f"{row[key]:.3f}" for key in ("codec", "zarr", "read")),
            f"{row['read'] / row['zarr']:.2f}",
            f"{row['fit']:.3f}",
            f"{row['fit'] / (row['codec'] + row['plain fit']):.2f}",
            f"{row['zarr, wall']:.3f}",
            f"{row['fit, wall']:.3f}",
            f"{row['fit, wall'] / row['zarr, wall']:.2f}",
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
