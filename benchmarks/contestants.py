"""One rival, one job, in a process of its own: what `rivals.py` starts and nobody calls by hand.

A job is first done on a tiny table (imports, workers, compilers), then its input files are read
once, then it is timed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import array_rivals
import dask
import dask.array as da
import numpy as np
import psutil
import threadpoolctl
import zarr
from common import new_vectors, peak_bytes, scheduler
from rival_data import Data, Rows, load
from rival_mathematics import alignment_matrices, cholesky_factor, singular_values
from speed import zarr_copy, zarr_read

import dask_embstab as es
from dask_embstab.diagnose.rates import raw_read, raw_write
from dask_embstab.tables.run import Run

_BLOCK_ROWS = 1 << 14
TASK_MIB = (64, 256)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a rival is run: threads, a Dask scheduler's address, and the Spark session that was
    started for it.
    """

    threads: int
    address: str | None = None
    session: Any = None


# --- the product


def product_run(data: Data) -> Run:
    """The run as a user opens it; a bare array, or a run whose users are not asked for, becomes a
    run of its items.
    """
    if data.table is None:
        return es.open_run(data.run())
    table = data.as_table("items")
    group = zarr.open_group(str(data.folder) + "/empty.zarr", mode="a")
    return Run(path=data.table, items=table, users=None, attrs={}, group=group)


def product_fit(data: Data, _: Setting) -> Rows:
    """``es.fit`` of the items."""
    return es.fit(data.as_table("items")).singular_values


def product_apply(data: Data, out: Path, _: Setting) -> None:
    """``es.apply`` of a saved transform."""
    es.apply(data.transform, product_run(data), out / "run.zarr", sync=False)


def product_whole(data: Data, out: Path, _: Setting) -> None:
    """``es.stabilize``; the paper's literal balance, as the rivals have it."""
    es.stabilize(
        data.run(),
        out / "run.zarr",
        reference=data.run("reference"),
        balance="gramians",
        sync=False,
    )


# --- Dask arrays


def dask_r(x: Any) -> Any:
    """R by ``da.linalg.tsqr``."""
    return da.linalg.tsqr(x)[1]


def tsqr_fit(data: Data, _: Setting) -> Rows:
    """R alone is computed."""
    return np.linalg.svd(dask_r(da.from_zarr(data.array("items"))).compute(), compute_uv=False)


def dask_fit(data: Data, _: Setting) -> Rows:
    """``x.T @ x``."""
    x = da.from_zarr(data.array("items"))
    return singular_values((x.T @ x).compute())


def dask_apply(data: Data, out: Path, _: Setting) -> None:
    """``x @ M``, then ``to_zarr``."""
    _to_zarr(da.from_zarr(data.array("items")) @ data.matrix, out / "items.zarr")


def dask_whole(
    data: Data, out: Path, _: Setting, *, factor: Callable[[Any], Any], root: Callable[[Any], Rows]
) -> None:
    """Factors and cross-product in one graph, the alignment here, then both tables; row i is row i
    of the reference.
    """
    items, users, reference = (
        da.from_zarr(data.array(name)) for name in ("items", "users", "reference")
    )
    T, W, C = dask.compute(factor(items), factor(users), items.T @ reference)
    for name, table, M in zip(
        ("items", "users"), (items, users), alignment_matrices(root(T), root(W), C), strict=True
    ):
        _to_zarr(table @ M.astype(table.dtype), out / f"{name}.zarr")


def _to_zarr(rows: Any, path: Path) -> None:
    made = zarr.open_group(path, mode="w", zarr_format=3)
    rows.to_zarr(new_vectors(made, len(rows), rows.shape[1], rows.chunksize[0], dtype=rows.dtype))


# --- a memory map and a loop


def memmap_fit(data: Data, _: Setting) -> Rows:
    """Blocks of 16,384 rows in float64."""
    x = np.load(data.path("items", "npy"), mmap_mode="r")
    return singular_values(_loop_product(x, x))


def memmap_apply(data: Data, out: Path, _: Setting) -> None:
    """The same blocks times M, into another memory map."""
    _loop_apply(np.load(data.path("items", "npy"), mmap_mode="r"), data.matrix, out / "items.npy")


def memmap_whole(data: Data, out: Path, _: Setting) -> None:
    """Four loops over memory maps and one alignment; row i is row i of the reference."""
    items, users, b = (
        np.load(data.path(name, "npy"), mmap_mode="r") for name in ("items", "users", "reference")
    )
    R_T, R_W = (cholesky_factor(_loop_product(x, x)) for x in (items, users))
    for name, x, M in zip(
        ("items", "users"),
        (items, users),
        alignment_matrices(R_T, R_W, _loop_product(items, b)),
        strict=True,
    ):
        _loop_apply(x, M.astype(x.dtype), out / f"{name}.npy")


def _loop_product(x: Rows, y: Rows) -> Rows:
    total = np.zeros((x.shape[1], y.shape[1]))
    for start in range(0, len(x), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS].astype(np.float64)
        total += block.T @ (block if y is x else y[start : start + _BLOCK_ROWS].astype(np.float64))
    return total


def _loop_apply(x: Rows, M: Rows, path: Path) -> None:
    out = np.lib.format.open_memmap(path, "w+", x.dtype, (len(x), M.shape[1]))
    for start in range(0, len(x), _BLOCK_ROWS):
        np.matmul(x[start : start + _BLOCK_ROWS], M, out=out[start : start + _BLOCK_ROWS])


# --- zarr-python alone: no work, the bytes only


def bare_read(data: Data, setting: Setting) -> None:
    """Read every chunk."""
    zarr_read(data.array("items"), setting.threads)


def bare_copy(data: Data, out: Path, setting: Setting) -> None:
    """Copy every chunk."""
    (out / "items.zarr").mkdir()
    zarr_copy(data.array("items"), out / "items.zarr", setting.threads, "none")


# --- Spark


def spark_job(name: str) -> Callable[..., Any]:
    """A function of `spark_rivals`, which is imported only now."""

    def job(data: Data, *arguments: Any) -> Any:
        import spark_rivals

        *places, setting = arguments
        return getattr(spark_rivals, name)(setting.session, data, *places)

    return job


# --- who takes part


@dataclass(frozen=True, slots=True)
class Contestant:
    """A rival: its jobs, the format that it reads, and how it is kindest run."""

    label: str
    kind: str
    jobs: dict[str, Callable[..., Any]]
    one_blas_thread: bool = False
    slow: bool = False
    small: bool = False
    spark: bool = False
    works: bool = True
    needs: tuple[str, ...] = ()


def _dask(label: str, jobs: dict[str, Any], *, slow: bool = False, one: bool = False) -> Contestant:
    name = f"{label}, {'1 BLAS thread' if one else 'default BLAS threads'}"
    return Contestant(name, "zarr", jobs, one_blas_thread=one, slow=slow)


def _array(label: str, name: str, *jobs: str, needs: str, kind: str = "zarr") -> Contestant:
    """One of `array_rivals`; bytes alone where its jobs are ``read`` and ``copy``."""
    made = {{"read": "fit", "copy": "apply"}.get(job, job): f"{name}_{job}" for job in jobs}
    functions = {job: getattr(array_rivals, function) for job, function in made.items()}
    return Contestant(label, kind, functions, needs=(needs,), works="read" not in jobs)


_TSQR = {"fit": tsqr_fit, "whole": partial(dask_whole, factor=dask_r, root=np.asarray)}
_GRAM = {
    "fit": dask_fit,
    "apply": dask_apply,
    "whole": partial(dask_whole, factor=lambda x: x.T @ x, root=cholesky_factor),
}
_RANDOMIZED = {"fit": array_rivals.svd_compressed_fit}
_NEEDS_SPARK = ("pyspark", "pyarrow")
_SPARK = {job: spark_job(job) for job in ("fit", "apply", "whole")}
PRODUCT = "embstab"
CONTESTANTS = {
    PRODUCT: Contestant(
        "dask_embstab", "zarr", {"fit": product_fit, "apply": product_apply, "whole": product_whole}
    ),
    "tsqr": _dask("Dask tsqr", _TSQR, slow=True),
    "tsqr-1": _dask("Dask tsqr", _TSQR, slow=True, one=True),
    "svd-compressed-1": _dask("Dask svd_compressed", _RANDOMIZED, slow=True, one=True),
    "dask": _dask("Dask x.T @ x, x @ M", _GRAM),
    "dask-1": _dask("Dask x.T @ x, x @ M", _GRAM, one=True),
    "memmap": Contestant(
        "NumPy memmap loop",
        "npy",
        {"fit": memmap_fit, "apply": memmap_apply, "whole": memmap_whole},
    ),
    "spark": Contestant(
        "PySpark mapInArrow",
        "parquet",
        _SPARK,
        one_blas_thread=True,
        slow=True,
        spark=True,
        needs=_NEEDS_SPARK,
    ),
    "rowmatrix": Contestant(
        "PySpark RowMatrix",
        "parquet",
        {"fit": spark_job("row_matrix_fit")},
        slow=True,
        small=True,
        spark=True,
        needs=_NEEDS_SPARK,
    ),
    "cubed": _array("cubed x.T @ x, x @ M", "cubed", "fit", "apply", needs="cubed"),
    "jax": _array("JAX on CPU, memmap loop", "jax", "fit", "apply", needs="jax", kind="npy"),
    "tensorstore": _array(
        "tensorstore, NumPy products", "tensorstore", "fit", "apply", needs="tensorstore"
    ),
    "zarrs": _array("zarr-python with zarrs, bytes alone", "zarrs", "read", "copy", needs="zarrs"),
    "zarr": Contestant(
        "zarr-python, bytes alone", "zarr", {"fit": bare_read, "apply": bare_copy}, works=False
    ),
}


# --- one of them at work


def run(
    name: str, job: str, data: Data, tiny: Data, folder: Path, repeats: int, setting: Setting
) -> dict[str, Any]:
    """Seconds of every repeat, start-up, peak memory of the process tree, and what to compare the
    result by.
    """
    contestant, seconds = CONTESTANTS[name], []
    began = time.perf_counter()
    with _started(contestant, setting) as ready:
        _once(contestant, job, tiny, folder / "tiny", ready)
        startup = time.perf_counter() - began
        raw_read(_inputs(data, contestant.kind, job), 1 << 20, setting.threads)
        for number in range(repeats):
            out = folder / str(number)
            if (
                job != "fit"
            ):  # fresh pages for all alike (see `pages`, whose supply would count in the peak)
                raw_write(out.with_suffix(".pages"), data.n_bytes("items"), 1)
                shutil.rmtree(out.with_suffix(".pages"))
            taken, values = _once(contestant, job, data, out, ready)
            seconds.append(taken)
            if number < repeats - 1:
                shutil.rmtree(out)
        peak = tree_peak()
    if job != "fit" and contestant.works:
        values = sampled(out, data, job)
    np.save(folder / "sample.npy", np.empty(0) if values is None else values)
    return {
        "seconds": statistics.median(seconds),
        "repeats": seconds,
        "startup": startup,
        "peak": peak,
    }


def _once(
    contestant: Contestant, job: str, data: Data, out: Path, setting: Setting
) -> tuple[float, Any]:
    out.mkdir()
    places = () if job == "fit" else (out,)
    began = time.perf_counter()
    values = contestant.jobs[job](data, *places, setting)
    return time.perf_counter() - began, values


@contextlib.contextmanager
def _started(contestant: Contestant, setting: Setting) -> Iterator[Setting]:
    with contextlib.ExitStack() as stack:
        if contestant.one_blas_thread:
            stack.enter_context(threadpoolctl.threadpool_limits(1, user_api="blas"))
        if not contestant.spark:
            stack.enter_context(scheduler(setting.address, setting.threads))
            yield setting
            return
        import spark_rivals

        yield replace(setting, session=stack.enter_context(spark_rivals.session(setting.threads)))


def _inputs(data: Data, kind: str, job: str) -> list[Path]:
    """Files of a contestant's input, so far as they are on this disk."""
    if data.table:
        roots = [Path(data.table)] if kind == "zarr" else [data.path("items", kind)]
    elif kind == "zarr":
        roots = [data.run(), *([data.run("reference")] if job == "whole" else [])]
    else:
        roots = [data.path(name, kind) for name in (data.rows if job == "whole" else ("items",))]
    return [
        file
        for root in roots
        for file in ([root] if root.is_file() else root.rglob("*"))
        if file.is_file()
    ]


def tree_peak() -> int:
    """Sum of the peaks (VmHWM) of this process and of all that it started, forked workers' shared
    pages in each.
    """
    numbers = [child.pid for child in psutil.Process().children(recursive=True)]
    return (peak_bytes() or 0) + sum(peak_bytes(number) or 0 for number in numbers)


def sampled(out: Path, data: Data, job: str) -> Rows:
    """First, middle and last rows of what was written, from whatever format."""
    names = ("items", "users") if job == "whole" else ("items",)
    return np.concatenate(
        [_rows(out, name, [0, data.rows[name] // 3, data.rows[name] - 1]) for name in names]
    )


def _rows(out: Path, name: str, wanted: list[int]) -> Rows:
    if (file := out / f"{name}.npy").exists():
        return np.asarray(np.load(file, mmap_mode="r")[wanted])
    if (folder := out / f"{name}.parquet").exists():
        import pyarrow.dataset as ds

        rows = ds.dataset(folder).to_table(filter=ds.field("id").isin(wanted)).sort_by("id")
        return np.array(rows["v"].to_pylist())
    group = out / "run.zarr" / name if (out / "run.zarr").exists() else out / f"{name}.zarr"
    array = zarr.open_array(group / "vectors", mode="r")
    return np.concatenate([np.asarray(array[row : row + 1]) for row in wanted])


# --- threads against worker processes


def cluster(data: Data, folder: Path, repeats: int, setting: Setting) -> list[dict[str, Any]]:
    """The product on single-thread worker processes and on threads, in turn, for every size of a
    task.
    """
    from distributed import LocalCluster

    workers = {
        "n_workers": setting.threads,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": ":0",
    }
    rows = []
    with contextlib.ExitStack() as stack:
        address = setting.address or stack.enter_context(LocalCluster(**workers)).scheduler_address
        for mib in TASK_MIB:
            with dask.config.set({"embstab.task-bytes": mib << 20}):
                rows.append(
                    {"task MiB": mib}
                    | _against(data, folder / str(mib), repeats, setting.threads, address)
                )
    return rows


def _against(data: Data, folder: Path, repeats: int, threads: int, address: str) -> dict[str, Any]:
    folder.mkdir()
    taken: dict[str, list[float]] = {}
    for number in range(repeats + 1):  # the first round warms up
        for where, place in (("threads", None), ("cluster", address)):
            with scheduler(place, threads):
                for job in ("fit", "apply"):
                    out = folder / f"{job}-{where}-{number}"
                    seconds, _ = _once(CONTESTANTS[PRODUCT], job, data, out, Setting(threads))
                    shutil.rmtree(out)
                    taken.setdefault(f"{job} {where}", []).append(seconds)
    medians = {key: statistics.median(values[1:]) for key, values in taken.items()}
    ratios = {
        f"{job} ratio": medians[f"{job} cluster"] / medians[f"{job} threads"]
        for job in ("fit", "apply")
    }
    return medians | ratios


def main(arguments: list[str]) -> None:
    """Do what the arguments say and print the figures as JSON."""
    name, job, data, tiny, folder, repeats, threads, address = arguments
    setting, place = Setting(int(threads), address or None), Path(folder)
    if job == "cluster":
        print(json.dumps(cluster(load(data), place, int(repeats), setting)))
    else:
        print(json.dumps(run(name, job, load(data), load(tiny), place, int(repeats), setting)))


if __name__ == "__main__":
    main(sys.argv[1:])
