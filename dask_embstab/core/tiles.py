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
    BLOCK,
    HEIGHT,
    MOST_VECTORS,
    Ahead,
    compiled,
    kind_of,
    vector_width,
)
from dask_embstab.core.types import Matrix, Rows

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


def takes_gramian(*parts: Rows) -> bool:
    """Whether the kernel is the fastest for the Gramian of these rows, or of [x y] in float32."""
    width = sum(rows.shape[1] for rows in parts)
    is_one_kind = len(parts) == 1 or all(rows.dtype == np.float32 for rows in parts)
    return is_one_kind and width <= _WIDEST and _are_read(*parts)


def takes_cross_product(x: Matrix, y: Matrix) -> bool:
    """Whether the kernel is the fastest for X'Y of these rows, in float64."""
    are_double = x.dtype == y.dtype == np.float64
    return are_double and max(x.shape[1], y.shape[1]) <= _WIDEST_APART and _are_read(x, y)


def _are_read(*parts: Rows) -> bool:
    """Whether there is a kernel, and it reads such rows: as many of each, their components next to
    each other.
    """
    return vector_width() > 0 and all(
        len(rows) == len(parts[0])
        and rows.shape[1] >= HEIGHT
        and rows.dtype in (np.float32, np.float64)
        and rows.dtype.isnative
        and rows.flags.aligned
        and rows.strides[1] == rows.itemsize
        and rows.strides[0] % rows.itemsize == 0
        for rows in parts
    )


def gramian(*parts: Rows) -> Matrix:
    """X'X of rows (n, d) of float64, or of one or two tables of float32 next to each other; to the
    last bit symmetric, and that of the rows in float64.
    """
    rows, width = parts[0], sum(part.shape[1] for part in parts)
    if rows.dtype == np.float64:
        return _product(rows, rows, tiling(width, None, vector_width()))

    cut = tiling(width, None, vector_width(), fetches=False)
    output, memory = np.zeros(cut.size), np.empty((BLOCK, width))
    sides = [number for part in parts for number in (*_place(part), part.shape[1])]
    sides += [0] * (6 - len(sides))
    compiled(vector_width()).product_of_single(
        *sides, len(rows), *_tiles(cut), output.ctypes.data, memory.ctypes.data
    )
    square: Matrix = output[cut.places]
    return square


def cross_product(x: Matrix, y: Matrix) -> Matrix:
    """X'Y, (d, D), of rows x (n, d) and y (n, D)."""
    return _product(x, y, tiling(x.shape[1], y.shape[1], vector_width()))


def _product(x: Rows, y: Rows, cut: Tiling) -> Matrix:
    output = np.zeros(cut.size)
    compiled(vector_width()).product(
        *_place(x), *_place(y), len(x), *_tiles(cut), output.ctypes.data
    )
    product: Matrix = output[cut.places]
    return product


def _place(rows: Rows) -> tuple[int, int]:
    """Where rows begin, and how many numbers they lie apart."""
    return rows.ctypes.data, rows.strides[0] // rows.itemsize


def _tiles(cut: Tiling) -> tuple[int, int]:
    return cut.tiles.ctypes.data, len(cut.tiles)


@functools.lru_cache(maxsize=32)
def tiling(d: int, D: int | None, width: int, *, fetches: bool = True) -> Tiling:
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
            kind = kind_of(vectors, ahead if fetches else Ahead.NOTHING)
            tiles.append((i, j, kind, size))
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
