"""Gramians and cross-products of tall panels by a kernel that is compiled for this processor.

BLAS is built for large products: of rows of 16 to 256 components its kernels reach a quarter to
three quarters of what the processor can do, because they pack their operands and because a
Gramian's triangle does not fit their blocks. Here the result is cut into tiles that stay in
registers: 8 rows of one to three vectors. For every few rows of the panel, which stay in the first
cache, one tile after another adds their products; of a Gramian only tiles on and above the diagonal
are computed. The panel is read where it lies, and the next rows are fetched meanwhile.

Every entry is the sum over blocks of rows of sums by fused multiply-adds, row after row: neither
the width of vectors nor the tiles change a bit, so Gramians are the same on every processor.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dask_embstab.core.tile_kernel import (
    HEIGHT,
    MOST_VECTORS,
    Ahead,
    compiled,
    kind_of,
    vector_width,
)
from dask_embstab.core.types import Matrix

_WIDEST, _WIDEST_APART = 512, 192
"""Components of rows of a Gramian, and of a cross-product: beyond, BLAS is as fast."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a result is cut into ``tiles``, rows of what the kernel reads: the first component of x
    and of y, the kind (`kind_of`), and where the entries of the tile begin in the kernel's output
    of ``size`` numbers. ``places``, (d, D): where every entry of the result stands in it.
    """

    tiles: npt.NDArray[np.int64]
    size: int
    places: npt.NDArray[np.intp]


def takes_gramian(rows: Matrix) -> bool:
    """Whether the kernel is the fastest for X'X of these rows."""
    return _takes(rows, _WIDEST)


def takes_cross_product(x: Matrix, y: Matrix) -> bool:
    """Whether the kernel is the fastest for X'Y of these rows."""
    return _takes(x, _WIDEST_APART) and _takes(y, _WIDEST_APART)


def _takes(rows: Matrix, widest: int) -> bool:
    """Whether there is a kernel, and it reads such rows: float64, components next to each other."""
    return (
        vector_width() > 0
        and HEIGHT <= rows.shape[1] <= widest
        and rows.dtype == np.float64
        and rows.dtype.isnative
        and rows.strides[1] == rows.itemsize
        and rows.strides[0] % rows.itemsize == 0
    )


def gramian(rows: Matrix) -> Matrix:
    """X'X of rows (n, d), symmetric to the last bit."""
    return _product(rows, rows, tiling(rows.shape[1], None, vector_width()))


def cross_product(x: Matrix, y: Matrix) -> Matrix:
    """X'Y, (d, D), of rows x (n, d) and y (n, D)."""
    return _product(x, y, tiling(x.shape[1], y.shape[1], vector_width()))


def _product(x: Matrix, y: Matrix, cut: Tiling) -> Matrix:
    output = np.zeros(cut.size)
    sides = (
        part for rows in (x, y) for part in (rows.ctypes.data, rows.strides[0] // rows.itemsize)
    )
    tiles = cut.tiles.ctypes.data, len(cut.tiles)
    compiled(vector_width()).run(*sides, len(x), *tiles, output.ctypes.data)
    product: Matrix = output[cut.places]
    return product


@functools.cache
def tiling(d: int, D: int | None, width: int) -> Tiling:
    """Tiles of a cross-product, (d, D), or of a Gramian of ``d`` components (``D`` None), of
    vectors of ``width`` numbers. The last ones of a row and of a column overlap those before them:
    both hold the same bits.
    """
    columns = d if D is None else D
    tiles, places, size = [], np.zeros((d, columns), np.intp), 0
    for i in (min(i, d - HEIGHT) for i in range(0, d, HEIGHT)):
        first = i if D is None else 0
        for j, vectors in _vectors(first, columns, width):
            # Every component of the next rows is fetched once: tiles of a Gramian that begin a row
            # fetch their own; of a cross-product, the first row fetches those of y besides.
            ahead = Ahead.BOTH if D is not None and i == 0 else Ahead(j == first)
            tiles.append((i, j, kind_of(vectors, ahead), size))
            end = j + vectors * width
            entries = np.arange(size, size + HEIGHT * (end - j)).reshape(HEIGHT, end - j)
            places[i : i + HEIGHT, j:end] = entries
            size += entries.size
    if D is None:
        np.copyto(places, places.T.copy(), where=np.tri(d, k=-1, dtype=bool))
    return Tiling(np.array(tiles, np.int64), size, places)


def _vectors(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """Begin and number of vectors of the tiles over columns ``start`` to ``stop``, of much the same
    number; the last one ends where the columns do.
    """
    vectors = -(-(stop - start) // width)
    tiles = -(-vectors // min(MOST_VECTORS, stop // width))
    for tile in range(tiles):
        n = vectors // tiles + (tile < vectors % tiles)
        yield min(start, stop - n * width), n
        start += n * width
