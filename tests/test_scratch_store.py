"""Joins whose files are objects of a store: the same bits as on a disk, and nothing stays there."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import obstore
import pytest
import zarr
from objectstores import Requests
from obstore.store import MemoryStore
from s3_server import Bucket

import dask_embstab as es
from dask_embstab.files import owned_prefix
from dask_embstab.files.objects import put_object
from dask_embstab.files.owned_prefix import OwnedPrefix
from dask_embstab.files.remote import Url
from dask_embstab.tables.ids.row_index import FileIndex, gather
from dask_embstab.tables.ids.scratch_files import ObjectFile, each
from dask_embstab.tables.ids.spill import Spill, SpillReader

MakeRun = Callable[..., es.Run]
PLACE = "s3://bucket/some%20where"
N = 5000


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """What every URL of a bucket names."""
    made = MemoryStore()
    monkeypatch.setattr("dask_embstab.files.objects.client", lambda _: made)
    return made


def keys(store: MemoryStore) -> list[str]:
    return sorted(entry["path"] for entry in obstore.list(store).collect())


def two(make_run: MakeRun, texts: bool = False) -> tuple[es.Run, es.Run]:
    """Runs of which more ids are joined than 1 MiB holds, in unrelated orders."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(N, 3))
    ids = [rng.permutation(N) for _ in range(2)]
    named = [[f"i{n}" for n in one] for one in ids] if texts else ids
    made = (
        make_run(name, rows, item_ids=one, chunk_rows=1024)
        for name, one in zip(("in", "reference"), named, strict=True)
    )
    run, reference = made
    return run, reference


@pytest.mark.parametrize("texts", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_fit_that_spills_to_a_store_has_the_bits_of_one_that_spills_to_a_disk(
    make_run: MakeRun, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, texts: bool
) -> None:
    run, reference = two(make_run, texts)
    options: dict[str, Any] = {"reference": reference, "join_memory": "1MiB"}
    seen: list[str] = []
    written = obstore.put
    monkeypatch.setattr(
        obstore,
        "put",
        lambda to, key, *of, **more: (seen.append(key), written(to, key, *of, **more))[1],
    )
    there, here = es.fit(run, scratch=PLACE, **options), es.fit(run, **options)
    np.testing.assert_array_equal(there.items, here.items)
    ours, theirs = (one.diagnostics["items"] for one in (there, here))
    assert ours == theirs
    assert (ours["paired_by"], ours["vectors"]) == ("partitioned ids", "shuffle")
    assert len(seen) > 10
    assert all(key.startswith("some where/.embstab.") for key in seen)
    assert keys(store) == []


def test_nothing_stays_after_an_error(
    make_run: MakeRun, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reference = two(make_run)
    monkeypatch.setattr("dask_embstab.passes.join.shuffle.stable_order", lambda *_: 1 / 0)
    with (
        dask.config.set({"embstab.scratch": PLACE, "scheduler": "synchronous"}),
        pytest.raises(ZeroDivisionError),
    ):
        es.fit(run, reference=reference, join_memory="1MiB")
    assert keys(store) == []


@pytest.mark.long
def test_displacements_go_through_a_store_too(
    make_run: MakeRun, store: MemoryStore, tmp_path: Path
) -> None:
    run, reference = two(make_run)
    for name, scratch in (("there", PLACE), ("here", tmp_path)):
        es.evaluate(
            run,
            reference,
            k=3,
            users=5,
            displacement=tmp_path / name,
            scratch=scratch,
            join_memory="1MiB",
        )
    for column in ("id", "cosine", "distance"):
        ours, theirs = (
            np.asarray(zarr.open_array(tmp_path / name, path=f"items/{column}"))
            for name in ("there", "here")
        )
        np.testing.assert_array_equal(ours, theirs)
    assert keys(store) == []


def test_what_a_killed_process_left_is_removed_by_a_later_call(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its mark is a day old, or at once where it has none; and nothing else is."""
    left, alive = (Url(f"{PLACE}/.embstab.{token * 12}.scratch") for token in "ab")
    for key in ("a" * 12 + ".scratch/0", "b" * 12 + ".scratch/0", "b" * 12 + ".scratch/mark"):
        obstore.put(store, f"some where/.embstab.{key}", b"1")
    obstore.put(store, "some where/run.zarr/zarr.json", b"{}")
    OwnedPrefix(Url(PLACE), "embstab").discard()
    assert not [key for key in keys(store) if left.rpartition("/")[2] in key]
    assert len([key for key in keys(store) if alive.rpartition("/")[2] in key]) == 2
    monkeypatch.setattr(owned_prefix, "_LEFT_SECONDS", -1.0)
    OwnedPrefix(Url(PLACE), "embstab").discard()
    assert keys(store) == ["some where/run.zarr/zarr.json"]


def test_a_process_that_lives_puts_its_mark_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_prefix, "_BEAT_SECONDS", 0.0)
    again: list[Url] = []
    put, done = owned_prefix.put_object, threading.Event()

    def counted(path: Url, parts: Any) -> None:
        put(path, parts)
        again.append(path)
        if len(again) == 3:
            done.set()

    monkeypatch.setattr(owned_prefix, "put_object", counted)
    owned = OwnedPrefix(Url(PLACE), "embstab")
    assert done.wait(30)
    owned.discard()
    assert len(set(again)) == 1
    assert keys(store) == []


def test_what_cannot_be_removed_is_a_warning(
    store: MemoryStore,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owned = OwnedPrefix(Url(PLACE), "embstab")
    monkeypatch.setattr(obstore, "delete", lambda *_: 1 / 0)
    with pytest.warns(es.EmbstabWarning, match=r"cannot be removed.*scratch stays at s3://"):
        owned.discard()


@pytest.mark.parametrize("place", ["memory://x", "https://host/x", "s3://key:secret@host/x"])
def test_scratch_is_local_or_in_a_store_that_all_processes_reach(
    make_run: MakeRun, place: str
) -> None:
    run = make_run("in", np.ones((4, 2)))
    with pytest.raises(es.InputError) as caught:
        es.fit(run, reference=run, scratch=place)
    assert "secret" not in str(caught.value)


def test_an_index_in_a_store_is_read_across_its_objects(store: MemoryStore) -> None:
    index = FileIndex(Url(f"{PLACE}/index"))
    values = np.arange(1000)[::-1].copy()
    for start, stop in ((700, 1000), (0, 1), (1, 700)):
        index.put(start, values[start:stop])
    for start, stop in ((0, 1000), (0, 1), (699, 701), (5, 5), (999, 1000)):
        np.testing.assert_array_equal(index.take(start, stop), values[start:stop])
    rows = np.array([999, -1, 0, 700])
    assert gather(index, rows).tolist() == [0, -1, 999, 299]
    obstore.delete(store, "some where/index/1")
    with pytest.raises(es.DamageError, match="is gone"):
        index.take(0, 10)


def test_a_part_of_many_columns_and_parts_is_read_by_ranges(store: MemoryStore) -> None:  # noqa: ARG001
    """Also where the cuts of all parts are too many to be read at once."""
    n_parts = 600
    dtypes = (np.dtype(np.int64), np.dtype((np.float32, (3,))))
    spill = Spill(Url(f"{PLACE}/spill"), dtypes, n_parts, 3)
    keys_, rows = np.arange(n_parts), np.arange(3.0 * n_parts, dtype=np.float32).reshape(-1, 3)
    for number in range(3):
        spill.write(number, (keys_ + number, rows), [np.arange(n_parts + 1)] * 2)
    result = list(spill.each(lambda number: spill.read(number, 7)))
    assert [one[0].tolist() for one in result] == [[7], [8], [9]]
    with SpillReader(spill, 1, 8) as reader:
        np.testing.assert_array_equal(reader.column(1, 0, 1), rows[8:9])
    assert list(each(spill.folder, lambda n: n, range(11))) == list(range(11))


def parts() -> list[memoryview]:
    """A short part, two that end within a part of the upload, and a short one."""
    rng = np.random.default_rng(0)
    return [memoryview(rng.bytes(n)) for n in (100, 9 << 20, (8 << 20) + 5, 3)]


def test_a_large_object_is_put_in_parts(store: MemoryStore) -> None:
    put_object(Url(f"{PLACE}/large"), parts())
    assert bytes(obstore.get(store, "some where/large").bytes()) == b"".join(parts())


@pytest.mark.long
def test_a_large_object_is_put_in_parts_that_a_server_takes(bucket: Bucket) -> None:
    put_object(place := Url(bucket.url("a b/large"), bucket.options), parts())
    values = np.empty(9 << 20, np.uint8)
    ObjectFile(place).fill([(values, 100)])
    assert values.tobytes() == bytes(parts()[1])


@pytest.mark.long
def test_whichever_request_fails_the_join_is_one_clear_error_and_its_scratch_is_removed_later(
    make_run: MakeRun, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reference = two(make_run)
    requests = Requests()
    requests.install(monkeypatch)
    options: dict[str, Any] = {"reference": reference, "scratch": PLACE, "join_memory": "1MiB"}
    at, failed = 0, 0
    with dask.config.set(scheduler="synchronous"):
        expected = es.fit(run, reference=reference, join_memory="1MiB")
        while at == 0 or requests.struck:
            at += 1
            with requests.armed(at):
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", es.EmbstabWarning)
                        fitted = es.fit(run, **options)
                except es.AccessError:
                    failed += 1
                else:
                    np.testing.assert_array_equal(fitted.items, expected.items)
            monkeypatch.setattr(owned_prefix, "_LEFT_SECONDS", -1.0)
            OwnedPrefix(Url(PLACE), "embstab").discard()
            assert keys(store) == []
    assert failed > 20
