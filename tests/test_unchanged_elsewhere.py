"""Inputs whose place tells nothing of a change: in memory, lazy, in object stores; and arrays by
strangers.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from changes import IDS, USER_IDS, A, B, T, W, other_ids, refused, written_in_place
from oracle import foreign_run
from zarr.storage import MemoryStore

import dask_embstab as es
from dask_embstab.passes.join import pairing

pytestmark = pytest.mark.usefixtures("small_tasks")
MakeRun = Callable[..., es.Run]
Change = Callable[[], None]
When = Callable[[Change], contextlib.AbstractContextManager[None]]


@pytest.fixture
def runs(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    options = {"item_ids": IDS, "user_ids": USER_IDS}
    return make_run("in", T, W, **options), make_run("reference", B, A, **options)


def in_memory(texts: bool) -> tuple[Any, Change, Change]:
    rows, ids = T.copy(), _ids(texts)
    return (
        es.table(rows, ids=ids),
        lambda: rows.__imul__(2),
        lambda: ids.__setitem__(slice(0, 2), ids[1::-1].copy()),
    )


def dask_arrays(texts: bool) -> tuple[Any, Change, Change]:
    rows, ids = T.copy(), _ids(texts)
    lazy = [
        da.map_blocks(
            lambda block, of=of: of[slice(*block[0])],
            _blocks(),
            dtype=of.dtype,
            chunks=((16, 16, 16, 12), *((n,) for n in of.shape[1:])),
            **({"drop_axis": 1} if of.ndim == 1 else {}),
        )
        for of in (rows, ids)
    ]
    return (
        es.table(lazy[0], ids=lazy[1]),
        lambda: rows.__imul__(2),
        lambda: ids.__setitem__(slice(0, 2), ids[1::-1].copy()),
    )


def _blocks() -> Any:
    """One row per block that says which rows are its."""
    cuts = np.array([[0, 16], [16, 32], [32, 48], [48, 60]])
    return da.from_array(cuts, chunks=(1, 2))


def _ids(texts: bool) -> Any:
    return np.array([f"item-{i}" for i in IDS], object) if texts else IDS.copy()


def in_an_object_store(texts: bool) -> tuple[Any, Change, Change]:
    run = es.create_run(store := MemoryStore(), T, item_ids=_ids(texts), chunk_rows=16)
    group = zarr.open_group(store, mode="r+")
    first = _ids(texts)[1::-1]
    return (
        run,
        lambda: group["items/vectors"].__setitem__(slice(50, 60), 2 * T[50:]),
        lambda: group["items/id"].__setitem__(slice(0, 2), first),
    )


MADE = {"memory": in_memory, "dask": dask_arrays, "object store": in_an_object_store}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("texts", [False, True], ids=["int64", "texts"])
@pytest.mark.parametrize("join", ["whole", "partitioned"])
def test_digests_tell_where_no_place_does(
    tmp_path: Path,
    make_run: MakeRun,
    between: Any,
    monkeypatch: pytest.MonkeyPatch,
    made: str,
    texts: bool,
    join: str,
) -> None:
    order = np.random.default_rng(0).permutation(60)
    reference = make_run("reference", B[order], item_ids=_ids(texts)[order])
    options: dict[str, Any] = {"reference": reference}
    if join == "partitioned":
        monkeypatch.setattr(pairing, "_in_memory", lambda *_: None)
    given, other_rows, swap_ids = MADE[made](texts)
    es.stabilize(given, tmp_path / "whole.zarr", **options)
    with refused("they had the digest"), between("fit: reading")(swap_ids):
        es.stabilize(given, tmp_path / "out.zarr", **options)
    swap_ids()
    with refused(r"chunk \d had the digest"), between("fit: reading")(other_rows):
        es.stabilize(given, tmp_path / "out.zarr", **options)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("name", ["vectors", "id"])
def test_a_listing_tells_what_changes_within_a_pass_over_an_object_store(
    within: When, name: str
) -> None:
    url = f"memory://{uuid.uuid4().hex}.zarr"
    es.create_run(url, T, item_ids=IDS, chunk_rows=16)
    es.fit(url, reference=B, keep="geometry")

    def change() -> None:
        array = zarr.open_group(url, mode="r+")[f"items/{name}"]
        array[:16] = array[:16]

    with refused(f"chunk c/0(/0)? of .*items/{name} was written anew"), within(change):
        es.fit(url, reference=es.table(B, ids=IDS))


def test_a_dataset_of_xarray_that_is_written_meanwhile(
    tmp_path: Path, runs: tuple[es.Run, es.Run], between: Any
) -> None:
    opened = xr.open_zarr(runs[0].path, group="items")
    es.stabilize(opened.vectors, tmp_path / "whole.zarr", reference=runs[1])
    for change, pattern in (
        (other_ids, "they had the digest"),
        (written_in_place, r"chunk \d had the digest"),
    ):
        with refused(pattern), between("fit: reading")(lambda change=change: change(runs[0])):
            es.stabilize(opened.vectors, tmp_path / "out.zarr", reference=runs[1])
    assert not (tmp_path / "out.zarr").exists()


def test_rows_that_are_computed_anew_must_be_equal_each_time(tmp_path: Path) -> None:
    calls = iter(range(1000))
    lazy = da.map_blocks(
        lambda block: block + next(calls), da.from_array(T, chunks=(16, 4)), dtype=float
    )
    with refused("computed anew at every read must be equal"):
        es.stabilize(lazy, tmp_path / "out.zarr", reference=B)


@pytest.mark.parametrize("kind", ["zarr 2", "sharded", "zstd"])
def test_arrays_by_strangers(tmp_path: Path, between: Any, kind: str) -> None:
    options: dict[str, Any] = {
        "zarr 2": {"zarr_format": 2, "compressors": None},
        "sharded": {"shards": (32, 4), "chunk_rows": 16},
        "zstd": {"compressors": zarr.codecs.ZstdCodec()},
    }[kind]
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, IDS)}, **options)

    def in_place() -> None:
        zarr.open_group(path, mode="r+")["items/vectors"][50:] = 1.0

    with refused("chunk"), between("apply")(in_place):
        es.stabilize(path, tmp_path / "out.zarr", reference=B)
    assert not (tmp_path / "out.zarr").exists()
