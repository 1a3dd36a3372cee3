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
from dask_embstab.tables.ids.kinds import UUID, IdArray, encoded_texts
from dask_embstab.tables.ids.texts import Keys, Texts, joined_texts, laid_out, mix64, texts_of

_FEW = 1 << 12


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
        return texts_in(ids).keys()
    if ids.dtype.kind == "V":
        halves = np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)
        return mix64(halves[:, 0] ^ mix64(halves[:, 1]))
    return mix64(ids.view(np.uint64))


def keyed(ids: IdArray, start: int, *, cells: bool = False) -> Keyed:
    """Keys of ids whose first one belongs to row ``start``; short texts in ``cells``."""
    if ids.dtype.kind == "O":
        return _keyed_texts(texts_in(ids, start), start, cells=cells)
    texts = None
    if ids.dtype.kind == "V":
        size = UUID.itemsize
        texts = laid_out(
            np.full(len(ids), size, np.int64), np.ascontiguousarray(ids).view(f"S{size}")
        )
    return Keyed(keys_of(ids), np.arange(start, start + len(ids), dtype=np.int64), texts)


def texts_in(ids: IdArray, start: int = 0) -> Texts:
    """The bytes of ids that are texts."""
    whole = "".join(listed := ids.tolist())
    if whole.isascii():
        return laid_out(np.fromiter(map(len, listed), np.int64, len(listed)), whole.encode())
    return texts_of(encoded_texts(ids, "a table", start))


def _keyed_texts(texts: Texts, start: int, *, cells: bool) -> Keyed:
    texts, keys = texts.in_cells() if cells else (texts, texts.keys())
    return Keyed(keys, np.arange(start, start + len(texts), dtype=np.int64), texts)


def read_texts(reader: Any, start: int, stop: int) -> Texts | None:
    """The bytes of texts as their reader has them, if it has; they need no look at their types."""
    texts: Texts | None = reader.texts(start, stop) if hasattr(reader, "texts") else None
    return texts


def read_keyed(
    reader: Any, start: int, stop: int, row: int | None = None, *, cells: bool = False
) -> Keyed:
    """`keyed` of the ids that a reader takes; the first one belongs to row ``row`` (``start``)."""
    row = start if row is None else row
    if (texts := read_texts(reader, start, stop)) is None:
        return keyed(reader.take(start, stop), row, cells=cells)
    return _keyed_texts(texts, row, cells=cells)


def read_keys(reader: Any, start: int, stop: int) -> Keys:
    """`keys_of` the ids that a reader takes."""
    texts = read_texts(reader, start, stop)
    return keys_of(reader.take(start, stop)) if texts is None else texts.keys()


def joined(parts: Sequence[Keyed]) -> Keyed:
    """Records of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    texts = [part.texts for part in parts if part.texts is not None]
    return Keyed(
        np.concatenate([p.key for p in parts]),
        np.concatenate([p.row for p in parts]),
        joined_texts(texts) if texts else None,
    )


def chosen(records: Keyed, order: RowNumbers) -> Keyed:
    """The records in another order, or some of them."""
    texts = None if records.texts is None else records.texts.chosen(order)
    return Keyed(records.key[order], records.row[order], texts)


def stable_order(keys: npt.NDArray[Any]) -> RowNumbers:
    """``argsort(kind="stable")`` of 64-bit keys that are not negative, several times faster."""
    return sorted_keys(keys)[0]


def sorted_keys(keys: npt.NDArray[Any]) -> tuple[RowNumbers, Keys]:
    """`stable_order`, and the keys in it: positions ride in the low bits of one plain sort.

    Row numbers leave room for them. Of hashes, those that differ in these bits alone may come out
    of order: neighbours are exchanged, or where they are many, sorted again.
    """
    bits = max(1, int(len(keys) - 1).bit_length())
    low = np.uint64((1 << bits) - 1)
    unsigned = keys.view(np.uint64)
    positions = np.arange(len(keys), dtype=np.uint64)
    if not len(keys) or int(unsigned.max()) >> (64 - bits) == 0:
        positions |= unsigned << np.uint64(bits)
        positions.sort()
        return (positions & low).view(np.int64), positions >> np.uint64(bits)

    positions |= unsigned & ~low
    positions.sort()
    positions &= low
    order = positions.view(np.int64)
    ordered = unsigned[order]
    while len(at := np.flatnonzero(ordered[1:] < ordered[:-1])):
        if len(at) > _FEW:
            again = np.argsort(ordered, kind="stable")
            return order[again], ordered[again]
        at = at[np.diff(at, prepend=-2) > 1]
        for values in (order, ordered):
            values[at], values[at + 1] = values[at + 1], values[at]
    return order, ordered
