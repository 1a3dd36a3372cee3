"""Which file or folder of this machine does a path or a ``file://`` URL name?"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_FILE_URL = re.compile(r"(file|local)://(localhost(?=/))?")


def local_path(place: Any) -> Path | None:
    """The absolute local path; None for another URL and for a store object."""
    if not isinstance(place, str | os.PathLike):
        return None
    text = os.fsdecode(place)
    if found := _FILE_URL.match(text):
        text = unquote(text[found.end() :])
    return None if "://" in text else Path(text).absolute()
