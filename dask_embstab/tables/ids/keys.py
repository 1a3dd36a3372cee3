"""What stands for an id where ids are joined, sampled or looked up? A 64-bit key, and its text
where two could share one.

The key of an int64 id is a bijection of it, so equal keys are equal ids. Keys of texts (and of
16-byte UUIDs) are hashes: the bytes travel with them and are compared wherever two keys are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import RowNumbers
from dask_embstab.tables.ids.kinds import IdArray, encoded_texts

Keys = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
_COMPARED = 1 << 16
"""Pairs of texts that are compared at a time."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Byte strings one after the other: string i is ``data[starts[i] : starts[i + 1]]``."""

    starts: RowNumbers
    data: Bytes

    @property
    def lengths(self) -> RowNumbers:
        """Bytes of every string."""
        return np.diff(self.starts)

    def gather(self, rows: RowNumbers) -> Bytes:
        """The bytes of these strings, one after the other."""
        begin, length = self.starts[rows], self.lengths[rows]
        ends = np.cumsum(length)
        found: Bytes = self.data[
            np.repeat(begin - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
        ]
        return found

    def at(self, row: int) -> bytes:
        """One string."""
        return self.data[self.starts[row] : self.starts[row + 1]].tobytes()

    def equal(self, rows: RowNumbers, other: Texts, other_rows: RowNumbers) -> bool:
        """Whether string ``rows[i]`` is string ``other_rows[i]`` of ``other``, for every i."""
        for at in range(0, len(rows), _COMPARED):
            a, b = rows[at : at + _COMPARED], other_rows[at : at + _COMPARED]
            if not np.array_equal(self.lengths[a], other.lengths[b]):
                return False
            if not np.array_equal(self.gather(a), other.gather(b)):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Keyed:
    """Keys, the rows they belong to (ascending), and the texts where keys are hashes."""

    key: Keys
    row: RowNumbers
    texts: Texts | None

    def __len__(self) -> int:
        """Records."""
        return len(self.key)


def keys_of(ids: IdArray) -> Keys:
    """The key of every id: a bijection of an int64, the hash of a text or a UUID."""
    if ids.dtype.kind == "O":
        return _hashed(ids)
    if ids.dtype.kind == "V":
        halves = np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)
        return mix64(halves[:, 0] ^ mix64(halves[:, 1]))
    return mix64(ids.view(np.uint64))


def keyed(ids: IdArray, start: int) -> Keyed:
    """Keys of ids whose first one belongs to row ``start``."""
    rows = np.arange(start, start + len(ids), dtype=np.int64)
    texts = None
    if ids.dtype.kind == "O":
        texts = texts_of(encoded_texts(ids, "a table", start))
    elif ids.dtype.kind == "V":
        texts = Texts(
            16 * np.arange(len(ids) + 1), np.ascontiguousarray(ids).view(np.uint8).reshape(-1)
        )
    return Keyed(keys_of(ids), rows, texts)


def texts_of(strings: Sequence[bytes]) -> Texts:
    """Byte strings, one after the other."""
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    return Texts(
        np.concatenate([[0], np.cumsum(lengths)]), np.frombuffer(b"".join(strings), np.uint8)
    )


def joined(parts: Sequence[Keyed]) -> Keyed:
    """Records of all parts, in their order."""
    texts = None
    if parts[0].texts is not None:
        all_texts = [part.texts for part in parts if part.texts is not None]
        lengths = np.concatenate([t.lengths for t in all_texts])
        texts = Texts(
            np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([t.data for t in all_texts])
        )

    return Keyed(
        np.concatenate([p.key for p in parts]), np.concatenate([p.row for p in parts]), texts
    )


def chosen(records: Keyed, order: RowNumbers) -> Keyed:
    """The records in another order, or some of them."""
    texts = records.texts
    if texts is not None:
        starts = np.concatenate([[0], np.cumsum(texts.lengths[order])])
        texts = Texts(starts, texts.gather(order))
    return Keyed(records.key[order], records.row[order], texts)


def mix64(values: Keys) -> Keys:
    """A bijection of 64 bits that spreads them evenly (the finalizer of SplitMix64, Steele, Lea &
    Flood 2014).
    """
    x = values + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def stable_order(keys: npt.NDArray[Any]) -> RowNumbers:
    """``argsort(kind="stable")`` of 64-bit keys, several times faster: positions ride in the low
    bits of one plain sort.

    Keys that differ in those bits alone may come out of order; a second, nearly linear sort mends
    it.
    """
    bits = max(1, int(len(keys) - 1).bit_length())
    low = np.uint64((1 << bits) - 1)
    unsigned = keys.view(np.uint64)
    packed = (unsigned & ~low) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & low).astype(np.int64)
    found = unsigned[order]
    if bool((found[1:] < found[:-1]).any()):
        order = order[np.argsort(found, kind="stable")]
    return order


def _hashed(ids: IdArray) -> Keys:
    import pandas as pd

    found: Keys = pd.util.hash_array(ids, categorize=False)
    return found
