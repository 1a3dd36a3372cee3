"""What codes of fitted entries have in common: a byte of a row is the number of an entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dask_embstab.core.codes.packing import Bytes
from dask_embstab.core.types import Matrix, Rows


@dataclass(frozen=True, slots=True, eq=False)
class CodebookCode:
    """Rows of ``d`` components by ``codebooks`` (n_codes, entries, width of an entry), of
    x @ ``matrix`` where there is one.
    """

    d: int
    codebooks: Rows
    matrix: Matrix | None = None

    _PREFIX: ClassVar[str]
    _BOOKS: ClassVar[str]
    """What the dimension of the codebooks is called."""

    @property
    def name(self) -> str:
        """The kind and the number of codebooks."""
        return f"{self._PREFIX}{self.n_codes}"

    @property
    def scaled(self) -> bool:
        """No row has a scale."""
        return False

    @property
    def n_codes(self) -> int:
        """Bytes of a row: one for each codebook."""
        return len(self.codebooks)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.n_codes

    def arrays(self) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """What decoding needs beside the codes: arrays, and the names of their dimensions."""
        arrays: dict[str, tuple[Any, tuple[str, ...]]] = {
            "codebook": (self.codebooks, (self._BOOKS, "entry", "entry_component"))
        }
        if self.matrix is not None:
            arrays["matrix"] = self.matrix, ("component", "code_component")
        return arrays

    def overflows(self, codes: Bytes, scale: Rows | None) -> bool:  # noqa: ARG002
        """Never: entries are finite."""
        return False

    def unused_entries(self, codes: Bytes) -> float:
        """The share of entries that none of these codes (m, n_codes) names."""
        used = sum(len(np.unique(column)) for column in codes.T)
        share: float = 1 - used / (self.codebooks.shape[1] * self.n_codes)
        return share

    def _mapped(self, rows: Rows) -> Rows:
        """What is stored of rows: float32, in memory of its own."""
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite row is told elsewhere
            y = np.array(rows, np.float32, order="C")
            return y if self.matrix is None else y @ self.matrix.astype(np.float32)

    def _rows_of(self, y: Rows) -> Rows:
        """The rows of which this is stored."""
        return y if self.matrix is None else y @ self.matrix.T.astype(np.float32)
