"""Whole numbers of fewer than 8 bits each, without gaps: 8 numbers of b bits are b bytes.

Number j of a row holds the bits from j b on, counted from the lowest bit of the row's first byte:
``np.unpackbits(row, bitorder="little")`` lists them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
_GROUP = 8


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

    words = np.zeros((m, groups), "<u8")
    for place in range(_GROUP):
        words |= whole[:, place::_GROUP].astype("<u8") << np.uint64(bits * place)

    packed = words.view(np.uint8).reshape(m, groups, _GROUP)[:, :, :bits]
    return np.ascontiguousarray(packed.reshape(m, -1)[:, : packed_bytes(d, bits)])


def unpack(packed: Bytes, d: int, bits: int) -> Bytes:
    """The rows of numbers, (m, d), that `pack` made these of."""
    if bits == _GROUP:
        return packed
    m, groups = len(packed), -(-d // _GROUP)
    whole = np.zeros((m, groups * bits), np.uint8)
    whole[:, : packed.shape[1]] = packed

    words: Any = np.zeros((m, groups, _GROUP), np.uint8)
    words[:, :, :bits] = whole.reshape(m, groups, bits)
    words = words.view("<u8")[:, :, 0]

    numbers = np.empty((m, groups, _GROUP), np.uint8)
    for place in range(_GROUP):
        shifted = words >> np.uint64(bits * place)
        numbers[:, :, place] = shifted & np.uint64((1 << bits) - 1)
    return numbers.reshape(m, -1)[:, :d]
