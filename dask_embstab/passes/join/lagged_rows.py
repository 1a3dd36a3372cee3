"""Reference rows of several runs as one: of every row of the run, the weighted sum of its partners
in each.

T_i = scale S_i + sum over lags of scale_g Y_(g, i), a partner that is missing counting as zeros.
Aligning x_i to T_i is then aligning to all of them together: C = sum of x_i' T_i, in one read of
the run and one of each reference's matched rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.passes.engine.paired import PartnerReader, PartnerRows, Partners
from dask_embstab.passes.engine.plan import RowRange
from dask_embstab.passes.join.reference_rows import ReferenceRows
from dask_embstab.tables.read.dask_source import delayed_if_needed
from dask_embstab.tables.read.source import Digests


@dataclass(frozen=True, slots=True)
class Term:
    """Another run's rows, ready to be read, each times ``scale``; ``name`` says which they are in
    diagnostics.
    """

    name: str
    rows: ReferenceRows
    scale: float


@dataclass(frozen=True, slots=True)
class LaggedRows(ReferenceRows):
    """The reference's own rows times ``scale``, plus the terms. All else is known of the reference
    alone.
    """

    scale: float = 1.0
    terms: tuple[Term, ...] = ()

    def of(self, rows: RowRange) -> Any:
        """What one task is given."""
        parts = [
            (self.scale, ReferenceRows.of(self, rows)),
            *((term.scale, term.rows.of(rows)) for term in self.terms),
        ]
        known = [(scale, partners) for scale, partners in parts if partners is not None]
        if not known:
            return None

        make = partial(
            _weighted, tuple(scale for scale, _ in known), self.pairing.reference.shape[1]
        )
        return delayed_if_needed(make, *(partners for _, partners in known))


def lagged_rows(own: ReferenceRows, scale: float, terms: tuple[Term, ...]) -> LaggedRows:
    """Those of the reference, with the terms added to them."""
    return LaggedRows(
        **{field.name: getattr(own, field.name) for field in fields(ReferenceRows)},
        scale=scale,
        terms=terms,
    )


def _weighted(scales: tuple[float, ...], d: int, *partners: Partners) -> WeightedPartners:
    return WeightedPartners(scales, d, partners)


@dataclass(frozen=True, slots=True)
class WeightedPartners:
    """What a task is given to read the sums by."""

    scales: tuple[float, ...]
    d: int
    partners: tuple[Partners, ...]

    def open(self, start: int, stop: int) -> WeightedReader:
        """Start reading."""
        return WeightedReader(
            self.scales, self.d, [partner.open(start, stop) for partner in self.partners]
        )


class WeightedReader:
    """Adds up the partners of one panel after another, in float64; those that are narrower are
    padded with zeros.
    """

    def __init__(self, scales: tuple[float, ...], d: int, readers: list[PartnerReader]) -> None:
        self._scales, self._d, self._readers = scales, d, readers

    def take(self, start: int, stop: int) -> PartnerRows:
        """Of the rows ``start`` to ``stop`` that have a partner in any run."""
        total, has = np.zeros((stop - start, self._d)), np.zeros(stop - start, bool)
        for scale, reader in zip(self._scales, self._readers, strict=True):
            if (partner_rows := reader.take(start, stop)) is None:
                continue
            rows, matched = partner_rows
            k = min(self._d, rows.shape[1])
            at: Any = slice(None) if matched is None else matched
            total[at, :k] += scale * rows[:, :k].astype(np.float64)
            has[at] = True

        if has.all():
            return total, None
        return (total[has], has) if has.any() else None

    def digests(self) -> Digests:
        """Of the first one's chunks."""
        return self._readers[0].digests()
