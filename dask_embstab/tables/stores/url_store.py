"""A Zarr store at a URL: obstore's, which knows its name and its options, and whose failures are
one clear error each.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from copy import copy
from typing import Any, Protocol, Self

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from dask_embstab.errors import AccessError, EmbstabError
from dask_embstab.files.remote import (
    Url,
    client,
    failure,
    is_missing_bucket,
    is_read_only,
    is_remote,
    options_of,
)

_LISTINGS = 4
"""Tries of a listing: its client does not try again where an answer breaks off."""


def zarr_place(place: Any) -> Any:
    """What Zarr opens for a place: the store at a URL, anything else as it is."""
    return UrlStore(place) if is_remote(place) else place


class Recorded(Protocol):
    """What the objects of a run must be."""

    def compared(self, key: str, found: Buffer | None, where: str) -> Buffer | None:
        """A whole object, if it is the one that was recorded."""


class UrlStore(ObjectStore[Any]):
    """All that lies below a URL. It is sent to other processes by its URL and its options, so each
    reaches it with the credentials of its own environment where none are among these. Whole objects
    are compared with what was ``recorded`` of them, if anything was.
    """

    recorded: Recorded | None = None

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        super().__init__(client(url), read_only=read_only or is_read_only(url))
        self.url = Url(url, options_of(url))

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: FBT001, FBT002 (Zarr's)
        """The same place."""
        made = type(self)(self.url, read_only=read_only)
        made.recorded = self.recorded
        return made

    def compared_with(self, recorded: Recorded) -> Self:
        """The same place, of which nothing but this is read."""
        made = copy(self)
        made.recorded = recorded
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
        """As Zarr, or `AccessError`, or `DamageError` where other bytes were recorded."""
        with self._clear(key):
            found = await super().get(key, prototype, byte_range)
        if self.recorded is None or byte_range is not None:
            return found
        return self.recorded.compared(key, found, f"{self.url}/{key}")

    async def exists(self, key: str) -> bool:
        """As Zarr, or `AccessError`."""
        with self._clear(key):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """As Zarr, or `AccessError`."""
        with self._clear(key, "written"):
            await super().set(key, value)

    async def delete(self, key: str) -> None:
        """As Zarr, or `AccessError`."""
        with self._clear(key, "removed"):
            await super().delete(key)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys below a prefix, or `AccessError`."""
        for entry in await self._listing(lambda: self.store.list(prefix).collect_async()):
            yield entry["path"]

    async def list(self) -> AsyncGenerator[str, None]:
        """All keys, or `AccessError`."""
        async for key in self.list_prefix(""):
            yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names in a folder of keys, or `AccessError`."""
        folder = prefix.rstrip("/")
        found = await self._listing(lambda: self.store.list_with_delimiter_async(folder))
        for path in (*found["common_prefixes"], *(entry["path"] for entry in found["objects"])):
            yield path.removeprefix(folder).strip("/")

    async def _listing(self, asked: Callable[[], Awaitable[Any]]) -> Any:
        """What a listing finds; the client does not ask again where an answer breaks off."""
        with self._clear(""):
            for _ in range(_LISTINGS - 1):
                try:
                    return await asked()
                except Exception as error:
                    if "response body" not in failure(error):
                        raise
            return await asked()

    @contextlib.contextmanager
    def _clear(self, key: str, done: str = "reached") -> Iterator[None]:
        """Failures of the store as one clear error; that an object is missing is none."""
        try:
            yield
        except EmbstabError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not is_missing_bucket(error):
                raise
            raise AccessError(
                f"{self.url}{'/' if key else ''}{key} cannot be {done} ({failure(error)});"
                " check the address, the network and the credentials"
            ) from None
