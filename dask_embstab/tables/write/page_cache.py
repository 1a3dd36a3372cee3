"""Whose pages does the system keep when a table larger than half of memory is written? Not ours:
nobody could read them again before others have taken their place, and what other programs had
cached would be gone.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from dask_embstab.files.atomic import sync_tree
from dask_embstab.tables.read.limits import physical_memory

_SHARE = 0.5
"""Of memory: what is larger leaves no pages behind, as in `tables/read/direct_source.py`."""
_FILES = 16
"""A file's pages are forgotten so many files later: the system has written them to the disk by
then. Those that it has not are forgotten in the end.
"""
_written: deque[str] = deque()


def exceeds_cache(n_bytes: int) -> bool:
    """Whether so much is written that its pages shall not stay."""
    return n_bytes > _SHARE * physical_memory()


def forget_later(path: str) -> None:
    """Forget the pages of a chunk file some files after it, without waiting for the disk."""
    _written.append(path)
    with contextlib.suppress(IndexError):  # another thread took it
        while len(_written) > _FILES:
            _forget(_written.popleft())


def sync_run(run: Path) -> None:
    """Return when a run would outlive a power cut; a large one leaves no pages behind."""
    sync_tree(run)
    if exceeds_cache(sum(size for _, size in _files(run))):
        for path, _ in _files(run):
            _forget(path)


def _files(run: Path) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(run):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            yield path, os.lstat(path).st_size


def _forget(path: str) -> None:
    """It is gone where its output was given up, and a link or pipe has no pages of ours."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
