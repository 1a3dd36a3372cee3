"""Not everything that cannot be read is damaged: access, networks, libraries and wrong places have
their own errors.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pytest
import zarr
from oracle import chunk_file, foreign_run, world

import dask_embstab as es
from dask_embstab.tables.store_errors import read_error, reading, writing

T, W = world(73)
MakeRun = Callable[..., es.Run]
Refused = Callable[..., contextlib.AbstractContextManager[None]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


# --- which error it is


class OfAClient(Exception):
    """As boto3 raises them: no OSError."""

    __module__ = "botocore.exceptions"


RAISED: dict[str, tuple[BaseException, type[Exception], str]] = {
    "permissions": (
        PermissionError(errno.EACCES, "Permission denied", "x"),
        es.AccessError,
        "readable for this user",
    ),
    "refused": (
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        es.AccessError,
        "cannot be reached.*network",
    ),
    "timeout": (TimeoutError("slow"), es.AccessError, "cannot be reached"),
    "name": (
        socket.gaierror(-2, "Name or service not known"),
        es.AccessError,
        "cannot be reached.*address",
    ),
    "client": (OfAClient("NoCredentials"), es.AccessError, "cannot be reached.*credentials"),
    "host": (OSError(errno.EHOSTUNREACH, "No route to host"), es.AccessError, "cannot be reached"),
    "stale": (OSError(errno.ESTALE, "Stale file handle"), es.AccessError, "cannot be reached"),
    "files": (OSError(errno.EMFILE, "Too many open files"), es.AccessError, "ulimit"),
    "memory": (MemoryError(), es.InputError, "memory.*smaller chunks"),
    "library": (
        ImportError("Install s3fs to access S3"),
        es.InputError,
        "library.*s3fs.*install it",
    ),
    "protocol": (ValueError("Protocol not known: foo"), es.InputError, "address.*foo"),
    "disk": (OSError(errno.EIO, "Input/output error"), es.DamageError, "restore"),
    "value": (ValueError("bad checksum"), es.DamageError, "bad checksum.*restore"),
}


@pytest.mark.parametrize("kind", RAISED)
def test_each_failure_has_its_own_error(kind: str) -> None:
    raised, error, says = RAISED[kind]
    result = read_error(raised, "the chunk x")
    assert type(result) is error
    with pytest.raises(error, match=says):
        raise result
    if error is es.AccessError:
        assert "restore" not in str(result)


@pytest.mark.parametrize("where", ["metadata", "vectors", "ids", "compressed", "weights"])
@pytest.mark.parametrize("kind", ["permissions", "client", "timeout"])
def test_a_store_that_fails_is_no_damage(
    monkeypatch: pytest.MonkeyPatch, where: str, kind: str
) -> None:
    """A store without chunk files: what it raises for one key, every verb tells as what it is."""
    raised, error, says = RAISED[kind]
    store = zarr.storage.MemoryStore()
    es.create_run(store, T, item_ids=np.arange(60), chunk_rows=16)
    numbers = zarr.create_array(store, name="weights", data=np.ones(60), chunks=(16,))
    key = {
        "metadata": "items/zarr.json",
        "vectors": "items/vectors/c/1/0",
        "ids": "items/id/c/1",
        "weights": "weights/c/1",
    }
    failing = key.get(where, "items/vectors/c/0/0")
    original = zarr.storage.MemoryStore.get

    async def get(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        if name == failing:
            raise raised
        return await original(self, name, *arguments, **options)

    if where == "metadata":
        plain = json.loads(store._store_dict["zarr.json"].to_bytes())
        del plain["consolidated_metadata"]
        store._store_dict["zarr.json"] = type(store._store_dict["zarr.json"]).from_bytes(
            json.dumps(plain).encode()
        )
    monkeypatch.setattr(zarr.storage.MemoryStore, "get", get)
    with pytest.raises(error, match=says):
        es.fit(store, reference=store, weights=numbers)


@pytest.mark.parametrize("compressors", [None, "auto"])
def test_a_chunk_that_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compressors: Any
) -> None:
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, None)}, compressors=compressors)
    original = os.open

    def refuse(file: Any, *arguments: Any, **options: Any) -> int:
        if str(file).endswith("vectors/c/1/0"):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return original(file, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(es.AccessError, match=r"vectors/c/1/0 must be readable for this user"):
        es.fit(path)


@pytest.mark.parametrize("form", ["written by this library", "compressed", "sharded"])
def test_a_folder_in_the_place_of_a_chunk(
    make_run: MakeRun, tmp_path: Path, refused: Refused, form: str
) -> None:
    if form == "written by this library":
        path = Path(make_run("in", T).path)
    else:
        options = {"shards": (16, 4), "chunk_rows": 8} if form == "sharded" else {}
        path = foreign_run(tmp_path / "in.zarr", {"items": (T, None)}, **options)
    file = chunk_file(path, "items", 1)
    file.unlink()
    file.mkdir()
    with refused(es.DamageError, "c/1/0", "restore"):
        es.fit(path)


def test_a_lazy_input_s_own_error_is_raised_as_it_is(tmp_path: Path) -> None:
    def fail(_: Any) -> Any:
        raise KeyError("my own mistake")

    broken = da.ones(60, chunks=16, dtype="int64").map_blocks(
        fail, dtype="int64", meta=np.empty(0, "int64")
    )
    with pytest.raises(KeyError, match="my own mistake"):
        es.create_run(tmp_path / "run", T, item_ids=broken)


def test_what_is_clear_already_is_raised_as_it_is() -> None:
    """An error that were its own cause would keep a cluster busy with its chain of causes
    for ever.
    """
    for block in (reading("x"), writing("x")):
        with pytest.raises(es.IdError, match="one id") as caught, block:
            raise es.IdError("one id")
        assert caught.value.__cause__ is None


# --- what this Zarr cannot read


def edited(path: Path, file: str, **changes: Any) -> Path:
    described = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(described | changes))
    return path


V3, V2 = "items/vectors/zarr.json", "items/vectors/.zarray"
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
UNSUPPORTED: dict[str, tuple[int, str, dict[str, Any], str]] = {
    "bfloat16": (3, V3, {"data_type": "bfloat16"}, "bfloat16"),
    "an unknown dtype": (
        3,
        V3,
        {"data_type": {"name": "numpy.float3", "configuration": {}}},
        "float3",
    ),
    "a codec alone": (3, V3, {"codecs": [{"name": "json2"}]}, "json2"),
    "a codec behind bytes": (3, V3, {"codecs": [BYTES, {"name": "mine"}]}, "mine"),
    "a chunk grid": (
        3,
        V3,
        {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
        "hunk grid",
    ),
    "a later format": (3, V3, {"zarr_format": 4}, "zarr_format"),
    "an extension": (3, V3, {"extra": {"must_understand": True}}, "extra"),
    "bfloat16, v2": (2, V2, {"dtype": "bfloat16"}, "bfloat16"),
    "json2, v2": (2, V2, {"compressor": {"id": "json2"}}, "json2"),
    "a filter, v2": (2, V2, {"filters": [{"id": "json2"}]}, "json2"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_what_this_zarr_does_not_know_is_no_damage(
    tmp_path: Path, out: Path, refused: Refused, kind: str
) -> None:
    version, file, changes, says = UNSUPPORTED[kind]
    path = edited(
        foreign_run(tmp_path / "in", {"items": (T, None)}, zarr_format=version), file, **changes
    )
    for call in (
        lambda: es.stabilize(path, out),
        lambda: es.fit(path / "items"),
        lambda: es.fit(T, reference=path),
    ):
        with refused(es.InputError, "data types and codecs that this Zarr knows", says, "install"):
            call()
    with pytest.raises(es.InputError) as caught:
        es.open_run(path)
    assert not isinstance(caught.value, es.DamageError)


def test_metadata_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    for number, changes in enumerate(({"shape": "abc"}, {"shape": [-8, 4]}, {"codecs": 5})):
        path = edited(foreign_run(tmp_path / str(number), {"items": (T, None)}), V3, **changes)
        with pytest.raises(es.DamageError, match=r"metadata of .* cannot be read"):
            es.open_run(path)


# --- other things than a run


DAMAGED: dict[str, tuple[bytes, str]] = {
    "vectors.h5": (b"\x89HDF\r\n\x1a\n" + bytes(32), "HDF5"),
    "vectors.parquet": (b"PAR1" + bytes(32) + b"PAR1", "Parquet"),
    "vectors.npy": (b"\x93NUMPY" + bytes(32), r"NumPy \(npy\)"),
    "vectors.npz": (b"PK\x03\x04" + bytes(32), r"NumPy \(npz\)"),
    "empty.npz": (b"", r"NumPy \(npz\)"),
    "vectors.arrow": (b"ARROW1" + bytes(32), "Arrow"),
}
NOT_READ: dict[str, tuple[bytes, str]] = {
    "vectors.nc": (b"CDF\x01" + bytes(32), "NetCDF"),
    "vectors.db": (b"SQLite format 3\0" + bytes(32), "SQLite"),
}


@pytest.mark.parametrize("name", [*DAMAGED, *NOT_READ])
def test_files_that_cannot_be_read_are_named_with_their_format(
    tmp_path: Path, out: Path, refused: Refused, name: str
) -> None:
    data, format_name = {**DAMAGED, **NOT_READ}[name]
    (tmp_path / name).write_bytes(data)
    says = (
        es.DamageError,
        rf"{name} must be a whole file in the format {format_name}; it cannot be read \(.+\)",
        "restore it from its source",
    )
    if name in NOT_READ:
        says = (
            es.NotARunError,
            rf"{name} must be a Zarr store; it is a file in the format {format_name}",
            r"write them as a run with es.create_run\(",
        )
    for call in (lambda: es.stabilize(tmp_path / name, out), lambda: es.fit(str(tmp_path / name))):
        with refused(*says):
            call()


def test_a_folder_of_parquet_files_is_named(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "part-0.parquet").write_bytes(b"PAR1")
    with refused(es.NotARunError, "day must be a Zarr store; it is a folder of Parquet files"):
        es.open_run(tmp_path / "day")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("group", ["root", "items"])
def test_arrays_without_a_group(
    tmp_path: Path, refused: Refused, group: str, zarr_format: int
) -> None:
    path = foreign_run(tmp_path / "in", {"items": (T, None)}, zarr_format=zarr_format)
    for name in ("zarr.json", ".zgroup", ".zattrs"):
        (path / ("" if group == "root" else group) / name).unlink(missing_ok=True)
    says = "in holds the array items/vectors and no group metadata above it", "require_group"
    for call in (lambda: es.open_run(path), lambda: es.fit(path)):
        with refused(es.NotARunError, *says):
            call()
    root = zarr.open_group(path, mode="a", zarr_format=zarr_format)  # what the message says
    root.require_group("items")
    assert es.open_run(path).items.n_rows == 60


def test_a_missing_group(make_run: MakeRun, refused: Refused) -> None:
    run = make_run("in", T)
    with refused(es.NotARunError, "there is nothing at .*in.zarr/itemz"):
        es.fit(f"{run.path}/itemz")
    with refused(es.InputError, "users are needed here; .*in.zarr holds only items"):
        run.table("users")


@pytest.mark.parametrize(
    "value",
    ["mine", 5, None, [1, 2], True, {"name": [1]}, {"format": "x"}, {"name": None, "model": 7}],
)
def test_foreign_attributes_of_our_name(tmp_path: Path, out: Path, value: Any) -> None:
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, None), "users": (W, None)})
    zarr.open_group(path, mode="a").attrs.put({"embstab": value})
    run = es.open_run(path)
    assert run.name == "in"
    assert es.stabilize(run, out, reference=run).name == "in"
    series = es.Series.init(tmp_path / "series")
    assert series.add(path).published


def test_a_later_format_of_ours_is_named(make_run: MakeRun, refused: Refused) -> None:
    run = make_run("in", T)
    zarr.open_group(run.path, mode="a").attrs.put({"embstab": {"format": 7, "kind": "run"}})
    with refused(es.InputError, "format 1 at most; it is of format 7", "update"):
        es.open_run(run.path)


def test_a_foreign_group_called_transform(tmp_path: Path) -> None:
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, None)})
    zarr.open_group(path, mode="a").create_group(
        "transform", attributes={"kind": "cv2"}
    ).create_array("m", data=T)
    assert es.open_run(path).transform is None


# --- addresses


def test_addresses_that_nothing_knows(refused: Refused) -> None:
    with refused(es.InputError, "address that fsspec knows", "foo"):
        es.open_run("foo://bucket/run.zarr")


@pytest.mark.parametrize(
    "place",
    [
        lambda p: p.as_uri(),
        lambda p: f"file://{p}",
        lambda p: f"file://localhost{p}",
        lambda p: f"local://{p}",
    ],
)
def test_file_urls_name_whatever_paths_name(make_run: MakeRun, tmp_path: Path, place: Any) -> None:
    run, other = (
        make_run("in", T, W),
        make_run("other one", T[::-1], W, item_ids=np.arange(60)[::-1]),
    )
    assert es.open_run(place(Path(other.path))).items.is_direct, "as quick as by its path"
    out = es.stabilize(place(Path(run.path)), place(tmp_path / "out.zarr"))
    assert (tmp_path / "out.zarr" / "zarr.json").exists()
    fitted = es.fit(place(Path(run.path)), reference=place(Path(run.path)))
    fitted.save(place(tmp_path / "t.npz"))
    for transform in (tmp_path / "t.npz", tmp_path / "out.zarr"):
        np.testing.assert_array_equal(
            es.load_transform(place(transform)).items, es.load_transform(transform).items
        )
        es.apply(
            place(transform), place(Path(run.path)), place(tmp_path / "again.zarr"), overwrite=True
        )
    for table in ("", "/items", "/items/vectors"):
        assert es.fit(place(Path(run.path)) + table).items.shape == (4, 4)
    es.moments(place(Path(run.path))).save(place(tmp_path / "m.npz"))
    assert es.TableMoments.load(place(tmp_path / "m.npz")).n_rows == 60
    assert es.evaluate(place(Path(run.path)), out.path).items is not None
    series = es.Series.init(place(tmp_path / "series"))
    assert series.add(place(Path(run.path))).published
    assert es.Series(tmp_path / "series").head() is not None
    with pytest.raises(es.InputError, match="overlap"):
        es.stabilize(place(Path(run.path)), place(Path(run.path) / "inside.zarr"))
    shutil.rmtree(tmp_path / "series")


def test_urls_of_other_stores_name_tables_and_transforms(make_run: MakeRun, tmp_path: Path) -> None:
    run, base = make_run("in", T, W), f"memory://{tmp_path.name}"
    es.stabilize(run, f"{base}/run.zarr")
    transform = es.fit(run)
    transform.save(tmp_path / "t.npz")
    with fsspec.open(f"{base}/t.npz", "wb") as file:
        file.write((tmp_path / "t.npz").read_bytes())
    for name in ("run.zarr", "t.npz"):
        np.testing.assert_array_equal(es.load_transform(f"{base}/{name}").items, transform.items)
    for table in ("", "/items", "/items/vectors"):
        assert es.fit(f"{base}/run.zarr{table}").items.shape == (4, 4)
    assert (
        es.fit(run, reference=f"{base}/run.zarr").diagnostics["reference"]["path"]
        == f"{base}/run.zarr"
    )
    with pytest.raises(es.InputError, match=r"nothing|no transform"):
        es.load_transform(f"{base}/none.npz")
    with pytest.raises(es.InputError, match="a folder or on an object store"):
        es.Series.init(f"{base}/series")
