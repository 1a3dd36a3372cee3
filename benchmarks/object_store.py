"""How near to the network's rate are tables in an object store read and written?

    python benchmarks/object_store.py --gb 0.5 --repeats 3 --markdown docs/object-store.md

A server of this machine is throttled: latency of each request and rate of all connections together
(0: none, so processors are what binds). Under the same conditions, in turn: the bare client
(obstore, ranges of 8 MiB by a pool of threads, for the same objects), our readers alone, a fit, and
what `da.from_zarr` over fsspec (s3fs) reads; then the bare client's puts of the same objects, and
an apply from a local disk. GB of table per second, medians.

A fit also multiplies, and here the server takes its share of the same processors. So beside it
stands its limit: where no link binds, the bare read and then a fit of the same rows from a local
disk, 1 / (1 / bare read + 1 / local fit); where one does, the bare read alone, whose link waits for
no product. Of an apply: the bare write and then an apply of the same rows onto a local disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import obstore
import zarr
from common import command_line, machine, parser, publish, table
from object_server import object_server
from pages import timed_job
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

import dask_embstab as es
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.diagnose.rates import Job, measured, on_threads
from dask_embstab.files.remote import Url, client
from dask_embstab.tables.stores.url_store import UrlStore

LAYOUTS = ("chunks", "shards", "small chunks")
CLIENTS = 16
"""Requests of the bare client side by side."""
_PART = 8 << 20
_READING = """
- *fit / limit*: a fit also multiplies, and the server shares the two processors with it. Without a
  link that binds, the limit of a fit is the bare read and then a fit of the same rows from a local
  disk: 1 / (1 / bare read + 1 / local fit). With one it is the bare read. The same of an apply.
- *read / da.from_zarr* cannot be more than the link's rate over that of `da.from_zarr`, nor in
  practice than *bare / da.from_zarr*, which is what the client alone makes of the same link. fsspec
  fetches a chunk of 64 MiB by one request, so 20 ms of latency come with 335 ms of sending: at 200
  MB/s it has more than half of the link already, and nobody reads such chunks three times as fast.
  Smaller chunks and inner chunks of shards wait for a request each; there it is five times.
""".strip()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("object_store", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    for link in options.link:
        latency, rate = (float(part) for part in link.split(":"))
        for layout in options.layout:
            with (
                object_server(latency=latency / 1e3, rate=rate * 1e6) as endpoint,
                tempfile.TemporaryDirectory(prefix="embstab-objects-", dir=options.dir) as folder,
            ):
                row = {"latency ms": latency, "MB/s": rate or "-", "objects": layout}
                row |= measure(Path(folder), endpoint, layout, options, bound=rate > 0)
            results["rows"].append(row)
            print(json.dumps(row), flush=True)
    return publish(results, markdown(results), options)


def measure(
    folder: Path, endpoint: str, layout: str, options: argparse.Namespace, *, bound: bool
) -> dict[str, Any]:
    """All rates under one link, of one layout; ``bound``: the link has a rate of its own."""
    access = {
        "endpoint": endpoint,
        "access_key_id": "any",
        "secret_access_key": "any",
        "region": "us-east-1",
    }
    n_bytes, d, threads = int(options.gb * 1e9), options.d, options.threads
    object_rows = (options.object_bytes if layout != "small chunks" else 1 << 20) // (4 * d)
    n = max(threads, n_bytes // (4 * d * object_rows)) * object_rows
    size = n * d * 4
    local = es.create_run(
        folder / "run",
        da.random.default_rng(0).standard_normal((n, d), dtype=np.float32, chunks=(object_rows, d)),
        chunk_rows=object_rows,
        sync=False,
    )
    url = Url("s3://bench/run", access)
    _upload(local, url, layout, object_rows)
    run = es.open_run(url)
    store = client(Url("s3://bench", access))
    paths = [
        info["path"] for page in store.list("run/items/vectors/c") for info in page
    ]  # every object of the table
    transform = es.fit(local.items)
    payload = np.random.default_rng(1).bytes(object_rows * d * 4 + 4)

    def fsspec_read() -> None:
        store = zarr.storage.FsspecStore.from_url(
            "s3://bench/run/items/vectors",
            storage_options={
                "key": "any",
                "secret": "any",
                "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
            },
            read_only=True,
        )
        da.from_zarr(store).map_blocks(lambda block: block[:1, :1]).compute()

    numbers = iter(range(1000))
    jobs: dict[str, Job] = {
        "bare read": timed_job(size, lambda: _bare_read(store, paths)),
        "read": timed_job(size, lambda: _read(run.items, threads)),
        "fit": timed_job(size, lambda: es.fit(run.items)),
        "da.from_zarr": timed_job(size, fsspec_read),
        "local fit": timed_job(size, lambda: es.fit(local.items)),
    }
    if layout != "shards":
        jobs |= {
            "bare write": timed_job(size, lambda: _bare_write(store, len(paths), payload, threads)),
            "apply": timed_job(
                size, lambda: es.apply(transform, local, url / f"out-{next(numbers)}")
            ),
            "local apply": timed_job(
                size, lambda: es.apply(transform, local, folder / "out"), leaves=folder / "out"
            ),
        }
    with dask.config.set(num_workers=threads):
        rates = {name: rate / 1e9 for name, rate in measured(jobs, options.repeats).items()}

    def limit(bare: float, local: float) -> float:
        return min(bare, local) if bound else 1 / (1 / bare + 1 / local)

    ratios = {
        "read / bare": rates["read"] / rates["bare read"],
        "fit / bare": rates["fit"] / rates["bare read"],
        "fit / limit": rates["fit"] / limit(rates["bare read"], rates["local fit"]),
        "read / da.from_zarr": rates["read"] / rates["da.from_zarr"],
        "bare / da.from_zarr": rates["bare read"] / rates["da.from_zarr"],
    }
    if "apply" in rates:
        ratios["apply / bare"] = rates["apply"] / rates["bare write"]
        most = limit(rates["bare write"], rates["local apply"])
        ratios["apply / limit"] = rates["apply"] / most
    return {name: round(value, 3) for name, value in (rates | ratios).items()}


def _upload(run: Any, url: str, layout: str, object_rows: int) -> None:
    """The same rows as objects of this layout."""
    store, table = UrlStore(url), run.items.source.array
    group = zarr.open_group(store, mode="w", zarr_format=3).create_group("items")
    codecs: list[Any] = [BytesCodec(), Crc32cCodec()]
    if layout == "shards":
        most = max(1, min(object_rows, (1 << 20) // (4 * table.shape[1])))
        inner = next(rows for rows in range(most, 0, -1) if object_rows % rows == 0)
        codecs = [ShardingCodec(chunk_shape=(inner, table.shape[1]), codecs=codecs)]
    array = group.create_array(
        "vectors",
        shape=table.shape,
        chunks=(object_rows, table.shape[1]),
        dtype="f4",
        serializer=codecs[0],
        compressors=codecs[1:] or None,
        fill_value=np.nan,
    )
    for start in range(0, table.shape[0], object_rows):
        array[start : start + object_rows] = table[start : start + object_rows]


def _bare_read(store: Any, paths: list[str]) -> None:
    """All objects by the client alone, forgotten as they come."""
    size = store.head(paths[0])["size"]  # all are of one size
    count = max(1, round(size / _PART))
    step = -(-size // count)
    parts = [(path, at, min(at + step, size)) for path in paths for at in range(0, size, step)]

    def get(part: tuple[str, int, int]) -> int:
        path, start, stop = part
        return len(memoryview(obstore.get_range(store, path, start=start, end=stop)))

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert sum(pool.map(get, parts)) == len(paths) * size


def _bare_write(store: Any, n: int, payload: bytes, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: obstore.put(store, f"bare/{number}", payload), range(n)))


def _read(table: Any, threads: int) -> None:
    """Every panel of a table, with its checksums, and nothing done with it."""
    rows, panel = table.chunk_rows, micro_block_rows(table.d)
    most = max(1, (64 << 20) // (rows * table.d * 4)) * rows
    starts = range(0, table.n_rows, most)

    def work(number: int) -> None:
        for start in starts[number::threads]:
            stop = min(start + most, table.n_rows)
            reader = table.source.block(start, stop).open()
            for at in range(start, stop, panel):
                reader.take(at, min(at + panel, stop))

    on_threads(work, threads)


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    names = list(dict.fromkeys(name for row in results["rows"] for name in row))
    rows = [[row.get(name, "-") for name in names] for row in results["rows"]]
    lines = [
        f"Made by `{results['command']}` on {results['machine']}; GB of table per second, medians.",
        "",
        *table(names, rows),
        "",
        _READING,
        "",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--gb", type=float, default=0.5, help="size of the table")
    options.add_argument("--d", type=int, default=64)
    options.add_argument("--object-bytes", type=int, default=64 << 20)
    options.add_argument("--link", nargs="+", default=["20:200", "0:0"], metavar="MS:MB/S")
    options.add_argument("--layout", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=3)
    return options


if __name__ == "__main__":
    main()
