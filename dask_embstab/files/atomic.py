"""How does a file appear whole and durable, or not at all? By one way to write it elsewhere and
move it into place.

A file is written under a name that nobody else can know or have taken (a random token, O_EXCL, so a
link that lies in wait is never followed), flushed to the disk, and renamed; then the folder is
flushed too, which makes the name durable.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import itertools
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

from dask_embstab.arguments import offers, shown
from dask_embstab.errors import AccessError, InputError
from dask_embstab.files.libc import call
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import open_regular
from dask_embstab.files.remote import is_url, read_remote, require_writable, write_remote

PARTIAL = ".partial"
_MOST_NAME_BYTES = 200
"""Of a name that is lengthened by a token: file systems allow 255."""
_ABANDONED_SECONDS = 86_400.0
_SYNC_THREADS = 8
_SYNC_FILE_RANGE_WRITE = 2
_SYNC_BATCH = 1024


def open_file(path: Any) -> IO[bytes]:
    """A file for reading, by its path or URL (then all of it is read); one that is open already is
    handed on.
    """
    if offers(path, "read"):
        return cast("IO[bytes]", path)
    if is_url(path):
        return io.BytesIO(read_remote(path))
    try:
        return os.fdopen(open_regular(_local(path)), "rb")
    except PermissionError as error:
        raise AccessError(
            f"{path} must be readable for this user; permission was denied; allow it, or copy it"
        ) from error
    except IsADirectoryError:
        raise InputError(
            f"{path} must be a file; it is a folder; give the path of a file"
        ) from None


def _local(path: Any) -> Path:
    local = local_path(path)
    if local is None:
        raise InputError(f"a file must be named by a path or a URL; {shown(path)} came")
    return local


def new_token() -> str:
    """Twelve hexadecimal digits that no other call, process or host will draw."""
    return uuid.uuid4().hex[:12]


def hidden_name(name: str, token: str, suffix: str = PARTIAL) -> str:
    """``.<name>.<token><suffix>``; a name too long for that is cut."""
    return f".{os.fsdecode(os.fsencode(name)[:_MOST_NAME_BYTES])}.{token}{suffix}"


def create_new(path: str | os.PathLike[str]) -> int:
    """A descriptor of a file that this call made: FileExistsError where anything, a link too, has
    the name.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)


def write_all(descriptor: int, data: memoryview) -> None:
    """Write every byte, however few of them the system takes at a time."""
    while len(data):
        data = data[os.write(descriptor, data) :]


def write_whole(
    path: str | os.PathLike[str],
    write: Callable[[IO[bytes]], Any],
    *,
    sync: bool = True,
    replace: bool = True,
) -> None:
    """Let ``write`` fill a file that then stands at ``path``, over what stood there.

    With ``sync`` it is on the disk before it is seen. Without ``replace`` one of all who try for
    the name wins, and FileExistsError tells the others. A link at ``path`` is replaced, not
    followed. Raises `InputError` where the folder is missing or something else than a file stands
    there, `AccessError` where the folder cannot be written in.
    """
    require_file_place(path)
    if is_url(path):
        made = io.BytesIO()
        write(made)
        write_remote(path, made.getvalue())
        return
    target = _local(path)
    if replace:
        _remove_abandoned(target)
    temporary = target.with_name(hidden_name(target.name, new_token()))
    try:
        descriptor = create_new(temporary)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccessError(
                f"{target} must be writable for this user ({error.strerror}); allow it, or choose"
                " another folder"
            ) from error
        raise

    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if replace:
            temporary.replace(target)
        else:
            _link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)

    if sync:
        sync_one(target.parent)


def _link(temporary: Path, target: Path) -> None:
    """Give the file its name if it is free. A reply that NFS lost and asked for again says taken:
    by this very file.
    """
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        if not target.exists() or not target.samefile(temporary):
            raise


def begin_sync(descriptor: int) -> None:
    """Let the system begin to write a file to the disk, where it can: a later sync has less to wait
    for.
    """
    call(
        ("sync_file_range",),
        descriptor,
        ctypes.c_int64(0),
        ctypes.c_int64(0),
        _SYNC_FILE_RANGE_WRITE,
    )


def sync_one(path: str | os.PathLike[str]) -> None:
    """Return when a file, or the names in a folder, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: str | os.PathLike[str]) -> None:
    """The same for a file, or for a folder with everything in it; links in it are left alone."""
    entries = _entries_below(path) if Path(path).is_dir() else iter((Path(path),))
    with ThreadPoolExecutor(
        _SYNC_THREADS
    ) as pool:  # side by side: a journal takes many in one commit
        while batch := list(itertools.islice(entries, _SYNC_BATCH)):
            list(pool.map(sync_one, batch))


def _entries_below(folder: str | os.PathLike[str]) -> Iterator[Path]:
    for inner, _, names in os.walk(folder, topdown=False):
        yield from (file for name in names if not (file := Path(inner, name)).is_symlink())
        yield Path(inner)


def require_file_place(path: Any) -> None:
    """Raise `InputError` where no file can be written at a path or URL; asked before long work."""
    if is_url(path):
        require_writable(path)
        return
    target = _local(path)
    if not target.parent.is_dir():
        raise InputError(f"the folder of {target} does not exist; create it first")
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the path of a file")
    if target.exists() and not target.is_file():
        raise InputError(
            f"{target} is no regular file, so it cannot be replaced by one; give the path of a file"
        )


def _remove_abandoned(target: Path) -> None:
    """What processes that were killed left of this very file, once nobody can be writing it any
    more.
    """
    left = re.compile(re.escape(hidden_name(target.name, "TOKEN")).replace("TOKEN", "[0-9a-f]{12}"))
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if left.fullmatch(entry.name) and _is_old(entry):
                Path(entry.path).unlink(missing_ok=True)


def _is_old(entry: os.DirEntry[str]) -> bool:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS
