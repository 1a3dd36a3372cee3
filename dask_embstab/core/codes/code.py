"""A code: how a row vector becomes bytes, and what row the bytes give back.

Every code here is fixed before the first row is seen, or fitted once and frozen: the same row has
the same bytes on every day. Three steps, of which a code may leave out any but the last:

- ``matrix`` (d, r): x becomes x @ matrix, orthonormal columns. A rotation (r = d) spreads a row
  evenly over its components; the leading directions (r < d) keep the best scores of rank r.
- a *scale*: per row, of 16 bits, the upper half of a float32 (of any size, precise to 0.4 %); or
  per component, frozen: the steps of the rows that it was fitted to.
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
BY_COMPONENT = "-component"
"""What the name of a code with a scale per component ends with."""
FROZEN = tuple(name + BY_COMPONENT for name in BITS if name.startswith("int"))
"""Codes with a frozen scale per component."""
HEADROOM = 1.25
"""Their ranges are so many times what was seen: later rows are longer."""
_BLOCK_VALUES = 1 << 17
"""Numbers that are encoded or decoded at a time: half a MiB of float32, which stays in the second
cache with what is made of it.
"""

_LARGE = 2.0**100
"""Rows of a scale or step below it are finite when they are decoded; others are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """How rows of ``d`` components are stored: by the numbers of ``name`` (`BITS`, `FROZEN`), of
    x @ ``matrix`` where there is one; ``steps`` (width,) are the scales of the components, where
    they have one and rows have none.
    """

    name: str
    d: int
    matrix: Matrix | None = None
    steps: Vector | None = None

    @property
    def width(self) -> int:
        """Components that are stored."""
        return self.d if self.matrix is None else self.matrix.shape[1]

    @property
    def bits(self) -> int:
        """Bits of a component."""
        return BITS[self.name.removesuffix(BY_COMPONENT)]

    @property
    def most(self) -> int:
        """The largest whole number of these bits, whose negative is the smallest."""
        return (1 << (self.bits - 1)) - 1

    @property
    def scaled(self) -> bool:
        """Whether every row has a scale."""
        return "float" not in self.name and self.steps is None

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
        arrays: dict[str, tuple[Any, tuple[str, ...]]] = {}
        if self.matrix is not None:
            arrays["matrix"] = self.matrix, ("component", "code_component")
        if self.steps is not None:
            arrays["steps"] = (
                self.steps,
                ("component" if self.matrix is None else "code_component",),
            )
        return arrays

    def encode(self, rows: Rows) -> tuple[Bytes, Rows | None]:
        """Numbers (m, n_codes) and scales (m,) uint16, None where the code has none.

        Rows (m, d) of any float dtype, finite. What is beyond the range of its bits becomes
        infinite (see `overflows`); beyond that of its component, the range's end (`saturation`).
        """
        codes = np.empty((len(rows), self.n_codes), np.uint8)
        scales = np.empty(len(rows), "<u2") if self.scaled else None
        for part in self._blocks(len(rows)):
            codes[part], scale = self._encoded(self._mapped(rows[part]))
            if scales is not None:
                scales[part] = scale
        return codes, scales

    def decode(self, codes: Bytes, scale: Rows | None) -> Rows:
        """The rows (m, d), float32."""
        rows = np.empty((len(codes), self.d), np.float32)
        back = None if self.matrix is None else self.matrix.T.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 is told
            for part in self._blocks(len(codes)):
                of = None if scale is None else scale[part]
                if back is None:
                    self._decode(codes[part], of, rows[part])
                    continue
                y = np.empty((len(codes[part]), self.width), np.float32)
                self._decode(codes[part], of, y)
                np.matmul(y, back, out=rows[part])
        return rows

    def overflows(self, codes: Bytes, scale: Rows | None) -> bool:
        """Whether a number or scale is beyond the range of its bits, or a row that they give back
        beyond float32 (any row of these).
        """
        if not self.scaled and self.steps is None:
            halves = np.ascontiguousarray(codes)
            numbers = halves.view("<f2") if self.name == "float16" else _whole(halves.view("<u2"))
            return not bool(np.isfinite(numbers).all())
        steps: Any = self.steps if scale is None else _whole(scale)
        large = ~(steps < _LARGE)
        if not large.any():
            return False
        rows = slice(None) if scale is None else large
        given = self.decode(codes[rows], None if scale is None else scale[rows])
        return not bool(np.isfinite(given).all())

    def saturation(self, rows: Rows) -> float:
        """The share of numbers of these rows that frozen ranges cut off; 0 for other codes."""
        if self.steps is None or not len(rows):
            return 0.0
        return float(np.mean(np.abs(self._mapped(rows)) > self.steps * (self.most + 0.5)))

    def error_bounds(self, rows: Rows) -> Vector:
        """For each row the most that its decoded row can be off, in Euclidean length: (m,) float64.

        Half a step per number, and rounding in float32; of frozen ranges also what they cut off.
        None of it is estimated; `sign` has no bound but twice the row's length, and a projection
        adds what it leaves out.
        """
        x = np.asarray(rows, np.float64)
        lengths: Vector = np.linalg.norm(x, axis=1)
        root = math.sqrt(self.width)
        rest: Vector = 8 * self.d * 2.0**-24 * lengths + root * 1e-38
        y = x if self.matrix is None else x @ self.matrix
        if self.matrix is not None:
            rest = rest + np.linalg.norm(x - y @ self.matrix.T, axis=1)
        if self.name == "sign":
            return (2 + 2.0**-8) * lengths + rest
        if self.steps is not None:
            beyond = np.maximum(np.abs(y) - self.most * self.steps, 0)
            off: Vector = np.linalg.norm(np.maximum(beyond, self.steps / 2), axis=1)
            return rest + off
        if not self.scaled:
            half_a_unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[self.name]
            smallest = 2.0**-25 * root if self.name == "float16" else 0.0
            return half_a_unit * lengths + smallest + rest
        _, scale = self.encode(rows)
        assert scale is not None
        return root / 2 * _whole(scale).astype(np.float64) + rest

    def _blocks(self, n: int) -> list[slice]:
        step = max(64, _BLOCK_VALUES // self.d)
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def _mapped(self, rows: Rows) -> Rows:
        """What is stored of rows: float32, perhaps the rows themselves."""
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and told
            y = np.ascontiguousarray(rows, np.float32)
        return y if self.matrix is None else y @ self.matrix.astype(np.float32)

    def _encoded(self, y: Rows) -> tuple[Bytes, Any]:
        if self.name == "float16":
            with np.errstate(over="ignore"):
                return y.astype("<f2").view(np.uint8), None
        if self.name == "bfloat16":
            return _upper_half(y).view(np.uint8), None
        if self.name == "sign":
            wide = y.astype(np.float64)
            with np.errstate(over="ignore"):
                lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide)).astype(np.float32)
            return np.packbits(y >= 0, axis=1, bitorder="little"), _upper_half(lengths)

        numbers, scale = np.empty_like(y), None
        step: Any = self.steps
        if step is None:
            # The bits of numbers without their sign are in the order of the numbers.
            bits = numbers.view(np.uint32)
            np.bitwise_and(y.view(np.uint32), np.uint32(0x7FFFFFFF), out=bits)
            largest = bits.max(axis=1, initial=0).view(np.float32)
            # Rounded up, so that no number is cut off.
            scale = _upper_half(largest / np.float32(self.most), up=True)
            step = _whole(scale)[:, None]
        step = np.where(step > 0, step, np.float32(1)).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            np.divide(y, step, out=numbers)
            np.rint(numbers, out=numbers)
            if scale is None:
                np.clip(numbers, -self.most, self.most, out=numbers)
            whole = numbers.astype(np.int8)
        if self.bits == 8:
            return whole.view(np.uint8), scale
        whole += np.int8(self.most)
        return pack(whole.view(np.uint8), self.bits), scale

    def _decode(self, codes: Bytes, scale: Rows | None, out: Rows) -> None:
        """Write what is stored of these rows to ``out`` (m, width)."""
        if self.name == "float16":
            out[...] = np.ascontiguousarray(codes).view("<f2")
        elif self.name == "bfloat16":
            out[...] = _whole(np.ascontiguousarray(codes).view("<u2"))
        elif self.name == "sign":
            assert scale is not None
            out[...] = np.unpackbits(codes, axis=1, bitorder="little", count=self.width)
            out *= np.float32(2)
            out -= np.float32(1)
            out *= (_whole(scale) / np.float32(math.sqrt(self.width)))[:, None]
        else:
            if self.bits == 8:
                out[...] = codes.view(np.int8)
            else:
                out[...] = unpack(codes, self.width, self.bits)
                out -= np.float32(self.most)
            if self.steps is not None:
                out *= self.steps.astype(np.float32)
            else:
                assert scale is not None
                out *= _whole(scale)[:, None]


def frozen_steps(largest: Vector, name: str) -> Vector:
    """Steps of a code with a scale per component, of the ``largest`` (width,) sizes seen; float32
    values, so that they are what decoding multiplies by. Ranges end where float32 does.
    """
    most = (1 << (BITS[name.removesuffix(BY_COMPONENT)] - 1)) - 1
    end = np.nextafter(np.finfo(np.float32).max / np.float32(most), np.float32(0))
    steps = np.minimum(HEADROOM * np.asarray(largest, np.float64) / most, end)
    return np.asarray(steps.astype(np.float32), np.float64)


def random_rotation(d: int, seed: int) -> Matrix:
    """An orthogonal matrix (d, d), uniformly distributed (Stewart, doi 10.1137/0717034)."""
    Q, R = np.linalg.qr(np.random.default_rng(seed % 2**64).normal(size=(d, d)))
    return np.asarray(Q * np.sign(np.diag(R)))


def rotated(directions: Matrix | None, d: int, seed: int) -> Matrix:
    """These directions (d, r), or all of ``d``, and a random rotation of what they keep."""
    turn = random_rotation(d if directions is None else directions.shape[1], seed)
    return turn if directions is None else directions @ turn


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
