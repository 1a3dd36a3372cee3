"""A Zarr store at a URL: obstore's, which knows its name and its options, and whose failures are
one clear error each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from copy import copy
from typing import Any, Protocol, Self, TypeVar

from zarr.abc.store import ByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore

from dask_embstab.errors import AccessError, EmbstabError
from dask_embstab.files.remote import (
    PAUSES,
    Url,
    client,
    is_broken_off,
    is_missing_object,
    is_read_only,
    is_remote,
    is_url,
    options_of,
    unreached,
)

_AT_ONCE, _DIGEST = 32, 4
_CONDITIONS = ("PreconditionError", "NotSupportedError")
"""What obstore raises over a condition of a request, which is no failure."""
V = TypeVar("V")


def zarr_place(place: Any) -> Any:
    """What Zarr opens for a place: the store at a URL, anything else as it is."""
    if is_remote(place):
        return UrlStore(place)
    if is_url(place) and options_of(place):
        return FsspecStore.from_url(str(place), storage_options=options_of(place))
    return place


def store_at(place: Any) -> Store:
    """The store that a URL or a store is."""
    place_store = zarr_place(place)
    return (
        FsspecStore.from_url(place_store, read_only=True)
        if isinstance(place_store, str)
        else place_store
    )


def no_ranges(where: str) -> AccessError:
    """The error of a server that gives whole files alone."""
    return AccessError(
        f"{where} must be read in parts, and its server gives no ranges of bytes; use one that does"
        " (Python's http.server does not), or copy the run to a disk"
    )


class Recorded(Protocol):
    """What the objects of a run must be."""

    def compared(self, key: str, data: Buffer | None, where: str) -> Buffer | None:
        """A whole object, if it is the one that was recorded."""

    def require_chunk(self, path: str, checksum: int, where: str) -> None:
        """Raise unless a chunk, or a shard, that ends in this checksum is the one that was."""


class UrlStore(ObjectStore[Any]):
    """All that lies below a URL. It is sent to other processes by its URL and its options, so each
    reaches it with the credentials of its own environment where none are among these. Objects are
    compared with what was ``recorded`` of them, if anything was.
    """

    recorded: Recorded | None = None
    _compared: set[str]
    """Keys of shards that were, once."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        super().__init__(client(url), read_only=read_only or is_read_only(url))
        self.url = Url(url, options_of(url))

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: FBT001, FBT002 (Zarr's)
        """The same place."""
        made = type(self)(self.url, read_only=read_only)
        return made if self.recorded is None else made.compared_with(self.recorded)

    def compared_with(self, recorded: Recorded) -> Self:
        """The same place, of which nothing but this is read."""
        made = copy(self)
        made.recorded, made._compared = recorded, set()  # noqa: SLF001 (its own)
        return made

    def __str__(self) -> str:
        return str(self.url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.url)!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, UrlStore)
            and (self.url, self.url.options, self.read_only)
            == (other.url, other.url.options, other.read_only)
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "store"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, store=client(state["url"]))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As Zarr, or `AccessError`; `DamageError` where it is not what was recorded."""
        ask = super().get
        data = await self._asked(lambda: ask(key, prototype, byte_range), key)
        if self.recorded is None:
            return data
        if byte_range is None or data is None:
            return self.recorded.compared(key, data, f"{self.url}/{key}")
        if key not in self._compared:  # a part of a shard, which ends in its digest
            last = await self._asked(lambda: ask(key, prototype, SuffixByteRequest(_DIGEST)), key)
            digest = 0 if last is None else int.from_bytes(last.to_bytes(), "little")
            self.recorded.require_chunk(key, digest, f"{self.url}/{key}")
            self._compared.add(key)
        return data

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As Zarr, or `AccessError`."""
        asked = [(key, prototype, byte_range) for key, byte_range in key_ranges]
        return await concurrent_map(asked, self.get, _AT_ONCE)

    async def exists(self, key: str) -> bool:
        """As Zarr, or `AccessError`."""
        ask = super().exists
        return await self._asked(lambda: ask(key), key)

    async def getsize(self, key: str) -> int:
        """As Zarr, or `AccessError`."""
        ask = super().getsize
        return await self._asked(lambda: ask(key), key)

    async def getsize_prefix(self, prefix: str) -> int:
        """As Zarr, or `AccessError`."""
        listed = await self._asked(lambda: self.store.list(prefix).collect_async(), prefix)
        return sum(entry["size"] for entry in listed)

    async def set(self, key: str, value: Buffer) -> None:
        """As Zarr, or `AccessError`."""
        ask = super().set
        await self._asked(lambda: ask(key, value), key, "written")

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """As Zarr, or `AccessError`."""
        ask = super().set_if_not_exists
        await self._asked(lambda: ask(key, value), key, "written")

    async def delete(self, key: str) -> None:
        """As Zarr, or `AccessError`."""
        ask = super().delete
        await self._asked(lambda: ask(key), key, "removed")

    async def delete_dir(self, prefix: str) -> None:
        """Remove all below a prefix, or `AccessError`."""
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        keys = [(key,) async for key in self.list_prefix(below)]
        await concurrent_map(keys, self.delete, _AT_ONCE)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys below a prefix, or `AccessError`."""
        for entry in await self._asked(lambda: self.store.list(prefix).collect_async(), prefix):
            yield entry["path"]

    async def list(self) -> AsyncGenerator[str, None]:
        """All keys, or `AccessError`."""
        async for key in self.list_prefix(""):
            yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names in a folder of keys, or `AccessError`."""
        folder = prefix.rstrip("/")
        listed = await self._asked(lambda: self.store.list_with_delimiter_async(folder), prefix)
        for path in (*listed["common_prefixes"], *(entry["path"] for entry in listed["objects"])):
            yield path.removeprefix(folder).strip("/")

    def require_bucket(self) -> None:
        """Raise `AccessError` where there is no such bucket: objects of it are just missing."""
        if not is_read_only(self.url):  # what the web holds is not listed
            sync(self._asked(lambda: self.store.list_with_delimiter_async(""), ""))

    async def _asked(self, ask: Callable[[], Awaitable[V]], key: str, done: str = "reached") -> V:
        """What the store answers, whose failures are one clear error each; that an object is
        missing is none.

        Its client tries again where no answer comes or one that says so, and not where a listing or
        an error breaks off: that is done here.
        """
        for pause in (*PAUSES, None):
            try:
                return await ask()
            except EmbstabError:
                raise
            except Exception as error:
                if is_missing_object(error):
                    raise
                if type(error).__name__ in _CONDITIONS:
                    if done == "reached":
                        raise no_ranges(f"{self.url}/{key}") from None
                    raise
                if pause is None or not is_broken_off(error):
                    what = f"{self.url}{'/' if key else ''}{key}"
                    raise unreached(error, what, done) from None
                await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")
