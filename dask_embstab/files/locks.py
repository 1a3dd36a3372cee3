"""Who is at work here? A lock between threads, processes and hosts, and whose it is.

A regular file, opened for writing and locked as a range of bytes: NFS and 9p carry that to their
server, which they do not do with every `flock`. Some mounts keep these locks to their own host as
well (``nolock``, ``local_lock=all``), or have none. So the file also names its owner and is written
every few seconds, and whoever gets a lock that an owner on another machine wrote a moment ago
leaves it alone. The age is known by the file system's own clock, not by two hosts'.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dask_embstab.files.atomic import create_new, hidden_name, new_token
from dask_embstab.files.lock_owner import (
    RECORD_BYTES,
    Owner,
    machine,
    now,
    this_owner,
)
from dask_embstab.files.regular import read_regular, require_regular

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
"""An owner on another machine that has not written for so long is gone."""
_UNFINISHED_SECONDS = 5.0
"""A lock that names no owner is just being made, or was when its process was killed."""
_POLL_SECONDS = 0.05
_RELEASED = b"released"
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(slots=True, eq=False)
class Lock:
    """A lock that this process holds, until `release`; `try_lock` makes one."""

    descriptor: int
    inode: tuple[int, int]
    owner: Owner

    def is_held(self) -> bool:
        """Whether the file is still there and names this owner: asked before anything is made
        visible.
        """
        with contextlib.suppress(OSError):
            owner = Owner.decoded(os.pread(self.descriptor, RECORD_BYTES, 0))
            return (
                owner is not None
                and owner.token == self.owner.token
                and os.fstat(self.descriptor).st_nlink > 0
            )
        return False

    def beat(self) -> None:
        """Write a sign of life, as far as the server of a mount."""
        with _guard, contextlib.suppress(OSError):
            if _held.get(self.inode) is self and self.is_held():
                self.owner = replace(self.owner, beat=now())
                os.pwrite(self.descriptor, self.owner.encoded(), 0)
                os.fsync(self.descriptor)

    def release(self, path: str | os.PathLike[str] | None = None) -> None:
        """Let go of it; the file at ``path`` is removed while it is still held."""
        with _guard:
            if _held.pop(self.inode, None) is None:
                return  # a child that was forked has closed it
            try:
                if self.is_held():
                    os.pwrite(self.descriptor, _RELEASED.ljust(RECORD_BYTES), 0)
                    if path is not None:
                        Path(path).unlink(missing_ok=True)
            finally:
                os.close(self.descriptor)


_held: dict[tuple[int, int], Lock] = {}
"""The locks of this process. POSIX locks do not keep its threads apart, and closing any descriptor
would drop them.
"""
_guard = threading.RLock()
_beating: threading.Thread | None = None


def try_lock(path: str | os.PathLike[str]) -> Lock | None:
    """Lock the file at ``path``, which is made where it is missing; None where another owner is
    alive.

    A dead process holds no lock; one that names no owner is waited for, a few seconds. Raises
    FileNotFoundError where the folder is missing, another OSError where the owner cannot be
    written.
    """
    while True:
        with _guard:
            if _inode_at(path) in _held:
                return None
            descriptor, is_new = _opened(path)
            lock = None
            try:
                verdict = _verdict(path, descriptor, is_new=is_new)
                if verdict == "free":
                    lock = _taken(path, descriptor)
                    return lock
            finally:
                if lock is None:
                    os.close(descriptor)
            if verdict == "taken":
                return None
        if verdict == "unnamed":
            time.sleep(_POLL_SECONDS)


def holder(path: str | os.PathLike[str]) -> str:
    """Whose lock it is, for a message."""
    with _guard, contextlib.suppress(OSError):
        if _inode_at(path) in _held:
            return f"process {os.getpid()}, this one"
        owner = Owner.decoded(read_regular(path, RECORD_BYTES))
        if owner is not None:
            return str(owner)
    return "one that has not written its name yet"


def _opened(path: str | os.PathLike[str]) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        require_regular(path, links=False)
        with contextlib.suppress(FileNotFoundError):  # its owner has just removed it
            return os.open(path, flags), False


_Verdict = Literal["free", "taken", "gone", "unnamed"]


def _verdict(path: str | os.PathLike[str], descriptor: int, *, is_new: bool) -> _Verdict:
    """Whether the lock may be taken; ``gone`` where the file was removed by the owner before.

    ``unnamed`` where its owner is just writing his name, or died when he did.
    """
    if not _kernel_lock(descriptor):
        return "taken"

    try:
        known = os.fstat(descriptor)
        if not known.st_nlink or _inode_at(path) != (known.st_dev, known.st_ino):
            return "gone"
    except OSError as error:
        if error.errno == errno.ESTALE:
            return "gone"
        raise

    return "free" if is_new else _of_its_owner(path, descriptor)


def _taken(path: str | os.PathLike[str], descriptor: int) -> Lock:
    global _beating
    owner = this_owner(new_token())
    try:
        os.ftruncate(descriptor, 0)
        if os.pwrite(descriptor, owner.encoded(), 0) < RECORD_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
    except OSError:  # half a name would keep others waiting
        Path(path).unlink(missing_ok=True)
        raise

    known = os.fstat(descriptor)
    inode = known.st_dev, known.st_ino
    lock = _held[inode] = Lock(descriptor, inode, owner)
    if _beating is None:
        _beating = threading.Thread(target=_keep_beating, name="embstab-heartbeat", daemon=True)
        _beating.start()

    return lock


def _kernel_lock(descriptor: int) -> bool:
    """Whether the system grants a lock, or has none on this file system.

    A lock of the open file, where there is such a thing, is not lost when another descriptor of the
    file is closed.
    """
    for is_of_open_file in (True, False):
        try:
            if not is_of_open_file:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif hasattr(fcntl, "F_OFD_SETLK"):
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
            else:
                continue
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if error.errno in _NO_LOCKS:
                return True
            if error.errno != errno.EINVAL:
                raise
        else:
            return True
    return True


def _of_its_owner(path: str | os.PathLike[str], descriptor: int) -> _Verdict:
    """The same by what the file says of its owner: one may be at work of whom the kernel's lock
    says nothing.
    """
    data = os.pread(descriptor, RECORD_BYTES, 0)
    owner = Owner.decoded(data)
    if owner is None:
        may_come = not data.startswith(_RELEASED) and _age(path, descriptor) < _UNFINISHED_SECONDS
        return "unnamed" if may_come else "free"

    if owner.machine == machine():
        is_alive = owner.process != os.getpid() and owner.is_running
    else:
        is_alive = _age(path, descriptor) < LEASE_SECONDS

    return "taken" if is_alive else "free"


def _age(path: str | os.PathLike[str], descriptor: int) -> float:
    """Seconds since the file was written, by the clock of its file system."""
    return file_system_time(Path(path).parent) - os.fstat(descriptor).st_mtime


def file_system_time(folder: Path) -> float:
    """The clock by which the files in a folder are dated: a server's may differ from this
    host's.
    """
    probe = folder / hidden_name("clock", new_token())
    try:
        descriptor = create_new(probe)
    except OSError:
        return time.time()

    try:
        os.write(descriptor, b"\0")
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def _keep_beating() -> None:
    global _beating
    while True:
        time.sleep(BEAT_SECONDS)
        with _guard:
            if not _held:
                _beating = None
                return
        beat_all()


def beat_all() -> None:
    """Write a sign of life into every lock that this process holds."""
    for lock in list(_held.values()):
        lock.beat()


def _forget_after_fork() -> None:
    """A child holds none of its parent's locks: an inherited descriptor would keep a lock after the
    parent's death.
    """
    global _guard, _beating
    _guard, _beating = threading.RLock(), None
    for lock in _held.values():
        os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def _inode_at(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        known = os.lstat(path)
        return known.st_dev, known.st_ino
    return None
