"""The four files of a lookup's index, and the checksums without which none of what they say is
believed.

A search goes through the mapped keys as they are; then the blocks that hold the answer are compared
with their checksums. An id that is found stands in a block that is whole, and one that is not found
between two keys that are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crc32c
import numpy as np

from dask_embstab.core.types import RowNumbers
from dask_embstab.files.regular import read_regular
from dask_embstab.files.stored_json import checksum_of, parsed_json
from dask_embstab.tables.ids.keys import Keyed

NAMES = {"keys": np.uint64, "rows": np.int64, "starts": np.int64, "data": np.uint8}
_CHECKS = "checks.json"
_BLOCK_BYTES = 1 << 20


class DamagedIndexError(Exception):
    """The index is not what was written: it is built again."""


def record_checks(folder: Path, source: str) -> None:
    """Write the checksums of every block of the four files, and the digest of the ids that they
    were made of.
    """
    blocks: dict[str, list[int]] = {name: [] for name in NAMES}
    for name, checksums in blocks.items():
        with (folder / name).open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                checksums.append(int(crc32c.crc32c(block)))

    values: dict[str, Any] = {
        "source": source,
        "bytes": {name: (folder / name).stat().st_size for name in NAMES},
        "blocks": blocks,
    }
    with (folder / _CHECKS).open("x") as file:
        file.write(json.dumps(values | {"crc32c": checksum_of(values)}))


@dataclass(slots=True)
class IdIndex:
    """An index of ids that were ``source``, opened; `DamagedIndexError` where it is another, now or
    when it is asked.
    """

    folder: Path
    source: str
    _blocks: dict[str, list[int]] = field(default_factory=dict)
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        try:
            values = parsed_json(read_regular(self.folder / _CHECKS))
            whole = values.pop("crc32c") == checksum_of(values) and values["source"] == self.source
            sizes = {name: (self.folder / name).stat().st_size for name in NAMES}
            if not whole or sizes != values["bytes"]:
                raise DamagedIndexError
            self._blocks = values["blocks"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedIndexError from error

    def rows(self, asked: Keyed) -> RowNumbers:
        """Row of every asked id, -1 where none has it: a binary search in the mapped keys."""
        keys, rows = self._mapped("keys"), self._mapped("rows")
        at = np.searchsorted(keys, asked.key)
        partners = np.full(len(at), -1, np.int64)
        for i, place in enumerate(at.tolist()):
            if place:
                self._require("keys", keys, place - 1)
                if keys[place - 1] >= asked.key[i]:
                    raise DamagedIndexError
            while place < len(keys):
                self._require("keys", keys, place)
                if keys[place] != asked.key[i]:
                    if keys[place] < asked.key[i]:
                        raise DamagedIndexError
                    break
                if asked.texts is None or self._text(place) == asked.texts.at(i):
                    self._require("rows", rows, place)
                    partners[i] = rows[place]
                    break
                place += 1

        return partners

    def _text(self, place: int) -> bytes:
        starts, data = self._mapped("starts"), self._mapped("data")
        for one in (place, place + 1):
            self._require("starts", starts, one)
        start, stop = int(starts[place]), int(starts[place + 1])
        for at in (*range(start, stop, _BLOCK_BYTES), *((stop - 1,) if stop > start else ())):
            self._require("data", data, at)
        return bytes(data[start:stop].tobytes())

    def _require(self, name: str, mapped: Any, at: int) -> None:
        """Raise unless the block that holds a value is whole; each block is looked at once."""
        number = at * mapped.itemsize // _BLOCK_BYTES
        if (name, number) in self._seen:
            return
        size = _BLOCK_BYTES // mapped.itemsize
        block = np.ascontiguousarray(mapped[number * size : (number + 1) * size])
        if crc32c.crc32c(block.tobytes()) != self._blocks[name][number]:
            raise DamagedIndexError
        self._seen.add((name, number))

    def _mapped(self, name: str) -> Any:
        path, dtype = self.folder / name, NAMES[name]
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)
