"""Where is something made that nobody shall see yet? In a hidden folder that says who is at work in
it.

``.<name>.<token>.partial`` holds a lock from before it has this name until it is gone. What a
killed process left is told by its lock, on whatever machine that ran: later calls take it over
under a new name, so that two cannot both do so and a lost worker of the old call finds its folder
gone, or remove it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dask_embstab.files.atomic import PARTIAL, hidden_name, new_token
from dask_embstab.files.locks import LEASE_SECONDS, Lock, file_system_time, try_lock

LOCK = "lock"
_NEW, _TRASH = ".new", ".trash"


@dataclass(frozen=True, slots=True)
class OwnedFolder:
    """A folder that this process alone works in."""

    path: Path
    lock: Lock

    def is_ours(self) -> bool:
        """Whether no other has taken it over: one that saw no sign of life for a minute, on a mount
        without locks.
        """
        return self.lock.is_held() and self.path.is_dir()

    def release(self) -> None:
        """Let others take over what is in it."""
        self.lock.release()

    def discard(self) -> None:
        """Remove it with everything in it: out of sight at once, then piece by piece. It never
        raises.
        """
        trash = self.path.with_suffix(_TRASH)
        with contextlib.suppress(OSError):
            self.path.rename(trash)
        self.lock.release()
        remove_folder(trash)


def make_owned(parent: Path, name: str, *, mode: int = 0o777) -> OwnedFolder:
    """A new folder for something called ``name``, next to it."""
    made = parent / hidden_name(name, new_token(), _NEW)
    made.mkdir(mode)
    try:
        lock = try_lock(made / LOCK)
    except BaseException:
        remove_folder(made)
        raise

    assert lock is not None, "nobody else knows this folder yet"
    path = made.with_suffix(PARTIAL)
    try:
        made.rename(path)
    except BaseException:
        OwnedFolder(made, lock).discard()
        raise

    return OwnedFolder(path, lock)


def abandoned(parent: Path, name: str) -> Iterator[OwnedFolder]:
    """What killed processes left of work on ``name``, one after another, each taken over under a
    new name.

    Each must be used or discarded. Folders whose owner is alive, and what is not ours, are passed
    over.
    """
    for left in leftovers(parent, name):
        if left.suffix == _TRASH:
            remove_folder(left)
        elif (taken := take_over(left, name)) is not None:
            yield taken


def take_over(left: Path, name: str) -> OwnedFolder | None:
    """A leftover of work on ``name``, under a new name; None where its owner is alive, or it is
    gone.
    """
    with contextlib.suppress(OSError):
        if (
            left.suffix == _NEW
            and file_system_time(left.parent) - left.lstat().st_mtime < LEASE_SECONDS
        ):
            return None
        lock = try_lock(left / LOCK)
        if lock is None:
            return None
        path = left.with_name(hidden_name(name, new_token()))
        try:
            left.rename(path)
        except BaseException:
            lock.release()
            raise
        return OwnedFolder(path, lock)
    return None


def reclaim(parent: Path, name: str) -> None:
    """Remove what killed processes left of work on ``name``."""
    for left in abandoned(parent, name):
        left.discard()


def leftovers(parent: Path, name: str) -> list[Path]:
    """Folders of this user that work on ``name`` is done in, or was when it was killed."""
    ours = re.compile(
        re.escape(hidden_name(name, "TOKEN", "")).replace("TOKEN", "[0-9a-f]{12}")
        + r"\.(partial|new|trash)"
    )
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if ours.fullmatch(entry.name) and _is_own_folder(entry)
        )

    return []


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        known = entry.stat(follow_symlinks=False)
        return stat.S_ISDIR(known.st_mode) and known.st_uid == os.geteuid()
    return False


@contextlib.contextmanager
def owned_folder(parent: Path, name: str) -> Iterator[Path]:
    """A private folder for the length of the block; those of killed processes go first."""
    reclaim(parent, name)
    made = make_owned(parent, name, mode=0o700)
    try:
        yield made.path
    finally:
        made.discard()


def remove_folder(folder: Path) -> None:
    """Remove a folder in which tasks of a failed pass may still be ending: none of them makes the
    folder itself anew.
    """
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)
