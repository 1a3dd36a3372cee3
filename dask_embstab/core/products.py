"""How are the products of tall panels with narrow results computed fastest? By NumPy, in strips.

A product that is narrow on both other sides spends much of its time in packing its operands;
OpenBLAS's AVX-512 kernels work on small products in place (``in_place``: whether those of this
process do). Panels cut into strips that are small enough ran 1.4 times (64 columns) to 4 times (8
columns) as fast. A Gramian in place is a general product of twice the flops, and still 1.25 times
(32 columns) to 3.4 times (8) as fast as the symmetric one. NumPy loops over the strips by itself.
They lie at fixed places of a panel, so bits do not depend on how a table was chunked.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    strip = _strip_rows(d, r)
    whole = len(rows) // strip * strip if in_place and strip else 0
    if whole:
        np.matmul(rows[:whole].reshape(-1, strip, d), M, out=out[:whole].reshape(-1, strip, r))
    if whole < len(rows):
        np.matmul(rows[whole:], M, out=out[whole:])


def gramian(rows: Matrix, *, in_place: bool = False) -> Matrix:
    """X'X, (d, d), symmetric to the last bit.

    NumPy sees that both operands are one array and calls SYRK, which packs them; in place they are
    its two halves.
    """
    n, d = rows.shape
    halves = 2 if in_place and d % 2 == 0 else 1
    narrow = 1 < d <= _NARROW_SQUARE[halves == 2]
    whole = n // _STRIP_ROWS * _STRIP_ROWS if narrow and rows.flags.c_contiguous else 0
    if not whole:
        return rows.T @ rows

    strips = rows[:whole].reshape(-1, 1, _STRIP_ROWS, d)
    parts = strips.reshape(-1, _STRIP_ROWS, halves, d // halves).transpose(0, 2, 1, 3)
    square = (
        np.matmul(strips.transpose(0, 1, 3, 2), parts).sum(axis=0).transpose(1, 0, 2).reshape(d, d)
    )
    if whole < n:
        square += rows[whole:].T @ rows[whole:]
    symmetric: Matrix = (square + square.T) / 2
    return symmetric


def are_faster_apart(d: int, D: int, *, in_place: bool) -> bool:
    """Whether the products of rows x (n, d) and y (n, D) are computed faster from two arrays than
    from one array [x y].
    """
    return in_place and max(d, D) <= _NARROW_SQUARE[True]


def joint_gramian(parts: Sequence[Matrix], *, in_place: bool = False) -> Matrix:
    """[X Y]'[X Y], (d + D, d + D), of one array [x y] or of two."""
    if len(parts) == 1:
        return gramian(parts[0], in_place=in_place)
    x, y = parts
    d, D = x.shape[1], y.shape[1]
    joint = np.empty((d + D, d + D))
    joint[:d, :d], joint[d:, d:] = gramian(x, in_place=in_place), gramian(y, in_place=in_place)
    joint[:d, d:] = cross = cross_product(x, y, in_place=in_place)
    joint[d:, :d] = cross.T
    return joint


def cross_product(x: Matrix, y: Matrix, *, in_place: bool) -> Matrix:
    """X'Y, (d, D)."""
    strip = _strip_rows(x.shape[1], y.shape[1])
    whole = (
        len(x) // strip * strip
        if in_place and strip and x.flags.c_contiguous and y.flags.c_contiguous
        else 0
    )
    if not whole:
        return x.T @ y
    ours, theirs = (rows[:whole].reshape(-1, strip, rows.shape[1]) for rows in (x, y))
    cross: Matrix = np.matmul(ours.transpose(0, 2, 1), theirs).sum(axis=0)
    return cross + x[whole:].T @ y[whole:] if whole < len(x) else cross


def _strip_rows(d: int, r: int) -> int:
    """Rows of a strip whose product with ``d`` and ``r`` components is small enough; 0 where strips
    do not pay.
    """
    return (
        min(_STRIP_ROWS, 1 << (_SMALL // max(1, d * r)).bit_length() - 1)
        if max(d, r) <= _NARROW
        else 0
    )
