"""A series on an object store: what it holds, what readers see and what gc takes are those of a
series in a folder.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from objectstores import careless, contents, in_memory, lagging
from obstore.store import LocalStore
from oracle import world

import dask_embstab as es
from dask_embstab.files.lock_owner import Owner, machine
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.objects import prefix
from dask_embstab.series.objects.probe import require_conditions
from dask_embstab.series.places import series_at
from dask_embstab.series.store import Store

NO_GATES = dict.fromkeys(THRESHOLDS)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three days with ids, in two chunks a table; every day other items."""
    folder = tmp_path_factory.mktemp("days")
    for day in range(1, 4):
        ids: dict[str, Any] = {
            "item_ids": np.arange(24) + day,
            "user_ids": [f"u{i}" for i in range(30)],
        }
        es.create_run(folder / f"day-{day}.zarr", *world(day, 24, 30), chunk_rows=16, **ids)
    return sorted(folder.glob("*.zarr"))


@pytest.fixture(autouse=True)
def one_task_at_a_time() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def live(place: Path | Store, days: list[Path]) -> es.Series:
    """A whole life: adds, a hold, a shadow, a promotion, a rollback, rebases, a forget."""
    series = es.Series.init(place, gates=NO_GATES | {"matched": 2.0}, code="int8")
    for day in days[:2]:
        assert series.add(day, accept="known").published
    with pytest.raises(es.HoldError):
        series.add(days[2])
    assert series.add(days[2], shadow=True, accept="known").version.state == "shadow"
    series.promote(3)
    series.rollback(2)
    series.rebase(1, rewrite=True)
    series.forget([10], table="items", rewrite=True)
    series.change(half_life=8.0)
    series.rebase(2)
    return series


def told(series: es.Series) -> list[dict[str, Any]]:
    """All that the log records but the clock, and what goes by the metadata of runs: those in a
    folder record their digests in it.
    """
    clock = {"created": None, "seconds": None, "digests_file": None, "digests_crc32c": None}
    seen = []
    for version in series.log().versions:
        known = version.to_dict() | clock
        for name in ("digests", "reference_digests"):
            known[name] = {kind: of for kind, of in known[name].items() if kind != "metadata"}
        known["moved"] = sorted(known["moved"])
        known["basis"] = {
            name: value for name, value in known["basis"].items() if name not in ("file", "crc32c")
        }
        known["references"] = [name.partition("@")[0] for name in known["references"]]
        seen.append(known)
    return seen


@pytest.fixture(scope="module")
def both(days: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[es.Series, es.Series]:
    """The same life in a folder and on an object store."""
    with dask.config.set(scheduler="synchronous"):
        return live(tmp_path_factory.mktemp("folder") / "series", days), live(in_memory(), days)


def test_the_log_and_every_bit_are_those_of_a_folder(both: tuple[es.Series, es.Series]) -> None:
    folder, objects = both
    assert told(objects) == told(folder)
    assert objects.status()["foreign"] == folder.status()["foreign"] == []
    for number in range(1, 10):
        theirs, ours = folder.open(number), objects.open(number)
        for key in ("items", "users"):
            a, b = theirs.table(key), ours.table(key)
            assert np.array_equal(np.asarray(a.vectors), np.asarray(b.vectors))
            assert np.asarray(a.ids).tolist() == np.asarray(b.ids).tolist()


def test_readers_get_the_same_answers(
    both: tuple[es.Series, es.Series], days: list[Path], tmp_path: Path
) -> None:
    folder, objects = both
    assert objects.verify() == folder.verify()
    assert objects.verify().damage == ()
    assert objects.diff(1, 2).to_dict() == folder.diff(1, 2).to_dict()
    assert objects.skew([1, 2]).to_dict() == folder.skew([1, 2]).to_dict()
    assert objects.space(1).name == folder.space(1).name
    wanted = [12, 11]
    for version in (1, 2):
        rows = objects.open(version).items.rows_of(wanted)
        assert rows.tolist() == folder.open(version).items.rows_of(wanted).tolist()
    assert np.array_equal(
        np.asarray(objects.codes().items.vectors), np.asarray(folder.codes().items.vectors)
    )
    assert objects.metrics(measured=True).count("\n") == folder.metrics(measured=True).count("\n")
    assert objects.report().well == folder.report().well
    late = objects.apply(days[0], tmp_path / "late.zarr", version=1)
    again = folder.apply(days[0], tmp_path / "again.zarr", version=1)
    assert np.array_equal(np.asarray(late.users.vectors), np.asarray(again.users.vectors))


def test_readers_are_pinned(both: tuple[es.Series, es.Series]) -> None:
    _, objects = both
    with es.Live(objects) as now, objects.pin(1):
        assert now.now().version == 9
        assert len(objects.store.names("pins")) == 2
    assert objects.store.names("pins") == []


def test_gc_removes_what_a_rewrite_replaced_and_nothing_else(days: list[Path]) -> None:
    series = es.Series.init(place := in_memory(), gates=NO_GATES)
    for day in days[:2]:
        series.add(day)
    series.rebase(1, rewrite=True)
    place.replace("runs/lost.zarr/items/vectors/c/0/0", b"half a run")
    assert series.gc().removed == []
    place.create("pins/late.json", b'{"run": "lost"}')
    before = contents(place)
    removed = series.gc(grace=0).removed
    assert "runs/day-2.zarr" in removed
    assert "runs/lost.zarr" not in removed
    place.remove("pins/late.json")
    removed += series.gc(grace=0).removed
    assert "runs/lost.zarr" in removed
    assert not series.verify().damage
    left = contents(place)
    assert left.items() <= before.items()
    assert not [key for key in left for gone in removed if key.startswith(gone)]


def test_ages_are_told_by_the_clock_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host's own clock is a day ahead of the store's."""
    series = es.Series.init(place := in_memory(), gates=NO_GATES)
    place.replace("runs/lost.zarr/zarr.json", b"{}")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    assert series.gc().removed == []
    assert 0.0 <= place.age("runs/lost.zarr") < 60.0
    with pytest.raises(FileNotFoundError):
        place.age("runs/none.zarr")


@pytest.mark.parametrize(
    ("condition", "named"), [("create", "If-None-Match"), ("update", "If-Match")]
)
def test_a_store_that_does_not_look_at_a_condition_is_refused(
    monkeypatch: pytest.MonkeyPatch, condition: str, named: str
) -> None:
    careless(monkeypatch, condition)
    place = in_memory()
    with pytest.raises(es.InputError, match=rf"{named}.*it did 8 and not one.*use Amazon S3"):
        es.Series.init(place)
    assert contents(place) == {}


def test_a_store_without_conditions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(es.InputError, match=r"has no such requests .*use Amazon S3"):
        require_conditions(LocalStore(tmp_path), "locks", "s3://bucket/series")


def test_a_listing_that_lags_behind_hides_nothing(
    days: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions, runs and their files are asked for by their names where it does not know them."""
    series = es.Series.init(place := in_memory(), gates=NO_GATES)
    series.add(days[0])
    lagging(monkeypatch)
    assert series.add(days[1]).version.version == 2
    assert "versions/2.json" not in place.names("versions")
    assert [v.version for v in series.log().versions] == [1, 2]
    assert series.open().name == "day-2"
    series.gc(grace=0)
    assert series.add(days[2]).version.version == 3
    assert not series.verify().damage
    monkeypatch.undo()
    assert [v.run for v in series.log().versions] == ["day-1", "day-2", "day-3"]
    assert not series.verify().damage


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/series", "memory://series"])
def test_a_place_that_cannot_be_listed_or_shared_is_refused(url: str) -> None:
    assert series_at(url) is None
    with pytest.raises(es.InputError, match=r"a folder or on an object store \(s3://"):
        es.Series(url)


@pytest.mark.parametrize("call", ["link", "rename"])
def test_a_file_system_without_links_or_renames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(es.InputError, match=r"hard links and renames.*not implemented.*use a"):
            es.Series.init(tmp_path / "series")
    assert es.Series.init(tmp_path / "series").log().versions == ()


def test_damage_is_found_by_whoever_reads(days: list[Path]) -> None:
    series = es.Series.init(place := in_memory(), gates=NO_GATES)
    series.add(days[0])
    run = series.open()
    chunks = [place.read(f"runs/day-1.zarr/items/vectors/c/{n}/0") for n in (0, 1)]
    place.replace("runs/day-1.zarr/items/vectors/c/0/0", chunks[1])  # whole, and another's
    with pytest.raises(es.DamageError, match=r"is not the chunk that was published"):
        np.asarray(run.items.vectors)
    assert series.verify().damage == (
        "version 1: runs/day-1.zarr/items/vectors/c/0/0 is not what was published",
    )
    place.remove("runs/day-1.zarr/items/vectors/c/0/0")
    with pytest.raises(es.DamageError, match=r"c/0/0 is missing"):
        series.open()
    place.replace("runs/day-1.zarr/items/vectors/c/0/0", chunks[0])
    assert series.open().items.n_rows == 24


@pytest.mark.parametrize("name", ["a b", "50% off", "tag#1", "día", "x?y*z", "[1]{2}|<3>", "~@^`"])
def test_names_are_kept_as_they_are(name: str) -> None:
    place = in_memory()
    place.create(f"runs/{name}.zarr/zarr.json", b"{}")
    assert place.names("runs") == place.folders("runs") == [f"{name}.zarr"]
    assert place.files("runs") == {f"{name}.zarr/zarr.json": 2}
    assert place.read(f"runs/{name}.zarr/zarr.json") == b"{}"
    place.remove(f"runs/{name}.zarr")
    assert contents(place) == {}


def test_a_folder_is_no_beginning_of_a_name() -> None:
    place = in_memory()
    place.create("runs/a.zarr/zarr.json", b"{}")
    place.create("runs/a.zarr2/zarr.json", b"{}")
    place.remove("runs/a.zarr")
    assert place.names("runs") == ["a.zarr2"]


def test_metadata_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "MOST_METADATA_BYTES", 8)
    place = in_memory()
    place.create("versions/1.json", b"123456789")
    with pytest.raises(es.DamageError, match=r"has 9 bytes and 8 may stand there"):
        place.read("versions/1.json")
    assert b"".join(place.blocks("versions/1.json")) == b"123456789"
    with place.open("versions/1.json") as file:
        assert (file.seek(-3, os.SEEK_END), file.read()) == (6, b"789")


def test_many_files_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of ten thousand versions does not wait for each of them."""
    together = threading.Barrier(8)

    def read(_: Any, key: str) -> bytes:
        together.wait(60)
        return key.encode()

    monkeypatch.setattr(prefix.ObjectPrefix, "read", read)
    keys = [f"versions/{n}.json" for n in range(16)]
    assert list(in_memory().read_each(keys)) == [key.encode() for key in keys]


@pytest.mark.parametrize("on_objects", [False, True], ids=["folder", "object store"])
def test_gc_takes_a_lock_that_was_left_of_a_published_run(
    days: list[Path], tmp_path: Path, on_objects: bool
) -> None:
    """Of a process of this machine that was killed once its version was there."""
    place = in_memory() if on_objects else tmp_path / "series"
    series = es.Series.init(place, gates=NO_GATES)
    series.add(days[0])
    killed = Owner("0" * 12, machine(), 2**22 + 1, "12", "yesterday", "yesterday")
    series.store.create("locks/day-1.lock", killed.encoded())
    assert series.gc().removed == []
    assert series.store.names("locks") == []
    assert not series.verify().damage
