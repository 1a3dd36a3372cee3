"""Files that somebody else may have put there: a pipe, a socket or a device is refused, not waited
for, and none of them is listed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from dask_embstab.errors import DamageError

MOST_METADATA_BYTES = 1 << 29
"""Of any file of metadata or JSON, which is read whole. The longest that this library writes are
the digests of a run, 80 bytes for each of its chunk files.
"""
_DEEPEST = 16
"""Folders one in another that are looked into."""


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read a regular file by; DamageError where a pipe, socket or device is there,
    else as `open`.
    """
    # A pipe that nobody writes would be waited for without O_NONBLOCK, which regular files ignore.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_regular(path) from None
        raise

    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_regular(path)


def require_regular(
    path: str | os.PathLike[str], most_bytes: int | None = None, *, links: bool = True
) -> None:
    """Raise DamageError where what stands at ``path`` is neither a regular file (of so many bytes)
    nor a folder, nor, with ``links``, a symbolic link to one.
    """
    try:
        status = os.stat(path, follow_symlinks=links)  # noqa: PTH116 (for every key that Zarr asks)
    except (FileNotFoundError, NotADirectoryError):
        return

    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise _not_regular(path)
    if most_bytes is not None and status.st_size > most_bytes:
        raise _too_long(path, status.st_size, most_bytes)


def read_regular(
    path: str | os.PathLike[str], most_bytes: int | None = MOST_METADATA_BYTES
) -> bytes:
    """All bytes of a regular file (read without Python's own file objects: logs are made of ten
    thousand); DamageError where there are more than ``most_bytes`` of them, if that is bounded.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if most_bytes is not None and size > most_bytes:
            raise _too_long(path, size, most_bytes)
        data = os.read(descriptor, size + 1)
        while 0 < len(data) < size:  # a signal, or a server of small replies
            more = os.read(descriptor, size - len(data))
            if not more:
                break
            data += more
    finally:
        os.close(descriptor)
    return data


def read_at(descriptor: int, target: memoryview, offset: int) -> int:
    """Fill ``target`` with what stands from ``offset`` on; how many bytes: fewer where the file
    ends.
    """
    done = 0
    while done < len(target) and (got := os.preadv(descriptor, [target[done:]], offset + done)):
        done += got
    return done


def drop_pages(descriptor: int) -> None:
    """Let the system take a file's pages from its cache, as far as they are on the disk."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _too_long(path: str | os.PathLike[str], size: int, most_bytes: int) -> DamageError:
    return DamageError(
        f"{path} has {size} bytes and {most_bytes} may stand there at most; restore it from its"
        " source"
    )


def _not_regular(path: str | os.PathLike[str]) -> DamageError:
    return DamageError(
        f"{Path(path)} must be a regular file; it is a pipe, a socket or a device; restore it from"
        " its source"
    )


def files_below(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Regular files below a folder by their path relative to it, sorted, and their bytes; nothing
    where there is none.
    """
    sizes: dict[str, int] = {}
    folders = [("", str(Path(folder)))]
    while folders:
        prefix, path = folders.pop()
        try:
            entries = list(os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            # What vanishes meanwhile is left out, and so are links to nothing.
            with contextlib.suppress(FileNotFoundError):
                # A link may lead back to where it stands.
                if entry.is_dir() and prefix.count("/") < _DEEPEST:
                    folders.append((f"{prefix}{entry.name}/", entry.path))
                elif stat.S_ISREG((known := entry.stat()).st_mode):
                    sizes[f"{prefix}{entry.name}"] = known.st_size
    return dict(sorted(sizes.items()))
