"""`create_run`: whole or not at all, in the place that was named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from oracle import hidden, vectors_of, world

import dask_embstab as es
from dask_embstab.tables.write import output_folder

T, W = world(7)
BROKEN = da.from_array(T, chunks=(16, -1)).map_blocks(lambda block: block[1:], dtype=T.dtype)
"""Blocks that are a row short, which is found out while they are written."""


def test_missing_folders_above_are_made(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "a" / "b" / "run.zarr", T, W)
    np.testing.assert_array_equal(vectors_of(run), T)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["run.zarr"]


def test_a_failure_leaves_none_of_them_behind(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(es.InputError):
        es.create_run(tmp_path / "kept" / "a" / "b" / "run.zarr", BROKEN)
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_a_file_among_them_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(es.InputError, match=r"a folder; .*file/a cannot be made"):
        es.create_run(tmp_path / "file" / "a" / "run.zarr", T)
    assert (tmp_path / "file").read_text() == "x"


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    es.create_run(place, T, W)
    with pytest.raises(es.OutputExistsError, match=r"; overwrite=True replaces the run there$"):
        es.create_run(place, W)
    run = es.create_run(place, es.open_run(place).items.vectors * 2, overwrite=True)
    np.testing.assert_array_equal(vectors_of(run), 2 * T)
    assert run.users is None
    assert not hidden(tmp_path)
    (tmp_path / "notes").mkdir()
    with pytest.raises(es.OutputExistsError, match="no Zarr store"):
        es.create_run(tmp_path / "notes", T, overwrite=True)


def test_what_stands_there_stays_where_the_new_one_fails(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    es.create_run(place, T, W)
    with pytest.raises(es.InputError):
        es.create_run(place, BROKEN, overwrite=True)
    np.testing.assert_array_equal(vectors_of(es.open_run(place)), T)


def test_a_store_without_renames_keeps_nothing_of_what_failed() -> None:
    store = zarr.storage.MemoryStore()
    with pytest.raises(es.InputError):
        es.create_run(store, T, BROKEN)
    assert not list(zarr.open_group(store, mode="r").keys())
    with pytest.raises(es.NotARunError, match="not finished"):
        es.open_run(store)
    np.testing.assert_array_equal(vectors_of(es.create_run(store, T)), T)
    with pytest.raises(es.OutputExistsError):
        es.create_run(store, T)


@pytest.mark.parametrize("n_bytes", [900, 60_000, 200_000])
def test_what_is_written_can_be_read(tmp_path: Path, n_bytes: int) -> None:
    """Ids beyond what readers take are refused before a run is there, and never called damage."""
    ids = [f"{i:04}".ljust(n_bytes, "x") for i in range(40)]
    place, rows = tmp_path / "a.zarr", np.random.default_rng(0).normal(size=(40, 4))
    if n_bytes < 200_000:
        made = es.create_run(place, rows, item_ids=ids, chunk_rows=16)
        assert list(np.asarray(made.items.ids)) == ids
        return
    with pytest.raises(es.IdError, match="1024 bytes on the average of a chunk"):
        es.create_run(place, rows, item_ids=ids, chunk_rows=16)
    assert not list(tmp_path.iterdir())


def test_one_long_id_among_short_ones_is_read_and_written(tmp_path: Path) -> None:
    ids = ["x" * 10_000, *map(str, range(39))]
    made = es.create_run(tmp_path / "a.zarr", np.ones((40, 4)), item_ids=ids)
    assert list(np.asarray(made.items.ids)) == ids


@pytest.mark.parametrize("compressors", [None, "auto"])
def test_a_long_id_in_a_chunk_of_its_own_is_no_damage(tmp_path: Path, compressors: Any) -> None:
    """However its writer cut the table: in a chunk of one row it is as long on the average."""
    ids = ["a", "".join(map(str, range(16_000))), "c", "é" * 3000]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: strings have no final specification yet
        items = zarr.open_group(tmp_path / "a.zarr", mode="w").create_group("items")
        rows = np.random.default_rng(0).normal(size=(4, 2))
        items.create_array("vectors", data=rows, chunks=(1, 2))
        stored = items.create_array(
            "id", shape=(4,), chunks=(1,), dtype=str, compressors=compressors
        )
        stored[:] = np.array(ids, object)
    made = es.stabilize(tmp_path / "a.zarr", tmp_path / "b.zarr", keep="geometry")
    assert list(np.asarray(made.items.ids)) == ids
    turned = es.table(rows[::-1], ids=ids[::-1])
    assert es.fit(turned, reference=made, min_matched=1).diagnostics["items"]["matched"] == 4


def test_long_ids_of_one_beginning_compress_well_and_are_no_bomb(tmp_path: Path) -> None:
    ids = np.array([f"{'https://example.org/':x<1000}{i:07}" for i in range(3000)], object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: strings have no final specification yet
        items = zarr.open_group(tmp_path / "a.zarr", mode="w").create_group("items")
        rows = np.random.default_rng(0).normal(size=(3000, 2))
        items.create_array("vectors", data=rows)
        stored = items.create_array("id", shape=(3000,), chunks=(3000,), dtype=str)
        stored[:] = ids
    assert stored.nbytes_stored() * 256 < 1000 * 3000
    assert (np.asarray(es.open_run(tmp_path / "a.zarr").items.ids) == ids).all()


def test_metadata_that_nobody_would_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests of a run stand in its metadata, a number per chunk."""
    rows = np.random.default_rng(0).normal(size=(4000, 4))
    made = es.create_run(tmp_path / "a.zarr", rows, chunk_rows=4)
    monkeypatch.setattr(output_folder, "MOST_METADATA_BYTES", 10_000)
    with pytest.raises(es.InputError, match="write its tables in larger chunks"):
        es.stabilize(made, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()
