"""Labels are ids: whatever an object calls its rows by decides which rows meet, never their
places.
"""

from __future__ import annotations

import contextlib
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from oracle import align, assert_close, foreign_run, vectors_of, world
from zarr.codecs import GzipCodec

import dask_embstab as es

T, W = world(81)
B = T @ np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0] + 0.05 * world(82)[0]
ORDER = np.random.default_rng(3).permutation(60)
NAMES = np.array([f"item-{i:02d}" for i in range(60)])
MakeRun = Callable[..., es.Run]
Refused = Callable[..., contextlib.AbstractContextManager[None]]
RAGGED = [row.tolist() for row in T[ORDER]]


def frame(library: str, columns: dict[str, Any]) -> Any:
    module = pytest.importorskip(library)
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)


def components(**first: Any) -> dict[str, Any]:
    return {**first, **{f"c{k}": T[ORDER][:, k].copy() for k in range(4)}}


def array(*dims: str, chunks: Any = None, **coords: Any) -> xr.DataArray:
    turned = dims[0] == "component" or dims[1] == "film"
    rows = T[ORDER].T if turned else T[ORDER]
    data = rows if chunks is None else da.from_array(rows, chunks=chunks)
    return xr.DataArray(data, dims=dims, coords=coords)


LABELLED: dict[str, Callable[[], Any]] = {
    "pandas index": lambda: pd.DataFrame(T[ORDER], index=NAMES[ORDER]),
    "pandas id column": lambda: frame("pandas", components(id=NAMES[ORDER])),
    "pandas item_id column": lambda: frame("pandas", components(item_id=NAMES[ORDER])),
    "pandas filtered, with an id column": lambda: frame("pandas", components(id=NAMES[ORDER]))[
        lambda x: x.c0 < 9
    ],
    "pandas lists": lambda: pd.DataFrame({"vector": RAGGED}, index=NAMES[ORDER]),
    "pandas Series of lists": lambda: pd.Series(RAGGED, index=NAMES[ORDER]),
    "pandas categorical index": lambda: pd.DataFrame(
        T[ORDER], index=pd.CategoricalIndex(NAMES[ORDER])
    ),
    "pandas nullable floats": lambda: pd.DataFrame(T[ORDER], index=NAMES[ORDER], dtype="Float64"),
    "polars id column": lambda: frame("polars", components(id=NAMES[ORDER])),
    "polars lists": lambda: frame("polars", {"item": NAMES[ORDER], "embedding": RAGGED}),
    "polars arrays": lambda: frame("polars", {"id": NAMES[ORDER], "embedding": T[ORDER]}),
    "Arrow id column": lambda: frame("pyarrow", components(id=NAMES[ORDER])),
    "Arrow lists": lambda: frame("pyarrow", {"id": NAMES[ORDER], "vector": RAGGED}).slice(0, 60),
    "xarray index": lambda: array("item", "component", item=NAMES[ORDER]),
    "xarray index of another name": lambda: array("film", "factor", film=NAMES[ORDER]),
    "xarray coordinate": lambda: array("item", "component", id=("item", NAMES[ORDER])),
    "xarray id beats an index": lambda: array(
        "item", "component", item=np.arange(60), id=("item", NAMES[ORDER])
    ),
    "xarray turned": lambda: array("component", "item", item=NAMES[ORDER]),
    "xarray turned, by its id": lambda: array("item", "film", id=("film", NAMES[ORDER])),
    "xarray turned and lazy": lambda: array("component", "item", chunks=(4, 16), item=NAMES[ORDER]),
    "xarray Dataset": lambda: xr.Dataset(
        {"vectors": (("item", "component"), T[ORDER]), "id": ("item", NAMES[ORDER])}
    ),
}


@pytest.fixture
def reference(make_run: MakeRun) -> es.Run:
    return make_run("reference", B, item_ids=NAMES)


@pytest.mark.parametrize("form", LABELLED)
def test_rows_meet_by_their_labels(reference: es.Run, tmp_path: Path, form: str) -> None:
    given = LABELLED[form]()
    wanted = align(T, W, B)[0]
    fitted = es.fit(given, W, reference=reference)
    assert_close(T @ fitted.items, wanted, 1e-8)
    assert fitted.diagnostics["items"]["matched"] == 60
    run = es.create_run(tmp_path / "out.zarr", given)
    assert run.items.ids.compute().tolist() == NAMES[ORDER].tolist()
    np.testing.assert_array_equal(vectors_of(run), T[ORDER])


def test_labels_of_a_selection_are_ids() -> None:
    """Rows that were selected, sorted or dropped keep the numbers they had, whatever their order
    now.
    """
    whole = pd.DataFrame(T)
    for part in (whole.sample(40, random_state=1), whole[20:50], whole.drop(index=[3, 30])):
        fitted = es.fit(part, W, reference=B)
        rows = part.index.to_numpy()
        assert_close(part.to_numpy() @ fitted.items, align(T[rows], W, B[rows])[0], 1e-8)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "xarray"])
def test_rows_without_labels_have_no_ids(tmp_path: Path, library: str) -> None:
    given = xr.DataArray(pd.DataFrame(T)) if library == "xarray" else frame(library, components())
    assert es.create_run(tmp_path / "out.zarr", given).items.ids is None


def test_given_ids_come_before_labels(tmp_path: Path) -> None:
    given = pd.DataFrame(T, index=NAMES[ORDER])
    assert (
        es.create_run(tmp_path / "out.zarr", given, item_ids=NAMES).items.ids.compute().tolist()
        == NAMES.tolist()
    )


def test_given_ids_meet_labelled_rows_by_label(tmp_path: Path, refused: Refused) -> None:
    rows = pd.DataFrame(T, index=range(100, 160))
    ids = pd.Series(NAMES, index=range(100, 160))
    shuffled = ids.sample(frac=1, random_state=0)
    for given in (
        ids,
        shuffled,
        xr.DataArray(shuffled.to_numpy(), dims="i", coords={"i": shuffled.index}),
    ):
        assert es.table(rows, ids=given).ids.compute().tolist() == NAMES.tolist()
    assert es.table(T, ids=shuffled).ids.compute().tolist() == shuffled.tolist(), (
        "rows that have no labels"
    )
    with refused(es.InputError, "matched by their labels", "100 in row 0 have none"):
        es.create_run(tmp_path / "out.zarr", rows, item_ids=ids[1:])


# --- what is no table


def test_columns_that_are_neither_ids_nor_components(tmp_path: Path, refused: Refused) -> None:
    for library in ("pandas", "polars", "pyarrow"):
        with refused(
            es.InputError, "price .*int64", "float16, float32 or float64", "leave them out"
        ):
            es.create_run(tmp_path / "out.zarr", frame(library, components(price=np.arange(60))))
    with refused(es.InputError, "one length", "4 values in row 0 and 3 in row 7"):
        es.create_run(
            tmp_path / "out.zarr", pd.Series([*RAGGED[:7], RAGGED[7][:3], *RAGGED[8:]], index=NAMES)
        )
    with refused(es.InputError, "row 5"):
        es.create_run(
            tmp_path / "out.zarr",
            frame("polars", {"id": NAMES, "v": [*RAGGED[:5], None, *RAGGED[6:]]}),
        )
    with refused(es.IdError, "int64 or strings", "row 0"):
        es.create_run(
            tmp_path / "out.zarr",
            pd.DataFrame(T, index=pd.MultiIndex.from_product([range(6), range(10)])),
        )
    with refused(es.IdError, "row 2"):
        es.create_run(tmp_path / "out.zarr", pd.DataFrame(T, index=[0, 1, np.nan, *range(3, 60)]))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_stored_array_of_columns_is_refused(
    tmp_path: Path, refused: Refused, zarr_format: Any
) -> None:
    group = zarr.open_group(tmp_path / "in.zarr", mode="w", zarr_format=zarr_format)
    names = ("component", "item")
    options: Any = (
        {"dimension_names": names}
        if zarr_format == 3
        else {"attributes": {"_ARRAY_DIMENSIONS": names}}
    )
    stored = group.create_array("items/vectors", data=T.T.copy(), **options)
    for given in (tmp_path / "in.zarr", stored):
        with refused(es.InputError, r"axes \(row, component\)", r"\(component, item\)", "turn it"):
            es.fit(given, W)


# --- stored runs


def test_ids_are_kept_through_xarray(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("in", T[ORDER], W, item_ids=NAMES[ORDER])
    reference = make_run("reference", B, item_ids=NAMES)
    stabilized = es.stabilize(run, tmp_path / "out.zarr", reference=reference)
    for group in (es.open_run(run.path), stabilized):
        for chunks in ({}, None):
            opened = xr.open_zarr(group.path, group="items", chunks=chunks).vectors
            for rows in (opened, opened[::-1], opened.isel(item=ORDER), opened[5:40]):
                fitted = es.fit(rows, reference=reference, keep="geometry")
                assert fitted.diagnostics["items"]["matched"] == len(rows)
                same = es.fit(group, reference=reference, keep="geometry")
                if len(rows) == 60:
                    assert_close(fitted.items, same.items, 1e-9)
    assert (
        es.fit(run.items.to_xarray().vectors[::-1], reference=reference).diagnostics["items"][
            "matched"
        ]
        == 60
    )


@pytest.mark.parametrize("given", ["array", "path", "root"])
def test_vectors_alone_keep_the_ids_next_to_them(
    make_run: MakeRun, reference: es.Run, given: str
) -> None:
    run = make_run("in", T[ORDER], W, item_ids=NAMES[ORDER])
    path = Path(run.path) / "items" / "vectors"
    table = {
        "array": lambda: zarr.open_group(run.path)["items/vectors"],
        "path": lambda: path,
        "root": lambda: zarr.open_array(path, mode="r"),
    }[given]()
    assert_close(T @ es.fit(table, W, reference=reference).items, align(T, W, B)[0], 1e-8)


def test_a_run_without_ids_never_meets_a_reference_that_stores_some(
    make_run: MakeRun, reference: es.Run, tmp_path: Path, refused: Refused
) -> None:
    run = make_run("in", T, W)
    for call in (
        lambda: es.fit(run, reference=reference),
        lambda: es.fit(T, W, reference=reference),
        lambda: es.stabilize(run, tmp_path / "out.zarr", reference=reference),
        lambda: es.moments(T, reference=reference),
        lambda: es.evaluate(run, reference),
    ):
        with refused(
            es.IdError,
            "reference.zarr/items stores ids",
            "(in.zarr/items|items array) has none",
            "item_ids=",
        ):
            call()
    series = es.Series.init(tmp_path / "series", keep="geometry")
    series.add(reference)
    alone = make_run("alone", T)
    with pytest.raises(es.IdError, match="item_ids="):
        series.add(alone if reference.users is None else run)


# --- a run that was changed since it was written


def appended(path: str, *, ids: Any = None, more: Any = B[:20]) -> None:
    group = zarr.open_group(path, mode="r+")
    group["items/vectors"].append(more)
    if ids is not None:
        group["items/id"].append(ids)


def test_rows_that_were_appended_are_seen(
    make_run: MakeRun, reference: es.Run, refused: Refused
) -> None:
    run = make_run("in", T, W, item_ids=NAMES)
    appended(run.path, ids=np.array([f"new-{i}" for i in range(20)]))
    for place in (run.path, f"file://{run.path}", zarr.open_group(run.path)):
        opened = es.open_run(place)
        assert (opened.items.n_rows, len(opened.items.ids)) == (80, 80)
        assert es.fit(place, reference=reference).diagnostics["items"]["new"] == 20
    short = make_run("short", T, W, item_ids=NAMES)
    appended(short.path)
    with refused(es.IdError, r"one id per row, \(80,\)", r"\(60,\)"):
        es.open_run(short.path)


def test_ids_that_were_added_are_seen(make_run: MakeRun, reference: es.Run) -> None:
    run = make_run("in", T[ORDER], W)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strings have no final specification yet
        ids = zarr.open_group(run.path, mode="r+").create_array(
            "items/id", shape=60, chunks=16, dtype=str
        )
        ids[...] = NAMES[ORDER]
    assert_close(T @ es.fit(run.path, reference=reference).items, align(T, W, B)[0], 1e-8)


# --- weights, counts and a bias


SERIES: dict[str, Callable[[Any], Any]] = {
    "pandas": lambda values: pd.Series(values[ORDER], index=NAMES[ORDER]),
    "pandas, of more items": lambda values: pd.Series(
        [*values[ORDER], 7.0], index=[*NAMES[ORDER], "another"]
    ),
    "pandas Float64": lambda values: pd.Series(values[ORDER], index=NAMES[ORDER], dtype="Float64"),
    "xarray": lambda values: xr.DataArray(
        values[ORDER], dims="item", coords={"item": NAMES[ORDER]}
    ),
    "xarray, lazy": lambda values: xr.DataArray(
        da.from_array(values[ORDER], chunks=16), dims="item", coords={"id": ("item", NAMES[ORDER])}
    ),
    "in the table's order": lambda values: pd.Series(values, index=NAMES),
    "without labels": lambda values: pd.Series(values),
    "NumPy": lambda values: values,
}


@pytest.mark.parametrize("form", SERIES)
def test_weights_and_counts_meet_rows_by_label(
    make_run: MakeRun, reference: es.Run, form: str
) -> None:
    run = make_run("in", T, W, item_ids=NAMES)
    values = np.random.default_rng(5).random(60) + 0.01
    for options in (lambda x: {"weights": x}, lambda x: {"counts": x, "min_count": 0.5}):
        wanted = es.fit(run, reference=reference, **options(values))
        fitted = es.fit(run, reference=reference, **options(SERIES[form](values)))
        np.testing.assert_array_equal(fitted.items, wanted.items)


def test_a_bias_and_only_meet_rows_by_label(reference: es.Run) -> None:
    bias = np.random.default_rng(5).normal(size=60)
    folded = [
        es.fold_bias(pd.DataFrame(T, index=NAMES), W, SERIES[options](bias))
        for options in ("pandas", "NumPy")
    ]
    rows = [np.asarray(table.source.block(0, 60).open().take(0, 60)) for table, _ in folded]
    np.testing.assert_array_equal(*rows)
    only = pd.Series(NAMES[ORDER][:30], index=range(100, 130))
    given = pd.DataFrame(T, index=NAMES)
    wanted = es.fit(given, W, reference=reference, only=NAMES[ORDER][:30].tolist())
    np.testing.assert_array_equal(
        es.fit(given, W, reference=reference, only=only).items, wanted.items
    )


def test_labels_that_do_not_fit_the_table_are_refused(
    reference: es.Run, make_run: MakeRun, refused: Refused
) -> None:
    run, ones = make_run("in", T, W, item_ids=NAMES), np.ones(60)
    for labels, says in (
        (range(100, 160), ("labels, which are int64", "string", "to_numpy")),
        ([*NAMES[:58], "x", "y"], ("'item-58', 'item-59' in row 58, 59", "have none", "to_numpy")),
        ([*NAMES[:59], NAMES[0]], ("must be unique", "item-00")),
    ):
        with refused(es.InputError, *says):
            es.fit(run, reference=reference, weights=pd.Series(ones, index=labels))
    with refused(es.InputError, "labels, which are string", "int64"):
        es.fit(T, W, reference=B, weights=pd.Series(ones, index=NAMES))
    with refused(es.InputError, "one number per row", r"\(59,\)"):
        es.fit(run, reference=reference, weights=pd.Series(ones[:59]))


def test_row_numbers_are_labels_where_there_are_no_ids() -> None:
    weights = np.random.default_rng(5).random(60)
    shuffled = pd.Series(weights).sample(frac=1, random_state=0)
    fitted = es.fit(T, W, reference=B, weights=shuffled)
    np.testing.assert_array_equal(fitted.items, es.fit(T, W, reference=B, weights=weights).items)


def test_ids_of_a_run_by_another_writer(tmp_path: Path, reference: es.Run) -> None:
    path = foreign_run(
        tmp_path / "in.zarr", {"items": (T[ORDER], NAMES[ORDER])}, compressors=GzipCodec()
    )
    assert_close(T @ es.fit(path, W, reference=reference).items, align(T, W, B)[0], 1e-8)


# --- every kind of id, everywhere


@pytest.mark.filterwarnings("ignore:The data type")  # raw bytes have no final specification yet
@pytest.mark.parametrize("kind", ["int64", "string", "uuid"])
def test_a_series_takes_ids_of_every_kind(make_run: MakeRun, tmp_path: Path, kind: str) -> None:
    ids = {"int64": range(60), "string": NAMES, "uuid": [uuid.UUID(int=i + 1) for i in range(60)]}[
        kind
    ]
    series = es.Series.init(tmp_path / "series")
    for name, order in (("day-1", np.arange(60)), ("day-2", ORDER)):
        series.add(make_run(name, T[order], W, item_ids=[ids[i] for i in order]))
    assert [version.figures["items"]["matched"] for version in series.log().versions[1:]] == [60]
    assert not series.verify().damage


def test_only_takes_ids_as_whatever_holds_them(make_run: MakeRun) -> None:
    run, reference = (
        make_run("in", T, W, item_ids=range(60)),
        make_run("reference", B, item_ids=range(60)),
    )
    wanted = es.fit(run, reference=reference, only=np.arange(30)).items
    for only in (
        set(range(30)),
        range(30),
        pd.Series(range(30), index=range(9, 39)),
        np.arange(30, dtype=np.uint64),
    ):
        np.testing.assert_array_equal(es.fit(run, reference=reference, only=only).items, wanted)
    with pytest.raises(es.IdError, match="int64"):
        es.fit(run, reference=reference, only=["a", "b"])
