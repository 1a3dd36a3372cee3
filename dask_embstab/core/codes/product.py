"""Product quantization: a row is cut into parts, and of each part the number of the nearest of 256
entries is stored (Jegou, Douze & Schmid 2011, doi:10.1109/TPAMI.2010.57).

The entries are fitted once, to rows of one day, and then stay: codes of later days mean the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.codes.codebooks import CodebookCode
from dask_embstab.core.codes.packing import Bytes
from dask_embstab.core.matrix.powers import power_of_two
from dask_embstab.core.types import Rows, Vector

ENTRIES = 256
_ROWS = 1 << 12


@dataclass(frozen=True, slots=True, eq=False)
class ProductCode(CodebookCode):
    """Rows of ``d`` components by ``codebooks`` (m, 256, d / m), of x @ ``matrix`` (orthogonal)
    where there is one.
    """

    _PREFIX = "pq"
    _BOOKS = "part"

    @property
    def width(self) -> int:
        """Components that are stored."""
        return int(self.codebooks.shape[0] * self.codebooks.shape[2])

    def encode(self, rows: Rows) -> tuple[Bytes, None]:
        """Numbers of the nearest entries, (m, parts); of two as near, the first."""
        y = self._mapped(rows)
        parts, _, w = self.codebooks.shape
        scale = scale_of(self.codebooks)
        codes = np.empty((len(y), parts), np.uint8)
        for part, entries in enumerate(self.codebooks):
            x = scaled_rows(y[:, part * w : (part + 1) * w], scale)
            codes[:, part] = nearest(x, entries * scale)
        return codes, None

    def decode(self, codes: Bytes, scale: Rows | None = None) -> Rows:  # noqa: ARG002
        """The rows (m, d) that the entries make, float32."""
        made = [entries[codes[:, part]] for part, entries in enumerate(self.codebooks)]
        return self._rows_of(np.concatenate(made, axis=1))

    def error_bounds(self, rows: Rows) -> Vector:
        """For each row the most that its decoded row can be off, in Euclidean length: (m,) float64.

        The distance from the nearest entries, as float32 tells which they are, and rounding.
        """
        x = np.asarray(rows, np.float64)
        lengths: Vector = np.linalg.norm(x, axis=1)
        y = x if self.matrix is None else x @ self.matrix
        w = self.codebooks.shape[2]
        squares = np.zeros(len(x))
        for part, entries in enumerate(self.codebooks.astype(np.float64)):
            of = y[:, part * w : (part + 1) * w]
            apart = ((of[:, None, :] - entries) ** 2).sum(axis=2).min(axis=1)
            sizes = np.linalg.norm(of, axis=1) + np.linalg.norm(entries, axis=1).max()
            squares += apart + 8 * (self.d + w) * 2.0**-24 * sizes**2
        if self.matrix is not None:  # what a projection leaves out is orthogonal to the rest
            squares += ((x - y @ self.matrix.T) ** 2).sum(axis=1)
        rest = 8 * self.d * 2.0**-24 * (lengths + np.sqrt(squares)) + math.sqrt(self.d) * 1e-38
        return np.asarray(np.sqrt(squares) + rest)


def nearest(rows: Rows, entries: Rows) -> Any:
    """For every row (m, w) the number of the nearest entry (n, w)."""
    half = np.einsum("ij,ij->i", entries, entries) / 2
    numbers = np.empty(len(rows), np.intp)
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        numbers[start : start + _ROWS] = np.argmin(half - block @ entries.T, axis=1)
    return numbers


def fit_codebooks(rows: Rows, parts: int, seed: int, *, steps: int = 20) -> Rows:
    """Codebooks (parts, 256, d / parts), float32, of rows (m, d): Lloyd's algorithm on each part.

    It starts from rows drawn by ``seed``. An entry that no row is nearest to becomes the row that
    is worst off.
    """
    rng, w = np.random.default_rng(seed % 2**64), rows.shape[1] // parts
    scale = scale_of(rows)
    books = np.empty((parts, ENTRIES, w), np.float32)
    start = rng.choice(len(rows), ENTRIES, replace=len(rows) < ENTRIES)
    for part in range(parts):
        x = np.ascontiguousarray(rows[:, part * w : (part + 1) * w] * scale, np.float32)
        entries = x[start].copy()
        for _ in range(steps):
            entries = _step(x, entries)
        books[part] = entries / scale
    return books


def scale_of(values: Rows) -> Any:
    """What brings values to 1 at most: exact, and no square of them is out of range."""
    scale = power_of_two(np.asarray(np.abs(values).max(initial=0.0), np.float64))
    return np.float32(np.clip(scale, 2.0**-126, 2.0**126))


def scaled_rows(rows: Rows, scale: Any) -> Rows:
    """Rows (m, w) times the ``scale`` of the entries, float32. A row that is then longer than 2^60
    is brought down to that: beside it entries have no length, so the nearest one stays the same.
    """
    if max(rows.max(initial=0.0), -rows.min(initial=0.0)) * np.float64(scale) <= 2.0**60:
        return np.asarray(rows * scale)
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # rows of zeros; infinite ones are told
        most = 2.0**60 * power_of_two(largest)
        return np.asarray(rows * np.minimum(most, scale).astype(np.float32)[:, None])


def _step(x: Rows, entries: Rows) -> Rows:
    """The means of the rows that each entry is nearest to."""
    codes = nearest(x, entries)
    counts = np.bincount(codes, minlength=len(entries))
    sums = np.stack([np.bincount(codes, column, minlength=len(entries)) for column in x.T], axis=1)
    means = sums / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        errors: Vector = np.einsum("ij,ij->i", x - entries[codes], x - entries[codes])
        worst = np.argsort(-errors, kind="stable")[: len(empty)]
        means[empty] = entries[empty]
        means[empty[: len(worst)]] = x[worst]
    return np.asarray(means, np.float32)
