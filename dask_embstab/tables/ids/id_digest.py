"""Are the ids of a table in two passes the same ids in the same rows? One number tells; those of
parts add up to it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from dask_embstab.tables.ids.kinds import IdArray, encoded_texts

ALL_IDS = -1
"""Stands for a chunk number where a digest is that of all ids of a table."""
ID_DIGESTS = 1 << 64
"""Sums of digests are compared modulo this."""


def digest_of_ids(ids: IdArray, start: int) -> int:
    """Sum of (2 i + 1) x_i modulo 2^64 over rows i from ``start`` on; x_i is an int64 id, or the
    crc32 of a text.
    """
    numbers: Any
    if ids.dtype.kind == "O":
        numbers = np.fromiter(
            map(zlib.crc32, encoded_texts(ids, "a table", start)), np.uint64, len(ids)
        )
    elif ids.dtype.kind == "V":
        halves = np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)
        numbers = halves[:, 0] + halves[:, 1] * np.uint64(0x9E3779B97F4A7C15)
    else:
        numbers = ids.view(np.uint64)
    return int(numbers @ np.arange(2 * start + 1, 2 * (start + len(ids)) + 1, 2, dtype=np.uint64))
