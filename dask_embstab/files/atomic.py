"""Small files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from dask_embstab.errors import InputError


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it into place, over what stood there."""
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"the folder of {target} does not exist; create it first")
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the path of a file")
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            write(file)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
