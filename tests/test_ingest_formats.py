"""Arrow, npy, npz, HDF5, safetensors, word2vec, GloVe, CSV and Zarr become runs: the same rows and
ids, and one clear error for what cannot be read.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr
from click.testing import CliRunner
from formats import id_column, listed_ids, vector_columns, vectors
from oracle import hidden
from pyarrow import csv, feather, ipc

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.formats import arrays, columnar, raw, words
from dask_embstab.tables.read import source

N, D = 100, 5
NUMBERS = np.random.default_rng(5).permutation(N)
TEXTS = [f"w{i}é" for i in NUMBERS]
Write = Callable[[Path, Any, Any], Path]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, small_tasks: None) -> None:  # noqa: ARG001
    """Chunks of 32 rows, pieces of 24, batches of 7."""
    monkeypatch.setattr(source, "DEFAULT_CHUNK_BYTES", 32 * D * 4)
    monkeypatch.setattr(arrays, "_PIECE_ROWS", 24)
    for module in (columnar, raw):
        monkeypatch.setattr(module, "BATCH_ROWS", 7)
    monkeypatch.setattr(words, "_ROWS", 7)


def table_of(rows: Any, ids: Any) -> pa.Table:
    return pa.table({"id": pa.array(ids), **vector_columns(rows, "fixed list")})


def arrow_file(path: Path, rows: Any, ids: Any) -> Path:
    table = table_of(rows, ids)
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=19)
    return path


def arrow_stream(path: Path, rows: Any, ids: Any) -> Path:
    table = table_of(rows, ids)
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=19)
    return path


def feather_file(path: Path, rows: Any, ids: Any) -> Path:
    feather.write_feather(table_of(rows, ids), path, compression="zstd", chunksize=23)
    return path


def npz(path: Path, rows: Any, ids: Any) -> Path:
    np.savez_compressed(path, emb=rows, ids=np.array(ids), score=np.ones(len(rows)))
    return path


def plain_npz(path: Path, rows: Any, ids: Any) -> Path:
    np.savez(path, emb=rows, item_id=np.array(ids))
    return path


def hdf5(path: Path, rows: Any, ids: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("model/emb", data=rows, chunks=(11, 3), compression="gzip")
        file["model/ids"] = ids
    return path


def safetensors(path: Path, rows: Any, ids: Any) -> Path:
    from safetensors.numpy import save_file

    save_file({"emb": rows, "id": np.array(ids)}, path)
    return path


FORMATS: dict[str, tuple[str, Write, tuple[str, ...]]] = {
    "Arrow file": ("a.arrow", arrow_file, ("int", "text")),
    "Arrow stream": ("a.arrows", arrow_stream, ("int", "text")),
    "Feather": ("a.feather", feather_file, ("int", "text")),
    "npz, compressed": ("a.npz", npz, ("int", "text")),
    "npz": ("a.npz", plain_npz, ("int", "text")),
    "HDF5": ("a.h5", hdf5, ("int", "text")),
    "safetensors": ("a.safetensors", safetensors, ("int",)),
}


SHORT = ("float32", "int"), ("float16", "text"), ("float64", "int")
EVERY = [(d, k) for d in ("float16", "float32", "float64") for k in ("int", "text")]
CASES = [
    pytest.param(format, *case, marks=() if case == SHORT[at % 3] else pytest.mark.long)
    for at, format in enumerate(FORMATS)
    for case in EVERY
    if case[1] in FORMATS[format][2]
]


@pytest.mark.parametrize(("format", "dtype", "kind"), CASES)
def test_rows_and_ids_are_those_of_the_file(
    tmp_path: Path, format: str, dtype: str, kind: str
) -> None:
    name, write, _ = FORMATS[format]
    rows = vectors(N, D, dtype)
    ids = NUMBERS.tolist() if kind == "int" else TEXTS
    path = write(tmp_path / name, rows, ids)
    run = es.ingest(path, tmp_path / "a.zarr")
    assert run.items.dtype == np.dtype(dtype)
    assert np.array_equal(run.items.vectors.compute(), rows)
    assert listed_ids(run.items) == ids
    table = es.table(path)
    assert np.array_equal(table.rows_of(ids[3:5]), rows[3:5])
    assert np.array_equal(table.source.array[[50, 2, 2]], rows[[50, 2, 2]])


def test_npy_files_and_files_of_their_ids(tmp_path: Path) -> None:
    rows = vectors(N, D, "float32")
    for at, part in enumerate((slice(0, 40), slice(40, 41), slice(41, N))):
        np.save(tmp_path / f"v{at}.npy", np.asfortranarray(rows[part]) if at == 2 else rows[part])
        np.save(tmp_path / f"i{at}.npy", np.array(TEXTS[part]))
    run = es.ingest(f"{tmp_path}/v?.npy", tmp_path / "a.zarr", id=f"{tmp_path}/i?.npy")
    assert np.array_equal(run.items.vectors.compute(), rows)
    assert listed_ids(run.items) == TEXTS
    assert es.ingest(tmp_path / "v0.npy", tmp_path / "b.zarr").items.stored_ids is None
    with pytest.raises(es.InputError, match=r"there must be one id per row, \(40,\).*\(1,\)"):
        es.ingest(tmp_path / "v0.npy", tmp_path / "c.zarr", id=str(tmp_path / "i1.npy"))
    with pytest.raises(es.InputError, match="one for each"):
        es.ingest(tmp_path / "v0.npy", tmp_path / "c.zarr", id="nothing.npy")


def bfloat16(path: Path, rows: Any) -> Path:
    halves = (rows.view(np.uint32) >> 16).astype("<u2")
    reported = {"dtype": "BF16", "shape": list(rows.shape), "data_offsets": [0, halves.nbytes]}
    header = json.dumps({"__metadata__": {"a": "b"}, "emb": reported}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    return path


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    rows = (vectors(N, D, "float32").view(np.uint32) & 0xFFFF0000).view(np.float32)
    run = es.ingest(bfloat16(tmp_path / "a.safetensors", rows), tmp_path / "a.zarr")
    assert np.array_equal(run.items.vectors.compute(), rows)


def text_of(rows: Any, ids: Any, header: str = "") -> bytes:
    lines = [f"{id} {' '.join(map(repr, row.tolist()))}" for id, row in zip(ids, rows, strict=True)]
    return ("\n".join([*([header] if header else []), *lines]) + "\n").encode()


def binary_of(rows: Any, ids: Any, end: bytes) -> bytes:
    head = f"{len(rows)} {rows.shape[1]}\n".encode()
    return head + b"".join(
        id.encode() + b" " + row.tobytes() + end for id, row in zip(ids, rows, strict=True)
    )


@pytest.mark.parametrize(
    ("form", "compressed"),
    [
        ("glove", False),
        ("word2vec text", True),
        ("word2vec", True),
        ("word2vec, no line ends", False),
    ],
)
def test_words_are_ids(tmp_path: Path, form: str, compressed: bool) -> None:
    rows, ids = vectors(N, D, "float32"), [*TEXTS[:-1], "at name@domain"]
    ids = ids if form == "glove" else TEXTS
    data = {
        "glove": text_of(rows, ids),
        "word2vec text": text_of(rows, ids, f"{N} {D}"),
        "word2vec": binary_of(rows, ids, b"\n"),
        "word2vec, no line ends": binary_of(rows, ids, b""),
    }[form]
    name = "a.bin" if form.startswith("word2vec") and "text" not in form else "a.txt"
    path = tmp_path / (f"{name}.gz" if compressed else name)
    path.write_bytes(gzip.compress(data) if compressed else data)
    run = es.ingest(path, tmp_path / "a.zarr")
    assert np.array_equal(run.items.vectors.compute(), rows)
    assert listed_ids(run.items) == ids


def test_csv_has_a_component_per_column(tmp_path: Path) -> None:
    rows = vectors(N, D, "float64")
    rows[:, 2] = np.round(rows[:, 2])
    columns = {"id": pa.array(TEXTS), **vector_columns(rows, "columns")}
    columns["v_2"] = pa.array(rows[:, 2].astype(int))
    csv.write_csv(pa.table({**columns, "day": pa.array(NUMBERS % 3)}), tmp_path / "a.csv")
    run = es.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", id="id", where="day = 1")
    assert np.array_equal(run.items.vectors.compute(), rows[NUMBERS % 3 == 1])


def test_arrow_rows_are_filtered(tmp_path: Path) -> None:
    rows = vectors(N, D, "float32")
    for write in (arrow_file, arrow_stream):
        path = write(tmp_path / f"{write.__name__}.arrow", rows, NUMBERS)
        run = es.ingest(path, tmp_path / f"{write.__name__}.zarr", where="id >= 50")
        assert np.array_equal(run.items.vectors.compute(), rows[NUMBERS >= 50])
        assert listed_ids(run.items) == NUMBERS[NUMBERS >= 50].tolist()


def test_a_zarr_array_and_a_frame_are_sources_too(tmp_path: Path) -> None:
    rows = vectors(N, D, "float32")
    stored = zarr.create_array(tmp_path / "rows.zarr", data=rows, chunks=(13, D))
    assert stored.shape == rows.shape
    run = es.ingest(tmp_path / "rows.zarr", tmp_path / "a.zarr", dtype="float16")
    assert np.array_equal(run.items.vectors.compute(), rows.astype("float16"))
    assert listed_ids(es.ingest(table_of(rows, TEXTS), tmp_path / "b.zarr").items) == TEXTS
    with pytest.raises(es.NotFiniteError, match="goes beyond the range of float16"):
        es.ingest(rows * 1e6, tmp_path / "c.zarr", dtype="float16")


def short(data: bytes) -> bytes:
    return data[:-3]


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npy", lambda p: np.save(p, np.ones(5)), "two axes.*is float64 of the shape"),
        ("a.npy", lambda p: np.save(p, np.ones((5, 2), int)), "must be float16.*is int64"),
        ("a.npy", lambda p: np.save(p, np.array([["a", b""]], object)), "arrays of Python objects"),
        ("a.npz", lambda p: np.savez(p, a=np.ones((5, 2)), b=np.ones((5, 2))), "a, b could be"),
        ("a.npz", lambda p: np.savez(p, a=np.ones(5)), "with two axes"),
        ("a.txt", lambda p: p.write_text("a 1 2\nb 1\n"), "row 1 of .*a.txt has"),
        ("a.txt", lambda p: p.write_text("a 1 2\nb 1 x\n"), "row 1 of .*a.txt has values that are"),
        ("a.vec", lambda p: p.write_text("3 2\na 1 2\nb 1 2\n"), "must have 3 rows"),
        ("a.bin", lambda p: p.write_bytes(b"1 2\na 1234567"), "must have 1 rows of 2 components"),
        ("a.safetensors", lambda p: p.write_bytes(b"\xff" * 64), "no safetensors file"),
        ("a.csv", lambda p: p.write_text("id,v_0,v_1\na,1.5,2.5\nb,,2.5\n"), "row 1 of .*v_0"),
    ],
)
def test_what_cannot_be_read_is_one_error(
    tmp_path: Path, name: str, make: Callable[[Path], Any], message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(es.EmbstabError, match=message):
        es.ingest(tmp_path / name, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    assert not hidden(tmp_path)


def test_one_file_that_holds_both_tables_is_named_by_table(tmp_path: Path) -> None:
    """Named once for both, its users would be its items, and nobody would be told."""
    items, users = vectors(7, D, "float32"), vectors(9, D, "float32")
    both, out = tmp_path / "both.npz", tmp_path / "out.zarr"
    np.savez(both, items=items, users=users)
    with pytest.raises(es.InputError, match=r"two tables; .*vector=\{'items': 'A', 'users': 'B'\}"):
        es.ingest(both, out, vector="items", users=str(both))
    frame = pa.table({"v": list(items)})
    with pytest.raises(es.InputError, match="two tables"):
        es.ingest(frame, out, users=frame)
    same = ["import", str(both), str(out), "--users-source", f"{tmp_path}/./both.npz"]
    ended = CliRunner().invoke(main, [*same, "--vector", "items"])
    assert ended.exit_code == 2
    assert "by --vector items=A --vector users=B" in ended.stderr
    assert not out.exists()

    ended = CliRunner().invoke(main, [*same, "--vector", "items=items", "--vector", "users=users"])
    run = es.open_run(out)
    assert ended.exit_code == 0
    assert (np.asarray(run.items.vectors) == items).all()
    assert (np.asarray(run.users.vectors) == users).all()


def test_a_command_without_the_option_names_the_one_that_has_it(tmp_path: Path) -> None:
    both = tmp_path / "both.npz"
    np.savez(both, items=np.ones((5, 2)), users=np.ones((5, 2)))
    ended = CliRunner().invoke(main, ["stabilize", str(both), str(tmp_path / "out.zarr")])
    assert ended.exit_code == 2
    assert "import them by `embstab import SOURCE OUT --vector`" in ended.stderr
    assert "vector=" not in ended.stderr
    ended = CliRunner().invoke(main, ["import", str(both), str(tmp_path / "out.zarr")])
    assert ended.stderr.rstrip().endswith("name them by --vector"), "which it has itself"


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_file_is_one_error(tmp_path: Path, format: str) -> None:
    name, write, _ = FORMATS[format]
    path = write(tmp_path / name, vectors(N, D, "float32"), NUMBERS)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(es.EmbstabError, match=name.replace(".", r"\.")):
        es.ingest(path, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_uuids_of_arrow(tmp_path: Path) -> None:
    ids, expected = id_column(N, "uuid")
    table = pa.table({"id": ids, **vector_columns(vectors(N, D, "float32"), "list")})
    feather.write_feather(table, tmp_path / "a.feather")
    run = es.ingest(tmp_path / "a.feather", tmp_path / "a.zarr")
    assert run.items.stored_ids.kind == "uuid"
    assert listed_ids(run.items) == expected


def test_nothing_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(es.InputError, match=r"items, users or both; neither came"):
        es.ingest(None, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
