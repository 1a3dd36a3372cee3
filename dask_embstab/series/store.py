"""What does a series ask of the place it lives in? Few things, so that an object store fits as well
as a folder.

Every change of a series goes through `Store`; the vectors themselves are read and written by
`tables/`, at `Store.place`. What decides is `create`: a file that appears whole and durable, or not
at all, and for one of all who try (`If-None-Match: *` on an object store, a hard link on a file
system).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from dask_embstab.errors import InputError, RetryError
from dask_embstab.files.atomic import new_token, sync_one, write_whole
from dask_embstab.files.locks import Lock, file_system_time, holder, try_lock
from dask_embstab.files.owned import LOCK
from dask_embstab.files.regular import files_below, open_regular, read_regular

_BLOCK_BYTES = 1 << 20
_REMOVALS = 10
_UNABLE = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV)


class Held(Protocol):
    """A lock that was taken."""

    def is_held(self) -> bool:
        """Whether it still is: asked before anything is made visible."""


class Store(Protocol):
    """A tree of files, named by keys such as ``versions/3.json``."""

    def require_fit(self) -> None:
        """Raise `InputError` unless the place can keep what `create` and `remove` promise; asked
        when a series is made.
        """

    def make(self, folder: str) -> None:
        """Make a durable folder, where the place knows folders."""

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is none."""

    def folders(self, folder: str) -> list[str]:
        """The folders that lie directly in a folder, sorted; links are none."""

    def files(self, folder: str) -> dict[str, int]:
        """Keys of all files below a folder, relative to it, sorted, and their bytes."""

    def read(self, key: str) -> bytes:
        """A file's bytes; FileNotFoundError where there is none, DamageError where it is longer
        than metadata may be.
        """

    def read_each(self, keys: Sequence[str]) -> Iterator[bytes]:
        """The same of many files, in order, as the place does best."""

    def blocks(self, key: str) -> Iterator[bytes]:
        """A file's bytes, a bounded number at a time."""

    def open(self, key: str) -> AbstractContextManager[IO[bytes]]:
        """A file to be read by position; FileNotFoundError where there is none."""

    def age(self, key: str) -> float:
        """Seconds since a file or folder was last changed."""

    def create(self, key: str, data: bytes) -> None:
        """Make a file that is whole and durable once it is visible; FileExistsError where there is
        one.
        """

    def replace(self, key: str, data: bytes) -> None:
        """The same, over what stands there."""

    def transaction(self) -> AbstractContextManager[Store]:
        """The store to change while the block lasts: where the place has transactions, nobody else
        sees what is changed before the next `create` or the end of the block.

        The end raises RetryError where others have changed meanwhile what it was decided on.
        """

    def sync(self, key: str) -> None:
        """Return when a file, or a folder with everything in it, would outlive a power cut."""

    def remove(self, key: str) -> None:
        """Remove a file, or a folder with everything in it; a folder is out of sight at once or not
        at all.
        """

    def lock(self, name: str) -> AbstractContextManager[Held]:
        """Keep others from working on ``name``; RetryError where another does. A dead process holds
        no lock.
        """

    def place(self, key: str) -> Any:
        """Where Zarr finds a run."""

    def name(self, key: str) -> str:
        """What messages call a file; of no key, the series."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A series in a folder of a local (or mounted) file system."""

    root: Path

    def require_fit(self) -> None:
        """Raise `InputError` unless a name can be taken once, by a hard link, and a folder renamed:
        some network and FUSE mounts cannot.
        """
        token = new_token()
        file, folder = f"versions/.probe.{token}.tmp", self.root / f"versions/.folder.{token}.tmp"
        try:
            self.create(file, b"")
            with contextlib.suppress(FileExistsError):
                self.create(file, b"")
                raise _unfit(self.root, "a hard link over a file that exists is not refused")
            folder.mkdir()
            folder.rename(folder := folder.with_name(f".folder.{new_token()}.tmp"))
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            raise _unfit(self.root, error.strerror) from error
        finally:
            with contextlib.suppress(OSError):
                self.remove(file)
            with contextlib.suppress(OSError):
                folder.rmdir()

    def make(self, folder: str) -> None:
        """Make a folder, and the one of the series, durable."""
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        for made in (path, self.root, self.root.parent):
            sync_one(made)

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is none."""
        try:
            return sorted(os.listdir(self.root / folder))  # noqa: PTH208 (one look: entries may vanish meanwhile)
        except FileNotFoundError:
            return []

    def folders(self, folder: str) -> list[str]:
        """The folders that lie directly in a folder, sorted; links are none."""
        path = self.root / folder
        return [
            name
            for name in self.names(folder)
            if (path / name).is_dir() and not (path / name).is_symlink()
        ]

    def files(self, folder: str) -> dict[str, int]:
        """Keys of all files below a folder, relative to it, sorted, and their bytes."""
        return files_below(self.root / folder)

    def read(self, key: str) -> bytes:
        """A file's bytes."""
        return read_regular(f"{self.root}/{key}")

    def read_each(self, keys: Sequence[str]) -> Iterator[bytes]:
        """One after another."""
        return map(self.read, keys)

    def blocks(self, key: str) -> Iterator[bytes]:
        """A file's bytes, a bounded number at a time."""
        with os.fdopen(open_regular(self.root / key), "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block

    def open(self, key: str) -> AbstractContextManager[IO[bytes]]:
        """A file to be read by position."""
        return os.fdopen(open_regular(self.root / key), "rb")

    def age(self, key: str) -> float:
        """Seconds since a file, a folder or a lock in it was last changed, by the clock of its file
        system.
        """
        path = self.root / key
        changed = [path.lstat().st_mtime]
        with contextlib.suppress(OSError):
            changed.append((path / LOCK).lstat().st_mtime)
        return file_system_time(self.root) - max(changed)

    def create(self, key: str, data: bytes) -> None:
        """Write, sync, then link: a link is refused where the name is taken, so one of all who try
        wins.
        """
        write_whole(self.root / key, lambda file: file.write(data), replace=False)

    def replace(self, key: str, data: bytes) -> None:
        """Write, sync, then rename."""
        write_whole(self.root / key, lambda file: file.write(data))

    def transaction(self) -> AbstractContextManager[Store]:
        """Itself: a file is seen at once."""
        return contextlib.nullcontext(self)

    def sync(self, key: str) -> None:
        """Sync every file and folder below, the folder itself and the one it lies in."""
        from dask_embstab.tables.write.page_cache import sync_run  # knows arrays: a log does not

        path = self.root / key
        sync_run(path)
        sync_one(path.parent)

    def remove(self, key: str) -> None:
        """Rename a folder out of sight, then remove it."""
        path = self.root / key
        if path.is_dir() and not path.is_symlink():
            trash = (
                path
                if path.name.startswith(".")
                else path.parent / f".{path.name}.{new_token()}.trash"
            )
            if trash != path:
                path.rename(trash)
            _remove_tree(trash)
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[Lock]:
        """The lock ``locks/<name>.lock``; with the folder ``candidates/<name>``, which goes again
        once it is empty.
        """
        path, folder = self.root / "locks" / f"{name}.lock", self.root / "candidates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(path)
        if lock is None:
            raise RetryError(
                f"another process is at work on {name} ({holder(path)}); call again when it is done"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield lock
        finally:
            try:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            finally:
                lock.release(path)

    def place(self, key: str) -> Path:
        """Where Zarr finds a run."""
        return self.root / key

    def name(self, key: str) -> str:
        """What messages call a file."""
        return str(self.root / key)


def size_of(store: Store, key: str) -> int | None:
    """Bytes of a file, asked for by its key: a listing may not know yet of it. None where there is
    none.
    """
    with contextlib.suppress(FileNotFoundError), store.open(key) as file:
        return file.seek(0, os.SEEK_END)
    return None


def _unfit(root: Path, why: str | None) -> InputError:
    return InputError(
        "a series needs a file system with hard links and renames, by which one of several"
        f" publishers gets a version; that of {root} has none ({why}); use a local disk, NFS, or an"
        " object store (s3://bucket/prefix)"
    )


def _remove_tree(folder: Path) -> None:
    """Remove a folder; again where a chunk of a write that failed was still put into it: Zarr's
    other threads go on a little longer.
    """
    for left in reversed(range(_REMOVALS)):
        try:
            shutil.rmtree(folder)
            break
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not left:
                raise
