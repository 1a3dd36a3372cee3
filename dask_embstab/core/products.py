"""How are the products of tall panels with narrow results computed fastest? By NumPy, in strips.

BLAS packs its operands before it multiplies them: of a result that is narrow, that takes as long as
the product. OpenBLAS's AVX-512 kernels work on small products in place, so a panel is cut into
strips that are small enough, and NumPy loops over them by itself. A Gramian is cut into strips of
columns as well: columns j to j + w times all from j on, so that little more than its upper triangle
is computed, in blocks of rows that stay in the second cache.

Which strips are fastest hangs on the width and on the kernels: `GRAMIANS` is a table that
`benchmarks/kernels.py` remakes, one column per family. What counts is the rate of all threads
together: each of NumPy's calls may wait for the interpreter, so on Intel's processors one call of
more arithmetic beats many short ones from 17 columns on, though one thread alone says otherwise.
Nothing is timed when a product is computed: strips and blocks lie at fixed places of a panel, so
bits do not depend on how a table was chunked. Rows are added at most `Strips.rows` in a row, then
such sums, as `error_bounds` takes for granted.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dask_embstab.core import tiles
from dask_embstab.core.types import Matrix, Rows

Family = Literal["packed", "avx512", "avx512-amd", "compiled"]
"""Kernels of this process: those that pack all operands, and those that work on small products in
place, on Intel's processors and on AMD's; or the one that is compiled for it (`core/tiles.py`).
"""
PACKED: Family = "packed"
COMPILED: Family = "compiled"

_IN_PLACE = frozenset[Family]({"avx512", "avx512-amd"})


@dataclass(frozen=True, slots=True)
class Strips:
    """A Gramian's cut: strips of so many ``rows``, and of so many ``columns`` of the result."""

    rows: int
    columns: int


GRAMIANS: Mapping[Family, tuple[tuple[int, Strips], ...]] = {
    "packed": (),
    "compiled": (),
    "avx512": (),
    "avx512-amd": ((32, Strips(512, 8)), (128, Strips(256, 8))),
}
"""Widest rows, and the strips that they are fastest in; one product is faster beyond."""
_APART: Mapping[Family, int] = {"packed": 0, "compiled": 0, "avx512": 32, "avx512-amd": 16}
"""Widest rows x and y whose products are computed faster from two arrays than from one [x y]."""
_BLOCK_BYTES = 1 << 20
"""Rows of a Gramian that are swept over and over: half of the second cache, or all of it."""

_SMALL = 100**3
"""Multiplications up to which OpenBLAS works in place."""
_STRIP_ROWS = 1024
_NARROW = 64
"""Widest rows for which strips are faster in a product of two tables."""
_NARROWEST: Mapping[Family, int] = {
    "packed": 16,
    "compiled": 16,
    "avx512": 32,
    "avx512-amd": 16,
}
"""Widest rows whose Gramian is fastest as its two halves (packed: as a whole), in strips."""


def multiply(rows: Rows, M: Matrix, out: Rows, *, family: Family) -> None:
    """``out`` (n, r) = ``rows`` (n, d) times ``M`` (d, r), all C-contiguous and of one dtype."""
    d, r = M.shape
    strip = _strip_rows(d, r)
    whole = len(rows) // strip * strip if family in _IN_PLACE and strip else 0
    if whole:
        np.matmul(rows[:whole].reshape(-1, strip, d), M, out=out[:whole].reshape(-1, strip, r))
    if whole < len(rows):
        np.matmul(rows[whole:], M, out=out[whole:])


def gramian(rows: Rows, *, family: Family = PACKED) -> Matrix:
    """X'X, (d, d), symmetric to the last bit.

    NumPy sees that both operands are one array and calls SYRK, which packs them, unless strips or
    the compiled kernel are faster.
    """
    n, d = rows.shape
    if family == COMPILED and tiles.takes_gramian(rows):
        return tiles.gramian(rows)
    rows = rows.astype(np.float64, copy=False)
    if rows.strides[1] != rows.itemsize:
        return rows.T @ rows
    if 1 < d <= _NARROWEST[family]:
        return _narrow_gramian(rows, 2 if family in _IN_PLACE and d % 2 == 0 else 1)
    cut = next((cut for width, cut in GRAMIANS[family] if d <= width), None)
    return rows.T @ rows if cut is None or n < cut.rows else gramian_in_strips(rows, cut)


def gramian_in_strips(rows: Matrix, cut: Strips) -> Matrix:
    """X'X as the products of strips of columns with all columns from there on, strip of rows by
    strip; components of a row lie next to each other.
    """
    n, d = rows.shape
    square = np.zeros((d, d))
    block = max(1, _BLOCK_BYTES // (8 * d * cut.rows)) * cut.rows
    whole = n // cut.rows * cut.rows
    for start in range(0, whole, block):
        strips = rows[start : min(start + block, whole)].reshape(-1, cut.rows, d)
        for j in range(0, d, cut.columns):
            some = strips[:, :, j : j + cut.columns].transpose(0, 2, 1)
            square[j : j + cut.columns, j:] += np.matmul(some, strips[:, :, j:]).sum(axis=0)
    if whole < n:
        square += rows[whole:].T @ rows[whole:]
    np.copyto(square, square.T.copy(), where=_below_diagonal(d))
    return square


@functools.cache
def _below_diagonal(d: int) -> npt.NDArray[np.bool_]:
    return np.tri(d, k=-1, dtype=bool)


def _narrow_gramian(rows: Matrix, halves: int) -> Matrix:
    """X'X as ``halves`` general products of every strip: twice the flops, in place."""
    n, d = rows.shape
    strip = _STRIP_ROWS if d <= 16 else _STRIP_ROWS // 2
    whole = n // strip * strip
    if not whole:
        return rows.T @ rows
    strips = rows[:whole].reshape(-1, 1, strip, d)
    parts = strips.reshape(-1, strip, halves, d // halves).transpose(0, 2, 1, 3)
    square = (
        np.matmul(strips.transpose(0, 1, 3, 2), parts).sum(axis=0).transpose(1, 0, 2).reshape(d, d)
    )
    if whole < n:
        square += rows[whole:].T @ rows[whole:]
    symmetric: Matrix = (square + square.T) / 2
    return symmetric


def are_faster_apart(d: int, D: int, *, family: Family) -> bool:
    """Whether the products of rows x (n, d) and y (n, D) are computed faster from two arrays than
    from one array [x y].
    """
    return max(d, D) <= _APART[family]


def converts(*parts: Rows, family: Family) -> bool:
    """Whether the Gramian of these rows x, or of [x y], is computed from float32 as it is."""
    return (
        family == COMPILED
        and all(rows.dtype == np.float32 for rows in parts)
        and tiles.takes_gramian(*parts)
    )


def joint_gramian(parts: Sequence[Rows], *, family: Family = PACKED) -> Matrix:
    """[X Y]'[X Y], (d + D, d + D), of one array [x y] or of two."""
    if len(parts) == 1:
        return gramian(parts[0], family=family)
    if converts(*parts, family=family):
        return tiles.gramian(*parts)
    x, y = parts
    d, D = x.shape[1], y.shape[1]
    joint = np.empty((d + D, d + D))
    joint[:d, :d], joint[d:, d:] = gramian(x, family=family), gramian(y, family=family)
    joint[:d, d:] = cross = cross_product(x, y, family=family)
    joint[d:, :d] = cross.T
    return joint


def cross_product(x: Matrix, y: Matrix, *, family: Family) -> Matrix:
    """X'Y, (d, D)."""
    if family == COMPILED and tiles.takes_cross_product(x, y):
        return tiles.cross_product(x, y)
    strip = _strip_rows(x.shape[1], y.shape[1])
    whole = (
        len(x) // strip * strip
        if family in _IN_PLACE and strip and x.flags.c_contiguous and y.flags.c_contiguous
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
