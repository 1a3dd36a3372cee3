"""A series that several machines work on at once, whatever kind of lock its file system carries
between them.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from hosts import OTHER_HOST, elsewhere, tell
from oracle import hidden, snapshot, world
from test_locks import HOSTS, mounted

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.files import locks
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.store import Folder

MakeRun = Callable[..., es.Run]


@pytest.fixture
def place(tmp_path: Path, make_run: MakeRun) -> Path:
    """A series of one run; the next one is at ``day-2.zarr`` beside it."""
    series = es.Series.init(tmp_path / "export" / "series", gates=dict.fromkeys(THRESHOLDS))
    for day in (1, 2):
        make_run(f"day-{day}", *world(day))
    series.add(tmp_path / "day-1.zarr")
    return tmp_path / "export" / "series"


@pytest.fixture
def local_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flock` and every other lock always succeed, as on a mount that keeps them to its own
    host.
    """
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(fcntl, "lockf", lambda *_: None)
    monkeypatch.setattr(fcntl, "fcntl", lambda *_: 0)


def publishing(place: Path, machine: str = "", within: tuple[str, ...] = ()) -> Any:
    """Another process that publishes day 2 and stops when everything is written, right before its
    version is created.
    """
    return elsewhere(machine, "publish", place, place.parent.parent / "day-2.zarr", within=within)


@pytest.mark.parametrize("machine", ["", "beta"], ids=["this machine", "another machine"])
@pytest.mark.usefixtures("local_locks")
def test_gc_leaves_alone_what_is_being_published_where_every_lock_is_granted(
    place: Path, machine: str
) -> None:
    with publishing(place, machine) as publisher:
        assert es.Series(place).gc(grace=0).removed == []
        with pytest.raises(es.RetryError, match=r"at work on day-2.*last seen"):
            es.Series(place).add(place.parent.parent / "day-2.zarr")
        assert tell(publisher) == b"published\n"
    assert es.Series(place).gc(grace=0).removed == []
    assert [v.run for v in es.Series(place).log().versions] == ["day-1", "day-2"]
    assert not es.Series(place).verify().damage


@pytest.mark.usefixtures("local_locks")
def test_a_publisher_that_showed_no_sign_of_life_publishes_nothing_any_more(place: Path) -> None:
    """Another machine took over its lock and cleared up; the publisher wakes and finds out before
    it publishes.
    """
    with publishing(place, "beta") as publisher:
        lock = place / "locks" / "day-2.lock"
        os.utime(lock, (time.time() - 2 * locks.LEASE_SECONDS,) * 2)
        assert "runs/day-2.zarr" in es.Series(place).gc(grace=0).removed
        assert tell(publisher).startswith(
            b"RetryError: another process has taken over the work on day-2; nothing"
        )
    assert [v.run for v in es.Series(place).log().versions] == ["day-1"]
    assert es.Series(place).add(place.parent.parent / "day-2.zarr").published


@pytest.mark.parametrize("machine", ["", "beta"], ids=["this machine", "another machine"])
def test_gc_leaves_what_is_younger_than_the_grace(place: Path, machine: str) -> None:
    with publishing(place, machine) as publisher:
        publisher.kill()
        publisher.wait()
    series, lock = es.Series(place), place / "locks" / "day-2.lock"
    os.utime(lock, (time.time() - 2 * locks.LEASE_SECONDS,) * 2)
    left = [
        place / "runs" / "day-2.zarr",
        place / "references" / "day-2.zarr",
        *(place / "candidates" / "day-2").iterdir(),
        *(place / "digests").glob("day-2.*"),
    ]
    keys = {str(path.relative_to(place)) for path in left}
    for young in left:  # one young file keeps all that belongs to it
        for path in left:
            os.utime(path, (time.time() - (7200 if path != young else 60),) * 2)
        result = series.gc()
        assert result.removed == []
        assert result.left.keys() == keys
        assert all("within the grace of 3600 s" in why for why in result.left.values())
        assert set(series.gc(grace=7500).left) == keys
    assert not list((place / "locks").glob("*.lock")), "a dead process holds no lock"
    os.utime(young, (time.time() - 7200,) * 2)
    result = series.gc()
    assert set(result.removed) == keys
    assert result.left == {}
    assert [path.name for path in (place / "runs").iterdir()] == ["day-1.zarr"]
    assert not series.verify().damage


def test_gc_says_what_another_process_is_at_work_on(place: Path) -> None:
    with publishing(place):
        left = es.Series(place).gc(grace=0).left
    assert left["runs/day-2.zarr"] == "another process is at work on it"


@pytest.mark.parametrize(
    "key", ["runs/.lost.zarr.0123456789ab.partial", "references/lost.zarr", "bases/" + "0" * 16]
)
def test_the_grace_holds_for_runs_references_scratch_and_matrices(place: Path, key: str) -> None:
    (place / key).mkdir(parents=True)
    assert es.Series(place).gc().left.keys() == {key}
    assert es.Series(place).gc(grace=0).removed == [key]


def test_gc_tells_ages_by_the_clock_of_the_file_system(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This host's own clock is a day ahead of the server's."""
    (place / "runs" / "lost.zarr").mkdir()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    assert es.Series(place).gc().removed == []


def test_files_of_the_future_go_where_no_grace_is_asked_for(place: Path) -> None:
    (lost := place / "runs" / "lost.zarr").mkdir()
    os.utime(lost, (time.time() + 86_400,) * 2)
    assert es.Series(place).gc().removed == []
    assert es.Series(place).gc(grace=0).removed == ["runs/lost.zarr"]


def test_gc_looks_at_pins_again_before_it_removes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader pins a run after gc has begun: the run is one that a rebase has written anew."""
    series = es.Series(place)
    series.add(place.parent.parent / "day-2.zarr")
    series.rebase(1, rewrite=True)
    entered, original = [], Folder.lock

    def lock(self: Folder, name: str) -> Any:
        entered.append(self.create("pins/late.json", b'{"run": "day-2"}') if not entered else None)
        return original(self, name)

    monkeypatch.setattr(Folder, "lock", lock)
    removed = series.gc(grace=0).removed
    assert entered
    assert "runs/day-2.zarr" not in removed
    (place / "pins" / "late.json").unlink()
    assert "runs/day-2.zarr" in series.gc(grace=0).removed


@pytest.mark.parametrize("gone", ["runs/day-2.zarr", "references/day-2.zarr", "digests"])
def test_a_version_whose_run_is_gone_is_withdrawn_loudly(
    place: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """The other machine removes it between the last look and the version."""
    series, original = es.Series(place), Folder.create

    def create(self: Folder, key: str, data: bytes) -> None:
        if key == "versions/2.json":
            targets = (
                [gone]
                if gone != "digests"
                else [k for k in map("digests/{}".format, self.names("digests")) if "day-2" in k]
            )
            for target in targets:
                self.remove(target)
        original(self, key, data)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "create", create)
        with pytest.raises((es.RetryError, es.DamageError), match=r"day-2|missing") as caught:
            series.add(place.parent.parent / "day-2.zarr")
    assert "withdrawn; call again" in str(caught.value)
    assert [v.run for v in series.log().versions] == ["day-1"]
    assert series.add(place.parent.parent / "day-2.zarr").published
    assert not series.verify().damage


def test_a_version_that_others_follow_is_not_withdrawn(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, original = es.Series(place), Folder.create

    def create(self: Folder, key: str, data: bytes) -> None:
        original(self, key, data)
        if key == "versions/2.json":
            self.remove("runs/day-2.zarr")
            monkeypatch.undo()
            es.Series(place).change(half_life=5.0)

    monkeypatch.setattr(Folder, "create", create)
    with pytest.raises(
        es.DamageError,
        match=r"runs/day-2.zarr.* was removed .*version 2 cannot be withdrawn.*roll back",
    ):
        series.add(place.parent.parent / "day-2.zarr")
    assert [v.version for v in series.log().versions] == [1, 2, 3]
    assert series.rollback(1).published
    assert series.open().name == "day-1"


@pytest.mark.parametrize("verb", ["stabilize", "apply", "create_run"])
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("linked", [True, False])
def test_nobody_but_a_series_writes_into_its_folders(
    place: Path, tmp_path: Path, verb: str, overwrite: bool, linked: bool
) -> None:
    if linked:
        (tmp_path / "link").symlink_to(place / "runs")
    out = (tmp_path / "link" if linked else place / "runs") / (
        "day-1.zarr" if overwrite else "new.zarr"
    )
    run = es.open_run(tmp_path / "day-2.zarr")
    verbs: dict[str, Callable[[], Any]] = {
        "stabilize": lambda: es.stabilize(run, out, overwrite=overwrite),
        "apply": lambda: es.apply(es.fit(run), run, out, overwrite=overwrite),
        "create_run": lambda: es.create_run(out, np.eye(3), overwrite=overwrite),
    }
    before = snapshot(place)
    with pytest.raises(es.InputError, match=r"lies in the series .* by its own verbs alone"):
        verbs[verb]()
    assert snapshot(place) == before


def test_the_command_line_says_so_too(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "stabilize",
                str(tmp_path / "day-2.zarr"),
                str(place / "runs" / "day-1.zarr"),
                "--overwrite",
            ]
        )
    assert ended.value.code == 2
    assert "embstab series add" in capsys.readouterr().err


def test_next_to_a_series_runs_are_written_as_ever(place: Path, tmp_path: Path) -> None:
    out = place.parent / "out.zarr"
    assert es.stabilize(
        tmp_path / "day-2.zarr", out, reference=place / "runs" / "day-1.zarr"
    ).path == str(out)


# --- two mounts of one export, in name spaces of their own


@pytest.mark.skipif(not HOSTS, reason="needs bindfs, unshare and fusermount")
@pytest.mark.parametrize(
    "carried", [True, False], ids=["locks are carried", "locks stay on their host"]
)
def test_two_hosts_publish_and_collect_in_one_series(
    place: Path, tmp_path: Path, carried: bool
) -> None:
    options = ["--enable-lock-forwarding", "--multithreaded"] if carried else []
    export = place.parent
    with (
        mounted(export, tmp_path / "a", *options) as a,
        mounted(export, tmp_path / "b", *options) as b,
        publishing(b / "series", within=OTHER_HOST) as publisher,
    ):
        series = es.Series(a / "series")
        assert series.gc(grace=0).removed == []
        with pytest.raises(es.RetryError, match=r"at work on day-2 .process .* on other"):
            series.add(tmp_path / "day-2.zarr")
        assert tell(publisher) == b"published\n"
        assert [v.run for v in series.log().versions] == ["day-1", "day-2"]
        assert series.gc(grace=0).removed == []
        assert not series.verify().damage


@pytest.mark.skipif(not HOSTS, reason="needs bindfs, unshare and fusermount")
@pytest.mark.parametrize(
    "carried", [True, False], ids=["locks are carried", "locks stay on their host"]
)
def test_two_hosts_that_overwrite_one_place_do_not_delete_each_others_work(
    tmp_path: Path, make_run: MakeRun, carried: bool
) -> None:
    options = ["--enable-lock-forwarding", "--multithreaded"] if carried else []
    run = make_run("in", *world(3))
    (export := tmp_path / "export").mkdir()
    es.create_run(export / "out.zarr", 3 * np.eye(4))
    with (
        mounted(export, tmp_path / "a", *options) as a,
        mounted(export, tmp_path / "b", *options) as b,
        elsewhere("", "write", run.path, b / "out.zarr", within=OTHER_HOST) as other,
    ):
        assert len(hidden(export)) == 1
        with dask.config.set(scheduler="synchronous"):
            es.apply(es.fit(run), run, a / "out.zarr", overwrite=True, dtype="float32")
        assert es.open_run(a / "out.zarr").items.dtype == np.float32
        assert tell(other) == b"published\n"
        assert es.open_run(a / "out.zarr").items.dtype == np.float64
    assert hidden(export) == []
    assert subprocess.run(["ls", export], capture_output=True, check=True).stdout == b"out.zarr\n"
