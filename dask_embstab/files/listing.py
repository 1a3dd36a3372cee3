"""What files lie below a folder, and how long are they?"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_DEEPEST = 16


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
