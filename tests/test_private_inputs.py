"""An input in a store that a worker process has a copy of its own of: it would read as nothing but
fill values.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from oracle import world

import dask_embstab as es

T, W = world(62)


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    """Dask's scheduler: one other process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture(params=[2, 3])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run in the memory of this process, whose missing chunks would read as zeros."""
    place = f"memory://{tmp_path.name}/in.zarr"
    group = zarr.open_group(place, mode="w", zarr_format=request.param)
    for key, rows in (("items", T), ("users", W)):
        made = group.require_group(key).create_array(
            "vectors", shape=rows.shape, dtype="f8", chunks=(16, 4), fill_value=0
        )
        made[:] = rows
    numbers = group["items"].create_array(
        "seen", shape=(60,), dtype="f8", chunks=(16,), fill_value=0
    )
    numbers[:] = 1 + np.arange(60)
    return place


VERBS: dict[str, Callable[[str, Path], Any]] = {
    "fit": lambda url, _: es.fit(url),
    "moments": lambda url, _: es.moments(url),
    "weights": lambda url, _: es.fit(
        T, reference=T, weights=zarr.open_group(url, mode="r")["items"]["seen"]
    ),
    "reference": lambda url, _: es.fit(T, W, reference=url),
    "evaluate": lambda url, _: es.evaluate({"items": T, "users": W}, url),
    "apply": lambda url, out: es.apply(es.fit(T, W), url, out / "out.zarr"),
    "create_run": lambda url, out: es.create_run(out / "out.zarr", url),
    "view": lambda url, _: es.open_run(url).items.vectors.sum().compute(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_worker_reads_zeros_in_place_of_what_it_cannot_see(
    url: str, tmp_path: Path, worker: ProcessPoolExecutor, verb: str
) -> None:
    VERBS[verb](url, tmp_path)  # in one process it is read
    for path in tmp_path.iterdir():
        path.rename(tmp_path.with_name(f"{tmp_path.name}-{path.name}"))
    with (
        dask.config.set(scheduler=worker),
        pytest.raises(es.InputError, match="seen by every process that computes"),
    ):
        VERBS[verb](url, tmp_path)
    assert not (tmp_path / "out.zarr").exists()


def test_a_store_that_workers_have_whole_is_read(worker: ProcessPoolExecutor) -> None:
    store = zarr.storage.MemoryStore()
    es.create_run(store, T, W, chunk_rows=16)
    with dask.config.set(scheduler=worker):
        fitted = es.fit(es.open_run(store))
    np.testing.assert_allclose(fitted.items, es.fit(T, W).items, atol=1e-12)
