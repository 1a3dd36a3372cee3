"""The panels of a table with their reference rows: what a pass asks of a join, and how rows,
reference rows and weights come into one panel.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from dask_embstab.core.moments import Panel, sides
from dask_embstab.core.products import Family, are_faster_apart, converts
from dask_embstab.core.types import Matrix, RowNumbers, Rows
from dask_embstab.core.zero_rows import NO_ZEROS, ZeroRows, zero_rows
from dask_embstab.errors import NotFiniteError, first_few
from dask_embstab.passes.engine.blas import product_family
from dask_embstab.passes.engine.plan import Grid, RowRange
from dask_embstab.tables.column import Column, ColumnBlock
from dask_embstab.tables.read.source import Digests, Source

Mask = npt.NDArray[np.bool_]
PartnerRows = tuple[Rows, Mask | None] | None
"""Reference rows of those rows of a panel that have one, and which these are (None: all); None
where none has.
"""
Weights = Column | Literal["norm"] | None
"""One number per row, or the length of the row's reference row."""


class PairedRows(Protocol):
    """The reference rows of a table's rows, as the engine reads them: joins say how."""

    @property
    def reference(self) -> Source:
        """The vectors that the reference rows are of."""

    @property
    def n_used(self) -> int:
        """Rows of the table whose reference row is used."""

    def chunk_rows(self) -> int | None:
        """Rows of a reference chunk where both tables are read by position, else None."""

    def of(self, rows: RowRange) -> Any:
        """What one task is given (`Partners`, or a Dask value that becomes it); None where no row
        has a partner.
        """


class Partners(Protocol):
    """What a task is given to read its rows' reference rows by."""

    def open(self, start: int, stop: int) -> PartnerReader:
        """Start reading, for the task's rows ``start`` to ``stop``."""


class PartnerReader(Protocol):
    """Reference rows of one panel after another."""

    def take(self, start: int, stop: int) -> PartnerRows:
        """Those of rows ``start`` to ``stop``."""

    def digests(self) -> Digests:
        """Of the reference chunks that were read whole."""


class Buffer:
    """Memory for panels in float64, taken when it is first needed."""

    def __init__(self, rows: int, family: Family, *, takes_single: bool = False) -> None:
        self._rows, self._family, self._takes_single = rows, family, takes_single
        self._memory: Matrix = np.empty((0, 0))

    def multiplied(self, stored: Rows) -> Rows:
        """The rows as they are, where their products are computed from them, else in float64."""
        is_single = self._takes_single and converts(stored, family=self._family)
        return stored if is_single else self.upcast(stored)

    def upcast(self, stored: Rows) -> Matrix:
        """The rows in float64: as they are, or copied."""
        if stored.dtype == np.float64 and stored.dtype.isnative:
            return stored
        rows = self.take(len(stored), stored.shape[1])
        np.copyto(rows, stored)
        return rows

    def take(self, n: int, d: int) -> Matrix:
        """``n`` rows of ``d`` components that a later call hands out anew."""
        if self._memory.shape[1] != d:
            self._memory = np.empty((self._rows, d))
        return self._memory[:n]


class PairReader:
    """Adds the reference rows, and their weights, to one panel after another."""

    def __init__(
        self,
        partners: Partners,
        rows: RowRange,
        grid: Grid,
        weights: ColumnBlock | Literal["norm"] | None,
        where: str,
        *,
        takes_single: bool,
    ) -> None:
        self.reader: PartnerReader = partners.open(rows.start, rows.stop)
        self._origin = rows.start
        self._weights = weights.read() if isinstance(weights, ColumnBlock) else None
        self._norms = (
            weights.column.times_norm if isinstance(weights, ColumnBlock) else weights == "norm"
        )
        self._family = product_family(is_large=grid.is_large)
        self._buffers = Buffer(grid.rows, self._family), Buffer(grid.rows, self._family)
        self._where = where
        self._takes_single = takes_single and weights is None

    def panel(self, stored: Rows, buffer: Buffer, start: int, stop: int) -> Panel:
        """The panel of rows ``start`` to ``stop`` with its partners."""
        partner_rows = self.reader.take(start, stop)
        pairs = None if partner_rows is None else self._pairs(stored, partner_rows)
        # Rows of zeros are looked for behind the copies, which leave what is looked at in the
        # cache.
        nonzero, zeros = self._nonzero(partner_rows, stored, start)
        if nonzero is not partner_rows:
            pairs = None if nonzero is None else self._pairs(stored, nonzero)
        if nonzero is None or pairs is None:
            return Panel(buffer.multiplied(stored), start, family=self._family, zeros=zeros)
        _, matched = nonzero
        x, y = sides(pairs, stored.shape[1])
        rows = x if matched is None else buffer.multiplied(stored)
        weights = np.asarray(np.linalg.norm(y, axis=1)) if self._norms else None
        if self._weights is not None:
            given = self._weights[start - self._origin : stop - self._origin]
            given = given if matched is None else given[matched]
            weights = given if weights is None else given * weights
        return Panel(rows, start, pairs, matched, weights, self._family, zeros)

    def _nonzero(
        self, partner_rows: PartnerRows, stored: Rows, start: int
    ) -> tuple[PartnerRows, ZeroRows]:
        """The partners without the pairs of which either row is zero, and the counts of both."""
        zero = zero_rows(stored)
        counts = ZeroRows(len(zero)) if len(zero) else NO_ZEROS
        if partner_rows is None:
            return None, counts
        partners, matched = partner_rows
        zero_partners = zero_rows(partners)
        if not len(zero) and not len(zero_partners):
            return partner_rows, counts

        is_zero = np.zeros(len(stored), bool)
        is_zero[zero] = True
        numbers = np.arange(len(stored)) if matched is None else np.flatnonzero(matched)
        left_out = is_zero[numbers]
        left_out[zero_partners] = True
        if not left_out.any():
            return partner_rows, counts

        # What is left out is in no sum that would show a value that is not finite.
        rows, theirs = stored[numbers[left_out]], partners[left_out]
        require_finite(rows, start, self._where, numbers[left_out])
        require_finite(theirs, start, reference_of(self._where), numbers[left_out])
        energies = (float(np.square(side, dtype=np.float64).sum()) for side in (rows, theirs))
        counts = ZeroRows(len(zero), len(rows), len(zero_partners), *energies)
        if left_out.all():
            return None, counts
        kept = np.zeros(len(stored), bool)
        kept[numbers[~left_out]] = True
        return (partners[~left_out], kept), counts

    def _pairs(self, stored: Rows, partner_rows: tuple[Rows, Mask | None]) -> tuple[Rows, ...]:
        """Rows and partners in float64, in one array or two, or as they are: whichever their
        products are computed faster from.
        """
        partners, matched = partner_rows
        rows = stored if matched is None else stored[matched]
        if self._takes_single and converts(rows, partners, family=self._family):
            return rows, partners
        d, D = rows.shape[1], partners.shape[1]
        one, other = self._buffers
        if are_faster_apart(d, D, family=self._family):
            return one.upcast(rows), other.upcast(partners)
        joint = one.take(len(rows), d + D)
        np.copyto(joint[:, :d], rows)
        np.copyto(joint[:, d:], partners)
        return (joint,)


def reference_of(where: str) -> str:
    """The reference rows of a table, as errors call them."""
    return f"the reference of {where}, in the rows that belong to its rows,"


def require_finite(rows: Rows, start: int, where: str, numbers: RowNumbers | None = None) -> None:
    """Raise, naming the first few rows, unless every value is finite; ``rows[i]`` is row ``start +
    numbers[i]``.
    """
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not len(bad):
        return
    named = first_few(bad if numbers is None else numbers[bad], start)
    raise NotFiniteError(
        f"vectors must be finite; {where} has NaN or infinite values in row {named}; repair or drop"
        " these rows"
    )
