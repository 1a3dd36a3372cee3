"""What files lie below a folder, and how long are they?"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_DEEPEST = 16


def files_below(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Regular files below a folder by their path relative to it, sorted, and their bytes; nothing
    where there is none.
    """
    return dict(sorted(_below(str(Path(folder)), "")))


def _below(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        with contextlib.suppress(
            FileNotFoundError
        ):  # what vanishes meanwhile, and links to nothing
            if (
                entry.is_dir() and prefix.count("/") < _DEEPEST
            ):  # a link may lead back to where it stands
                yield from _below(entry.path, f"{prefix}{entry.name}/")
            elif stat.S_ISREG((known := entry.stat()).st_mode):
                yield f"{prefix}{entry.name}", known.st_size
