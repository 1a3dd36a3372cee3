"""Small files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from dask_embstab.errors import AccessError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import open_regular


def open_file(path: Any) -> IO[bytes]:
    """A file for reading, by its path or ``file://`` URL; one that is open already is handed on."""
    if hasattr(path, "read"):
        return cast("IO[bytes]", path)
    try:
        return os.fdopen(open_regular(_local(path)), "rb")
    except PermissionError as error:
        raise AccessError(
            f"{path} must be readable for this user; permission was denied; allow it, or copy it"
        ) from error
    except IsADirectoryError:
        raise InputError(f"{path} must be a file; it is a folder; give the path of a file") from None


def _local(path: Any) -> Path:
    local = local_path(path)
    if local is None or "\0" in str(local):
        raise InputError(f"a file must be named by a path or a file:// URL; {path!r} came")
    return local


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it into place, over what stood there."""
    target = _local(path)
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
