"""A code: how a row vector becomes bytes, and what row the bytes give back.

Every code here is fixed before the first row is seen, or fitted once and frozen: the same row has
the same bytes on every day. Three steps, of which a code may leave out any but the last:

- ``matrix`` (d, r): x becomes x @ matrix, orthonormal columns. A rotation (r = d) spreads a row
  evenly over its components; the leading directions (r < d) keep the best scores of rank r.
- a *scale* per row of 16 bits, the upper half of a float32: of any size, precise to 0.4 %.
- a *number* per component: a float of 16 bits, or a whole number of 1 to 8 bits.

Sources: scalar quantization with a scale per row is that of Jacob et al., arXiv 1712.05877, eq. 1,
with zero point 0; a random rotation before it, Kashin-like, Ailon and Chazelle, doi
10.1145/1132516.1132597.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.codes.packing import Bytes, pack, packed_bytes, unpack
from dask_embstab.core.types import Matrix, Rows, Vector

BITS = {"float16": 16, "bfloat16": 16, "int8": 8, "int6": 6, "int5": 5, "int4": 4, "sign": 1}
"""Bits of a component by the name of the code."""


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """How rows of ``d`` components are stored: by the numbers of ``name`` (`BITS`), of x @
    ``matrix`` where there is one.
    """

    name: str
    d: int
    matrix: Matrix | None = None

    @property
    def width(self) -> int:
        """Components that are stored."""
        return self.d if self.matrix is None else self.matrix.shape[1]

    @property
    def bits(self) -> int:
        """Bits of a component."""
        return BITS[self.name]

    @property
    def scaled(self) -> bool:
        """Whether every row has a scale."""
        return "float" not in self.name

    @property
    def n_codes(self) -> int:
        """Bytes of a row's numbers."""
        return packed_bytes(self.width, self.bits)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, its scale included."""
        return self.n_codes + 2 * self.scaled

    def arrays(self) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """What decoding needs beside the codes: arrays, and the names of their dimensions."""
        named = ("component", "code_component")
        return {} if self.matrix is None else {"matrix": (self.matrix, named)}

    def encode(self, rows: Rows) -> tuple[Bytes, Rows | None]:
        """Numbers (m, n_codes) and scales (m,) uint16, None where the code has none.

        Rows (m, d) of any float dtype, finite. What is beyond the range of its bits becomes
        infinite; see `overflows`.
        """
        y = self._mapped(rows)
        if self.name == "float16":
            with np.errstate(over="ignore"):
                return np.ascontiguousarray(y, "<f2").view(np.uint8), None
        if self.name == "bfloat16":
            return _upper_half(y).view(np.uint8), None
        if self.name == "sign":
            with np.errstate(over="ignore"):
                lengths = np.linalg.norm(y.astype(np.float64), axis=1)
            with np.errstate(over="ignore"):
                scale = _upper_half(lengths.astype(np.float32))
            return pack((y >= 0).astype(np.uint8), 1), scale

        most = (1 << (self.bits - 1)) - 1
        # Rounded up, so that no number is cut off.
        scale = _upper_half(np.abs(y).max(axis=1) / np.float32(most), up=True)
        step = _whole(scale)
        safe = np.where(step > 0, step, np.float32(1))
        with np.errstate(invalid="ignore"):
            np.divide(y, safe[:, None], out=y)
            np.rint(y, out=y)
            numbers = np.clip(y, -most, most, out=y).astype(np.int8)
        if self.bits == 8:
            return numbers.view(np.uint8), scale
        return pack((numbers + np.int8(most)).view(np.uint8), self.bits), scale

    def decode(self, codes: Bytes, scale: Rows | None) -> Rows:
        """The rows (m, d), float32."""
        if self.name == "float16":
            y = np.ascontiguousarray(codes).view("<f2").astype(np.float32)
        elif self.name == "bfloat16":
            y = _whole(np.ascontiguousarray(codes).view("<u2"))
        else:
            assert scale is not None
            y = self._numbers(codes)
            np.multiply(y, _whole(scale)[:, None], out=y)
        return y if self.matrix is None else y @ self.matrix.T.astype(np.float32)

    def overflows(self, codes: Bytes, scale: Rows | None) -> bool:
        """Whether a number or scale is beyond the range of its bits (any row of these)."""
        if scale is not None:
            return not bool(np.isfinite(_whole(scale)).all())
        halves = np.ascontiguousarray(codes)
        numbers = halves.view("<f2") if self.name == "float16" else _whole(halves.view("<u2"))
        return not bool(np.isfinite(numbers).all())

    def error_bounds(self, rows: Rows) -> Vector:
        """For each row the most that its decoded row can be off, in Euclidean length: (m,) float64.

        Half a step per number, and rounding in float32. None of it is estimated; `sign` has no
        bound but twice the row's length, and a projection adds what it leaves out.
        """
        x = np.asarray(rows, np.float64)
        lengths: Vector = np.linalg.norm(x, axis=1)
        root = math.sqrt(self.width)
        rest: Vector = 8 * self.d * 2.0**-24 * lengths + root * 1e-38
        if self.matrix is not None:
            rest = rest + np.linalg.norm(x - x @ self.matrix @ self.matrix.T, axis=1)
        if self.name == "sign":
            return (2 + 2.0**-8) * lengths + rest
        if not self.scaled:
            half_a_unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[self.name]
            smallest = 2.0**-25 * root if self.name == "float16" else 0.0
            return half_a_unit * lengths + smallest + rest
        _, scale = self.encode(rows)
        assert scale is not None
        return root / 2 * _whole(scale).astype(np.float64) + rest

    def _mapped(self, rows: Rows) -> Rows:
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and told
            y = np.array(rows, np.float32, order="C")
        return y if self.matrix is None else y @ self.matrix.astype(np.float32)

    def _numbers(self, codes: Bytes) -> Rows:
        if self.bits == 8:
            return np.ascontiguousarray(codes).view(np.int8).astype(np.float32)
        numbers = unpack(codes, self.width, self.bits).astype(np.float32)
        if self.name == "sign":
            return (2 * numbers - 1) / np.float32(np.sqrt(self.width))
        return numbers - np.float32((1 << (self.bits - 1)) - 1)


def random_rotation(d: int, seed: int) -> Matrix:
    """An orthogonal matrix (d, d), uniformly distributed (Stewart, doi 10.1137/0717034)."""
    Q, R = np.linalg.qr(np.random.default_rng(seed % 2**64).normal(size=(d, d)))
    return np.asarray(Q * np.sign(np.diag(R)))


def leading_directions(gramian: Matrix, rank: int) -> Matrix:
    """The ``rank`` directions (d, rank) that hold most of a table, by its Gramian.

    Of a stabilized run both tables have Gramians of the same directions, so these keep the best
    scores of that rank.
    """
    _, vectors = np.linalg.eigh(gramian)
    leading = vectors[:, ::-1][:, :rank]
    largest = leading[np.abs(leading).argmax(axis=0), np.arange(rank)]
    return np.asarray(leading * np.where(largest < 0, -1.0, 1.0))


def _upper_half(y: Rows, *, up: bool = False) -> Any:
    """The upper 16 bits of float32 numbers, rounded to the nearest, ties to even, or ``up``."""
    bits = np.ascontiguousarray(y, "<f4").view("<u4")
    lowest = (bits >> np.uint32(16)) & np.uint32(1)
    more = np.uint32(0xFFFF) if up else np.uint32(0x7FFF) + lowest
    return ((bits + more) >> np.uint32(16)).astype("<u2")


def _whole(halves: Any) -> Rows:
    """The float32 numbers of these upper halves."""
    widened = np.asarray(halves).astype("<u4") << np.uint32(16)
    return np.asarray(widened.view("<f4"))
