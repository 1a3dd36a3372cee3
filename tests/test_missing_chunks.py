"""A chunk that is missing is one error, whoever reads the table and wherever it lies: no fill value
stands for rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import zarr
from obstore.store import MemoryStore
from oracle import world
from zarr.storage import LocalStore, ObjectStore
from zarr.storage import MemoryStore as ZarrMemory

import dask_embstab as es

T, W = world(12)
IDS = [f"i{n}" for n in range(len(T))]
READERS: dict[str, Callable[[es.Run], Any]] = {
    "vectors": lambda run: run.items.vectors.compute(),
    "a row": lambda run: run.items.vectors[20].compute(),
    "some rows": lambda run: run.items.vectors[[1, 20, 22]].compute(),
    "xarray": lambda run: run.items.to_xarray()["vectors"].values,
    "fit": es.fit,
    "reference": lambda run: es.fit(es.table(T[::-1], ids=IDS[::-1]), reference=run),
    "lookup": lambda run: run.items.rows_of(["i20"]),
    "search": lambda run: es.search(T[:2], run, 3),
}


@pytest.fixture(params=["disk", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return tmp_path / "run" if request.param == "disk" else ObjectStore(MemoryStore())


def remove(place: Any, key: str) -> None:
    if isinstance(place, Path):
        (place / key).unlink()
    else:
        obstore.delete(place.store, key)


@pytest.mark.parametrize("layout", [{}, {"shard_rows": 32}], ids=["chunks", "shards"])
def test_of_vectors(place: Any, layout: dict[str, Any]) -> None:
    run = es.create_run(place, T, item_ids=IDS, chunk_rows=16, **layout)
    remove(place, f"items/vectors/c/{0 if layout else 1}/0")
    for read in READERS.values():
        with pytest.raises(es.DamageError, match=r"c/\d/0 .*is missing"):
            read(run)


@pytest.mark.parametrize("kind", ["numbers", "texts", "uuids"])
def test_of_ids(place: Any, kind: str) -> None:
    ids: Any = {
        "numbers": np.arange(1, len(T) + 1),
        "texts": IDS,
        "uuids": np.arange(1, 1 + 2 * len(T)).view("V16"),
    }[kind]
    run = es.create_run(place, T, item_ids=ids, chunk_rows=16)
    remove(place, "items/id/c/1")
    given = es.table(T, ids=ids)
    for read in (run.items.ids.compute, lambda: es.fit(given, reference=run)):
        with pytest.raises(es.DamageError, match="missing"):
            read()


@pytest.mark.parametrize("name", ["codes", "scale"])
def test_of_codes(place: Any, tmp_path: Path, name: str) -> None:
    es.create_run(tmp_path / "raw", T, item_ids=IDS, chunk_rows=16)
    run = es.compress(tmp_path / "raw", place, code="int8")
    remove(place, f"items/{name}/c/1" + "/0" * (name == "codes"))
    for read in READERS.values():
        with pytest.raises(es.DamageError, match=r"c/1.*is missing"):
            read(run)


def test_of_a_layout_that_zarr_decodes(place: Any) -> None:
    store = LocalStore(place) if isinstance(place, Path) else place
    made = zarr.create_array(
        store, name="a", shape=T.shape, chunks=(16, T.shape[1]), dtype=T.dtype,
        compressors=zarr.codecs.GzipCodec(), fill_value=np.nan,
    )  # fmt: skip
    made[:] = T
    table = es.table(made, ids=IDS)
    remove(place, "a/c/1/0")
    for read in (table.vectors.compute, lambda: es.fit(table)):
        with pytest.raises(es.DamageError, match=r"c/1/0 .*is missing"):
            read()


def test_a_chunk_that_was_left_out_stands_for_its_fill() -> None:
    """Others write none where a chunk holds nothing but a finite fill value."""
    memory, rows = MemoryStore(), T.copy()
    rows[16:32] = 0
    made = zarr.create_array(
        ObjectStore(memory), name="a", shape=T.shape, chunks=(16, T.shape[1]), dtype=T.dtype
    )
    made[:] = rows
    assert "a/c/1/0" not in {one["path"] for one in obstore.list(memory).collect()}
    table = es.table(made)
    np.testing.assert_array_equal(table.vectors, rows)
    np.testing.assert_array_equal(es.fit(table).items, es.fit(rows).items)


@pytest.mark.parametrize("fill", [0, 2**53 + 1, 2 - 2**63])
@pytest.mark.parametrize("kind", ["disk", "objects", "memory"])
def test_an_id_that_is_the_fill_and_alone_in_its_chunk_is_read(
    kind: str, tmp_path: Path, fill: int
) -> None:
    """Zarr leaves out such a chunk, the last one too; a float64 holds not every whole number."""
    kinds = {"disk": LocalStore(tmp_path), "memory": ZarrMemory()}
    stored = zarr.create_array(
        kinds.get(kind, ObjectStore(MemoryStore())), name="id", shape=(len(T),),
        chunks=(len(T) - 1,), dtype="i8", fill_value=fill,
    )  # fmt: skip
    stored[:] = ids = np.r_[1 : len(T), fill]
    table = es.table(T, ids=stored)
    np.testing.assert_array_equal(table.ids, ids)
    np.testing.assert_array_equal(table.rows_of([fill]), T[-1:])
