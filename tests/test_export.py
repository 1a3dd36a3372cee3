"""A run that is exported reads back as it was, in every format, with every kind of ids and dtype;
or the row that cannot is named and nothing is written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from oracle import hidden, world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.exchange import formats, panels, parts
from dask_embstab.tables.space import digest_of

Rows = np.ndarray[Any, Any]
N, D = 70, 3
HOSTILE = [
    "",
    " a ",
    "q\"u,o;t'e",
    "new\nline",
    "car\rriage",
    "tab\t",
    "é😀",
    "NA",
    "007",
    "nul",
    "a\\",
]
IDS: dict[str, Any] = {
    "int64": np.arange(N) * 7 - 2**40,
    "string": [*HOSTILE, *(f"id {k}" for k in range(N - len(HOSTILE)))],
    "word": [f"wörd-{k}" for k in range(N)],
    "uuid": np.array([UUID(int=k + 2**127).bytes for k in range(N)], "V16"),
    "row numbers": None,
}
DTYPES = ("float16", "float32", "float64")


def rows_of(dtype: str) -> Rows:
    """Any sizes, a negative zero, whole numbers, and what lies next to the range's ends."""
    info = np.finfo(dtype)
    rows = np.random.default_rng(5).normal(size=(N, D)) * np.logspace(-3, 3, N)[:, None]
    rows = rows.astype(dtype)
    rows[0], rows[1] = -0.0, [1, -2, 3]
    rows[2] = [info.max, info.tiny, info.smallest_subnormal]
    return rows


def wanted_ids(kind: str) -> list[Any]:
    ids = IDS[kind]
    return list(range(N)) if ids is None else list(ids)


def as_uuid_texts(kind: str) -> list[str]:
    return [str(UUID(bytes=i.tobytes())) if kind == "uuid" else str(i) for i in wanted_ids(kind)]


# --- readers that share nothing with the library


def read_parquet(folder: Path) -> tuple[list[Any], Rows]:
    dataset = pytest.importorskip("pyarrow.dataset")
    table = dataset.dataset(folder, format="parquet").to_table()
    return from_arrow(table)


def read_arrow(folder: Path) -> tuple[list[Any], Rows]:
    pa = pytest.importorskip("pyarrow")
    tables = [pa.ipc.open_file(path).read_all() for path in sorted(folder.iterdir())]
    return from_arrow(pa.concat_tables(tables))


def from_arrow(table: Any) -> tuple[list[Any], Rows]:
    ids = [np.void(i) if isinstance(i, bytes) else i for i in table["id"].to_pylist()]
    vectors = table["vector"].combine_chunks()
    if hasattr(vectors.type, "value_type"):
        return ids, vectors.flatten().to_numpy().reshape(len(ids), -1)
    return ids, np.frombuffer(b"".join(vectors.to_pylist()), "<f4").reshape(len(ids), -1)


def read_npy(folder: Path) -> tuple[list[Any], Rows]:
    stems = sorted({path.name.split(".")[0] for path in folder.iterdir()})
    ids = [i for stem in stems for i in np.load(folder / f"{stem}.ids.npy")]
    vectors = [np.load(folder / f"{stem}.vectors.npy") for stem in stems]
    return ids, np.concatenate(vectors)


def read_csv(folder: Path) -> tuple[list[Any], Rows]:
    lines: list[list[str]] = []
    for path in sorted(folder.iterdir()):
        with path.open(newline="") as file:
            reader = csv.reader(file)
            assert next(reader) == ["id", *(f"x{k}" for k in range(D))]
            lines += reader
    return [line[0] for line in lines], np.array([line[1:] for line in lines], np.float64)


def read_word2vec(folder: Path) -> tuple[list[Any], Rows]:
    words, vectors = [], []
    for path in sorted(folder.iterdir()):
        first, *lines = path.read_text().splitlines()
        assert [int(size) for size in first.split()] == [len(lines), D]
        words += [line.split(" ")[0] for line in lines]
        vectors += [line.split(" ")[1:] for line in lines]
    return words, np.array(vectors, np.float64)


def read_word2vec_binary(folder: Path) -> tuple[list[Any], Rows]:
    words, vectors = [], []
    for path in sorted(folder.iterdir()):
        first, _, data = path.read_bytes().partition(b"\n")
        for _ in range(int(first.split()[0])):
            word, _, data = data.partition(b" ")
            words.append(word.lstrip(b"\n").decode())
            vectors.append(np.frombuffer(data[: 4 * D], "<f4"))
            data = data[4 * D :]
    return words, np.array(vectors)


READERS: dict[str, Callable[[Path], tuple[list[Any], Rows]]] = {
    "parquet": read_parquet,
    "arrow": read_arrow,
    "npy": read_npy,
    "csv": read_csv,
    "word2vec": read_word2vec,
    "word2vec-binary": read_word2vec_binary,
}
TEXTS = ("csv", "word2vec", "word2vec-binary")


def kinds_for(name: str) -> list[str]:
    return [kind for kind in IDS if kind != "string" or not name.startswith("word2vec")]


def cases() -> Iterator[Any]:
    """Every format with every kind of ids and every dtype; in the short form each kind and each
    dtype once.
    """
    for name in READERS:
        dtypes = DTYPES[:2] if name == "word2vec-binary" else DTYPES
        for i, kind in enumerate(kinds_for(name)):
            for j, dtype in enumerate(dtypes):
                marks = () if i % len(dtypes) == j else pytest.mark.long
                yield pytest.param(name, kind, dtype, marks=marks)


@pytest.mark.parametrize(("name", "kind", "dtype"), list(cases()))
def test_what_is_exported_reads_back_bit_for_bit(
    name: str, kind: str, dtype: str, tmp_path: Path
) -> None:
    rows, ids = rows_of(dtype), IDS[kind]
    run = es.create_run(tmp_path / "r.zarr", rows, item_ids=ids, chunk_rows=16)
    done = es.export(run, tmp_path / "out", format=name, rows_per_file=32)
    read_ids, vectors = READERS[name](tmp_path / "out" / "items")
    assert read_ids == (as_uuid_texts(kind) if name in TEXTS else wanted_ids(kind))
    widened = dtype == "float16" and name in ("parquet", "arrow", "word2vec-binary")
    if name in ("csv", "word2vec"):
        # As float64 and then rounded, which is what most readers do.
        with np.errstate(over="ignore"):
            vectors = vectors.astype(dtype)
    assert vectors.dtype == ("float32" if widened else dtype)
    wanted = rows.astype(vectors.dtype)
    assert vectors.tobytes() == wanted.tobytes()
    assert done["items"]["rows"] == N
    assert done["items"]["files"] == 3


@pytest.mark.parametrize("vectors_as", ["list", "fixed-list", "binary"])
@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_rows_are_lists_without_nulls_lists_of_one_length_or_bytes(
    name: str, vectors_as: str, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    rows = rows_of("float32")
    es.export(rows, tmp_path / "out", format=name, vectors_as=vectors_as)
    (path,) = (tmp_path / "out" / "items").iterdir()
    if name == "parquet":
        schema = pytest.importorskip("pyarrow.parquet").read_schema(path)
    else:
        schema = pa.ipc.open_file(path).schema
    element = pa.field("element", pa.float32(), nullable=False)
    kinds = {"list": pa.list_(element), "fixed-list": pa.list_(element, D), "binary": pa.binary(12)}
    assert schema.field("vector").type == kinds[vectors_as]
    assert not schema.field("vector").nullable
    assert not schema.field("id").nullable
    assert READERS[name](tmp_path / "out" / "items")[1].tobytes() == rows.tobytes()


def test_half_floats_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    rows = rows_of("float16")
    es.export(rows, tmp_path / "out", dtype="float16")
    _, vectors = read_parquet(tmp_path / "out" / "items")
    assert vectors.dtype == np.float16
    assert vectors.tobytes() == rows.tobytes()
    with pytest.raises(es.NotFiniteError, match=r"row 2 of .* goes beyond the range of float16"):
        es.export(rows_of("float32"), tmp_path / "narrow", dtype="float16")
    assert not (tmp_path / "narrow").exists()


# --- which bytes, on which machine


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", READERS)
def test_bytes_depend_on_neither_chunks_nor_scheduler(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run with a transform, which tells its space; that of raw rows is told by a chunk."""
    monkeypatch.setattr(panels, "_GROUP_ROWS", 8)
    rows, selected = rows_of("float32"), []
    fitted = es.fit(rows)
    for chunk_rows, scheduler in ((7, "synchronous"), (64, "threads"), (16, "threads")):
        raw = es.create_run(
            tmp_path / f"{chunk_rows}.zarr",
            rows,
            item_ids=IDS["word"],
            chunk_rows=chunk_rows,
            name="r",
        )
        with dask.config.set(scheduler=scheduler):
            run = es.apply(fitted, raw, tmp_path / f"made-{chunk_rows}.zarr")
            assert run.items.chunk_rows == chunk_rows
            es.export(run, tmp_path / f"out-{chunk_rows}", format=name, rows_per_file=20)
        selected.append(all_bytes(tmp_path / f"out-{chunk_rows}"))
    assert selected[0] == selected[1] == selected[2]
    assert len(selected[0]) == (9 if name == "npy" else 5)


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.long)])
def test_workers_of_a_cluster_write_the_same_bytes(tmp_path: Path, *, processes: bool) -> None:
    run = es.create_run(
        tmp_path / "r.zarr", rows_of("float32"), item_ids=IDS["word"], chunk_rows=16
    )
    es.export(run, tmp_path / "here", format="npy", rows_per_file=16)
    with (
        LocalCluster(n_workers=2, processes=processes, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        es.export(run, tmp_path / "there", format="npy", rows_per_file=16)
    assert all_bytes(tmp_path / "here") == all_bytes(tmp_path / "there")


@pytest.mark.parametrize(
    ("options", "files"),
    [({"rows_per_file": 10}, 7), ({"part_mb": 0.0012}, 7), ({}, 1)],
)
def test_parts_have_the_size_that_is_asked_for(
    options: dict[str, Any], files: int, tmp_path: Path
) -> None:
    rows = np.tile(rows_of("float32"), 10)  # of 120 bytes
    es.export(rows, tmp_path / "out", format="csv", **options)
    paths = sorted((tmp_path / "out" / "items").iterdir())
    assert [path.name for path in paths] == [f"part-{k:05d}.csv" for k in range(files)]
    assert len(paths[0].read_text().splitlines()) == 1 + (10 if options else N)


# --- what is exported


def test_compressed_runs_are_decoded_and_users_are_a_table_too(tmp_path: Path) -> None:
    items, users = (rows.astype("float32") for rows in world(3))
    run = es.create_run(tmp_path / "r.zarr", items, users)
    small = es.compress(run, tmp_path / "small.zarr", code="int8")
    es.export(small, tmp_path / "out", format="npy")
    for key, table in (("items", small.items), ("users", small.users)):
        assert table is not None
        result = read_npy(tmp_path / "out" / key)
        assert np.array_equal(result[1], table.vectors.compute())
        assert result[0] == list(range(table.n_rows))
    es.export(small, tmp_path / "users", format="npy", table="users")
    assert sorted(p.name for p in (tmp_path / "users").iterdir()) == ["export.json", "users"]


def test_a_version_of_a_series_is_exported_by_number_by_text_and_as_the_head(
    tmp_path: Path,
) -> None:
    series = es.Series.init(tmp_path / "series", gates={}, policy="first")
    rng = np.random.default_rng(0)
    for day in range(2):
        T = rng.normal(size=(N, D))
        series.add(es.create_run(tmp_path / f"{day}.zarr", T, item_ids=IDS["word"]), accept="test")
    heads = ((series, {}), (tmp_path / "series", {}), (f"{tmp_path}/series@head", {}))
    firsts = ((series, {"version": 1}), (f"{tmp_path}/series@1", {}))
    for number, calls in ((2, heads), (1, firsts)):
        wanted = series.open(number).items.vectors.compute()
        for at, (what, options) in enumerate(calls):
            out = tmp_path / f"{number}-{at}"
            assert es.export(what, out, format="npy", **options)["version"] == number
            assert np.array_equal(read_npy(out / "items")[1], wanted)


def test_every_parquet_and_arrow_file_says_where_it_comes_from(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    items, users = world(3)
    first = es.stabilize({"items": items, "users": users}, tmp_path / "first.zarr")
    later = es.stabilize({"items": items, "users": users}, tmp_path / "later.zarr", reference=first)
    for name in ("parquet", "arrow"):
        es.export(later, tmp_path / name, format=name)
        (path,) = (tmp_path / name / "items").iterdir()
        read = parquet.read_schema if name == "parquet" else lambda p: pa.ipc.open_file(p).schema
        printed = json.loads(read(path).metadata[b"embstab"])
        record = json.loads((tmp_path / name / "export.json").read_text())["embstab"]
        for values in (printed, record):
            assert values["run"] == "later"
            assert values["reference"] == "first"
            assert values["transform"] == digest_of(later.transform)
            assert values["dask_embstab"] == es.__version__
        assert printed["table"] == "items"


def test_a_run_stands_for_its_transform_where_only_transforms_have_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "FORMATS", (formats.Format("transform", "x", "m:f"),))
    seen: list[Any] = []
    monkeypatch.setattr(formats.Format, "writer", lambda _: lambda e: seen.append(e.what) or {})
    made = es.stabilize(world(3)[0], tmp_path / "s.zarr")
    made.transform.save(tmp_path / "t.npz")
    for what in (made, made.transform, tmp_path / "t.npz"):
        es.export(what, tmp_path / "out", format="x")
    assert len({digest_of(result) for result in seen}) == 1
    with pytest.raises(es.InputError, match="as training left it"):
        es.export(world(3)[0], tmp_path / "out", format="x")


# --- whole or not at all


def test_an_export_is_replaced_by_another_one_only(tmp_path: Path) -> None:
    rows, out = rows_of("float32"), tmp_path / "out"
    es.export(rows, out, format="npy")
    with pytest.raises(es.OutputExistsError, match="exists already"):
        es.export(rows, out, format="csv")
    es.export(rows, out, format="csv", overwrite=True)
    assert [path.name for path in (out / "items").iterdir()] == ["part-00000.csv"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(es.OutputExistsError, match="only an export"):
        es.export(rows, tmp_path / "mine", format="csv", overwrite=True)
    assert hidden(tmp_path) == []


def test_a_failed_export_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out = rows_of("float32"), tmp_path / "out"
    es.export(rows, out, format="npy")
    before = all_bytes(out)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setitem(parts.WRITERS, "csv", fail)
    with pytest.raises(OSError, match="disk full"):
        es.export(rows, out, format="csv", overwrite=True)
    rows = rows.copy()
    rows[41, 1] = np.nan
    with pytest.raises(es.NotFiniteError, match="row 41"):
        es.export(rows, out, format="npy", overwrite=True)
    assert all_bytes(out) == before
    assert hidden(tmp_path) == []


def test_no_export_lies_in_what_it_is_made_of(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "r.zarr", rows_of("float32"))
    for what in (run, tmp_path / "r.zarr"):
        with pytest.raises(es.InputError, match="overlap"):
            es.export(what, tmp_path / "r.zarr" / "out", format="npy")


# --- refusals


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        *(("word2vec", i, "words without") for i in ("a b", "", "a\nb", "a\x1bb", "a\xa0b", " a")),
        ("word2vec-binary", "a b", "words without"),
        *(("csv", i, "formulas") for i in ("=1+1", "+1", "-1", "@x", "\tx", "\rx")),
        ("csv", "a\0b", "zero character"),
        ("npy", "a\0", "zero character"),
        ("npy", "x" * 1025, "1025 characters"),
    ],
)  # fmt: skip
def test_ids_that_would_not_read_back_are_refused_by_their_row(
    name: str, bad: str, message: str, tmp_path: Path
) -> None:
    ids = [f"i{k}" for k in range(N)]
    ids[37] = bad
    with pytest.raises(es.IdError, match=rf"{message}.*row 37 |row 37 .*{message}"):
        es.export(es.table(rows_of("float32"), ids=ids), tmp_path / "out", format=name)
    assert hidden(tmp_path) == []
    assert not (tmp_path / "out").exists()


def test_formulas_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    ids = [f"={k}" for k in range(N)]
    es.export(es.table(rows_of("float32"), ids=ids), tmp_path / "o", format="csv", formulas=True)
    assert read_csv(tmp_path / "o" / "items")[0] == ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "bogus"}, "must be one of parquet"),
        ({"format": "csv", "vectors_as": "list"}, "takes no vectors_as=; parquet, arrow do"),
        ({"format": "parquet", "formulas": True}, "takes no formulas"),
        ({"rows_per_file": 0}, "rows_per_file must be at least 1"),
        ({"rows_per_file": 5, "part_mb": 1}, "both came"),
        ({"where_moved_more_than": 0.1}, "needs ids_changed_since"),
        ({"ids_changed_since": 1}, "is of a series"),
        ({"version": 1}, "is of a series"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"format": "word2vec-binary", "dtype": "float64"}, "holds float32 alone"),
        ({"table": "users"}, "users are needed here"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(es.InputError, match=message):
        es.export(rows_of("float32"), tmp_path / "out", **options)
    assert hidden(tmp_path) == []


def test_the_command_exports_and_names_its_own_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = es.create_run(tmp_path / "r.zarr", rows_of("float32"), item_ids=IDS["word"])
    arguments = ["export", str(run.path), f"{tmp_path}/out", "--format", "csv"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--rows-per-file", "30", "--json"])
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["items"] == {
        "rows": N,
        "files": 3,
        "components": D,
        "dtype": "float32",
        "ids": "string",
    }
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--vectors-as", "binary", "--overwrite"])
    assert ended.value.code == 2
    assert "takes no --vectors-as" in capsys.readouterr().err
