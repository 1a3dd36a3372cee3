"""A store that was opened for one run, of which nothing is read but what was recorded."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Self

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from dask_embstab.errors import DamageError
from dask_embstab.files.remote import unreached
from dask_embstab.tables.stores.url_store import Recorded

_MISSING = re.compile(r"NoSuchKey|BlobNotFound|not found", re.IGNORECASE)
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket", re.IGNORECASE)


def icechunk_cause(error: BaseException) -> tuple[str, bool]:
    """The last of the causes that Icechunk draws as a tree, and whether it is that an object or a
    node is missing.
    """
    lines = [line.strip(" |`->x") for line in str(error).splitlines()]
    cause = next((line for line in reversed(lines) if line), type(error).__name__)
    first = next((line for line in lines if line), "")
    text = first if cause.startswith(("at ", "with ")) else cause
    is_missing = bool(_MISSING.search(text)) and not _NO_BUCKET.search(text)
    return text, is_missing


class ComparedStore(WrapperStore[Any]):
    """Another store, ``inner``, whose whole values are compared with what was ``recorded``."""

    def __init__(self, store: Any, recorded: Recorded) -> None:
        super().__init__(store)
        self.recorded = recorded

    @property
    def inner(self) -> Any:
        """The store itself."""
        return self._store

    @property
    def _supports_sync_io(self) -> bool:
        return False  # what is read without a loop would not be compared

    def _with_store(self, store: Any) -> Self:
        return type(self)(store, self.recorded)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As the store; `DamageError` where it is not what was recorded."""
        try:
            data: Buffer | None = await self._store.get(key, prototype, byte_range)
        except Exception as error:  # noqa: BLE001 (whatever the store raises)
            text, is_missing = icechunk_cause(error)
            if is_missing:
                raise DamageError(f"{key} is missing ({text}); restore it from a copy") from None
            raise unreached(Exception(text), key, "read") from None
        if byte_range is not None:
            return data
        # What was recorded may be read from a store of the same loop.
        return await asyncio.to_thread(self.recorded.compared, key, data, key)
