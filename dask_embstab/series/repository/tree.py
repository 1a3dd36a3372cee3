"""Files in a Zarr hierarchy. A small file is an array of its bytes, in one chunk, which any reader
of Zarr opens; runs are the groups that they are everywhere, and their files the keys of Zarr.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync

from dask_embstab.errors import InputError

_METADATA, _CHUNK, _AT_ONCE = "zarr.json", "c/0", 32
_BLOCK_BYTES = 8 << 20
_RUNS = ("runs/", "references/")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Tree:
    """The files in the store of a session."""

    store: Any

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is none."""

        async def listed() -> list[str]:
            return [name async for name in self.store.list_dir(folder)]

        return sorted(name for name in sync(listed()) if name != _METADATA)

    def has(self, path: str) -> bool:
        """Whether a file, a folder or a run stands there."""
        return self._metadata(path) is not None

    def folders(self, folder: str) -> list[str]:
        """The folders that lie directly in a folder, sorted."""
        below = f"{folder}/" if folder else ""
        return [
            name
            for name in self.names(folder)
            if (self._metadata(below + name) or {}).get("node_type") == "group"
        ]

    def files(self, folder: str) -> dict[str, int]:
        """Keys of all files below a folder, relative to it, sorted, and their bytes."""

        async def size(key: str) -> int:
            return int(await self.store.getsize(key))

        async def sizes() -> dict[str, int]:
            keys = [key async for key in self.store.list_prefix(f"{folder}/")]
            lengths = await concurrent_map([(key,) for key in keys], size, _AT_ONCE)
            return dict(zip(keys, lengths, strict=True))

        start, n_bytes = len(f"{folder}/"), sync(sizes())
        if not f"{folder}/".startswith(_RUNS):
            chunk = f"/{_CHUNK}"
            n_bytes = {k.removesuffix(chunk): n for k, n in n_bytes.items() if k.endswith(chunk)}
        return {key[start:]: n_bytes[key] for key in sorted(n_bytes)}

    def size(self, key: str) -> int:
        """A file's bytes; FileNotFoundError where there is none."""
        if not key.startswith(_RUNS):
            metadata = self._metadata(key)
            if metadata is None or "shape" not in metadata:
                raise FileNotFoundError(key)
            return int(metadata["shape"][0])

        async def ask() -> int:
            return int(await self.store.getsize(key))

        if not (size := _or_none(ask())):  # Icechunk 1 has chunks of no bytes where there are none
            raise FileNotFoundError(key)
        return size

    def blocks(self, key: str) -> Iterator[bytes]:
        """A file's bytes, a bounded number at a time; FileNotFoundError where there is none."""
        size, stored = self.size(key), key if key.startswith(_RUNS) else f"{key}/{_CHUNK}"
        whole = stored.endswith(_METADATA)
        for start in range(0, 1 if whole else size, _BLOCK_BYTES):
            part = None if whole else RangeByteRequest(start, min(start + _BLOCK_BYTES, size))
            if (block := self._get(stored, part)) is None:
                raise FileNotFoundError(key)
            yield block

    def write(self, key: str, data: bytes) -> None:
        """Let a file have these bytes; the folders above it are made where they are missing."""
        self.make(key.rpartition("/")[0])
        self._set(f"{key}/{_METADATA}", json.dumps(_array_of(len(data))).encode())
        if data:
            self._set(f"{key}/{_CHUNK}", data)

    def make(self, folder: str) -> None:
        """Make a folder, and those above it."""
        parts = folder.split("/") if folder else []
        for n in range(len(parts) + 1):
            above = "/".join(parts[:n])
            node = self._metadata(above)
            if node is not None and node["node_type"] != "group":
                raise InputError(
                    f"a series keeps groups of its own in a repository; {above or 'the root'} is an"
                    " array there; put the series into another repository"
                )
            if node is None:
                group = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}})
                self._set(f"{above}/{_METADATA}" if above else _METADATA, group.encode())

    def remove(self, key: str) -> None:
        """Remove a file, or a folder with everything in it, and the folder of a name that it leaves
        empty.
        """
        if self.has(key):
            sync(self.store.delete_dir(key))
        above = key.rpartition("/")[0]
        if "/" in above and self.has(above) and not self.names(above):
            sync(self.store.delete_dir(above))

    def _metadata(self, path: str) -> Any:
        data = self._get(f"{path}/{_METADATA}" if path else _METADATA)
        return None if data is None else json.loads(data)

    def _get(self, key: str, part: RangeByteRequest | None = None) -> bytes | None:
        async def ask() -> bytes | None:
            data = await self.store.get(key, default_buffer_prototype(), part)
            return None if data is None else data.to_bytes()

        return _or_none(ask())

    def _set(self, key: str, data: bytes) -> None:
        sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))


def _or_none(asked: Coroutine[Any, Any, V]) -> V | None:
    """What comes of it; None where there is no such node, which Icechunk 1 raises of some keys."""
    try:
        return sync(asked)
    except Exception as error:
        if isinstance(error, KeyError) or "node not found" in str(error):
            return None
        raise


def _array_of(n: int) -> dict[str, Any]:
    """The metadata of an array of so many bytes."""
    grid = {"name": "regular", "configuration": {"chunk_shape": [max(n, 1)]}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n],
        "data_type": "uint8",
        "chunk_grid": grid,
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "attributes": {},
    }
