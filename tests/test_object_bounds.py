"""Reading and writing objects: how many bytes and threads it takes at most."""

from __future__ import annotations

import math
import pickle
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_object_reads import chunked
from test_shards import normals
from zarr.storage import ObjectStore

from dask_embstab import AccessError
from dask_embstab.files.objects import request_threads, submit
from dask_embstab.tables.layout import ATTRIBUTE, INCOMPLETE
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.direct import DirectBlock
from dask_embstab.tables.read.stored import objects
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.objects import OpenObject
from dask_embstab.tables.stores import url_store
from dask_embstab.tables.stores.sending import Sending
from dask_embstab.tables.write import object_writer
from dask_embstab.tables.write.object_store import OutputGroup

SECONDS = 10
"""For what comes at once."""
obstore = pytest.importorskip("obstore")
from obstore.exceptions import PermissionDeniedError  # noqa: E402 (after the skip)
from obstore.store import MemoryStore  # noqa: E402


@pytest.mark.parametrize("codec", ["bytes", "zstd"])
def test_what_is_on_its_way_and_worked_on_is_as_much_as_is_projected(
    monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """Compressed objects come whole."""
    for name in ("PART_BYTES", "AHEAD_BYTES"):
        monkeypatch.setattr(objects, name, 400)
        monkeypatch.setattr(f"dask_embstab.tables.read.stored.chunk_files.{name}", 400)
    rows = normals(1200, 3)
    array = chunked(ObjectStore(MemoryStore()), rows, 300, codec, math.nan)
    files = chunk_files(array)
    assert files is not None
    reader = DirectBlock(files, 0, 1200).open()
    held, close = [], OpenObject.close

    def measured(self: Any, *, drop: bool = False) -> None:
        parts = {id(part): len(part.data) for part in (self._head, self._held)}
        ahead: Any = reader._fetched
        on_their_way = sum(len(one.result().data) for one, _ in ahead._parts.values())
        held.append(sum(parts.values()) + on_their_way)
        close(self, drop=drop)

    monkeypatch.setattr(OpenObject, "close", measured)
    reader.take(0, 300)
    assert 400 <= held[0] <= files.ahead_bytes


def test_uploads_leave_the_threads_that_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many open objects as there are threads for requests: each waits for rows to be read."""
    monkeypatch.setattr(object_writer, "PART_BYTES", 100)
    array = chunked(ObjectStore(MemoryStore()), normals(60, 3), 60, "crc32c", math.nan)
    files = chunk_files(array)
    assert files is not None
    monkeypatch.setattr("dask_embstab.files.objects._THREADS", 1)
    request_threads.cache_clear()
    try:
        writer = object_writer.chunk_writer(files, 0, 60)
        writer.put(normals(60, 3)[:30])
        assert submit(len, "read").result(10) == 4
        writer.put(normals(60, 3)[30:])
        writer.finish()
    finally:
        request_threads.cache_clear()
    np.testing.assert_array_equal(array[:], normals(60, 3))


@pytest.mark.parametrize("part_bytes", [1000, 1 << 20])
def test_nothing_is_on_its_way_any_more_when_a_write_has_failed(
    monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    """Else an object could come late, over that of the next run at the same place."""
    monkeypatch.setattr(object_writer, "PART_BYTES", part_bytes)
    memory, put, wait, waited = MemoryStore(), obstore.put, object_writer.wait, threading.Event()
    sent: list[str] = []

    def slow(store: Any, path: str, data: Any, **options: Any) -> None:
        if path.endswith("c/1/0"):
            raise PermissionDeniedError("no")
        waited.wait(10)
        put(store, path, data, **options)
        sent.append(path)

    def release(futures: Any) -> Any:
        waited.set()
        return wait(futures)

    array = chunked(ObjectStore(memory), normals(800, 3), 200, "bytes", math.nan)
    obstore.delete(memory, [f"a/c/{number}/0" for number in range(4)])
    files = chunk_files(array)
    assert files is not None
    monkeypatch.setattr(obstore, "put", slow)
    monkeypatch.setattr(object_writer, "wait", release)
    writer = object_writer.chunk_writer(files, 200, 800)
    with pytest.raises(AccessError, match="cannot be written"):  # noqa: PT012 (whichever tells)
        writer.put(normals(600, 3))
        writer.finish()
    assert waited.is_set()
    assert all(one.done() for one in writer._puts)  # type: ignore[attr-defined]
    assert {one["path"] for one in memory.list("a/c").collect()} == set(sent)


MARK = {ATTRIBUTE: {INCOMPLETE: True}}


@pytest.fixture
def memory() -> MemoryStore:
    """Where the output lies."""
    return MemoryStore()


@pytest.fixture(params=["given", "url"])
def place(request: Any, monkeypatch: pytest.MonkeyPatch, memory: MemoryStore) -> Any:
    """An output, as it is handed in or by its URL."""
    if request.param == "given":
        return ObjectStore(memory)
    monkeypatch.setattr(url_store, "client", lambda _: memory)
    return "s3://bucket/out.zarr"


def begun(place: Any) -> tuple[OutputGroup, ChunkFiles]:
    """A run is begun there; its table is empty."""
    run = OutputGroup.begin(place, MARK, over=False)
    array = run.group.create_array("a", shape=(60, 3), chunks=(20, 3), dtype="f4", compressors=None)
    files = chunk_files(array)
    assert files is not None
    return run, files


def write(files: ChunkFiles, rows: Any) -> None:
    """All rows."""
    writer = object_writer.chunk_writer(files, 0, 60)
    writer.put(rows)
    writer.finish()


def chunks(memory: MemoryStore) -> dict[str, bytes]:
    """Those that are there."""
    names = [one["path"] for one in memory.list("a/c").collect()]
    return {name: bytes(memory.get(name).bytes()) for name in names}


def test_a_task_of_a_write_that_was_given_up_puts_nothing_any_more(
    place: Any, memory: MemoryStore
) -> None:
    """Nor one of another process, which is not told. Else it would put its objects over those of
    the next run at the same place.
    """
    rows = normals(60, 3).astype("f4")
    first, files = begun(place)
    store: Any = object.__new__(type(files.store))
    store.__dict__ |= vars(files.store)  # a store in memory is not sent
    store.sending = pickle.loads(pickle.dumps(store.sending))
    elsewhere = replace(files, store=store)
    write(elsewhere, rows)
    assert len(chunks(memory)) == 3
    first.sweep()
    _, following = begun(place)
    for late in files, elsewhere:
        with pytest.raises(AccessError, match="given up"):
            write(late, rows)
    assert not chunks(memory)
    write(following, rows)
    assert len(chunks(memory)) == 3


def test_the_next_run_keeps_its_objects(
    place: Any, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is on its way when its write is given up comes before it, or never."""
    put, close = obstore.put, Sending.close
    on_its_way, go, landed = threading.Event(), threading.Event(), []

    def slow(*arguments: Any, **options: Any) -> None:
        on_its_way.set()
        go.wait(SECONDS)
        put(*arguments, **options)
        landed.append(arguments[1])

    def released(sending: Sending) -> None:
        go.set()
        close(sending)
        assert landed

    first, files = begun(place)
    monkeypatch.setattr(obstore, "put", slow)
    monkeypatch.setattr(Sending, "close", released)
    late = submit(write, files, np.zeros((60, 3), "f4"))
    assert on_its_way.wait(SECONDS)
    monkeypatch.setattr(obstore, "put", put)
    first.sweep()
    _, following = begun(place)
    write(following, normals(60, 3).astype("f4"))
    before = chunks(memory)
    late.exception(SECONDS)
    assert chunks(memory) == before
    assert len(before) == 3
