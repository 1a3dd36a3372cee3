"""One owner at a time, among threads, processes and hosts, whatever kind of lock the file system
carries.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import OTHER_HOST, elsewhere, tell
from oracle import hidden

from dask_embstab.files import locks
from dask_embstab.files.locks import LEASE_SECONDS, Lock, beat_all, holder, try_lock
from dask_embstab.files.owned import abandoned, make_owned, owned_folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "name.lock"


def require(lock: Lock | None) -> Lock:
    assert lock is not None
    return lock


def age(path: Path, seconds: float) -> None:
    """Nobody has written here for so long."""
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_lock_keeps_threads_apart_and_is_gone_when_released(place: Path) -> None:
    lock, outcomes = require(try_lock(place)), []
    thread = threading.Thread(target=lambda: outcomes.append(try_lock(place)))
    thread.start()
    thread.join()
    assert outcomes == [None]
    assert str(os.getpid()) in holder(place)
    lock.release(place)
    assert not place.exists()
    require(try_lock(place)).release(place)


def test_posix_locks_alone_keep_threads_apart_too(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    lock = require(try_lock(place))
    assert try_lock(place) is None, (
        "a second descriptor that is closed would drop the lock of the first"
    )
    with elsewhere("", "try", place) as other:
        assert tell(other) == b"taken\n"
    lock.release(place)


def test_reading_the_file_does_not_drop_the_lock(place: Path) -> None:
    lock = require(try_lock(place))
    place.read_bytes()
    with elsewhere("", "try", place) as other:
        assert tell(other) == b"taken\n"
    lock.release(place)
    with elsewhere("", "try", place) as other:
        assert tell(other) == b"free\n"


@pytest.mark.parametrize("flock", ["as it is", "always succeeds"])
def test_a_killed_process_holds_no_lock(
    place: Path, monkeypatch: pytest.MonkeyPatch, flock: str
) -> None:
    if flock == "always succeeds":
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with elsewhere("", "lock", place) as other:
        assert try_lock(place) is None
        assert f"process {other.pid} on" in holder(place)
        other.send_signal(signal.SIGKILL)
        os.waitid(
            os.P_PID, other.pid, os.WEXITED | os.WNOWAIT
        )  # a zombie: nobody has asked for its end yet
        require(try_lock(place)).release(place)


def test_a_forked_child_does_not_keep_its_parents_lock(place: Path) -> None:
    lock = require(try_lock(place))
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    os.close(lock.descriptor)  # as the parent's death does
    locks._held.clear()
    try:
        require(try_lock(place)).release(place)
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)


# --- other hosts: each sees its own kernel's locks, the owner's name and the age of the last beat


@pytest.fixture
def local_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that keeps locks to its own host: here every lock is granted."""
    monkeypatch.setattr(locks, "_kernel_lock", lambda _: True)


@pytest.mark.usefixtures("local_locks")
def test_an_owner_on_another_host_is_left_alone_while_it_beats(place: Path) -> None:
    with elsewhere("beta", "lock", place):
        assert try_lock(place) is None
        assert "on beta" in holder(place)
        age(place, LEASE_SECONDS - 5)
        assert try_lock(place) is None


@pytest.mark.usefixtures("local_locks")
def test_an_owner_on_another_host_that_does_not_beat_is_gone_and_learns_of_it(place: Path) -> None:
    with elsewhere("beta", "lock", place) as other:
        age(place, LEASE_SECONDS + 5)
        lock = require(try_lock(place))
        assert tell(other) == b"False\n", "it publishes nothing any more"
        assert place.exists(), "it does not remove the lock of another"
        lock.release(place)


def test_a_beat_is_a_sign_of_life_that_others_see(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for left in [*locks._held.values()]:  # by tests whose processes die in this one
        left.release()
    lock = require(try_lock(place))
    age(place, 2 * LEASE_SECONDS)
    aged = place.stat().st_mtime
    beat_all()
    assert place.stat().st_mtime > aged + LEASE_SECONDS
    assert lock.is_held()
    lock.release(place)
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.001)
    lock = require(try_lock(place))
    while (thread := locks._beating) is None or not thread.is_alive():
        pass
    lock.release(place)
    if locks._beating is not None:
        locks._beating.join(30)
    assert locks._beating is None, "nothing beats for nobody"


@pytest.mark.parametrize("owner", ["lives", "is dead"])
def test_without_kernel_locks_the_process_number_tells_on_one_machine(
    place: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    monkeypatch.setattr(locks, "_kernel_lock", lambda _: True)
    with elsewhere("", "lock", place) as other:
        if owner == "is dead":
            other.kill()
            other.wait()
        lock = try_lock(place)
        assert (lock is None) == (owner == "lives")
        if lock is not None:
            lock.release(place)


def test_the_clock_of_the_file_system_tells_the_age(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is an hour ahead of the server's still sees that the owner has just
    written.
    """
    monkeypatch.setattr(locks, "_kernel_lock", lambda _: True)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    with elsewhere("beta", "lock", place):
        assert try_lock(place) is None


def test_a_file_that_was_removed_meanwhile_is_no_lock(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = locks._kernel_lock, []

    def late(descriptor: int) -> bool:
        if not calls:
            place.unlink()  # the owner before let go of it between our open and our lock
        calls.append(descriptor)
        return original(descriptor)

    monkeypatch.setattr(locks, "_kernel_lock", late)
    lock = require(try_lock(place))
    assert len(calls) == 2
    assert lock.is_held()
    lock.release(place)


def test_a_link_or_a_folder_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"years of work")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(OSError):
            try_lock(tmp_path / name)
    assert (tmp_path / "victim").read_bytes() == b"years of work"


HOSTS = all(shutil.which(tool) for tool in ("bindfs", "unshare", "fusermount"))


@contextlib.contextmanager
def mounted(folder: Path, at: Path, *options: str) -> Iterator[Path]:
    """``folder`` once more, by a file system of its own: with caches and locks that are not those
    of the first.
    """
    at.mkdir()
    made = subprocess.run(["bindfs", *options, folder, at], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"bindfs cannot mount here: {made.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(["fusermount", "-uz", at], check=True)


@pytest.mark.skipif(not HOSTS, reason="needs bindfs, unshare and fusermount")
@pytest.mark.parametrize(
    "carried", [True, False], ids=["locks are carried", "locks stay on their host"]
)
def test_two_hosts_over_two_mounts(tmp_path: Path, carried: bool) -> None:
    """Two mount, network and host name spaces on one exported folder, as two clients of a
    server.
    """
    (export := tmp_path / "export").mkdir()
    options = ["--enable-lock-forwarding", "--multithreaded"] if carried else []
    with (
        mounted(export, tmp_path / "a", *options) as a,
        mounted(export, tmp_path / "b", *options) as b,
    ):
        lock = require(try_lock(a / "run.lock"))
        with elsewhere("", "try", b / "run.lock", within=OTHER_HOST) as other:
            assert tell(other) == b"taken\n"
        lock.release(a / "run.lock")
        with elsewhere("", "try", b / "run.lock", within=OTHER_HOST) as other:
            assert tell(other) == b"free\n"


# --- folders that are worked in


def test_what_a_killed_process_left_is_reclaimed_and_what_a_live_one_works_in_is_not(
    tmp_path: Path,
) -> None:
    with (
        elsewhere("", "scratch", tmp_path, "embstab") as lives,
        elsewhere("", "scratch", tmp_path, "embstab") as dies,
    ):
        assert len(hidden(tmp_path)) == 2
        dies.kill()
        dies.wait()
        with owned_folder(tmp_path, "embstab") as made:
            assert len(hidden(tmp_path)) == 2
            assert (made.stat().st_mode & 0o777) == 0o700
        tell(lives)
    assert hidden(tmp_path) == []


def test_a_leftover_is_taken_over_by_one(tmp_path: Path) -> None:
    left = make_owned(tmp_path, "run")
    (left.path / "chunk").write_bytes(b"1")
    assert list(abandoned(tmp_path, "run")) == []
    left.release()
    (mine,) = folders = list(abandoned(tmp_path, "run"))
    assert mine.path != left.path, "a lost worker of the call before finds its folder gone"
    assert not left.path.exists()
    assert (mine.path / "chunk").read_bytes() == b"1"
    assert list(abandoned(tmp_path, "run")) == []
    assert mine.is_ours()
    for owned in folders:
        owned.discard()
    assert hidden(tmp_path) == []


def test_only_folders_of_this_very_name_are_looked_at(tmp_path: Path) -> None:
    others = [
        ".run.zarr.0123456789ab.partial",
        ".other.0123456789ab.partial",
        ".run.0123456789AB.partial",
        "run",
    ]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis").write_bytes(b"years of work")
    (tmp_path / ".run.0123456789ab.partial").symlink_to(tmp_path / "victim")
    with owned_folder(tmp_path, "run"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*others, "victim", ".run.0123456789ab.partial"]
    )
    assert (tmp_path / "victim" / "thesis").exists()


def test_a_folder_that_is_just_being_made_is_not_reclaimed(tmp_path: Path) -> None:
    young, old = tmp_path / ".run.0123456789ab.new", tmp_path / ".run.0123456789ac.new"
    for path in (young, old):
        path.mkdir()
    age(old, 2 * LEASE_SECONDS)
    with owned_folder(tmp_path, "run"):
        pass
    assert hidden(tmp_path) == [young]


# --- an owner that is not told


def test_a_lock_without_a_name_is_waited_for_and_is_nobodys_in_the_end(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power cut leaves it, or a host that is just writing its name."""
    place.write_bytes(b"")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            age(place, 60)

    monkeypatch.setattr(time, "sleep", wait)
    require(try_lock(place)).release(place)
    assert len(waits) == 3


def test_a_full_disk_leaves_no_lock_that_names_nobody(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            try_lock(place)
        with pytest.raises(OSError, match="No space left"):
            make_owned(place.parent, "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(place.parent.iterdir())
    require(try_lock(place)).release(place)
