"""Residual quantization: of a row the number of the nearest of 256 entries is stored, then that of
what it leaves, and so on (Chen, Guan & Wang 2010, doi:10.3390/s101211259).

The entries are fitted once, to rows of one day, and then stay: codes of later days mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_embstab.core.codes.codebooks import CodebookCode
from dask_embstab.core.codes.packing import Bytes
from dask_embstab.core.codes.product import ENTRIES, fit_codebooks, nearest, scale_of, scaled_rows
from dask_embstab.core.types import Matrix, Rows, Vector


@dataclass(frozen=True, slots=True, eq=False)
class ResidualCode(CodebookCode):
    """Rows of ``d`` components as sums of an entry of each of ``codebooks`` (stages, 256, width):
    of x @ ``matrix`` where there is one.
    """

    _PREFIX = "rq"
    _BOOKS = "stage"

    @property
    def width(self) -> int:
        """Components that are stored."""
        return int(self.codebooks.shape[2])

    def encode(self, rows: Rows) -> tuple[Bytes, None]:
        """Numbers of the entries, (m, stages), each the nearest to what is left; of two as near,
        the first.
        """
        scale = scale_of(self.codebooks)
        y = scaled_rows(self._mapped(rows), scale)
        codes = np.empty((len(y), self.n_codes), np.uint8)
        for stage, entries in enumerate(self.codebooks * scale):
            codes[:, stage] = nearest(y, entries)
            y -= entries[codes[:, stage]]
        return codes, None

    def decode(self, codes: Bytes, scale: Rows | None = None) -> Rows:  # noqa: ARG002
        """The rows (m, d) that the entries add up to, float32."""
        y = self.codebooks[0][codes[:, 0]]
        for entries, numbers in zip(self.codebooks[1:], codes.T[1:], strict=True):
            y += entries[numbers]
        return self._rows_of(y)

    def error_bounds(self, rows: Rows) -> Vector:
        """For each row the most that its decoded row can be off, in Euclidean length: (m,) float64.

        The distance from the sum of its entries, and rounding.
        """
        x, (codes, _) = np.asarray(rows, np.float64), self.encode(rows)
        entries = self.codebooks.astype(np.float64)
        made = sum(book[numbers] for book, numbers in zip(entries, codes.T, strict=True))
        made = made if self.matrix is None else made @ self.matrix.T
        largest = np.linalg.norm(entries, axis=2).max(axis=1).sum()
        rest = 8 * (self.d + len(entries)) * 2.0**-24 * (np.linalg.norm(x, axis=1) + largest)
        return np.asarray(np.linalg.norm(x - made, axis=1) + rest + 1e-38)


def fit_residual(rows: Matrix, stages: int, seed: int) -> Rows:
    """Codebooks (stages, 256, d), float32, of rows (m, d): each by Lloyd's algorithm on what those
    before it left.
    """
    left, books = np.array(rows, np.float32), np.empty((stages, ENTRIES, rows.shape[1]), np.float32)
    scale = scale_of(left)
    left *= scale
    for stage in range(stages):
        (books[stage],) = fit_codebooks(left, 1, seed + stage)
        left -= books[stage][nearest(left, books[stage])]
    return np.asarray(books / scale)
