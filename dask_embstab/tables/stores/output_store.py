"""Where a run is written at a URL: no metadata is put there before its last chunk, so that nothing
of it can be opened before it is whole.

`UrlOutput.claim` puts the root's metadata first, with a mark that says whose unfinished run stands
there; chunks follow as they are made. All other metadata stays in memory (tasks carry their copy of
it) until `UrlOutput.publish` puts it, and the root's own as the last object of all. Nothing is
renamed or appended to, and no listing decides what is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync

from dask_embstab.errors import AccessError, EmbstabError, RetryError
from dask_embstab.tables.stores.sending import Sending
from dask_embstab.tables.stores.url_store import UrlStore

_METADATA, _AT_ONCE = "zarr.json", 32
_TAGS = ("e_tag", "version")
_NAMES = (_METADATA, ".zgroup", ".zarray", ".zattrs", ".zmetadata")


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2] in _NAMES


@dataclass(frozen=True, slots=True)
class Standing:
    """Metadata of a root as they stand, and how the store tells them from others."""

    root: bytes
    tags: dict[str, str]


class UrlOutput(UrlStore):
    """A place that a run is being written to; ``held`` are the metadata that are not yet there, by
    key.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.held: dict[str, bytes] = {}
        self._ours: Standing | None = None
        self.sending = Sending(str(self.url))

    def with_read_only(self, read_only: bool = False) -> UrlOutput:  # noqa: FBT001, FBT002 (Zarr's)
        """Itself: what is held would be missing elsewhere."""
        del read_only
        return self

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Metadata as they are held, nothing else being there; of the rest what stands there."""
        if _is_metadata(key):
            held = self.held.get(key)
            return None if held is None else prototype.buffer.from_bytes(held)
        return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether metadata are held, or an object stands there."""
        return key in self.held if _is_metadata(key) else await super().exists(key)

    def require_ours(self) -> None:
        """Raise where the write was given up; another process looks whose the place is."""
        is_ours = not self.sending.is_copy or self.standing() == self._ours
        self.sending.require_open(is_ours=is_ours)

    async def set(self, key: str, value: Buffer) -> None:
        """Hold metadata, and put everything else while the place is ours."""
        if _is_metadata(key):
            self.sending.require_open()
            self.held[key] = value.to_bytes()
            return
        with self.sending.one():
            if self.sending.is_copy:
                self.sending.require_open(is_ours=await self._standing() == self._ours)
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Hold metadata unless they are held; nothing else is written so."""
        assert _is_metadata(key)
        self.held.setdefault(key, value.to_bytes())

    async def delete(self, key: str) -> None:
        """Hold it no more, and let nothing stand there."""
        if _is_metadata(key):
            self.held.pop(key, None)
        else:
            await super().delete(key)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys that are held, and those of objects."""
        for key in [key for key in self.held if key.startswith(prefix)]:
            yield key
        async for key in super().list_prefix(prefix):
            if not _is_metadata(key):
                yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names of what metadata are held of; nothing is asked."""
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        names = (key[len(below) :] for key in self.held if key.startswith(below))
        for name in dict.fromkeys(name.partition("/")[0] for name in names):
            yield name

    def standing(self) -> Standing | None:
        """The root's metadata that stand there."""
        return sync(self._standing())

    async def _standing(self) -> Standing | None:
        async def ask() -> Standing:
            answer = await self.store.get_async(_METADATA)
            tags = {name: answer.meta[name] for name in _TAGS if answer.meta.get(name)}
            return Standing(bytes(await answer.bytes_async()), tags)

        try:
            return await self._asked(ask, _METADATA)
        except FileNotFoundError:
            return None

    def seen(self) -> tuple[Standing | None, list[str]]:
        """The root's metadata that stand there, and the keys of all else: asked for side by
        side.
        """

        async def both() -> tuple[Standing | None, list[str]]:
            standing, left = await asyncio.gather(self._standing(), self._leftovers())
            return standing, left

        return sync(both())

    def claim(self, root: bytes, *, over: Standing | None) -> bool:
        """Put the root's metadata, which say whose run is being written here, ``over`` those that
        stand there; whether the place is ours.

        Where the store honours conditions one of all who try wins; elsewhere the last one, which
        `publish` tells the others.
        """
        if over is None:
            value = default_buffer_prototype().buffer.from_bytes(root)
            sync(super().set_if_not_exists(_METADATA, value))
        else:
            self._put_over(root, over)
        standing = self.standing()
        if standing is None or standing.root != root:
            return False
        self.held[_METADATA], self._ours = root, standing
        return True

    def _put_over(self, root: bytes, over: Standing) -> None:
        """Put the root's metadata where those that stand there are still these, as far as the store
        honours conditions. Whether they were put, `standing` tells.
        """
        mode: Any = over.tags or "overwrite"
        put = self.store.put_async
        try:
            sync(self._asked(lambda: put(_METADATA, root, mode=mode), _METADATA, "written"))
        except Exception as error:
            kind = type(error).__name__
            if kind == "NotSupportedError":
                sync(self._asked(lambda: put(_METADATA, root), _METADATA, "written"))
            elif kind != "PreconditionError":
                raise

    def leftovers(self) -> list[str]:
        """Keys of all that stands there but the root's metadata."""
        return sync(self._leftovers())

    async def _leftovers(self) -> list[str]:
        return [key async for key in UrlStore.list_prefix(self, "") if key != _METADATA]

    def sweep(self) -> None:
        """Remove all that stands there but the root's metadata."""
        for key in self.leftovers():
            sync(super().delete(key))

    def give_up(self, root: bytes) -> None:
        """Write nothing any more, whatever tasks still try, remove all that was written, and say so
        in the root's metadata; nothing, where the place is not ours (any more).
        """
        self.sending.close()
        if self._ours is not None and self.standing() == self._ours:
            self.sweep()
            self._put_over(root, self._ours)

    def publish(self) -> None:
        """Put all metadata, those of the root as the last object: then the run is seen.

        Raises `RetryError` where another run took the place; `AccessError` where the last answer
        was lost, and with it whether the run is seen.
        """
        root = self.held.pop(_METADATA)
        make = default_buffer_prototype().buffer.from_bytes
        put = super().set

        async def put_all() -> Standing | None:
            held = [(key, make(data)) for key, data in self.held.items()]
            standing, _ = await asyncio.gather(
                self._standing(), concurrent_map(held, put, _AT_ONCE)
            )
            return standing

        if self._ours is None or sync(put_all()) != self._ours:
            raise self._taken_over()
        failed: EmbstabError | None = None
        try:
            self._put_over(root, self._ours)
        except EmbstabError as error:
            failed = error
        try:
            standing = self.standing()
        except EmbstabError as error:
            raise AccessError(
                f"whether {self.url} was published is not known, its store did not answer"
                f" ({error}); look whether it opens"
            ) from None
        if standing is None or standing.root != root:
            raise failed or self._taken_over()

    def _taken_over(self) -> RetryError:
        return RetryError(
            f"the write of {self.url} was taken over by another process; nothing was published;"
            " choose another place"
        )
