"""Whose pages does the system keep when a table larger than half of memory is written? Not ours:
nobody could read them again before others have taken their place, and what other programs had
cached would be gone.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

from dask_embstab.errors import DamageError
from dask_embstab.files.atomic import sync_tree
from dask_embstab.files.regular import drop_pages, files_below, open_regular
from dask_embstab.tables.read.limits import exceeds_cache

_FILES = 16
"""A file's pages are forgotten so many files later: the system has written them to the disk by
then. Those that it has not are forgotten in the end.
"""
_written: deque[str] = deque()


def forget_later(path: str) -> None:
    """Forget the pages of a chunk file some files after it, without waiting for the disk."""
    _written.append(path)
    with contextlib.suppress(IndexError):  # another thread took it
        while len(_written) > _FILES:
            _forget(_written.popleft())


def sync_run(run: Path) -> None:
    """Return when a run would outlive a power cut; a large one leaves no pages behind."""
    sync_tree(run)
    files = files_below(run)
    if exceeds_cache(sum(files.values())):
        for name in files:
            _forget(run / name)


def _forget(path: str | Path) -> None:
    """It is gone where its output was given up, and a pipe has no pages of ours."""
    with contextlib.suppress(OSError, DamageError):
        descriptor = open_regular(path)
        try:
            drop_pages(descriptor)
        finally:
            os.close(descriptor)
