"""Parquet becomes runs: every layout, dtype and kind of ids, however files and row groups are
cut; what cannot be a row is refused by row and file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from formats import (
    DTYPES,
    IDS,
    LAYOUTS,
    id_column,
    listed_ids,
    vector_columns,
    vector_name,
    vectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Stop, data_of, draws, hidden
from pyarrow import compute, parquet

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.formats import parquet as parquet_format
from dask_embstab.tables.read import source

D = 5


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch, small_tasks: None) -> None:  # noqa: ARG001
    """Chunks of 32 rows (of 5 float32), batches of 7."""
    monkeypatch.setattr(source, "DEFAULT_CHUNK_BYTES", 32 * D * 4)
    monkeypatch.setattr(parquet_format, "BATCH_ROWS", 7)


def write(path: Path, table: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **options)
    return path


def simple(n: int = 100, *, seed: int = 0, first: int = 0, **more: Any) -> pa.Table:
    ids = pa.array(np.arange(first, first + n))
    return pa.table({"id": ids, **vector_columns(vectors(n, D, "float32", seed), "list"), **more})


@settings(max_examples=draws(5))
@given(
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(IDS),
    cuts=st.lists(st.integers(1, 90), min_size=1, max_size=3),
    group=st.integers(1, 70),
    nullable=st.booleans(),
)
@pytest.mark.usefixtures("small_pieces")
def test_rows_and_ids_are_those_of_the_files(
    tmp_path: Path, layout: str, dtype: str, kind: str, cuts: list[int], group: int, nullable: bool
) -> None:
    """Whatever holds them, in files and row groups of any sizes."""
    n = min(sum(cuts), 127 if kind == "int8" else 1000)
    rows = vectors(n, D, dtype)
    ids, expected = id_column(n, kind)
    columns = vector_columns(rows, layout)
    table = pa.table(({} if ids is None else {"key": ids}) | columns)
    if layout == "list" and not nullable:
        field = pa.field("element", pa.from_numpy_dtype(np.dtype(dtype)), nullable=False)
        table = table.set_column(table.num_columns - 1, "v", table["v"].cast(pa.list_(field)))
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    at = 0
    for number, cut in enumerate(cuts):
        write(folder / f"part-{number}.parquet", table.slice(at, cut), row_group_size=group)
        at += cut
    run = es.ingest(
        folder,
        f"{folder}.zarr",
        vector=vector_name(layout, dtype),
        id=None if ids is None else "key",
    )
    assert run.items.dtype == np.dtype(dtype)
    assert np.array_equal(run.items.vectors.compute(), rows)
    assert listed_ids(run.items) == expected
    known = "binary" not in layout or (layout, dtype) == ("fixed binary", "float32")
    if known and kind not in ("binary", "binary uuid"):
        in_place = es.table(folder)
        assert np.array_equal(in_place.vectors.compute(), rows)
        assert listed_ids(in_place) == expected


@pytest.mark.usefixtures("small_pieces")
def test_any_scheduler_writes_the_same_bytes(tmp_path: Path) -> None:
    """One thread hands open readers on, several hand on rows; none shares anything elsewhere."""
    path = write(tmp_path / "a.parquet", simple(1000), row_group_size=45)
    seen = []
    for scheduler, workers in (("sync", 1), ("threads", 1), ("threads", 4)):
        with dask.config.set(scheduler=scheduler, num_workers=workers):
            seen.append(
                data_of(es.ingest(path, tmp_path / f"{scheduler}{workers}.zarr", name="a").path)
            )
    assert seen[0] == seen[1] == seen[2]
    assert np.array_equal(
        es.open_run(tmp_path / "sync1.zarr").items.vectors.compute(), vectors(1000, D, "float32")
    )


@pytest.mark.usefixtures("small_pieces")
def test_a_row_group_that_two_tasks_share_is_not_decoded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", simple(960), row_group_size=30)
    decoded: list[int] = []
    batches = parquet_format.ParquetReader.batches

    def counted(self: Any, file: str, number: int, columns: Any, where: Any) -> Any:
        for batch in batches(self, file, number, columns, where):
            if "v" in columns:
                decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(parquet_format.ParquetReader, "batches", counted)
    with dask.config.set(scheduler="sync"):
        es.ingest(path, tmp_path / "a.zarr")
    assert 960 < sum(decoded) < 1.05 * 960, "a batch more tells the width"


def test_columns_are_found_where_there_is_one_candidate(tmp_path: Path) -> None:
    rows = vectors(12, D, "float64")
    columns = {"score": pa.array(np.ones(12)), **vector_columns(rows, "columns")}
    path = write(
        tmp_path / "a.parquet", pa.table({"name": [f"n{i}" for i in range(12)], **columns})
    )
    run = es.ingest(path, tmp_path / "a.zarr")
    assert np.array_equal(run.items.vectors.compute(), rows), "in the order of their numbers"
    assert listed_ids(run.items)[:2] == ["n0", "n1"]
    other = es.ingest(path, tmp_path / "b.zarr", vector=["v_3", "v_1"], id="name")
    assert np.array_equal(other.items.vectors.compute(), rows[:, [3, 1]])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": [1], "b": ["x"], "v": [[1.0, 2.0]]}, {}, "a, b could be"),
        ({"id": [1], "v": [[1.0]], "w": [[2.0]]}, {}, r"v, w could be.*id \(int64\), v \(list"),
        ({"id": [1], "x": ["a"]}, {}, "no column could be"),
        ({"id": [1], "v": [[1.0]]}, {"vector": "emb"}, "no column 'emb'; it has id"),
        ({"id": [1], "v": [[1.0]]}, {"id": "key"}, "no column 'key'"),
        ({"id": [1.5], "v": [[1.0]]}, {"id": "id"}, "ids must be whole numbers"),
        ({"id": [1], "v": [[1, 2]]}, {"vector": "v"}, "of float16, float32 or float64.*v \\(list"),
        ({"id": [1], "v": [["a"]]}, {"vector": "v"}, "of float16, float32 or float64"),
        ({"id": [1], "v": [[1.0]]}, {"where": "day = 1"}, "'day' is no column; there are id, v"),
        ({"id": [1], "v": [[1.0]]}, {"where": "id > 5"}, "1 rows, and where= keeps none"),
    ],
)
def test_unclear_columns_are_listed(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a.parquet", pa.table(columns))
    with pytest.raises(es.InputError, match=message):
        es.ingest(path, tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()
    assert not hidden(tmp_path)


def broken(change: Callable[[list[Any], list[Any]], None], **types: Any) -> pa.Table:
    """Ten rows, of which ``change`` breaks some."""
    ids: list[Any] = list(range(100, 110))
    lists: list[Any] = vectors(10, D, "float32").tolist()
    change(ids, lists)
    return pa.table(
        {
            "id": pa.array(ids, types.get("ids", pa.int64())),
            "v": pa.array(lists, types.get("v", pa.list_(pa.float32()))),
        }
    )


def put(where: str, value: Any) -> Callable[[list[Any], list[Any]], None]:
    def change(ids: list[Any], lists: list[Any]) -> None:
        (ids if where == "id" else lists)[7] = value

    return change


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (broken(put("v", None)), es.InputError, "row 7 of FILE has no value in v"),
        (
            broken(put("v", [1.0] * 4)),
            es.InputError,
            "row 7 of FILE has 4 values in v and others 5",
        ),
        (broken(put("v", [])), es.InputError, "row 7 of FILE has 0 values in v and others 5"),
        (broken(put("v", [1.0, None, 2.0, 3.0, 4.0])), es.InputError, "row 7 of FILE has a null"),
        (broken(put("id", None)), es.IdError, "row 7 of FILE has none in id"),
        (broken(put("id", 103)), es.IdError, "row 7 of FILE has one that an earlier row has"),
        (broken(put("id", 2**63), ids=pa.uint64()), es.IdError, f"row 7 of FILE has {2**63}"),
        (
            pa.table({"id": list(range(10)), "v": [b"12345678"] * 7 + [b"1234"] * 3}),
            es.InputError,
            "row 7 of FILE has 4 bytes in v and others 8",
        ),
        (
            pa.table({"id": [b"a"] * 7 + [b"\xff"] * 3, "v": [[1.0]] * 10}),
            es.IdError,
            "row 7 of FILE has others in id",
        ),
    ],
)
def test_what_is_no_row_is_named_by_row_and_file(
    tmp_path: Path, table: pa.Table, error: type[Exception], message: str
) -> None:
    """In the second file, behind a whole one."""
    columns = {name: table[name].slice(0, 7) for name in table.column_names}
    whole = pa.table(columns)
    if pa.types.is_integer(whole["id"].type):
        whole = whole.set_column(0, "id", pa.array(range(900, 907), whole["id"].type))
    else:
        whole = whole.set_column(0, "id", pa.array([f"w{i}".encode() for i in range(7)]))
        table = table.set_column(0, "id", pa.array([b"a%d" % i for i in range(7)] + [b"\xff"] * 3))
    write(tmp_path / "in" / "a.parquet", whole)
    bad = write(tmp_path / "in" / "b.parquet", table, row_group_size=3)
    vector = "v:float32" if pa.types.is_binary(table["v"].type) else None
    with pytest.raises(error, match=message.replace("FILE", str(bad))):
        es.ingest(tmp_path / "in", tmp_path / "a.zarr", vector=vector)
    assert not (tmp_path / "a.zarr").exists()
    assert not hidden(tmp_path)


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", simple(5))
    other = simple(5, first=5).set_column(1, "v", pa.array([[1.0] * D] * 5))
    bad = write(tmp_path / "in" / "b.parquet", other)
    with pytest.raises(es.InputError, match=f"v is list.*float.*, and {bad} has list.*double"):
        es.ingest(tmp_path / "in", tmp_path / "a.zarr")
    wide = write(
        tmp_path / "in" / "b.parquet",
        simple(5, first=5).set_column(1, "v", pa.array([[1.0] * 4] * 5, pa.list_(pa.float32()))),
    )
    with pytest.raises(es.InputError, match=f"row 0 of {wide} has 4 values in v and others 5"):
        es.ingest(tmp_path / "in", tmp_path / "a.zarr")


@pytest.mark.usefixtures("small_pieces")
def test_a_filter_goes_down_and_partitions_are_columns(tmp_path: Path) -> None:
    """Against the same filter on the whole table; other days' files are not even opened."""
    score = np.random.default_rng(1).normal(size=200)
    parts = []
    for number, day in enumerate(("2026-01-01", "2026-01-02")):
        table = simple(200, seed=number, first=1000 * number, score=pa.array(score))
        write(tmp_path / "in" / f"day={day}" / "a.parquet", table, row_group_size=60)
        parts.append(vectors(200, D, "float32", number))
    text = 'day = "2026-01-02" and (score > 0.5 or not id in (1001, 1002)) and id != 1007'
    run = es.ingest(tmp_path / "in", tmp_path / "a.zarr", where=text)
    numbers = np.arange(1000, 1200)
    kept = ((score > 0.5) | ~np.isin(numbers, [1001, 1002])) & (numbers != 1007)
    assert listed_ids(run.items) == numbers[kept].tolist()
    assert np.array_equal(run.items.vectors.compute(), parts[1][kept])
    expression = (compute.field("day") == "2026-01-02") & (compute.field("score") > 0.5)
    other = es.ingest(f"{tmp_path}/in/*/*.parquet", tmp_path / "b.zarr", where=expression)
    assert listed_ids(other.items) == numbers[score > 0.5].tolist()
    assert "/day=" not in str(es.ingest(tmp_path / "in", tmp_path / "c.zarr").items.where)


def test_the_command_writes_items_and_users(tmp_path: Path) -> None:
    items = write(tmp_path / "items.parquet", simple(20).rename_columns(["item_id", "v"]))
    users = write(tmp_path / "users.parquet", simple(30, seed=1).rename_columns(["key", "w"]))
    arguments = ["import", str(items), str(tmp_path / "a.zarr"), "--users-source", str(users)]
    ended = CliRunner().invoke(
        main,
        [*arguments, "--id", "users=key", "--vector", "users=w", "--dtype", "float64", "--json"],
    )
    assert ended.exit_code == 0, ended.output
    printed = json.loads(ended.stdout)
    assert (printed["items"]["rows"], printed["users"]["rows"]) == (20, 30)
    run = es.open_run(tmp_path / "a.zarr")
    assert np.array_equal(run.users.vectors.compute(), vectors(30, D, "float32", 1).astype(float))
    again = CliRunner().invoke(main, arguments)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    wrong = CliRunner().invoke(main, [*arguments, "--overwrite", "--vector", "users=emb"])
    assert wrong.exit_code == 2
    assert "no column 'emb'" in wrong.stderr


@pytest.mark.usefixtures("small_pieces")
def test_an_interrupted_import_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing: Any
) -> None:
    """Chunks that are there are neither written nor decoded again, unless a file has changed."""
    path = write(tmp_path / "a.parquet", simple(320), row_group_size=32)
    from dask_embstab.verbs import ingest as verb

    def stop(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(verb, "_require_distinct", stop)
        with pytest.raises(Stop):
            es.ingest(path, tmp_path / "a.zarr", resume=True)
    assert not (tmp_path / "a.zarr").exists()
    written: list[int] = []
    with writing(written.append):
        es.ingest(path, tmp_path / "a.zarr", resume=True)
    assert written == []
    whole = es.ingest(path, tmp_path / "b.zarr", name="a")
    assert data_of(tmp_path / "a.zarr") == data_of(whole.path)


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", simple(50))
    from dask_embstab.verbs import ingest as verb

    run_all = verb.run_all

    def change(passes: Any) -> Any:
        result = run_all(passes)
        write(path, simple(50, seed=3), compression="gzip")
        return result

    monkeypatch.setattr(verb, "run_all", change)
    with pytest.raises(es.InputChangedError, match=f"file {path} was written anew"):
        es.ingest(path, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", simple(5000), compression="none")
    data = bytearray(path.read_bytes())
    data[1000:9000] = bytes(8000)
    path.write_bytes(data)
    with pytest.raises(es.EmbstabError, match=r"a\.parquet"):
        es.ingest(path, tmp_path / "a.zarr")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        es.DamageError, match=r"a\.parquet must be a whole file.*Parquet; it cannot be read"
    ):
        es.ingest(path, tmp_path / "a.zarr")
    with pytest.raises(es.InputError, match="no file matches"):
        es.ingest(f"{tmp_path}/*.pq", tmp_path / "a.zarr")
