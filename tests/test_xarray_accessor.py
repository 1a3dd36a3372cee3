"""``.embstab`` of Xarray objects, and the tokens of transforms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from oracle import world

import dask_embstab as es

T, W = world(0)


def transform() -> es.Transform:
    return es.fit(T + 1.0, reference=T[:, ::-1], center=True, width=5)


def labelled(dims: tuple[str, ...] = ("item", "component")) -> xr.DataArray:
    array = xr.DataArray(
        da.from_array(T.astype(np.float32), chunks=(16, 2)),
        dims=("item", "component"),
        coords={
            "item": [f"i{n}" for n in range(60)],
            "views": ("item", np.arange(60)),
            "component": list("abcd"),
            "day": "tuesday",
        },
        attrs={"model": "two towers"},
        name="vectors",
    )
    return array.transpose(*dims)


@pytest.mark.parametrize("dims", [("item", "component"), ("component", "item")])
def test_a_lazy_array_keeps_coordinates_attributes_and_chunks(dims: tuple[str, ...]) -> None:
    given, made = labelled(dims), transform()
    moved = given.embstab.transform(made)
    assert isinstance(moved.data, da.Array)
    assert moved.dims == dims
    assert (moved.dtype, moved.attrs, moved.name) == (np.float32, given.attrs, "vectors")
    assert moved.chunksizes["item"] == (16, 16, 16, 12)
    assert set(moved.coords) == {"item", "views", "day"}
    xr.testing.assert_identical(
        moved["views"], given["views"].drop_vars("component", errors="ignore")
    )
    expected = made.transform_items(T.astype(np.float32))
    np.testing.assert_array_equal(moved.transpose("item", "component").to_numpy(), expected)
    in_memory = given.compute().embstab.transform(made)
    xr.testing.assert_identical(moved.compute(), in_memory)


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    def fails(_: Any) -> Any:
        raise AssertionError("read")

    lazy = xr.DataArray(
        da.ones((8, 4), chunks=4).map_blocks(fails, meta=np.ones((0, 0))),
        dims=["item", "component"],
    )
    assert lazy.embstab.transform(transform()).sizes == {"item": 8, "component": 5}


def test_a_dataset_keeps_its_other_variables_and_more_dimensions_are_rows() -> None:
    data = xr.Dataset({"vectors": labelled(), "clicks": ("item", np.arange(60))}, attrs={"a": 1})
    moved = data.embstab.transform(transform())
    assert moved.attrs == {"a": 1}
    assert moved.sizes == {"item": 60, "component": 5}
    xr.testing.assert_equal(moved["clicks"], data["clicks"])
    assert data.chunk(component=-1).embstab.table().row_ids.kind == "string"
    cube = xr.DataArray(np.stack([T, 2 * T]), dims=["day", "item", "component"])
    expected = transform().transform_items(2 * T)
    np.testing.assert_array_equal(cube.embstab.transform(transform())[1], expected)


def test_users_are_told_by_their_dimension_and_paths_are_transforms(tmp_path: Path) -> None:
    made = es.fit(T, W)
    made.save(tmp_path / "t.npz")
    users = xr.DataArray(W, dims=["user", "component"])
    result = users.embstab.transform(tmp_path / "t.npz")
    np.testing.assert_array_equal(result, made.transform_users(W))
    assert users.embstab.table().key == "users"
    run = es.create_run(tmp_path / "run.zarr", T, W)
    stored = run.users.to_xarray().embstab.transform(made)
    np.testing.assert_array_equal(stored["vectors"], made.transform_users(W))


def test_what_does_not_fit_is_one_error(refused: Any) -> None:
    with refused(es.InputError, "'component' must have the 4 components.*it is 3 long"):
        labelled()[:, :3].embstab.transform(transform())
    with refused(es.InputError, "'axis' must have.*not among.*name it with dim="):
        labelled().embstab.transform(transform(), dim="axis")
    with refused(es.InputError, "must have a variable vectors; it has clicks"):
        xr.Dataset({"clicks": ("item", [1])}).embstab.transform(transform())


def test_tokens_are_of_the_content(tmp_path: Path) -> None:
    made = transform()
    made.save(tmp_path / "t.npz")
    token = dask.base.tokenize(made)
    assert token == dask.base.tokenize(es.load_transform(tmp_path / "t.npz"))
    code = (
        "import sys, dask, xarray, dask_embstab as es;"
        "print(dask.base.tokenize(es.load_transform(sys.argv[1])),"
        " hasattr(xarray.DataArray, 'embstab'))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "t.npz"], capture_output=True, text=True, check=True
    )
    assert other.stdout.split() == [token, "True"], (
        "in another process too, and `.embstab` is there"
    )
    nudged = es.Transform.from_arrays(
        {**made.arrays(), "offsets": made.arrays()["offsets"] + 1e-9}, made.diagnostics
    )
    assert dask.base.tokenize(nudged) != token
    assert dask.base.tokenize(made.inverse()) != token


def test_arrays_have_names_of_the_transform_and_of_what_is_transformed() -> None:
    def name(given: xr.DataArray, made: es.Transform) -> str:
        return str(given.embstab.transform(made).data.name)

    assert name(labelled(), transform()) == name(labelled(), transform())
    assert name(labelled(), transform()) != name(labelled() + 1, transform())
    assert name(labelled(), transform()) != name(labelled(), es.fit(T, width=5))
