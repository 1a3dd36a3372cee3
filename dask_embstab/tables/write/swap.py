"""How does a finished folder take its place at once, and the old one leave it?

A new folder is renamed into an empty place with RENAME_NOREPLACE, and swapped with an old one by RENAME_EXCHANGE, where
the system has renameat2. Elsewhere a swap is two renames (old aside, new in); between them the place is empty, and
whoever next opens or writes it finds the folder that was put aside and finishes the swap.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dask_embstab.errors import InputError, OutputExistsError
from dask_embstab.files.libc import call
from dask_embstab.repairs import option

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


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
            f"a run must be written into a folder; {folder} cannot be made ({error.strerror}); choose another place"
        ) from error


def partial_path(place: Path, token: str) -> Path:
    """Where the folder that will stand at ``place`` is written: hidden, beside it, on the same file system."""
    return place.parent / f".{place.name}.{token}.partial"


def put(new: Path, place: Path) -> None:
    """Rename ``new`` to ``place``, which must be free."""
    if not _renameat2(new, place, _NOREPLACE):
        if place.exists():
            raise taken(place)
        new.rename(place)


def swap(new: Path, place: Path) -> None:
    """Put ``new`` at ``place`` in one step and remove what stood there."""
    if _renameat2(new, place, _EXCHANGE):
        _remove(new)
        return
    old = _aside(place)
    place.rename(old)
    new.rename(place)
    _remove(old)


def finish_swap(place: Path) -> None:
    """Undo or clean up a two-rename swap that was interrupted: the old folder comes back if its place is empty."""
    old = _aside(place)
    if not old.is_dir():
        return
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(place)


def _remove(old: Path) -> None:
    """A run that was replaced; where its place was a link to it, the link alone."""
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old)


def _aside(place: Path) -> Path:
    return place.parent / f".{place.name}.replaced"


def taken(place: Path) -> OutputExistsError:
    """The error of a place at which something stands."""
    return OutputExistsError(
        f"{place} exists already; choose another place", f"{option(overwrite=True)} replaces the run there"
    )


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """True if the system did it, False if it cannot; an error where it refused."""
    code = call(("renameat2",), _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    if code is None or code in _UNSUPPORTED:
        return False
    if code == 0:
        return True
    if code in (errno.EEXIST, errno.ENOTEMPTY):
        raise taken(target)
    raise OSError(code, os.strerror(code), str(target))
