"""What other array libraries do with the same Zarr chunks: Dask's randomized SVD, cubed, JAX,
tensorstore, and zarr-python with the pipeline of zarrs.

Each library is imported by the first job that asks for it, in the process that runs it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from common import new_vectors
from rival_data import Data, Rows
from rival_mathematics import singular_values
from speed import zarr_copy, zarr_read

_BLOCK_ROWS = 1 << 14


def svd_compressed_fit(data: Data, _: Any) -> Rows:
    """All singular values by Dask's randomized SVD; with as many components as columns it is exact
    up to rounding.
    """
    x = da.from_zarr(data.array("items"))
    _, s, _ = da.linalg.svd_compressed(x, x.shape[1], n_power_iter=0, seed=0)
    return np.asarray(s.compute())


# --- cubed: plans of bounded memory, intermediate arrays in Zarr


def cubed_fit(data: Data, setting: Any) -> Rows:
    """``x.T @ x``."""
    import cubed
    import cubed.array_api as xp

    x = _cubed_array(data, Path(data.folder) / "cubed")
    G = xp.matmul(xp.permute_dims(x, (1, 0)), x)
    return singular_values(G.compute(executor=_cubed_executor(cubed, setting)))


def cubed_apply(data: Data, out: Path, setting: Any) -> None:
    """``x @ M``, to Zarr."""
    import cubed
    import cubed.array_api as xp

    x = _cubed_array(data, out / "work")
    M = cubed.from_array(np.ascontiguousarray(data.matrix), spec=x.spec)
    made = xp.matmul(x, M)
    cubed.to_zarr(
        made, str(out / "items.zarr" / "vectors"), executor=_cubed_executor(cubed, setting)
    )


def _cubed_array(data: Data, work: Path) -> Any:
    import cubed

    spec = cubed.Spec(work_dir=str(work), allowed_mem="2GB", reserved_mem="200MB")
    return cubed.from_zarr(
        data.array("items").store_path.store, data.array("items").path, spec=spec
    )


def _cubed_executor(cubed: Any, setting: Any) -> Any:  # noqa: ARG001
    from cubed.runtime.executors.local import ThreadsExecutor

    return ThreadsExecutor(max_workers=setting.threads)


# --- JAX: blocks of a memory map, compiled products


def jax_fit(data: Data, _: Any) -> Rows:
    """Blocks of 16,384 rows in float64, summed on JAX's CPU device."""
    import jax

    jax.config.update("jax_enable_x64", val=True)

    def added(total: Any, block: Any) -> Any:
        wide = block.astype("float64")
        return total + wide.T @ wide

    add = jax.jit(added)
    x = np.load(data.path("items", "npy"), mmap_mode="r")
    total = jax.numpy.zeros((data.d, data.d), "float64")
    for start in range(0, len(x), _BLOCK_ROWS):
        total = add(total, x[start : start + _BLOCK_ROWS])
    return singular_values(np.asarray(total))


def jax_apply(data: Data, out: Path, _: Any) -> None:
    """The same blocks times M, into another memory map."""
    import jax

    product = jax.jit(lambda block, M: block @ M)
    x, M = np.load(data.path("items", "npy"), mmap_mode="r"), data.matrix
    written = np.lib.format.open_memmap(out / "items.npy", "w+", x.dtype, (len(x), M.shape[1]))
    for start in range(0, len(x), _BLOCK_ROWS):
        written[start : start + _BLOCK_ROWS] = product(x[start : start + _BLOCK_ROWS], M)


# --- tensorstore: its own reads and writes of Zarr, NumPy's products


def tensorstore_fit(data: Data, setting: Any) -> Rows:
    """Chunks read ahead by tensorstore, Gramians by NumPy in float64, a thread each."""
    n, chunk = data.rows["items"], data.array("items").chunks[0]
    source = _tensorstore(_path(data.array("items")), setting)

    def part(start: int) -> Rows:
        rows = source[start : min(start + chunk, n)].read().result()
        total = np.zeros((data.d, data.d))
        for begin in range(0, len(rows), _BLOCK_ROWS):
            block = rows[begin : begin + _BLOCK_ROWS].astype(np.float64)
            total += block.T @ block
        return total

    with ThreadPoolExecutor(setting.threads) as threads:
        return singular_values(np.asarray(sum(threads.map(part, range(0, n, chunk)))))


def tensorstore_apply(data: Data, out: Path, setting: Any) -> None:
    """Chunks read, multiplied by NumPy, and written by tensorstore, a thread each."""
    array, n, M = data.array("items"), data.rows["items"], data.matrix
    source = _tensorstore(_path(array), setting)
    made = zarr.open_group(out / "items.zarr", mode="w", zarr_format=3)
    target = _tensorstore(
        _path(new_vectors(made, n, M.shape[1], array.chunks[0], dtype=M.dtype)),
        setting,
    )

    def part(start: int) -> None:
        rows = source[start : min(start + array.chunks[0], n)].read().result()
        target[start : start + len(rows)].write(rows @ M).result()

    with ThreadPoolExecutor(setting.threads) as threads:
        list(threads.map(part, range(0, n, array.chunks[0])))


def _path(array: Any) -> Path:
    return Path(str(array.store_path).removeprefix("file://"))


def _tensorstore(path: Path, setting: Any) -> Any:
    import tensorstore as ts

    limits = {
        name: {"limit": setting.threads}
        for name in ("data_copy_concurrency", "file_io_concurrency")
    }
    place = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return ts.open(place, context=ts.Context(limits), open=True).result()


# --- zarr-python with the codecs of zarrs


def zarrs_read(data: Data, setting: Any) -> None:
    """Read every chunk."""
    with _zarrs():
        zarr_read(data.array("items"), setting.threads)


def zarrs_copy(data: Data, out: Path, setting: Any) -> None:
    """Copy every chunk."""
    (out / "items.zarr").mkdir()
    with _zarrs():
        zarr_copy(data.array("items"), out / "items.zarr", setting.threads, "none")


def _zarrs() -> Any:
    import zarrs  # noqa: F401

    return zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
