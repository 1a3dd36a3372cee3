"""Files at the edge of a format: filters that folders alone decide, first batches without a row,
columns named like ids that cannot be ids, headers that do not count right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import dask_embstab as es
from dask_embstab.tables.formats import parquet as parquet_format

VECTORS = np.arange(60, dtype=np.float32).reshape(20, 3)
LISTS = pa.list_(pa.float32())


def columns(rows: slice = slice(None), **more: Any) -> pa.Table:
    vectors = pa.array(list(VECTORS[rows]), LISTS)
    return pa.table({"id": np.arange(20)[rows], **more, "emb": vectors})


@pytest.mark.parametrize(
    ("where", "kept"),
    [("day = 2", range(10, 20)), ("day = 1 or id = 12", [*range(10), 12]), ("day is null", None)],
)
def test_a_filter_that_folders_decide_keeps_every_row_group(
    tmp_path: Path, where: str, kept: Any
) -> None:
    for day in (1, 2):
        place = tmp_path / "in" / f"day={day}" / "part.parquet"
        place.parent.mkdir(parents=True)
        rows = slice(10 * day - 10, 10 * day)
        parquet.write_table(columns(rows), place, row_group_size=3)
    if kept is None:
        with pytest.raises(es.InputError, match="20 rows, and where= keeps none"):
            es.ingest(tmp_path / "in", tmp_path / "out", where=where)
        return
    made = es.ingest(tmp_path / "in", tmp_path / "out", where=where).items
    assert made.ids is not None
    np.testing.assert_array_equal(made.ids[:], list(kept))
    np.testing.assert_array_equal(made.vectors[:], VECTORS[list(kept)])


@pytest.mark.parametrize("form", ["list", "bytes"])
def test_a_filter_may_leave_no_row_of_the_first_batches(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_format, "BATCH_ROWS", 4)
    table = columns(number=pa.array(range(20)))
    uuids = [bytes([number]) * 16 for number in range(20)]
    if form == "bytes":
        table = table.set_column(2, "emb", pa.array([row.tobytes() for row in VECTORS]))
        table = table.set_column(0, "id", pa.array(uuids))
    parquet.write_table(table, tmp_path / "in.parquet")
    made = es.ingest(
        tmp_path / "in.parquet", tmp_path / "out", where="number >= 13", id="id", vector="emb"
    ).items
    assert made.ids is not None
    np.testing.assert_array_equal(made.vectors[:], VECTORS[13:])
    ids = np.asarray(made.ids[:])
    assert (ids.tolist() if form == "list" else [one.tobytes() for one in ids]) == (
        list(range(13, 20)) if form == "list" else uuids[13:]
    )


@pytest.mark.parametrize(
    ("first", "message"), [(None, "row 0 .* no value"), ([], "row 0 .* has 0")]
)
def test_a_first_row_without_a_vector_is_named(tmp_path: Path, first: Any, message: str) -> None:
    table = pa.table({"id": range(20), "emb": pa.array([first, *VECTORS[1:]], LISTS)})
    parquet.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(es.InputError, match=message):
        es.ingest(tmp_path / "in.parquet", tmp_path / "out")


@pytest.mark.parametrize("kind", [pa.float64(), pa.timestamp("us"), pa.bool_(), pa.decimal128(9)])
def test_a_column_named_id_that_cannot_be_ids_is_refused(tmp_path: Path, kind: Any) -> None:
    """Neither row numbers nor another column of whole numbers stand in for it."""
    table = columns(rank=pa.array(range(20)))
    numbers = pa.array(range(20))
    cast = numbers.cast(pa.int8()).cast(kind) if kind == pa.bool_() else None
    ids = cast or pa.array([int(n.as_py()) for n in numbers], kind)
    parquet.write_table(table.set_column(0, "id", ids), tmp_path / "in.parquet")
    with pytest.raises(es.InputError, match=r"ids must be whole numbers.*; id of .*convert it"):
        es.ingest(tmp_path / "in.parquet", tmp_path / "out")
    made = es.ingest(tmp_path / "in.parquet", tmp_path / "out", id="rank").items
    assert made.ids is not None
    np.testing.assert_array_equal(made.ids[:], range(20))


@pytest.mark.parametrize("ids", [np.arange(20.0), np.arange(21), np.arange(20).astype("M8[s]")])
def test_an_array_named_ids_that_cannot_be_ids_is_refused(tmp_path: Path, ids: Any) -> None:
    np.savez(tmp_path / "in.npz", emb=VECTORS, ids=ids)
    with pytest.raises(es.IdError, match=r"ids must be 20 whole numbers.*; ids of"):
        es.ingest(tmp_path / "in.npz", tmp_path / "out")


def test_a_folder_s_name_is_no_column_of_ids(tmp_path: Path) -> None:
    (tmp_path / "in" / "day=1").mkdir(parents=True)
    parquet.write_table(columns(), tmp_path / "in" / "day=1" / "part.parquet")
    with pytest.raises(es.InputError, match=r"day of .* is the name of a folder"):
        es.ingest(tmp_path / "in", tmp_path / "out", id="day")


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_exported_bytes_say_what_they_are(tmp_path: Path, format: str, dtype: str) -> None:
    rows = VECTORS.astype(dtype)
    es.export(rows, tmp_path / "out", format=format, vectors_as="binary", dtype=dtype)
    made = es.ingest(tmp_path / "out" / "items", tmp_path / "back").items.vectors[:]
    assert np.asarray(made).dtype == rows.dtype
    np.testing.assert_array_equal(made, rows)


def test_codes_of_digits_stay_texts_in_csv(tmp_path: Path) -> None:
    """007 is no number 7, wherever in the file it stands."""
    (tmp_path / "a.csv").write_text("id,emb_0,emb_1\n007,1,2\n8,3.5,4\n")
    assert es.ingest(tmp_path / "a.csv", tmp_path / "a").items.ids.compute().tolist() == [
        "007",
        "8",
    ]
    rows = "".join(f"{k},1.5\n" for k in range(150_000))
    (tmp_path / "b.csv").write_text(f"id,emb_0\n{rows}007,2\n")
    with pytest.raises(es.InputError, match=r"row 150000 has '007'"):
        es.ingest(tmp_path / "b.csv", tmp_path / "b")


def test_rows_behind_those_that_a_header_counts_are_no_silence(tmp_path: Path) -> None:
    text, binary = tmp_path / "a.txt", tmp_path / "a.bin"
    text.write_text("2 2\na 1 2\nb 3 4\nc 5 6\n")
    row = np.ones(2, "<f4").tobytes()
    binary.write_bytes(b"2 2\n" + b"a " + row + b"\nb " + row + b"\nc " + row + b"\n")
    for path in (text, binary):
        with pytest.raises(es.DamageError, match="more follow"):
            es.ingest(path, tmp_path / "out")


def test_a_run_around_the_files_of_a_pattern_or_a_list_is_not_replaced(tmp_path: Path) -> None:
    parquet.write_table(columns(), tmp_path / "first.parquet")
    es.ingest(tmp_path / "first.parquet", tmp_path / "run.zarr")
    inner = tmp_path / "run.zarr" / "export[1]" / "part.parquet"
    inner.parent.mkdir()
    parquet.write_table(columns(), inner)
    for source in (f"{tmp_path}/run.zarr/*/*.parquet", [inner], str(inner)):
        with pytest.raises(es.InputError, match="overlap"):
            es.ingest(source, tmp_path / "run.zarr", overwrite=True)
    assert inner.is_file()


@pytest.mark.parametrize("verb", ["stabilize", "reference", "apply", "compress", "create_run"])
def test_no_verb_replaces_a_run_around_the_files_that_it_reads(tmp_path: Path, verb: str) -> None:
    parquet.write_table(columns(), tmp_path / "first.parquet")
    es.ingest(tmp_path / "first.parquet", tmp_path / "run.zarr")
    inner = tmp_path / "run.zarr" / "part.parquet"
    parquet.write_table(columns(), inner)
    source, out = f"{tmp_path}/run.zarr/*.parquet", tmp_path / "run.zarr"
    calls = {
        "stabilize": lambda: es.stabilize(source, out, overwrite=True),
        "reference": lambda: es.stabilize(
            tmp_path / "first.parquet", out, reference=source, keep="geometry", overwrite=True
        ),
        "apply": lambda: es.apply(es.fit(source), source, out, overwrite=True),
        "compress": lambda: es.compress(source, out, overwrite=True),
        "create_run": lambda: es.create_run(out, source, overwrite=True),
    }
    with pytest.raises(es.InputError, match="overlap"):
        calls[verb]()
    assert inner.is_file()


@pytest.mark.parametrize("option", [{"id": "sku"}, {"vector": "emb"}, {"where": "day = 1"}])
def test_columns_of_files_that_are_not_there(tmp_path: Path, option: dict[str, Any]) -> None:
    """The path is at fault, not the option."""
    with pytest.raises(es.NotARunError, match=r"there is nothing at .*in\.parquet"):
        es.ingest(tmp_path / "in.parquet", tmp_path / "out", **option)
