"""Metadata may claim anything: what no store holds and no machine can work on is refused before
anything grows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import foreign_run, memory_below, world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.passes.engine.plan import plan_rows
from dask_embstab.tables.ids.ids import as_ids
from dask_embstab.tables.read.limits import decoded_rows

T, W = world(98)
ROWS, D = 16, 4


def claiming(path: Path, arrays: tuple[str, ...], n: int, **options: Any) -> Path:
    """A run of 60 items whose metadata speaks of more."""
    foreign_run(path, {"items": (T, np.arange(60)), "users": (W, None)}, **options)
    for array in arrays:
        file = (
            path / "items" / array / (".zarray" if options.get("zarr_format") == 2 else "zarr.json")
        )
        values = json.loads(file.read_text())
        values["shape"][0] = n
        file.write_text(json.dumps(values))
    return path


def embstab(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"], prog_name="embstab")
    return int(ended.value.code or 0)


STORED: dict[str, dict[str, Any]] = {
    "v3": {"fill_value": np.nan},
    "v3, zeros may be left out": {"compressors": None},
    "v2": {"zarr_format": 2, "fill_value": np.nan},
    "sharded": {"shards": (32, D), "fill_value": np.nan},
}


@pytest.mark.parametrize("n", [10**6, 10**15])
@pytest.mark.parametrize("form", STORED)
def test_rows_that_the_store_cannot_hold_are_refused(tmp_path: Path, form: str, n: int) -> None:
    run = claiming(tmp_path / "in.zarr", ("vectors", "id"), n, **STORED[form])
    good = es.create_run(tmp_path / "good.zarr", T, W, item_ids=np.arange(60))
    series = es.Series.init(tmp_path / "series")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: es.open_run(run),
        lambda: es.stabilize(run, tmp_path / "out.zarr"),
        lambda: es.fit(good, reference=run),
        lambda: es.evaluate(good, run),
        lambda: series.add(run),
        lambda: es.create_run(tmp_path / "out.zarr", str(run)),
    )
    with memory_below(8 << 20):
        for call in calls:
            with pytest.raises(
                es.DamageError, match=rf"claims {n} rows in \d+ chunks, and [2-4] are stored"
            ):
                call()
    assert (embstab("inspect", run), embstab("lookup", run, "3")) == (2, 2)


@pytest.mark.parametrize("array", ["vectors", "id"])
def test_one_array_that_claims_more_than_the_other_is_refused(tmp_path: Path, array: str) -> None:
    with memory_below(8 << 20), pytest.raises(es.EmbstabError):
        es.open_run(claiming(tmp_path / "in.zarr", (array,), 10**15))


def test_rows_of_another_store_are_planned_only_if_they_can_be() -> None:
    """What lies there is not listed: the number of tasks is bounded by memory."""
    store = zarr.storage.MemoryStore()
    zarr.create_array(
        store,
        name="items/vectors",
        shape=(10**15, D),
        chunks=(ROWS, D),
        dtype="f4",
        fill_value=np.nan,
    )
    zarr.open_group(store, mode="a").require_group("items")
    with memory_below(8 << 20):
        run = es.open_run(store)
        with pytest.raises(es.InputError, match="larger chunks"):
            es.fit(run, keep="geometry")
        with pytest.raises(es.InputError, match="larger chunks"):
            run.items.vectors  # noqa: B018 (a lazy view is made here)


def test_a_plan_is_made_as_it_is_iterated() -> None:
    ranges, _ = plan_rows(10**12, 16, 4, 1 << 20)
    assert len(ranges) == -(-(10**12) // (1 << 20))
    first = next(iter(ranges))
    assert (first.number, first.start, first.stop) == (0, 0, 1 << 20)
    few, _ = plan_rows(2_500_000, 64, 4, 1_000_000)
    assert [(r.number, r.start, r.stop) for r in few] == [
        (0, 0, 10**6),
        (1, 10**6, 2 * 10**6),
        (2, 2 * 10**6, 2_500_000),
    ]


@pytest.mark.parametrize("rows", [10**13, 10**17])
def test_a_chunk_that_no_memory_holds_is_refused_where_it_must_be_decoded_whole(
    tmp_path: Path, rows: int
) -> None:
    for options in ("gzip", "zstd"):
        codec = zarr.codecs.GzipCodec() if options == "gzip" else zarr.codecs.ZstdCodec()
        path = foreign_run(tmp_path / f"{options}.zarr", {"items": (T, None)}, compressors=[codec])
        file = path / "items" / "vectors" / "zarr.json"
        values = json.loads(file.read_text())
        values["chunk_grid"]["configuration"]["chunk_shape"] = [rows, D]
        file.write_text(json.dumps(values))
        with (
            memory_below(8 << 20),
            pytest.raises(es.InputError, match=r"decoded whole.*smaller chunks"),
        ):
            es.open_run(path)


def test_components_without_end_are_refused(tmp_path: Path) -> None:
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, None)}, fill_value=np.nan)
    file = path / "items" / "vectors" / "zarr.json"
    values = json.loads(file.read_text())
    values["shape"] = [60, 10**9]
    values["chunk_grid"]["configuration"]["chunk_shape"] = [16, 10**9]
    file.write_text(json.dumps(values))
    with (
        memory_below(8 << 20),
        pytest.raises(es.InputError, match=r"1000000000 x 1000000000 matrix|decoded whole"),
    ):
        es.open_run(path)


def test_a_sparse_table_of_another_writer_is_read(tmp_path: Path) -> None:
    """Few enough chunks: those that were left out are zeros."""
    rows = np.zeros((2000, D))
    rows[:60] = T
    path = foreign_run(
        tmp_path / "in.zarr",
        {"items": (rows, None), "users": (W, None)},
        chunk_rows=1,
        compressors=None,
    )
    assert len(list((path / "items/vectors/c").iterdir())) == 60
    assert es.fit(path).items.shape == (D, D)


def test_a_file_longer_than_any_encoding_of_its_chunk_is_refused(tmp_path: Path) -> None:
    """A file of gigabytes that takes no room: it would be read into memory as it is."""
    for options, codecs in (
        ("zstd", [zarr.codecs.ZstdCodec()]),
        ("gzip", [zarr.codecs.GzipCodec()]),
    ):
        path = foreign_run(
            tmp_path / f"{options}.zarr",
            {"items": (T, None)},
            compressors=codecs,
            fill_value=np.nan,
        )
        with (path / "items/vectors/c/1/0").open("r+b") as file:
            file.truncate(1 << 31)
        with (
            memory_below(8 << 20),
            pytest.raises(es.DamageError, match=r"2147483648 bytes and \d+ may stand there"),
        ):
            es.fit(path, keep="geometry")
    with (path / "items/vectors/zarr.json").open("r+b") as file:
        file.truncate(1 << 31)
    with memory_below(8 << 20), pytest.raises(es.DamageError, match="2147483648 bytes"):
        es.open_run(path)


def test_a_chunk_of_texts_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    rows = 10**10
    array = zarr.create_array(tmp_path / "ids.zarr", shape=(rows,), chunks=(rows,), dtype=str)
    with (
        memory_below(1 << 24),
        pytest.raises(es.InputError, match="ids of it must be decoded whole"),
    ):
        as_ids(array, rows, where="it")


def test_texts_are_bounded_by_the_shard_that_is_decoded_at_a_time(tmp_path: Path) -> None:
    rows = 10**10
    layout: dict[str, Any] = {"chunks": (1000,), "dtype": str}
    many = zarr.create_array(tmp_path / "many.zarr", shape=(rows,), shards=(rows,), **layout)
    with pytest.raises(es.InputError, match="ids of it must be decoded whole"):
        as_ids(many, rows, where="it")
    few = zarr.create_array(tmp_path / "few.zarr", shape=(5,), shards=(20_000,), **layout)
    few[:] = np.array(list("abcde"), object)
    assert decoded_rows(few) == 1000, "of the inner chunks that its rows reach into"
    np.testing.assert_array_equal(as_ids(few, 5, where="it").open().take(0, 5), few[:])
