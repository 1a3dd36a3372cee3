"""How are the products of tall panels with narrow results computed fastest? By NumPy, in strips.

A product that is narrow on both other sides spends much of its time in packing its operands; OpenBLAS's AVX-512 kernels
work on small products in place (``in_place``: whether those of this process do). Panels cut into strips that are small
enough ran 1.4 times (64 columns) to 4 times (8 columns) as fast. A Gramian in place is a general product of twice the
flops, and still 1.25 times (32 columns) to 3.4 times (8) as fast as the symmetric one. NumPy loops over the strips by
itself. They lie at fixed places of a panel, so bits do not depend on how a table was chunked.
"""

from __future__ import annotations

import numpy as np

from dask_embstab.core.types import Matrix, Rows

_SMALL = 100**3
"""Multiplications up to which OpenBLAS works in place."""
_STRIP_ROWS = 1024
_NARROW = 64
"""Widest rows for which strips are faster."""
_NARROW_SQUARE = {True: 32, False: 16}
"""The same for a Gramian, in place or packed."""


def multiply(rows: Rows, M: Matrix, out: Rows, *, in_place: bool) -> None:
    """``out`` (n, r) = ``rows`` (n, d) times ``M`` (d, r), all C-contiguous and of one dtype."""
    d, r = M.shape
    strip = min(_STRIP_ROWS, 1 << (_SMALL // max(1, d * r)).bit_length() - 1) if max(d, r) <= _NARROW else 0
    whole = len(rows) // strip * strip if in_place and strip else 0
    if whole:
        np.matmul(rows[:whole].reshape(-1, strip, d), M, out=out[:whole].reshape(-1, strip, r))
    if whole < len(rows):
        np.matmul(rows[whole:], M, out=out[whole:])


def gramian(rows: Matrix, *, in_place: bool = False) -> Matrix:
    """X'X, (d, d), symmetric to the last bit.

    NumPy sees that both operands are one array and calls SYRK, which packs them; in place they are its two halves.
    """
    n, d = rows.shape
    whole = n // _STRIP_ROWS * _STRIP_ROWS if 1 < d <= _NARROW_SQUARE[in_place] and rows.flags.c_contiguous else 0
    if not whole:
        return rows.T @ rows
    strips = rows[:whole].reshape(-1, _STRIP_ROWS, d)
    parts = (strips[:, :, : d // 2], strips[:, :, d // 2 :]) if in_place else (strips,)
    square = np.hstack([np.matmul(strips.transpose(0, 2, 1), part).sum(axis=0) for part in parts])
    if whole < n:
        square += rows[whole:].T @ rows[whole:]
    symmetric: Matrix = (square + square.T) / 2
    return symmetric
