"""Open whatever Zarr node stands at a path, with one clear error where none does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr
from zarr.errors import GroupNotFoundError
from zarr.storage import StoreLike

from dask_embstab.errors import DamageError, EmbstabError, NotARunError
from dask_embstab.tables.write.swap import finish_swap


def local_path(path: Any) -> Path | None:
    """The path as one on a local file system, absolute; None for a URL or a store object."""
    if not isinstance(path, str | os.PathLike) or "://" in str(path):
        return None
    return Path(path).absolute()


def open_node(path: str | os.PathLike[str] | StoreLike) -> zarr.Group | zarr.Array[Any]:
    """The Zarr group or array at ``path``, after finishing a swap that an interruption left half done."""
    local = local_path(path)
    if local is not None:
        finish_swap(local)
        if not local.exists():
            raise NotARunError(f"there is nothing at {path}; give the path of a run (a Zarr group)")
    with reading_metadata(str(path)):
        try:
            return zarr.open(local or path, mode="r")
        except (FileNotFoundError, GroupNotFoundError, NotADirectoryError) as error:
            raise NotARunError(f"{path} is not a Zarr store: it has no zarr.json, .zgroup or .zarray") from error


@contextlib.contextmanager
def reading_metadata(where: str) -> Iterator[None]:
    """Whatever Zarr raises over metadata that it cannot make sense of becomes a `DamageError`."""
    try:
        yield
    except EmbstabError:
        raise
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DamageError(f"the metadata of {where} cannot be read ({error}); restore it from its source") from error
