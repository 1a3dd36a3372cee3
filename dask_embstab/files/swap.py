"""How does a finished folder take its place at once, and the old one leave it?

A new folder is renamed into an empty place with RENAME_NOREPLACE, and swapped with an old one by
RENAME_EXCHANGE, where the system has renameat2. Elsewhere a swap is two renames, the old one into
the hidden folder of the writer and the new one out of it. Between them the place is empty: whoever
opens or writes it then waits for a writer that is alive, and puts back what a killed one took out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dask_embstab.errors import InputError, OutputExistsError, RetryError
from dask_embstab.files.atomic import PARTIAL
from dask_embstab.files.libc import call
from dask_embstab.files.owned import OwnedFolder, leftovers, take_over
from dask_embstab.repairs import option

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_REPLACED = "replaced-"
_MOST_TRIES = 1000
_MOST_WAITS, _WAIT_SECONDS = 250, 0.02


@contextlib.contextmanager
def made_parents(place: Path | None) -> Iterator[None]:
    """Make the folders above a place; where the block fails, those that are empty go again."""
    missing = [] if place is None else [folder for folder in place.parents if not folder.exists()]
    try:
        if place is not None:
            _make(place.parent)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"a run must be written into a folder; {folder} cannot be made ({error.strerror});"
            " choose another place"
        ) from error


def put(new: Path, place: Path) -> None:
    """Rename ``new`` to ``place``, which must be free."""
    if _renameat2(new, place, _NOREPLACE):
        return
    if os.path.lexists(place):
        raise taken(place)
    try:
        new.rename(place)
    except OSError as error:
        if error.errno in _TAKEN:
            raise taken(place) from error
        raise


def swap(new: Path, place: Path) -> None:
    """Put ``new`` at ``place``; what stood there is then in the folder of ``new``, which is this
    writer's own.

    Other writers may do the same meanwhile: each takes out what it finds, and the last one stays.
    """
    for number in range(_MOST_TRIES):
        try:
            if _renameat2(new, place, _EXCHANGE):
                return
            place.rename(new.with_name(f"{_REPLACED}{number:04}"))
        except FileNotFoundError:  # another writer has just taken it out, or it was removed
            pass
        with contextlib.suppress(OutputExistsError):  # another writer has just put its own there
            put(new, place)
            return
    raise RetryError(
        f"{place} was replaced {_MOST_TRIES} times while it was to be overwritten; call again"
    )


def finish_swap(place: Path) -> None:
    """Where a place is empty because a writer was killed between its two renames: the old folder
    comes back.

    A writer that is alive finishes by itself, and is waited for.
    """
    for _ in range(_MOST_WAITS):
        if os.path.lexists(place):
            return
        lefts = [
            left
            for left in leftovers(place.parent, place.name)
            if left.suffix == PARTIAL and _taken_out(left)
        ]
        if not lefts:
            return
        for left in lefts:
            if (owned := take_over(left, place.name)) is not None:
                restore(owned, place)
                owned.release()  # what was to come may be resumed
        if not os.path.lexists(place):
            time.sleep(_WAIT_SECONDS)


def restore(owned: OwnedFolder, place: Path) -> None:
    """Put back what a killed writer took out of the place, where nothing has come there since."""
    for old in _taken_out(owned.path)[::-1]:
        with contextlib.suppress(OutputExistsError, FileNotFoundError):
            put(old, place)


def is_emptied(place: Path, owned: OwnedFolder) -> bool:
    """Whether what stood at the place is in this folder, and nothing has come there since."""
    return not os.path.lexists(place) and bool(_taken_out(owned.path))


def _taken_out(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.name.startswith(_REPLACED))
    return []


def taken(place: Path) -> OutputExistsError:
    """The error of a place at which something stands."""
    return OutputExistsError(
        f"{place} exists already; choose another place",
        f"{option(overwrite=True)} replaces the run there",
    )


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """True if the system did it, False if it cannot; an error where it refused."""
    code = call(
        ("renameat2",), _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags
    )
    if code is None or code in _UNSUPPORTED:
        return False
    if code == 0:
        return True
    if code in _TAKEN:
        raise taken(target)
    raise OSError(code, os.strerror(code), str(target))
