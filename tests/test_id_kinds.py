"""Ids are what was given, exactly, or are refused by their rows: on every path, of every kind and
library.
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
from oracle import chunk_file, world
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore

import dask_embstab as es

T, W = world(71)
IDS = np.random.default_rng(0).permutation(60).astype(np.int64)
Refused = Callable[..., contextlib.AbstractContextManager[None]]


def polars(values: Any, dtype: str | None = None) -> Any:
    pl = pytest.importorskip("polars")
    return pl.Series(values, dtype=None if dtype is None else getattr(pl, dtype))


def arrow(values: Any, dtype: str | None = None) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.array(values, type=None if dtype is None else getattr(pa, dtype)())


# How a Zarr array of ids is stored: each is read on another path.
STORED: dict[str, dict[str, Any]] = {
    "plain": {"compressors": None},
    "zstd": {"compressors": ZstdCodec()},
    "blosc": {"compressors": BloscCodec()},
    "gzip": {"compressors": GzipCodec()},
    "sharded": {"shards": (32,)},
    "v2": {"zarr_format": 2},
}


def run_with(store: Any, ids: Any, *, chunks: int = 16, **options: Any) -> Any:
    """A run as another program writes it: its ids in chunks of 16 rows, stored as
    ``options`` say.
    """
    zarr_format = options.pop("zarr_format", 3)
    root = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    items = root.create_group("items")
    names = {"dimension_names": ("item", "component")} if zarr_format == 3 else {}
    items.create_array("vectors", data=T, chunks=(16, 4), fill_value=np.nan, **names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raw bytes and strings have no final specification yet
        options |= {name: dims[:1] for name, dims in names.items()}
        stored = items.create_array("id", shape=(60,), chunks=(chunks,), dtype=ids.dtype, **options)
        stored[...] = ids
    return store


HUGE = IDS.astype(np.uint64) + np.uint64(2**63 - 30)


@pytest.mark.parametrize("form", STORED)
def test_stored_unsigned_ids_beyond_int64_are_refused(
    tmp_path: Path, refused: Refused, form: str
) -> None:
    run = run_with(tmp_path / "in.zarr", HUGE, **STORED[form])
    first = int(np.flatnonzero(HUGE >= 2**63)[0])
    says = "fit int64", rf"in\.zarr/items has {HUGE[first]} in row {first}\b", r"\.view\('int64'\)"
    for call in (
        lambda: es.stabilize(run, tmp_path / "out.zarr"),
        lambda: es.fit(es.table(T, ids=IDS), reference=run),
        lambda: es.open_run(run).items.rows_of([1]),
    ):
        with refused(es.IdError, *says):
            call()


GIVEN_HUGE = {
    "NumPy": lambda: HUGE,
    "list": HUGE.tolist,
    "a list with a negative one": lambda: [2**63, *range(-1, 58)],
    "Dask": lambda: da.from_array(HUGE, chunks=16),
    "xarray": lambda: xr.DataArray(HUGE),
    "pandas": lambda: pd.Series(HUGE, dtype="UInt64"),
    "polars": lambda: polars(HUGE),
    "Arrow": lambda: arrow(HUGE, "uint64"),
}


@pytest.mark.parametrize("form", GIVEN_HUGE)
def test_given_unsigned_ids_beyond_int64_are_refused(
    tmp_path: Path, refused: Refused, form: str
) -> None:
    ids = GIVEN_HUGE[form]()
    with refused(es.IdError, "fit int64", r"has \d+ in row \d+", "strings"):
        es.create_run(tmp_path / "out.zarr", T, item_ids=ids)


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("dtype", ["int8", "uint32", "uint64", ">i4"])
def test_whole_numbers_of_any_width_are_exact(tmp_path: Path, form: str, dtype: str) -> None:
    ids = IDS.astype(dtype)
    if dtype == "uint32":
        ids += np.uint32(2**31)
    run = run_with(tmp_path / "in.zarr", ids, **STORED[form])
    out = es.stabilize(run, tmp_path / "out.zarr")
    assert out.items.ids.compute().tolist() == ids.tolist()
    assert out.items.ids.dtype == np.int64
    assert es.fit(run, reference=out, keep="geometry").diagnostics["items"]["matched"] == 60


NAMES = [f"né{i}" for i in range(60)]
KEYS = [uuid.UUID(int=i + 7) for i in range(60)]
EXACT: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "int32": (lambda: IDS.astype(np.int32), IDS.tolist()),
    "objects": (lambda: IDS.astype(object), IDS.tolist()),
    "NumPy scalars in a list": (lambda: list(IDS.astype(np.uint16)), IDS.tolist()),
    "S": (lambda: np.array([name.encode() for name in NAMES]), NAMES),
    "bytes objects": (lambda: np.array([name.encode() for name in NAMES], dtype=object), NAMES),
    "a list of bytes": (lambda: [name.encode() for name in NAMES], NAMES),
    "bytes with zeros at their end": (
        lambda: [key.bytes[::-1] for key in KEYS],
        [key.bytes[::-1] for key in KEYS],
    ),
    "UUIDs": (lambda: KEYS, [key.bytes for key in KEYS]),
    "StringDType": (lambda: np.array(NAMES, dtype=np.dtypes.StringDType()), NAMES),
    "pandas Int64": (lambda: pd.Series(IDS, dtype="Int64"), IDS.tolist()),
    "pandas categorical": (lambda: pd.Series(NAMES, dtype="category"), NAMES),
    "pandas categorical numbers": (lambda: pd.Categorical(IDS), IDS.tolist()),
    "pandas str": (lambda: pd.Series(NAMES), NAMES),
    "pandas Index": (lambda: pd.Index(IDS), IDS.tolist()),
    "pandas string": (lambda: pd.array(NAMES, dtype="string"), NAMES),
    "polars": (lambda: polars(NAMES), NAMES),
    "polars numbers": (lambda: polars(IDS), IDS.tolist()),
    "polars categorical": (lambda: polars(NAMES, "Categorical"), NAMES),
    "Arrow": (lambda: arrow(NAMES), NAMES),
    "Arrow numbers": (lambda: arrow(IDS, "int32"), IDS.tolist()),
    "Arrow dictionary": (lambda: arrow(NAMES).dictionary_encode(), NAMES),
    "Arrow binary": (lambda: arrow([name.encode() for name in NAMES], "binary"), NAMES),
    "range": (lambda: range(60), list(range(60))),
}


@pytest.mark.parametrize("form", EXACT)
def test_ids_of_any_library_are_exact(tmp_path: Path, form: str) -> None:
    make, wanted = EXACT[form]
    given = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raw bytes have no final specification yet
        run = es.create_run(tmp_path / "out.zarr", T, item_ids=given, chunk_rows=16)
    assert run.items.ids.compute().tolist() == wanted


MISSING: dict[str, Callable[[], Any]] = {
    "list of numbers": lambda: [*range(7), None, *range(8, 60)],
    "list of texts": lambda: [*NAMES[:7], None, *NAMES[8:]],
    "list of UUIDs": lambda: [*KEYS[:7], None, *KEYS[8:]],
    "list with NaN": lambda: [*NAMES[:7], float("nan"), *NAMES[8:]],
    "floats": lambda: np.where(np.arange(60) == 7, np.nan, np.arange(60.0)),
    "pandas Int64": lambda: pd.Series(range(60), dtype="Int64").where(lambda x: x != 7),
    "pandas categorical": lambda: pd.Series(NAMES, dtype="category").where(lambda x: x != NAMES[7]),
    "pandas categorical numbers": lambda: pd.Categorical.from_codes(
        [*range(7), -1, *range(8, 60)], range(60)
    ),
    "pandas str": lambda: pd.Series(NAMES).where(lambda x: x != NAMES[7]),
    "pandas objects": lambda: pd.Series([*NAMES[:7], pd.NA, *NAMES[8:]], dtype=object),
    "polars": lambda: polars([*NAMES[:7], None, *NAMES[8:]]),
    "polars numbers": lambda: polars([*range(7), None, *range(8, 60)]),
    "Arrow": lambda: arrow([*NAMES[:7], None, *NAMES[8:]]),
    "Arrow numbers": lambda: arrow([*range(7), None, *range(8, 60)]),
    "Dask objects": lambda: da.from_array(
        np.array([*NAMES[:7], None, *NAMES[8:]], dtype=object), chunks=20
    ),
}


@pytest.mark.parametrize("form", MISSING)
def test_a_missing_id_is_refused_and_no_other_row_is_blamed(
    tmp_path: Path, refused: Refused, form: str
) -> None:
    ids = MISSING[form]()
    with refused(es.IdError, r"in row 7;", "missing|null|have none"):
        es.create_run(tmp_path / "out.zarr", T, item_ids=ids)


@pytest.mark.parametrize("kind", ["Dask", "NumPy"])
def test_a_bad_id_in_a_later_block_is_named_by_its_row(
    tmp_path: Path, refused: Refused, kind: str
) -> None:
    ids = np.array(NAMES, dtype=object)
    lazy = da.from_array(ids, chunks=16).map_blocks(
        lambda x: np.where(x == NAMES[50], 5, x), dtype=object
    )
    given = lazy if kind == "Dask" else lazy.compute()
    with refused(es.IdError, r"5 in row 50\b"):
        es.create_run(tmp_path / "out.zarr", T, item_ids=given, chunk_rows=16)


# --- a chunk of ids that is missing


def lose_chunk(path: Path, chunk: int) -> None:
    """Remove the file of one chunk, whatever its codec; of a shard, the whole of it."""
    place = chunk_file(path, "items", chunk, "id")
    (place if place.exists() else path / "items" / "id" / str(chunk)).unlink()


@pytest.mark.parametrize("kind", ["int64", "U", "V16"])
@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("form", STORED)
def test_a_missing_chunk_of_ids_is_damage(tmp_path: Path, form: str, url: bool, kind: str) -> None:
    if form in ("v2", "sharded") and kind == "V16":
        pytest.skip("Zarr stores no raw bytes so")
    ids: Any = {
        "int64": IDS + 1,
        "U": np.array(NAMES),
        "V16": np.frombuffer(b"".join(key.bytes for key in KEYS), "V16"),
    }[kind]
    path = run_with(tmp_path / "in.zarr", ids, **STORED[form])
    reference = es.create_run(tmp_path / "good.zarr", T[::-1], item_ids=ids[::-1])
    run = es.open_run(f"file://{path}" if url else path)
    lose_chunk(path, 1)
    for call in (
        lambda: es.fit(run, reference=reference),
        lambda: es.stabilize(run, tmp_path / "out.zarr"),
    ):
        with pytest.raises(es.DamageError, match="missing"):
            call()
        assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("fill", [0, -1, 77])
def test_a_missing_chunk_of_ids_on_any_store(fill: int) -> None:
    store = run_with(MemoryStore(), IDS + 100, fill_value=fill)
    key = next(key for key in store._store_dict if key.startswith("items/id/c/2"))
    del store._store_dict[key]
    with pytest.raises(
        es.DamageError, match=f"are all .*{fill}.* from row 32 to 48, as a missing chunk"
    ):
        es.stabilize(store, MemoryStore())


def test_a_missing_chunk_of_ids_behind_a_dask_array(tmp_path: Path, refused: Refused) -> None:
    path = run_with(tmp_path / "in.zarr", IDS + 1)
    lazy = xr.open_zarr(path, group="items", consolidated=False)["id"]
    lose_chunk(path, 2)
    with refused(es.DamageError, "from row 32 to 48", "missing chunk"):
        es.create_run(tmp_path / "out.zarr", T, item_ids=lazy)


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("rows", [1, 59])
def test_id_zero_alone_in_a_chunk_is_an_id(tmp_path: Path, form: str, rows: int) -> None:
    """Other writers leave such a chunk out: it holds nothing but the fill value."""
    if rows == 1 and form == "sharded":
        pytest.skip("a shard holds many such chunks")
    ids = np.arange(60)[::-1].copy()
    stored = STORED[form] | ({"shards": (59,)} if form == "sharded" else {})
    path = run_with(tmp_path / "in.zarr", ids, chunks=rows, **stored)
    last = 59 // rows
    assert not chunk_file(path, "items", last, "id").exists()
    out = es.stabilize(path, tmp_path / "out.zarr")
    assert out.items.ids.compute().tolist() == ids.tolist()


def test_weights_of_zero_that_were_left_out_are_zero(tmp_path: Path) -> None:
    weights = zarr.create_array(
        tmp_path / "weights", data=np.repeat([1.0, 0.0, 1.0], 20), chunks=(20,)
    )
    assert not (tmp_path / "weights" / "c" / "1").exists()
    fitted = es.fit(T, reference=T[::-1], weights=weights, keep="geometry")
    wanted = es.fit(T, reference=T[::-1], weights=np.repeat([1.0, 0.0, 1.0], 20), keep="geometry")
    np.testing.assert_array_equal(fitted.items, wanted.items)
