"""Attributes by which xarray makes other values of the stored ones mean the same by path and as a
DataArray.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from oracle import vectors_of, world

import dask_embstab as es
from dask_embstab.tables.read.direct_source import DirectSource

pytestmark = pytest.mark.filterwarnings("ignore:.*decode_timedelta:FutureWarning")
T, W = world(75)
IDS = np.arange(60) + 1
FORMATS = [2, 3]
Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A run as xarray writes it, with this encoding and these attributes of vectors and ids."""

    def write(zarr_format: int, vectors: Any = T, ids: Any = IDS, **more: Any) -> Path:
        place = tmp_path / "in.zarr"
        data = xr.Dataset({"vectors": (("item", "component"), vectors), "id": (("item",), ids)})
        for name, attributes in more.pop("attributes", {}).items():
            data[name].attrs.update(attributes)
        encoding = {"vectors": {"chunks": (16, 4)}, "id": {"chunks": (16,)}}
        for name, values in more.pop("encoding", {}).items():
            encoding[name].update(values)
        data.to_zarr(
            place, group="items", zarr_format=zarr_format, encoding=encoding, consolidated=False
        )
        zarr.open_group(place, mode="a", zarr_format=zarr_format)
        return place

    return write


def opened(place: Path, name: str, **options: Any) -> Any:
    return xr.open_zarr(place, group="items", consolidated=False, **options)[name]


def results(calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each way of giving the same array ends in: its figures, or the kind of its error."""
    seen = {}
    for name, call in calls.items():
        try:
            seen[name] = call()
        except es.EmbstabError as error:
            seen[name] = type(error)
    return seen


PACKED: dict[str, dict[str, Any]] = {
    "scaled integers": {
        "dtype": "int16",
        "scale_factor": 0.001,
        "add_offset": 0.5,
        "_FillValue": -32768,
    },
    "scaled floats": {"dtype": "float32", "scale_factor": 0.5},
    "an offset": {"dtype": "float64", "add_offset": 3.0},
    "a fill value": {"_FillValue": -9999.0},
    "a missing value": {"missing_value": -1.5},
}


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("kind", PACKED)
def test_packed_vectors_are_those_that_xarray_shows(
    written: Written, tmp_path: Path, zarr_format: int, kind: str
) -> None:
    place = written(zarr_format, encoding={"vectors": PACKED[kind]})
    shown = opened(place, "vectors")
    by_path = es.create_run(tmp_path / "a.zarr", place / "items/vectors", chunk_rows=16)
    as_array = es.create_run(tmp_path / "b.zarr", shown, chunk_rows=16)
    undecoded = opened(place, "vectors", decode_cf=False)
    again = es.create_run(tmp_path / "c.zarr", undecoded, chunk_rows=16)
    for run in (by_path, as_array, again):
        np.testing.assert_array_equal(vectors_of(run), shown.values)
        assert run.items.dtype == shown.dtype
    np.testing.assert_allclose(vectors_of(by_path), T, atol=1e-3)
    assert es.open_run(place).items.vectors.compute().tolist() == shown.values.tolist()
    fits = results(
        {
            "path": lambda: es.fit(place),
            "array": lambda: es.fit(shown.assign_coords(id=("item", IDS))),
        }
    )
    np.testing.assert_array_equal(fits["path"].items, fits["array"].items)


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
def test_rows_with_a_fill_value_are_missing(written: Written, zarr_format: int, name: str) -> None:
    vectors = T.copy()
    vectors[[17, 40], 2] = np.nan
    place = written(zarr_format, vectors, encoding={"vectors": {name: -9999.0}})
    assert -9999.0 in np.asarray(zarr.open_array(place / "items/vectors", mode="r"))
    for given in (
        place,
        place / "items/vectors",
        opened(place, "vectors"),
        opened(place, "vectors", decode_cf=False),
    ):
        with pytest.raises(es.NotFiniteError, match=r"row (17|40)"):
            es.fit(given)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_attributes_that_change_nothing_leave_the_array_as_it_is(
    written: Written, zarr_format: int
) -> None:
    plain = {"units": "1", "long_name": "vectors", "valid_min": -5.0}
    encoding = {"_FillValue": np.nan, "scale_factor": 1.0, "add_offset": 0.0, "compressors": None}
    encoding = encoding if zarr_format == 3 else {"_FillValue": np.nan, "compressors": None}
    place = written(
        zarr_format,
        attributes={"vectors": plain, "id": {"units": "1"}},
        encoding={"vectors": encoding},
    )
    run = es.open_run(place)
    assert isinstance(run.items.source, DirectSource), "read without Zarr, as before"
    np.testing.assert_array_equal(vectors_of(run), T)
    assert run.items.ids.compute().tolist() == IDS.tolist()


OF_IDS: dict[str, dict[str, Any]] = {
    "a fill value": {"_FillValue": -1},
    "a missing value": {"missing_value": -1},
    "a scale with a fraction": {"scale_factor": 0.5},
    "dates": {"units": "days since 1970-01-01"},
    "durations": {"units": "seconds", "dtype": "timedelta64[ns]"},
    "truth values": {"dtype": "bool"},
}


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("kind", OF_IDS)
def test_ids_that_are_none_to_xarray_are_refused(
    written: Written, tmp_path: Path, zarr_format: int, kind: str
) -> None:
    place = written(zarr_format)
    zarr.open_array(place / "items/id", mode="a").attrs.update(OF_IDS[kind])
    out, name = tmp_path / "out.zarr", next(iter(OF_IDS[kind]))
    with pytest.raises(
        es.IdError, match=rf"ids of .*in\.zarr/items must be integers or strings; .*{name}"
    ):
        es.stabilize(place, out)
    stored, coded = (
        zarr.open_array(place / "items/id", mode="r"),
        opened(place, "id", decode_cf=False),
    )
    for ids, says in ((stored, name), (coded, None), (opened(place, "id"), None)):
        with pytest.raises(es.IdError, match=says):
            es.create_run(out, T, item_ids=ids)
    with pytest.raises(es.IdError):
        es.fit(opened(place, "vectors").assign_coords(id=opened(place, "id")), reference=T)
    assert not out.exists()


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize(
    "attributes",
    [{"scale_factor": 10}, {"add_offset": 1000}, {"_Unsigned": "true"}, {"units": "days"}],
    ids=str,
)
def test_ids_that_xarray_decodes_are_what_it_shows(
    written: Written, tmp_path: Path, zarr_format: int, attributes: dict[str, Any]
) -> None:
    place = written(zarr_format)
    zarr.open_array(place / "items/id", mode="a").attrs.update(attributes)
    shown, out = opened(place, "id"), tmp_path / "out.zarr"
    stored, coded = (
        zarr.open_array(place / "items/id", mode="r"),
        opened(place, "id", decode_cf=False),
    )
    result = results(
        {str(i): partial(ids_of, ids, out / str(i)) for i, ids in enumerate((shown, stored, coded))}
    )
    result["run"] = results({"run": lambda: es.open_run(place).items.ids.compute().tolist()})["run"]
    expected = shown.values.tolist() if shown.dtype.kind in "iu" else es.IdError
    assert list(result.values()) == [expected] * 4


def ids_of(ids: Any, out: Path) -> Any:
    return es.create_run(out, T, item_ids=ids).items.ids.compute().tolist()


def test_the_fill_value_of_version_2_is_a_missing_value_where_xarray_wrote_it(
    written: Written, tmp_path: Path
) -> None:
    """As xarray reads it; zero is Zarr's own, of a chunk of nothing else, and a row of zeros is
    one.
    """
    place = written(2, encoding={"id": {"_FillValue": -5}})
    with pytest.raises(es.IdError, match="_FillValue"):
        es.open_run(place)
    zeros = T.copy()
    zeros[3] = 0
    other = tmp_path / "other.zarr"
    group = zarr.open_group(other, mode="w", zarr_format=2).create_group("items")
    array = group.create_array("vectors", shape=T.shape, dtype="f8", chunks=(16, 4), fill_value=0.0)
    array[...] = zeros
    array.attrs["_ARRAY_DIMENSIONS"] = ["item", "component"]
    np.testing.assert_array_equal(vectors_of(es.open_run(other)), zeros)


@pytest.mark.parametrize("which", ["weights", "counts"])
def test_packed_weights_and_counts_are_those_that_xarray_shows(tmp_path: Path, which: str) -> None:
    values = np.arange(60) % 7 + 1.0
    place = tmp_path / "numbers.zarr"
    data = xr.Dataset({which: ("item", values)})
    data.to_zarr(
        place,
        encoding={which: {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}},
        consolidated=False,
    )
    more = {"min_count": 4} if which == "counts" else {}
    shown = xr.open_zarr(place, consolidated=False)[which]
    stored = zarr.open_array(place / which, mode="r")
    fits = [
        es.fit(T, reference=T[:, ::-1], **{which: given}, **more)
        for given in (values, shown, stored)
    ]  # type: ignore[arg-type]
    for fitted in fits[1:]:
        np.testing.assert_array_equal(fitted.items, fits[0].items)


@pytest.mark.parametrize(
    "attributes", [{"_FillValue": [1, 2]}, {"missing_value": {"a": 1}}, {"units": "days since x"}]
)
def test_attributes_that_xarray_cannot_decode(written: Written, attributes: dict[str, Any]) -> None:
    place = written(3)
    zarr.open_array(place / "items/vectors", mode="a").attrs.update(attributes)
    with pytest.raises(
        es.InputError,
        match=rf"vectors.* must have attributes that xarray can decode.*{next(iter(attributes))}",
    ):
        es.fit(place / "items/vectors").items  # noqa: B018
