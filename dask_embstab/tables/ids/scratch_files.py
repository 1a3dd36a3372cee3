"""Files of scratch: on a disk, or as objects of a store that all workers reach. Written whole, read
by ranges.

A place is a path, or a URL with its options (`Url`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np

from dask_embstab.errors import DamageError
from dask_embstab.files.atomic import write_whole
from dask_embstab.files.objects import put_object, remove_objects, submit, with_object
from dask_embstab.files.regular import read_at
from dask_embstab.files.remote import Url
from dask_embstab.repairs import option
from dask_embstab.tables.read.stored.files import require_visible_dir

Array = np.ndarray[Any, Any]
Ranges = Sequence[tuple[Array, int]]
"""Arrays to fill, and where in the file the bytes of each begin."""
_AHEAD = 4
"""Objects that are read side by side."""
_COALESCED_BYTES = 1 << 16
T = TypeVar("T")
V = TypeVar("V")


def below(folder: str, name: str) -> str:
    """A place in a folder."""
    return folder / name if isinstance(folder, Url) else f"{folder}/{name}"


def make_folder(folder: str, name: str) -> str:
    """A new folder in a folder; in a store there is none to be made."""
    made = below(folder, name)
    if not isinstance(made, Url):
        Path(made).mkdir()
    return made


def require_seen(folder: str) -> None:
    """Raise where this process does not see a folder of the call, as a worker on another machine
    does not.
    """
    if not isinstance(folder, Url):
        try:
            require_visible_dir(folder)
        except DamageError as error:
            raise DamageError(
                str(error), f"{option('scratch')} takes such a URL for the files of a join"
            ) from None


def write_file(path: str, arrays: Sequence[Array]) -> int:
    """Write the bytes of these arrays, one after the other; returns how many. The file, or the
    object, appears whole.
    """
    data = [_bytes_of(np.ascontiguousarray(array)) for array in arrays if array.nbytes]
    n_bytes = sum(map(len, data))
    if isinstance(path, Url):
        put_object(path, data)
        return n_bytes

    def write(file: IO[bytes]) -> None:
        for part in data:
            file.write(part)

    require_seen(os.path.dirname(path))  # noqa: PTH120 (a text, once a file)
    write_whole(path, write, sync=False)
    return n_bytes


def remove_files(folder: str, names: Sequence[str]) -> None:
    """Give the space of these files back."""
    if isinstance(folder, Url):
        remove_objects(folder, names)
        return
    for name in names:
        Path(folder, name).unlink(missing_ok=True)


class ScratchFile(Protocol):
    """A file that is open for reading."""

    def fill(self, ranges: Ranges) -> None:
        """Read them all."""

    def close(self) -> None:
        """No more is read."""


def open_file(path: str) -> ScratchFile:
    """Open one for reading."""
    return ObjectFile(path) if isinstance(path, Url) else LocalFile(path)


class LocalFile:
    """On a disk."""

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            require_seen(os.path.dirname(path))  # noqa: PTH120
            raise

    def fill(self, ranges: Ranges) -> None:
        """One after the other."""
        for array, offset in ranges:
            if read_at(self._file, _bytes_of(array), offset) < array.nbytes:
                raise _shorter()

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


class ObjectFile:
    """In a store."""

    def __init__(self, path: Url) -> None:
        self._path = path

    def fill(self, ranges: Ranges) -> None:
        """All of them side by side."""
        wanted = [(array, offset) for array, offset in ranges if array.nbytes]
        if not wanted:
            return
        starts, lengths = [at for _, at in wanted], [array.nbytes for array, _ in wanted]
        try:
            fetched = with_object(
                self._path,
                lambda obstore, store, key: obstore.get_ranges(
                    store, key, starts=starts, lengths=lengths, coalesce=_COALESCED_BYTES
                ),
                "read",
            )
        except FileNotFoundError:
            raise DamageError(
                f"{self._path} of the scratch is gone; see that nobody else removes objects there,"
                " and call again"
            ) from None
        for (array, _), data in zip(wanted, fetched, strict=True):
            if len(data) != array.nbytes:
                raise _shorter()
            _bytes_of(array)[:] = memoryview(data)

    def close(self) -> None:
        """Nothing is held."""


def each(folder: str, read: Callable[[T], V], of: Sequence[T]) -> Iterator[V]:
    """What ``read`` makes of one file of a folder after another; of objects a few are read ahead,
    since each takes as long as its requests do.
    """
    if not isinstance(folder, Url):
        yield from map(read, of)
        return
    ahead = deque(submit(read, one) for one in of[:_AHEAD])
    for at in range(len(of)):
        value = ahead.popleft().result()
        if at + _AHEAD < len(of):
            ahead.append(submit(read, of[at + _AHEAD]))
        yield value


def _bytes_of(array: Array) -> memoryview:
    return memoryview(array.view(np.uint8).reshape(-1))  # type: ignore[arg-type]


def _shorter() -> OSError:
    return OSError(
        "a scratch file is shorter than it was written; is the scratch folder full or shared?"
    )
