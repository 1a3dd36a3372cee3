"""What is read and what is written: runs of ours and of others, on disk as the contract says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import crc32c
import dask.array as da
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from oracle import assert_close, chunk_file, foreign_run, vectors_of, world
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

import dask_embstab as es

T, W = world(3)
NAMES = [f"item-{i}" for i in range(60)]
NUMBERS = np.arange(90)[::-1] * 7


# --- the contract's three nouns


def test_create_run_gives_the_run_that_open_run_opens(tmp_path: Path) -> None:
    made = es.create_run(
        tmp_path / "day.zarr", T, W, item_ids=NAMES, user_ids=NUMBERS, chunk_rows=16
    )
    run = es.open_run(tmp_path / "day.zarr")
    for one in (made, run):
        assert isinstance(one, es.Run)
        assert one.attrs["embstab"] == {"format": 1, "kind": "run", "name": "day"}
        assert (one.name, one.transform) == ("day", None)
        np.testing.assert_array_equal(one.items.vectors.compute(), T)
        np.testing.assert_array_equal(one.users.vectors.compute(), W)
        assert one.items.ids.compute().tolist() == NAMES
        assert one.users.ids.compute().tolist() == NUMBERS.tolist()


def test_a_name_may_be_given(tmp_path: Path) -> None:
    assert es.create_run(tmp_path / "x.zarr", T, name="2026-01-02").name == "2026-01-02"
    assert es.open_run(tmp_path / "x.zarr").attrs["embstab"]["name"] == "2026-01-02"


@pytest.mark.parametrize("key", ["items", "users"])
def test_one_table_is_enough(tmp_path: Path, key: str) -> None:
    run = es.create_run(tmp_path / "half.zarr", **{key: T})
    assert getattr(run, key).ids is None
    assert getattr(run, {"items": "users", "users": "items"}[key]) is None


def test_a_table_knows_its_shape_and_stays_lazy(
    two_runs: tuple[es.Run, es.Run], tmp_path: Path
) -> None:
    table = two_runs[0].items
    assert (table.n_rows, table.d, table.dtype, table.chunk_rows) == (60, 4, np.float32, 16)
    assert isinstance(table.vectors, da.Array)
    assert table.vectors.chunks == ((16, 16, 16, 12), (4,))
    data = table.to_xarray()
    assert data.sizes == {"item": 60, "component": 4}
    assert data.vectors.chunks is not None
    named = es.create_run(tmp_path / "named.zarr", users=T, user_ids=NAMES).users.to_xarray()
    assert named.sizes == {"user": 60, "component": 4}
    assert named["id"].chunks is not None
    assert not named.indexes
    assert named["id"].values.tolist() == NAMES


@pytest.mark.parametrize("as_written_by", ["create_run", "stabilize"])
def test_plain_xarray_opens_a_run_without_a_warning(tmp_path: Path, as_written_by: str) -> None:
    place = tmp_path / "run.zarr"
    es.create_run(place, T, W, item_ids=NAMES, user_ids=NUMBERS, chunk_rows=16)
    if as_written_by == "stabilize":
        place = Path(es.stabilize(place, tmp_path / "out.zarr").path)
    for key, row, n in (("items", "item", 60), ("users", "user", 90)):
        data = xr.open_zarr(place, group=key)  # a warning would be an error here
        assert dict(data.sizes) == {row: n, "component": 4}
        assert data["vectors"].dims == (row, "component")
        assert data["id"].dims == (row,)
        assert data["id"].chunks is not None, "lazy"
        assert not data.indexes
        assert set(data.vectors.coords) == {"id"}, (
            "a coordinate that is no index: selected rows keep their ids"
        )
        assert not data.vectors.attrs
    assert xr.open_zarr(place, group="items")["id"].values.tolist() == NAMES


# --- inputs that others wrote


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The transformed tables of the run as this library wrote it, float64."""
    folder = tmp_path_factory.mktemp("expected")
    es.create_run(folder / "plain.zarr", T, W, item_ids=NAMES, user_ids=NUMBERS, chunk_rows=16)
    run = es.stabilize(folder / "plain.zarr", folder / "out.zarr")
    return vectors_of(run), vectors_of(run, "users")


V2, V3 = {"zarr_format": 2}, {"zarr_format": 3}
STORED = {
    "v3-default": V3,
    "v3-none": {**V3, "compressors": None},
    "v3-zstd": {**V3, "compressors": ZstdCodec(level=1)},
    "v3-blosc": {**V3, "compressors": BloscCodec(cname="lz4")},
    "v3-gzip": {**V3, "compressors": GzipCodec()},
    "v3-sharded": {**V3, "chunk_rows": 8, "shards": (24, 4)},
    "v3-sharded-none": {**V3, "chunk_rows": 8, "shards": (16, 4), "compressors": None},
    "v3-big-endian": {**V3, "serializer": BytesCodec(endian="big")},
    "v2-default": V2,
    "v2-none": {**V2, "compressors": None},
    "v2-zstd": {**V2, "compressors": numcodecs.Zstd()},
    "v2-blosc": {**V2, "compressors": numcodecs.Blosc()},
    "v2-gzip": {**V2, "compressors": numcodecs.GZip()},
    "v2-big-endian": {**V2, "dtype": ">f8"},
    "v2-fortran": {**V2, "order": "F"},
    "one-chunk": {**V3, "chunk_rows": 1000},
    "chunks-of-7": {**V3, "chunk_rows": 7},
}


@pytest.mark.parametrize("form", STORED)
def test_any_full_width_array_is_read_as_it_is(
    tmp_path: Path, form: str, expected: tuple[Any, Any]
) -> None:
    path = foreign_run(
        tmp_path / "other.zarr", {"items": (T, NAMES), "users": (W, NUMBERS)}, **STORED[form]
    )
    run = es.open_run(path)
    np.testing.assert_array_equal(run.items.vectors.compute(), T)
    assert run.items.ids.compute().tolist() == NAMES
    transformed = es.stabilize(path, tmp_path / "out.zarr")
    assert_close(vectors_of(transformed), expected[0], 1e-12)
    assert_close(vectors_of(transformed, "users"), expected[1], 1e-12)
    assert transformed.items.ids.compute().tolist() == NAMES
    assert transformed.users.ids.compute().tolist() == NUMBERS.tolist()
    assert transformed.items.chunk_rows == min(run.items.chunk_rows, 60)
    assert transformed.items.dtype == np.float64
    assert transformed.items.dtype.isnative


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8"])
def test_any_float_width_keeps_its_own(tmp_path: Path, dtype: str) -> None:
    path = foreign_run(
        tmp_path / "in.zarr", {"items": (T, None), "users": (W, None)}, zarr_format=2, dtype=dtype
    )
    transformed = es.stabilize(path, tmp_path / "out.zarr")
    kept = np.dtype(dtype).newbyteorder("=")
    assert (transformed.items.dtype, transformed.users.dtype) == (kept, kept)
    assert transformed.items.ids is None
    tolerance = 16 * np.finfo(kept).eps
    assert_close(
        vectors_of(transformed).astype(float) @ vectors_of(transformed, "users").astype(float).T,
        T @ W.T,
        tolerance,
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_changes_the_output(
    two_runs: tuple[es.Run, es.Run], tmp_path: Path, dtype: str
) -> None:
    transformed = es.stabilize(two_runs[0], tmp_path / "out.zarr", dtype=dtype)
    assert (transformed.items.dtype, transformed.users.dtype) == (np.dtype(dtype), np.dtype(dtype))


@pytest.mark.parametrize("kind", ["U7", "S7", "int32", "uint16"])
def test_ids_of_fixed_width_are_read_as_text_or_int64(tmp_path: Path, kind: str) -> None:
    values = np.array([str(i * 3) for i in range(60)]).astype(kind)
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, None)}, zarr_format=2)
    zarr.open_group(path, mode="a")["items"].create_array("id", data=values, chunks=(16,))
    transformed = es.stabilize(path, tmp_path / "out.zarr").items
    assert transformed.ids.compute().tolist() == [
        i * 3 if kind[0] in "iu" else str(i * 3) for i in range(60)
    ]


def test_a_table_may_be_anything_that_holds_rows(
    two_runs: tuple[es.Run, es.Run], tmp_path: Path
) -> None:
    run = two_runs[0]
    items, users = vectors_of(run), vectors_of(run, "users")
    np.save(tmp_path / "items.npy", items)
    node = zarr.open_group(run.path, mode="r")
    given = {
        "run": (run, None),
        "path of a run": (run.path, None),
        "paths of groups": (f"{run.path}/items", f"{run.path}/users"),
        "path of an array": (f"{run.path}/items/vectors", users),
        "Table": (run.items, run.users),
        "zarr.Array": (node["items/vectors"], node["users/vectors"]),
        "DataArray": (run.items.to_xarray().vectors, xr.open_zarr(run.path, group="users").vectors),
        "lazy DataArray": (xr.open_zarr(run.path, group="items", chunks=None).vectors, users),
        "Dask": (da.from_array(items, chunks=(13, 4)), da.from_array(users, chunks=(50, 4))),
        "NumPy": (items, users),
        "memory map": (np.load(tmp_path / "items.npy", mmap_mode="r"), users),
        "lists": (items.tolist(), users.tolist()),
    }
    wanted = es.fit(items, users)
    for pair in given.values():
        fitted = es.fit(*pair)
        assert_close(fitted.items, wanted.items, 1e-10)
        assert_close(fitted.users, wanted.users, 1e-10)


def test_a_dask_array_is_written_as_a_run(tmp_path: Path) -> None:
    ids = da.from_array(np.arange(60) * 5, chunks=11)
    run = es.create_run(
        tmp_path / "a.zarr", da.from_array(T, chunks=(13, 4)), item_ids=ids, chunk_rows=10
    )
    np.testing.assert_array_equal(vectors_of(run), T)
    assert run.items.ids.compute().tolist() == (np.arange(60) * 5).tolist()
    assert run.items.chunk_rows == 10


# --- outputs


def stored(run: es.Run, array: str) -> dict[str, Any]:
    return dict(json.loads((Path(run.path) / array / "zarr.json").read_text()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_outputs_are_plain_checked_and_whole(tmp_path: Path, dtype: str) -> None:
    rows = T.astype(dtype)
    rows[16:32] = 0  # a chunk of zeros is stored like any other
    es.create_run(tmp_path / "in.zarr", rows, W.astype(dtype), item_ids=NUMBERS[:60], chunk_rows=16)
    run = es.stabilize(tmp_path / "in.zarr", tmp_path / "out.zarr")
    for one in (es.open_run(tmp_path / "in.zarr"), run):
        meta = stored(one, "items/vectors")
        assert [codec["name"] for codec in meta["codecs"]] == ["bytes", "crc32c"]
        assert (meta["fill_value"], meta["data_type"]) == ("NaN", dtype)
        assert meta["dimension_names"] == ["item", "component"]
        assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [16, 4]
        assert stored(one, "users/vectors")["dimension_names"] == ["user", "component"]
        assert stored(one, "items/id")["dimension_names"] == ["item"]
        assert stored(one, "items/id")["chunk_grid"]["configuration"]["chunk_shape"] == [16]
        assert (
            json.loads((Path(one.path) / "zarr.json").read_text())["consolidated_metadata"]
            is not None
        )
        for chunk in range(4):
            data = chunk_file(one.path, "items", chunk).read_bytes()
            assert len(data) == 16 * 4 * rows.itemsize + 4
            assert struct.unpack("<I", data[-4:])[0] == crc32c.crc32c(data[:-4])
            assert chunk_file(one.path, "items", chunk, "id").exists()
        assert len(list((Path(one.path) / "items/vectors/c").rglob("*"))) == 8, (
            "4 chunks and nothing else"
        )
    assert not vectors_of(run)[16:32].any()


def test_a_chunk_of_id_zero_is_stored(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "a.zarr", T, item_ids=np.arange(60), chunk_rows=1)
    assert chunk_file(run.path, "items", 0, "id").exists()


def test_default_chunks_are_near_64_mib(tmp_path: Path) -> None:
    assert es.create_run(tmp_path / "a.zarr", T).items.chunk_rows == 60
    wide = da.ones((40_000, 1024), dtype="float16", chunks=(40_000, 1024))
    assert es.create_run(tmp_path / "b.zarr", wide).items.chunk_rows * 1024 * 2 == 64 * 2**20


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("kind", ["Dask", "Zarr", "NumPy"])
@pytest.mark.parametrize(("rows_in", "rows_out"), [(13, 16), (16, 13), (7, 60), (60, 7), (16, 32)])
def test_a_run_is_cut_as_asked_whatever_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rows_in: int, rows_out: int
) -> None:
    monkeypatch.setattr("dask_embstab.tables.read.source.DEFAULT_CHUNK_BYTES", rows_in * 4 * 8)
    given = {
        "Dask": lambda: da.from_array(T, chunks=(rows_in, 4)),
        "Zarr": lambda: zarr.create_array(tmp_path / "in.zarr", data=T, chunks=(rows_in, 4)),
        "NumPy": lambda: T,
    }[kind]()
    run = es.create_run(tmp_path / "run.zarr", given, item_ids=NAMES, chunk_rows=rows_out)
    assert run.items.chunk_rows == rows_out
    np.testing.assert_array_equal(vectors_of(run), T)
    assert run.items.ids.compute().tolist() == NAMES


def test_the_transform_group_says_everything(
    two_runs: tuple[es.Run, es.Run], tmp_path: Path
) -> None:
    first, second = two_runs
    reference = es.stabilize(first, tmp_path / "transformed-first.zarr")
    transform = es.fit(second, reference=reference)
    run = es.apply(transform, second, tmp_path / "out.zarr")
    group = zarr.open_group(run.path, mode="r")["transform"]
    assert sorted(group.array_keys()) == ["items", "singular_values", "users"]
    for name in ("items", "users"):
        np.testing.assert_array_equal(group[name][...], getattr(transform, name))
        assert stored(run, f"transform/{name}")["dimension_names"] == ["component_in", "component"]
    attributes = dict(group.attrs)
    assert "row vectors" in attributes["direction"]
    assert attributes["run"] == {"path": second.path, "name": "second"}
    assert (attributes["reference"]["path"], attributes["reference"]["name"]) == (
        reference.path,
        "first",
    )
    assert (attributes["method"], attributes["keep"]) == ("gram", "scores")
    assert {"dask_embstab", "numpy", "scipy", "zarr", "dask", "xarray"} <= set(
        attributes["versions"]
    )
    assert attributes["diagnostics"] == json.loads(json.dumps(transform.diagnostics))
    for key in ("items", "users"):
        n = 4 if key == "items" else 6
        chunks = [chunk_file(second.path, key, chunk).read_bytes() for chunk in range(n)]
        digests = [crc32c.crc32c(data[:-4]) for data in chunks]
        assert digests == [struct.unpack("<I", data[-4:])[0] for data in chunks]
        assert attributes["digests"][key] == digests
        assert attributes["diagnostics"][key]["digests"] == digests
    assert run.transform is not None
    np.testing.assert_array_equal(run.transform.items, transform.items)
    assert run.transform.diagnostics == attributes["diagnostics"]
    assert run.attrs["embstab"]["kind"] == "run"


def test_a_centred_fit_stores_its_offset(two_runs: tuple[es.Run, es.Run], tmp_path: Path) -> None:
    first, second = two_runs
    run = es.stabilize(second, tmp_path / "out.zarr", reference=first, keep="geometry", center=True)
    offsets = zarr.open_group(run.path, mode="r")["transform/offsets"][...]
    assert run.transform is not None
    assert_close(
        vectors_of(run), vectors_of(second).astype(float) @ run.transform.items + offsets, 1e-6
    )
    assert_close(vectors_of(run).mean(axis=0), vectors_of(first).mean(axis=0), 1e-6)
