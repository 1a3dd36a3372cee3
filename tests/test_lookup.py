"""Vectors by id, without a scan: an index beside the run that knows when it is stale."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import vectors_by_id
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, hidden, vectors_of, world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.ids import lookup
from dask_embstab.tables.ids.ids import Ids
from dask_embstab.tables.ids.texts import Texts
from dask_embstab.tables.read.stored import gather
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.files import OpenChunk
from dask_embstab.tables.table import make_table

MakeRun = Callable[..., es.Run]
T, W = world(71)
ORDER = np.random.default_rng(0).permutation(60)
IDS: dict[str, Array] = {
    "int64": ORDER * 7919 - 200_000,
    "string": np.array([f"{'é' * (i % 3)}{i}" for i in ORDER], dtype=object),
    "uuid": np.array([uuid.uuid5(uuid.NAMESPACE_OID, str(i)).bytes for i in ORDER], dtype="V16"),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of 60 ids is made of several files and parts."""
    monkeypatch.setattr(lookup, "_ROWS", 13)
    monkeypatch.setattr(lookup, "_MEMORY", 1 << 11)


@settings(max_examples=10)
@given(rows=st.lists(st.integers(0, 59), max_size=80), kind=st.sampled_from(list(IDS)))
def test_any_rows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("lookup")
    run = es.create_run(folder / "a.zarr", T, W, item_ids=IDS[kind], chunk_rows=16)
    selected = run.items.rows_of(IDS[kind][rows])
    assert selected.dtype == np.float64
    np.testing.assert_array_equal(selected, T[rows])
    np.testing.assert_array_equal(run.items.rows_of(list(IDS[kind][rows])), T[rows])
    np.testing.assert_array_equal(run.users.rows_of(rows), W[rows])
    assert [path.name[: len(".a.zarr.items.ids-")] for path in hidden(folder)] == [
        ".a.zarr.items.ids-"
    ] * 1


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("form", ["numpy", "dask"])
def test_tables_that_are_not_stored_are_looked_through(kind: str, form: str) -> None:
    ids, vectors = IDS[kind], T
    if form == "dask":
        ids, vectors = da.from_array(ids, chunks=7), da.from_array(T, chunks=(9, 4))
    table = make_table(vectors, ids, where="t")
    rows = [3, 59, 0, 3]
    np.testing.assert_array_equal(table.rows_of(IDS[kind][rows]), T[rows])
    with pytest.raises(es.IdError, match="1 of 2 ids"):
        table.rows_of([IDS[kind][0].item() if kind != "string" else IDS[kind][0], *MISSING[kind]])


MISSING: dict[str, list[Any]] = {"int64": [5], "string": ["nobody"], "uuid": [uuid.UUID(int=7)]}


@pytest.mark.parametrize("kind", IDS)
def test_ids_that_are_nowhere_are_named(make_run: MakeRun, kind: str) -> None:
    table = make_run("a", T, item_ids=IDS[kind]).items
    with pytest.raises(es.IdError, match=r"1 of 2 ids are in no row of .*a\.zarr/items.*"):
        table.rows_of([IDS[kind].tolist()[0], *MISSING[kind]])
    with pytest.raises(es.IdError, match=rf"{kind}.* is none"):
        table.rows_of([2.5])


def test_row_numbers_stand_for_ids(make_run: MakeRun) -> None:
    table = make_run("a", T).items
    np.testing.assert_array_equal(table.rows_of([59, 0]), T[[59, 0]])
    for beyond in (60, -1):
        with pytest.raises(es.IdError, match="in no row"):
            table.rows_of([beyond])


def test_the_first_row_of_a_repeated_id_counts(make_run: MakeRun) -> None:
    table = make_run("a", T, item_ids=np.arange(60) // 2).items
    np.testing.assert_array_equal(table.rows_of(np.arange(30)), T[::2])


def test_texts_that_share_a_key_are_distinguished(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Texts, "keys", lambda texts: np.zeros(len(texts), np.uint64))
    table = make_run("a", T, item_ids=IDS["string"]).items
    np.testing.assert_array_equal(table.rows_of(IDS["string"][::-1]), T[::-1])


def test_the_index_is_built_once_and_again_when_the_ids_changed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = IDS["int64"]
    table = make_run("a", T, item_ids=ids).items
    table.rows_of(ids[:1])
    (index,) = hidden(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Ids, "open", lambda _: pytest.fail("ids were read again"))
        np.testing.assert_array_equal(
            es.open_run(tmp_path / "a.zarr").items.rows_of(ids[5:9]), T[5:9]
        )
        assert hidden(tmp_path) == [index]
    shutil.rmtree(tmp_path / "a.zarr")
    table = make_run("a", T, item_ids=ids[::-1]).items
    np.testing.assert_array_equal(table.rows_of(ids[:5]), T[::-1][:5])
    (again,) = hidden(tmp_path)
    assert again != index


def test_an_interrupted_index_leaves_nothing(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_run("a", T, item_ids=IDS["int64"]).items
    with monkeypatch.context() as patched:
        patched.setattr(lookup, "stable_order", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            table.rows_of([1])
    assert hidden(tmp_path) == []


def test_only_the_chunks_with_these_rows_are_opened(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_run("a", T, item_ids=IDS["int64"]).items
    table.rows_of(IDS["int64"][:1])
    opened, read = Counter[int](), Counter[int]()
    begin, fill = gather.open_chunk, OpenChunk.read_into

    def noted(files: ChunkFiles, chunk: int) -> Any:
        opened[chunk] += 1
        return begin(files, chunk)

    def filled(self: OpenChunk, *more: Any) -> None:
        read[0] += 1
        fill(self, *more)

    monkeypatch.setattr(gather, "open_chunk", noted)
    monkeypatch.setattr(OpenChunk, "read_into", filled)
    table.rows_of(IDS["int64"][[3, 17, 5]])
    assert opened == {0: 1, 1: 1}
    assert not read, "not even their checksums are computed"


def test_the_benchmark_fetches_the_right_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    made = vectors_by_id.main(["--rows", "2000", "--repeats", "2", "--dir", str(tmp_path)])
    (measured,) = made["lookups"]
    assert (measured["rows"], measured["d"]) == (2000, 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", IDS)
def test_the_command_line(make_run: MakeRun, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    run = make_run("a", T, W, item_ids=IDS[kind])
    names = [
        str(uuid.UUID(bytes=i)) if kind == "uuid" else str(i) for i in IDS[kind][[7, 2]].tolist()
    ]
    with pytest.raises(SystemExit) as ended:
        main(["lookup", run.path, "--json", "--", *names])
    assert ended.value.code == 0
    output = json.loads(capsys.readouterr().out)
    assert output["ids"] == names
    np.testing.assert_array_equal(output["vectors"], vectors_of(run)[[7, 2]])
    with pytest.raises(SystemExit) as ended:
        main(["lookup", run.path, "--table", "users", "90"])
    assert ended.value.code == 2
    assert "in no row" in capsys.readouterr().err
