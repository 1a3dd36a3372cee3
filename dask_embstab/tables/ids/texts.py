"""Byte strings without an object for each: where each begins, how long it is, and the bytes of all.

They are hashed, compared and moved by words of eight bytes, thousands of strings at a time. Nothing
is copied to choose some of them: their bytes stay where they were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import RowNumbers

Keys = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
_AT_ONCE = 1 << 13
"""Strings whose words are in the processor's cache together."""
_WORD = 8
_CELL = 2 * _WORD
_ENDS = np.array([0xF0 + n for n in range(_CELL)], np.uint64) << np.uint64(56)
"""By its length, the last byte of a short string in a cell, in its place in a word."""
_KEPT = np.array([(1 << 8 * n) - 1 for n in range(_WORD + 1)], np.uint64)
"""By how many bytes of a word belong to a string, a mask of these."""


@dataclass(frozen=True, slots=True)
class Texts:
    """String i is ``data[begin[i] : begin[i] + length[i]]``; behind the last one stand eight bytes
    of anything, so that words may be read beyond its end.
    """

    begin: RowNumbers
    length: RowNumbers
    data: Bytes

    def __len__(self) -> int:
        """Strings."""
        return len(self.begin)

    def __getitem__(self, rows: slice) -> Texts:
        """Some of the strings, one after the other."""
        return self.chosen(rows).trimmed()

    def at(self, row: int) -> bytes:
        """One string."""
        return self.data[self.begin[row] : self.begin[row] + self.length[row]].tobytes()

    def chosen(self, rows: RowNumbers | slice) -> Texts:
        """Some of the strings, or all in another order."""
        return Texts(self.begin[rows], self.length[rows], self.data)

    def trimmed(self) -> Texts:
        """The same of strings that stand in their order, without the bytes around them."""
        if not len(self):
            return self
        first, stop = int(self.begin[0]), int(self.begin[-1] + self.length[-1]) + _WORD
        return Texts(self.begin - first, self.length, self.data[first:stop])

    def keys(self) -> Keys:
        """A hash of every string: its length, then its words, each mixed by a bijection."""
        keys = np.empty(len(self), np.uint64)
        for at in range(0, len(self), _AT_ONCE):
            part = self.chosen(slice(at, at + _AT_ONCE))
            key = mix64(part.length.astype(np.uint64))
            shortest, longest = int(part.length.min()), int(part.length.max())
            for start in range(0, longest, _WORD):
                if start + _WORD <= shortest:
                    key = mix64(key ^ _words(part, start))
                elif start < shortest:
                    key = mix64(key ^ _masked(_words(part, start), part.length, start))
                else:
                    has = np.flatnonzero(part.length > start)
                    some = part.chosen(has)
                    words = _masked(_words(some, start), some.length, start)
                    key[has] = mix64(key[has] ^ words)
            keys[at : at + _AT_ONCE] = key
        return keys

    def equal(self, other: Texts) -> bool:
        """Whether string i is string i of ``other``, for every i."""
        for at in range(0, len(self), _AT_ONCE):
            a, b = (texts.chosen(slice(at, at + _AT_ONCE)) for texts in (self, other))
            if not np.array_equal(a.length, b.length):
                return False
            shortest, longest = int(a.length.min()), int(a.length.max())
            if shortest == longest:
                x, y = (pieces_of(t.data, longest)[t.begin].view(np.uint8) for t in (a, b))
                if not np.array_equal(x, y):
                    return False
                continue
            for start in range(0, longest, _WORD):
                if start >= shortest:
                    has = np.flatnonzero(a.length > start)
                    a, b = a.chosen(has), b.chosen(has)
                differ = _words(a, start) ^ _words(b, start)
                if bool(
                    (_masked(differ, a.length, start) if start + _WORD > shortest else differ).any()
                ):
                    return False
        return True

    def in_cells(self) -> tuple[Texts, Keys]:
        """Strings that are shorter than 16 bytes as 16 each: zeros behind them, and a last byte
        that tells the length and ends no UTF-8. They differ as before, and are moved and compared
        by two words. With them the `keys` of all strings.
        """
        short = self.length < _CELL
        all_short = bool(short.all())
        some = self if all_short else self.chosen(np.flatnonzero(short))
        if not len(some):
            return self, self.keys()
        n = len(some)
        cells = np.empty((n + 1, _CELL // _WORD), np.uint64)  # the last one is room behind them
        key = np.empty(n, np.uint64)
        most = len(self.data) - _WORD
        for at in range(0, n, _AT_ONCE):
            part, stop = some.chosen(slice(at, at + _AT_ONCE)), min(at + _AT_ONCE, n)
            hashed = mix64(part.length.astype(np.uint64))
            for word in range(_CELL // _WORD):
                # Of a string that ends before this word, whatever is there is masked.
                begin, left = part.begin + word * _WORD, part.length - word * _WORD
                words = _words(Texts(np.minimum(begin, most), left, self.data), 0)
                words &= _KEPT[np.clip(left, 0, _WORD)]
                cells[at:stop, word] = words
                mixed = mix64(hashed ^ words)
                hashed = mixed if int(left.min()) > 0 else np.where(left > 0, mixed, hashed)
            cells[at:stop, -1] |= _ENDS[part.length]
            key[at:stop] = hashed
        begin, data = np.arange(0, n * _CELL, _CELL), cells.reshape(-1).view(np.uint8)
        if all_short:
            return Texts(begin, np.full(n, _CELL), data), key
        begins, lengths = self.begin.copy(), self.length.copy()
        keys = np.empty(len(self), np.uint64)
        keys[short], keys[~short] = key, self.chosen(np.flatnonzero(~short)).keys()
        begins[short], lengths[short] = begin + len(self.data), _CELL
        return Texts(begins, lengths, np.concatenate([self.data, data])), keys

    @property
    def rows(self) -> Any:
        """The strings as one array, where all have one length and stand at equal steps; else
        None.
        """
        if len(self) < 2 or not (size := int(self.length[0])):
            return None
        at, step = int(self.begin[0]), int(self.begin[1] - self.begin[0])
        if step < size or not bool((self.length == size).all()):
            return None
        if not np.array_equal(self.begin, np.arange(at, at + len(self) * step, step)):
            return None
        return np.ndarray((len(self),), f"V{size}", self.data, at, (step,))

    def moved(self, order: RowNumbers) -> Texts:
        """The strings in another order (or some of them), in bytes of their own."""
        if (rows := self.rows) is None:
            return self.chosen(order).packed()
        n, size = len(order), rows.dtype.itemsize
        data = np.empty(n * size + _WORD, np.uint8)
        np.take(
            np.ascontiguousarray(rows), order, out=data[: n * size].view(rows.dtype), mode="clip"
        )
        return Texts(np.arange(0, n * size, size), np.full(n, size), data)

    def equal_at(self, rows: RowNumbers, other: Texts, others: RowNumbers) -> bool:
        """Whether the strings of these rows are those of ``other`` in the rows ``others``."""
        x, y = self.rows, other.rows
        if x is None or y is None or x.dtype != y.dtype:
            return self.chosen(rows).equal(other.chosen(others))
        parts = (slice(at, at + _AT_ONCE) for at in range(0, len(rows), _AT_ONCE))
        return all(
            np.array_equal(x[rows[part]].view(np.uint8), y[others[part]].view(np.uint8))
            for part in parts
        )

    def packed(self, gap: int = 0) -> Texts:
        """The same strings one after the other in bytes of their own, ``gap`` bytes before each;
        those of one length are moved at once.
        """
        ends = np.cumsum(self.length + gap)
        begin, total = ends - self.length, int(ends[-1]) if len(ends) else 0
        data = np.zeros(total + _WORD, np.uint8)
        if len(self) and not gap and int(self.length.min()) == (n := int(self.length.max())) > 0:
            data[:total].view(f"V{n}")[:] = pieces_of(self.data, n)[self.begin]
            return Texts(begin, self.length, data)
        narrow = not len(self) or int(self.length.max()) < 1 << 16
        order = np.argsort(self.length.astype(np.uint16) if narrow else self.length, kind="stable")
        lengths = self.length[order]
        for rows in np.split(order, np.flatnonzero(lengths[1:] != lengths[:-1]) + 1):
            if len(rows) and (n := int(self.length[rows[0]])):
                pieces_of(data, n)[begin[rows]] = pieces_of(self.data, n)[self.begin[rows]]
        return Texts(begin, self.length, data)


def texts_of(strings: Sequence[bytes]) -> Texts:
    """Byte strings, one after the other."""
    return laid_out(np.fromiter(map(len, strings), np.int64, len(strings)), b"".join(strings))


def laid_out(length: RowNumbers, *data: Any) -> Texts:
    """Strings of these lengths that stand one after the other in ``data``, piece by piece."""
    return Texts(np.cumsum(length) - length, length, padded(*data))


def padded(*data: Any) -> Bytes:
    """A copy of these bytes, one piece after the other, with the eight behind them that `Texts`
    asks for.
    """
    return np.concatenate([*(np.frombuffer(d, np.uint8) for d in data), np.zeros(_WORD, np.uint8)])


def joined_texts(parts: Sequence[Texts]) -> Texts:
    """Strings of all parts, in their order; bytes that parts share are taken once."""
    if len(parts) == 1:
        return parts[0]
    places: dict[int, int] = {}
    data, at = [], 0
    for part in parts:
        if id(part.data) not in places:
            places[id(part.data)] = at
            data.append(part.data)
            at += len(part.data)
    return Texts(
        np.concatenate([part.begin + places[id(part.data)] for part in parts]),
        np.concatenate([part.length for part in parts]),
        data[0] if len(data) == 1 else np.concatenate(data),
    )


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


def _words(texts: Texts, start: int) -> Keys:
    """The eight bytes from byte ``start`` on of every string, and of what stands behind it."""
    words: Keys = np.ndarray((len(texts.data) - _WORD + 1,), "<u8", texts.data, 0, (1,))[
        texts.begin + start
    ]
    return words


def _masked(words: Keys, length: RowNumbers, start: int) -> Keys:
    """These bytes without what stands behind a string."""
    masked: Keys = words & _KEPT[np.minimum(length - start, _WORD)]
    return masked


def pieces_of(data: Bytes, n: int) -> Any:
    """Every run of ``n`` bytes, by the byte at which it begins."""
    return np.ndarray((len(data) - n + 1,), f"V{n}", data, 0, (1,))
