"""Which file or folder of this machine does a path or a ``file://`` URL name, and can there be one
of that name?
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dask_embstab.errors import InputError

_MOST_BYTES, _MOST_NAME_BYTES = 4095, 255
"""Of a path and of a name in it: what file systems allow."""
_SHOWN = 100
_FILE_URL = re.compile(r"(file|local)://(localhost(?=/))?")


def local_path(place: Any) -> Path | None:
    """The absolute local path; None for another URL and for a store object.

    Raises `InputError` where no file can have such a path: it is empty, too long, holds a zero byte
    or is no text.
    """
    if not isinstance(place, str | os.PathLike):
        return None
    text = os.fsdecode(place)
    if match := _FILE_URL.match(text):
        text = unquote(text[match.end() :])
    if "://" in text:
        return None
    _require_possible(text)
    return Path(text).absolute()


def _require_possible(text: str) -> None:
    wrong = "is empty" if not text else "holds a zero byte" if "\0" in text else ""
    try:
        names = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        wrong, names = "holds half of a surrogate pair", []

    if sum(map(len, names)) + len(names) > _MOST_BYTES or any(
        len(name) > _MOST_NAME_BYTES for name in names
    ):
        wrong = (
            f"is too long (at most {_MOST_BYTES} bytes, and {_MOST_NAME_BYTES} for each name in it)"
        )

    if wrong:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise InputError(
            f"a path must be one that a file can have; {shown!r} {wrong}; give another path"
        )
