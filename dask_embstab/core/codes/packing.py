"""Whole numbers of fewer than 8 bits each, without gaps: 8 numbers of b bits are b bytes.

Number j of a row holds the bits from j b on, counted from the lowest bit of the row's first byte:
``np.unpackbits(row, bitorder="little")`` lists them. Eight numbers move at once, as one word of 64
bits in three steps: neighbours meet in 2 b bits, these in 4 b, and those in 8 b (as in Warren,
Hacker's Delight, section 7-4).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
_GROUP = 8
_ALL = (1 << 64) - 1
_LOWER = (0x00FF00FF00FF00FF, 0x0000FFFF0000FFFF, 0x00000000FFFFFFFF)
"""The lower halves of lanes of 16, 32 and 64 bits."""


def packed_bytes(d: int, bits: int) -> int:
    """Bytes of a row of ``d`` numbers."""
    return -(-d * bits // 8)


def pack(numbers: Bytes, bits: int) -> Bytes:
    """Rows of bytes, (m, packed_bytes), of rows of ``numbers`` below 2^bits, (m, d)."""
    if bits == _GROUP:
        return numbers
    m, d = numbers.shape
    groups = -(-d // _GROUP)
    whole = np.zeros((m, groups * _GROUP), np.uint8)
    whole[:, :d] = numbers

    words: Any = whole.view("<u8")
    upper = np.empty_like(words)
    for step, low in enumerate(_LOWER):
        np.bitwise_and(words, np.uint64(~low & _ALL), out=upper)
        upper >>= np.uint64((8 - bits) << step)
        words &= np.uint64(low)
        words |= upper

    unit = math.gcd(bits, _GROUP)
    kept = words.view(f"<u{unit}").reshape(m, groups, -1)[:, :, : bits // unit]
    packed = np.ascontiguousarray(kept).view(np.uint8).reshape(m, -1)
    return np.ascontiguousarray(packed[:, : packed_bytes(d, bits)])


def unpack(packed: Bytes, d: int, bits: int) -> Bytes:
    """The rows of numbers, (m, d), that `pack` made these of."""
    if bits == _GROUP:
        return packed
    m, groups = len(packed), -(-d // _GROUP)
    whole = np.zeros(m * groups * bits + _GROUP, np.uint8)
    whole[: m * groups * bits].reshape(m, -1)[:, : packed.shape[1]] = packed
    # Words that begin every ``bits`` bytes: what lies beyond their own bits is masked out.
    words: Any = np.ndarray((m, groups), "<u8", whole, strides=(groups * bits, bits)).copy()

    upper = np.empty_like(words)
    for step in (2, 1, 0):
        field = _field(bits << step, 16 << step)
        np.left_shift(words, np.uint64((8 - bits) << step), out=upper)
        upper &= np.uint64(field << (8 << step))
        words &= np.uint64(field)
        words |= upper

    return np.asarray(words.view(np.uint8)[:, :d])


def _field(bits: int, lane: int) -> int:
    """A word with the lowest ``bits`` of every lane set."""
    return sum(((1 << bits) - 1) << at for at in range(0, 64, lane))
