"""Tables in object stores are read ahead, without Zarr, to the bits that Zarr reads."""

from __future__ import annotations

import math
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shards import CODECS, normals, sharded, taken
from zarr.storage import ObjectStore

import dask_embstab as es
from dask_embstab import AccessError, DamageError, InputChangedError
from dask_embstab.files import remote
from dask_embstab.tables.identity import ArrayIdentity, identity_of
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.direct import DirectBlock
from dask_embstab.tables.read.direct_source import (
    DirectSource,
    expect,
    few_checksums,
    few_rows,
    in_order,
)
from dask_embstab.tables.read.stored import objects
from dask_embstab.tables.read.zarr_source import ZarrBlock, ZarrSource
from dask_embstab.tables.table import make_table
from dask_embstab.tables.write import object_writer

obstore = pytest.importorskip("obstore")
from obstore.store import MemoryStore  # noqa: E402 (after the skip)


def chunked(store: Any, rows: np.ndarray, chunk: int, codec: str, fill: float) -> zarr.Array[Any]:
    array = zarr.create_array(
        store,
        name="a",
        shape=rows.shape,
        chunks=(chunk, rows.shape[1]),
        dtype=rows.dtype,
        compressors=CODECS[codec] or None,
        fill_value=fill,
    )
    array[:] = rows
    return array


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_layout_reads_as_zarr_reads_it(data: st.DataObject) -> None:
    draw = data.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "PART_BYTES", draw(st.integers(1, 200)))
        patch.setattr(objects, "AHEAD_BYTES", draw(st.integers(1, 400)))
        d, inner, bands = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
        chunk = inner * bands
        n = draw(st.integers(1, 4 * chunk + 1))
        codec, fill = draw(st.sampled_from(list(CODECS))), draw(st.sampled_from([math.nan, 0.0]))
        rows = normals(n, d)
        if fill == 0:
            rows[draw(st.integers(0, n)) :] = 0
        store = ObjectStore(MemoryStore())
        if draw(st.booleans()):
            location = draw(st.sampled_from(["start", "end"]))
            shape: dict[str, Any] = {"inner": (inner, d), "shard": (chunk, d), "fill": fill}
            array = sharded(store, rows, codec=codec, location=location, **shape)
        else:
            array = chunked(store, rows, chunk, codec, fill)

        source = make_table(array, where="a").source
        assert isinstance(source, DirectSource)
        panel = draw(st.integers(1, n))
        first = draw(st.integers(0, -(-n // chunk) - 1)) * chunk
        theirs, digests = taken(ZarrBlock(ZarrSource(array), first, n), first, n, panel)
        result, ours = taken(source.block(first, n), first, n, panel)
        assert result.tobytes() == theirs.tobytes() == rows[first:].tobytes()
        assert ours == digests
        at = draw(st.integers(0, n - 1))  # a part of a block, and of a chunk
        np.testing.assert_array_equal(source.block(at, n).open().take(at, n), rows[at:])
        wanted = np.array(draw(st.lists(st.integers(0, n - 1), max_size=8)), np.int64)
        for gather in (few_rows(source, wanted), source.gather(wanted)):
            np.testing.assert_array_equal(gather.open().take(0, len(wanted)), rows[wanted])


def test_what_is_on_its_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normals(4000, 8)
    array = chunked(ObjectStore(MemoryStore()), rows, 500, "crc32c", math.nan)
    monkeypatch.setattr(objects, "PART_BYTES", 2000)
    monkeypatch.setattr(objects, "AHEAD_BYTES", 9000)
    monkeypatch.setattr("dask_embstab.tables.read.direct._READ_BYTES", 1)
    asked: list[int] = []
    fetch, lock = objects.fetch, threading.Lock()

    def noted(*arguments: Any) -> Any:
        with lock:
            asked.append(arguments[3] - arguments[2])
        return fetch(*arguments)

    monkeypatch.setattr(objects, "fetch", noted)
    reader = make_table(array, where="a").source.block(0, 4000).open()
    reader.take(0, 1)
    assert sum(asked) <= 9000 + 3 * 2010, "what is worked on, and parts that make room"
    for start in range(1, 4000, 77):
        reader.take(start, min(start + 77, 4000))
    assert sum(asked) == 4000 * 32 + 8 * 4, "every byte once"


@pytest.mark.parametrize("codec", ["crc32c", "zstd"])
@pytest.mark.parametrize("layout", ["chunks", "shards"])
def test_the_next_block_is_on_its_way_before_it_is_opened(
    monkeypatch: pytest.MonkeyPatch, layout: str, codec: str
) -> None:
    rows, store = normals(4000, 8), ObjectStore(MemoryStore())
    array = (
        chunked(store, rows, 500, codec, math.nan)
        if layout == "chunks"
        else sharded(store, rows, codec=codec, inner=(100, 8), shard=(500, 8))
    )
    monkeypatch.setattr(objects, "PART_BYTES", 2000)
    monkeypatch.setattr(objects, "AHEAD_BYTES", 9000)
    asked: list[str] = []
    submit, main = objects.submit, threading.current_thread()
    fetch = objects.fetch

    def submitted(function: Any, *arguments: Any) -> Any:
        asked.append(arguments[1])
        return submit(function, *arguments)

    def at_once(*arguments: Any) -> Any:
        if threading.current_thread() is main:
            asked.append(arguments[1])
        return fetch(*arguments)

    monkeypatch.setattr(objects, "submit", submitted)
    monkeypatch.setattr(objects, "fetch", at_once)
    source = make_table(array, where="a").source
    blocks = in_order([source.block(at, at + 1000) for at in range(0, 4000, 1000)])
    assert pickle.loads(pickle.dumps(blocks[0].queue)) is None, "for another process"
    expect(blocks, lambda: [2, 1, 3, 0])
    for number in (2, 1, 3):
        before = {path for path in asked if path.endswith(f"c/{2 * number}/0")}
        assert bool(before) == (number != 2), "begun while the one before was read"
        taken_rows, digests = taken(blocks[number], *_bounds(number), 77)
        np.testing.assert_array_equal(taken_rows, rows[slice(*_bounds(number))])
        assert len(digests) == 2
    in_turn = len(asked)
    for number in (1, 2, 3):
        taken(source.block(*_bounds(number)), *_bounds(number), 77)
    assert len(asked) - in_turn <= in_turn <= len(asked) - in_turn + 12, "nothing is read twice"


def _bounds(number: int) -> tuple[int, int]:
    return number * 1000, (number + 1) * 1000


def faulty(
    monkeypatch: pytest.MonkeyPatch, faults: list[Exception | None], name: str = "get"
) -> None:
    """Requests end in these errors, one after another, then well."""
    get = getattr(obstore, name)

    def answered(*arguments: Any, **options: Any) -> Any:
        error = faults.pop(0) if faults else None
        if error is not None:
            raise error
        return get(*arguments, **options)

    monkeypatch.setattr(obstore, name, answered)


def test_cut_connections_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from obstore.exceptions import GenericError, PermissionDeniedError

    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    rows = normals(60, 3)
    source = make_table(
        chunked(ObjectStore(MemoryStore()), rows, 60, "crc32c", 0), where="a"
    ).source
    faulty(monkeypatch, [GenericError("connection reset"), GenericError("body is short")])
    np.testing.assert_array_equal(taken(source.block(0, 60), 0, 60, 7)[0], rows)
    faulty(monkeypatch, [GenericError("connection reset")] * 3)
    with pytest.raises(AccessError, match="cannot be reached"):
        taken(source.block(0, 60), 0, 60, 7)
    faulty(monkeypatch, [PermissionDeniedError("no")])
    with pytest.raises(AccessError):
        taken(source.block(0, 60), 0, 60, 7)
    faulty(monkeypatch, [GenericError("body is short")] * 2, "get_ranges")
    wanted = np.array([3, 50])
    np.testing.assert_array_equal(few_rows(source, wanted).open().take(0, 2), rows[wanted])


@pytest.mark.parametrize("codec", ["crc32c", "blosc+crc32c"])
def test_damaged_objects_are_one_clear_error(codec: str) -> None:
    memory = MemoryStore()
    array = chunked(ObjectStore(memory), normals(60, 3), 20, codec, math.nan)
    source = make_table(array, where="a").source
    good = bytes(obstore.get(memory, "a/c/1/0").bytes())
    for bad in (good[:-9], good[:5] + bytes([good[5] ^ 1]) + good[6:], b"", good + b"more"):
        obstore.put(memory, "a/c/1/0", bad)
        with pytest.raises(DamageError, match="/a/c/1/0"):
            taken(source.block(0, 60), 0, 60, 7)
    obstore.delete(memory, "a/c/1/0")
    with pytest.raises(DamageError, match="is missing"):
        taken(source.block(0, 60), 0, 60, 7)


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 100)
    monkeypatch.setattr(objects, "AHEAD_BYTES", 100)
    memory, rows = MemoryStore(), normals(60, 3)
    source = make_table(chunked(ObjectStore(memory), rows, 60, "bytes", 0), where="a").source
    assert isinstance(source, DirectSource)
    monkeypatch.setattr("dask_embstab.tables.read.direct._READ_BYTES", 1)
    reader = DirectBlock(source.files, 0, 60).open()
    reader.take(0, 5)
    obstore.put(memory, "a/c/0/0", (-rows).tobytes())
    with pytest.raises(InputChangedError, match="while it was read"):
        reader.take(5, 60)


def test_stabilizing_gives_the_bits_of_a_local_disk(tmp_path: Any) -> None:
    rows, ids = normals(300, 4), np.random.default_rng(0).permutation(300)
    local = es.create_run(tmp_path / "in", rows, rows[:200], item_ids=ids, chunk_rows=64)
    store = ObjectStore(MemoryStore())
    es.create_run(store, rows, rows[:200], item_ids=ids, chunk_rows=64)
    ours = es.stabilize(store, out := ObjectStore(MemoryStore()), reference=local)
    theirs = es.stabilize(local, tmp_path / "out", reference=local)
    for key in ("items", "users"):
        assert (
            getattr(ours, key).vectors.compute().tobytes()
            == getattr(theirs, key).vectors.compute().tobytes()
        )
    assert isinstance(es.open_run(out).items.source, DirectSource)
    np.testing.assert_array_equal(
        es.open_run(out).items.rows_of(ids[[7, 3]]), theirs.items.vectors.compute()[[7, 3]]
    )


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("n_zero", [0, 9])
def test_the_space_of_a_sharded_run_is_that_of_the_same_bytes_on_a_disk(
    tmp_path: Path, location: str, n_zero: int
) -> None:
    """Of rows as training left them, some in inner chunks that were left out."""
    rows, inner, shard = normals(50, 3), (4, 3), (12, 3)
    rows[12 : 12 + n_zero] = 0
    memory, path = MemoryStore(), tmp_path / "items"
    layout: dict[str, Any] = {"inner": inner, "shard": shard, "fill": 0.0, "codec": "crc32c"}
    local = sharded(path, rows, location=location, **layout)
    for file in path.rglob("*"):
        if file.is_file():
            obstore.put(memory, f"items/{file.relative_to(path)}", file.read_bytes())
    there = zarr.open_array(ObjectStore(memory), path="items", mode="r")
    ours, theirs = (make_table(array, where="a").source for array in (local, there))
    assert few_checksums(ours) == few_checksums(theirs) is not None
    obstore.delete(memory, "items/c/0/0")
    assert few_checksums(theirs) is None


def test_objects_are_sent_while_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_writer, "PART_BYTES", 1000)
    memory, rows = MemoryStore(), normals(700, 6)
    store = ObjectStore(memory)
    es.create_run(store, rows, chunk_rows=256)
    array = zarr.open_array(store, path="items/vectors", mode="r")
    np.testing.assert_array_equal(array[:], rows)
    sent = bytes(obstore.get(memory, "items/vectors/c/2/0").bytes())
    assert len(sent) == 256 * 24 + 4
    result, _ = taken(make_table(array, where="a").source.block(0, 700), 0, 700, 50)
    np.testing.assert_array_equal(result, rows)


@pytest.mark.parametrize("small", [False, True])
def test_what_cannot_be_sent_leaves_no_object(
    monkeypatch: pytest.MonkeyPatch, *, small: bool
) -> None:
    from obstore.exceptions import PermissionDeniedError

    if not small:
        monkeypatch.setattr(object_writer, "PART_BYTES", 1000)
    memory, put = MemoryStore(), obstore.put

    def refused(store: Any, path: str, data: Any, **options: Any) -> Any:
        if path.endswith("vectors/c/1/0"):
            raise PermissionDeniedError("no")
        return put(store, path, data, **options)

    monkeypatch.setattr(obstore, "put", refused)
    with pytest.raises(AccessError, match="cannot be written"):
        es.create_run(ObjectStore(memory), normals(700, 6), chunk_rows=256)
    with pytest.raises(es.EmbstabError):
        es.open_run(ObjectStore(memory))


def test_an_upload_whose_rows_fail_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_writer, "PART_BYTES", 100)
    memory = MemoryStore()
    array = chunked(ObjectStore(memory), normals(60, 3), 60, "crc32c", math.nan)
    obstore.delete(memory, "a/c/0/0")
    files = chunk_files(array)
    assert files is not None
    writer = object_writer.chunk_writer(files, 0, 60)
    writer.put(normals(60, 3)[:30])
    sent = writer._upload._sent  # type: ignore[attr-defined]
    del writer
    assert sent.exception(30) is not None
    assert not list(memory.list("a/c").collect())


def test_objects_that_were_written_anew_are_told_by_their_entity_tags() -> None:
    memory = MemoryStore()
    array = chunked(ObjectStore(memory), normals(60, 3), 20, "crc32c", math.nan)
    before = identity_of(array)
    assert isinstance(before, ArrayIdentity)
    assert before.stamps.all()
    assert before.change(array) is None
    obstore.put(memory, "a/c/1/0", bytes(obstore.get(memory, "a/c/1/0").bytes()))
    assert "chunk c/1/0 of" in str(before.change(array))
    obstore.delete(memory, "a/c/1/0")
    assert "is gone" in str(before.change(array))
