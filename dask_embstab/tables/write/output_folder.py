"""Where Zarr itself writes chunks of a run (encoded ids, sharded or strange codecs): a folder that
never comes back.

Tasks may outlive the failure of their pass, and its folder is removed meanwhile. `LocalStore` would
make it anew for what such a task still writes; this one makes folders below it alone.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from dask_embstab.errors import InputError
from dask_embstab.files.atomic import PARTIAL, create_new, new_token, write_all
from dask_embstab.files.regular import MOST_METADATA_BYTES


class OutputFolder(LocalStore):
    """A `LocalStore` that raises FileNotFoundError where its folder is gone."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a temporary file, then rename it."""
        if self.read_only:
            raise ValueError("store was opened in read-only mode and does not support writing")
        values: Any = value.as_numpy_array()
        await asyncio.to_thread(self.put, key, memoryview(values).cast("B"))

    def put(self, key: str, data: memoryview) -> None:
        """The same at once, in the thread that asks."""
        if key.endswith("zarr.json") and data.nbytes > MOST_METADATA_BYTES:
            raise InputError(
                f"metadata must take {MOST_METADATA_BYTES} bytes at most, or nobody reads it; a run"
                f" with {data.nbytes} bytes of digests has too many chunks; write its tables in"
                " larger chunks"
            )
        _put(self.root, key, data)


def _put(root: Path, key: str, data: memoryview) -> None:
    path, folder = root / key, root
    for name in Path(key).parts[:-1]:
        folder /= name
        folder.mkdir(exist_ok=True)

    partial = f"{path}.{new_token()}{PARTIAL}"
    descriptor = create_new(partial)
    try:
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        Path(partial).rename(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
