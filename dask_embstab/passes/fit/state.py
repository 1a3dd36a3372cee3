"""What a fit knows of one table, from the first read to the last."""

from __future__ import annotations

from dataclasses import dataclass, field

from dask_embstab.core.types import Matrix
from dask_embstab.core.zero_rows import ZeroRows
from dask_embstab.passes.join.reference_rows import ReferenceRows
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.table import Table
from dask_embstab.tables.table_moments import TableMoments


@dataclass(slots=True)
class TableRead:
    """What is known of one table: its moments, and where they come from (``table`` is None where
    they were given).

    ``aligned`` holds the rows that ``pairs`` are read with: the table, or a view of its listed
    rows. ``energies`` are the sums of squares of the matched rows and of their reference rows, once
    they are known. ``triangle`` is the R factor where the first read made one; ``n_reads`` counts
    the reads so far.
    """

    summary: TableMoments
    table: Table | None = None
    pairs: ReferenceRows | None = None
    aligned: Table | None = None
    triangle: Matrix | None = None
    n_reads: int = 0
    digests: Digests = field(default_factory=dict)
    reference_digests: Digests = field(default_factory=dict)
    energies: tuple[float, float] | None = None
    unit_zeros: ZeroRows | None = None

    @property
    def zeros(self) -> ZeroRows:
        """Rows of zeros, and the pairs left out for one, whichever read compared the pairs."""
        return self.unit_zeros or self.summary.moments.zeros

    @property
    def matched(self) -> int | None:
        """Rows shared with the reference, before any selection; None where that was not needed."""
        if self.pairs is not None:
            return self.pairs.pairing.changes[0]
        return None if self.summary.shared is None else self.summary.matched

    @property
    def evidence(self) -> int:
        """Shared rows, before any selection, without the pairs of which a row was read as zero."""
        if self.matched is None:
            return 0
        shared = self.matched if self.pairs is None else self.pairs.pairing.matched
        nonzero = shared - self.zeros.pairs
        listed = (
            self.pairs is not None and self.pairs.pairing.listed
        )  # a row may be in several pairs
        return nonzero if listed else min(self.matched, nonzero, self.summary.moments.n_nonzero)

    @property
    def smaller(self) -> int:
        """Rows of the run's or of the reference's table, whichever has fewer; 0 of listed pairs.

        Rows of zeros do not count, as far as they were read.
        """
        if self.pairs is not None and not self.pairs.pairing.listed:
            matched, _, unmatched = self.pairs.pairing.changes
            reference = matched - self.zeros.reference + unmatched - self.pairs.unmatched_zero_rows
        elif self.pairs is None and (shared := self.summary.shared) is not None:
            reference = shared.rows - max(
                shared.zero_rows, self.zeros.reference
            )  # a part knows of its own, at least
        else:
            return 0
        return min(self.summary.moments.n_nonzero, reference)
