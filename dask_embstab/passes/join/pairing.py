"""Which reference row belongs to which row of the run? By id, in whatever order and with whatever
overlap.

The cheapest path that is exact: row by row (no ids, or identical ones in identical order), one
merge (both ascend), in memory (few), and else over scratch files.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import EmbstabWarning, IdError, TooFewMatchedError
from dask_embstab.passes.join.distinct import may_repeat
from dask_embstab.passes.join.joined import Joined
from dask_embstab.passes.join.merge import merged
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.partitioned import partitioned
from dask_embstab.repairs import call, option
from dask_embstab.tables.ids.id_spill import RECORD_BYTES
from dask_embstab.tables.ids.ids import (
    ID_RANGE,
    Ids,
    RowNumberIds,
    are_identical,
    first_few,
    ids_at,
    stored_alike,
)
from dask_embstab.tables.ids.keys import joined, read_keyed
from dask_embstab.tables.ids.kinds import shown
from dask_embstab.tables.ids.match import Duplicates, match
from dask_embstab.tables.ids.row_index import (
    ArrayIndex,
    RowIndex,
    SparseIndex,
    StepIndex,
    gather,
)
from dask_embstab.tables.ids.spelling import Unmatched, differences
from dask_embstab.tables.read.source import Source
from dask_embstab.tables.table import Table

_SPARSE = 16
"""A selection of less than one row in so many is read row by row."""
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Live:
    """The first ``rows`` rows of a reference are of the run that was live last, and ``matched`` of
    them have a partner.

    What lies behind them are rows that were there before: they are aligned on, and no row is missed
    or new for them.
    """

    rows: int
    matched: int


@dataclass(frozen=True, slots=True)
class Pairing:
    """Rows of a run and their reference rows: row by row where ``index`` is None, else by ``index``
    and its ``inverse``.

    ``matched`` rows have a partner, ``new`` ones have none, ``unmatched_reference`` rows of the
    reference have no row in the run; ``paired_by`` names the join. Of the matched rows those
    ``chosen`` (None: all) take part in the alignment, ``used`` in number, drawn of ``eligible``
    ones and standing for ``represented`` ones: a sample for what it was drawn of, anchors for what
    theirs stood for. Anchors are not ``verified``: these rows are read without their chunks'
    checksums. Ids that ``differ_only_by`` their spelling have no partner. Where the user gave a
    list of pairs, not equal ids, ``listed`` rows of the run are named by it.
    """

    reference: Source
    index: RowIndex | None
    inverse: RowIndex | None
    matched: int
    new: int
    unmatched_reference: int
    paired_by: str
    n_bytes: int = 0
    duplicates: dict[str, int] = field(default_factory=dict)
    differ_only_by: dict[str, int] = field(default_factory=dict)
    chosen: Chosen | None = None
    used: int | None = None
    verified: bool = True
    eligible: int | None = None
    represented: int | None = None
    live: Live | None = None
    listed: int = 0

    @property
    def changes(self) -> tuple[int, int, int]:
        """Rows matched, new, and unmatched in the reference: against the whole reference, or the
        part of it that is live.
        """
        if self.live is None:
            return self.matched, self.new, self.unmatched_reference
        matched, n_rows = self.live.matched, self.matched + self.new
        return matched, n_rows - matched, self.live.rows - matched

    @property
    def smaller(self) -> int:
        """Rows of the run or of the reference (of what is live in it), whichever has fewer; 0 of a
        list of pairs.

        A list is short by nature, so no share of the tables is asked of it.
        """
        matched, new, unmatched_reference = self.changes
        return 0 if self.listed else matched + min(new, unmatched_reference)

    @property
    def n_eligible(self) -> int:
        """Rows that could take part before the last few were drawn of them."""
        return self.n_used if self.eligible is None else self.eligible

    @property
    def n_represented(self) -> int:
        """Rows that those which take part stand for."""
        return self.n_used if self.represented is None else self.represented

    @property
    def n_used(self) -> int:
        """Rows that take part in the alignment: the matched ones, less those a selection
        left out.
        """
        return self.matched if self.used is None else self.used

    @property
    def partners(self) -> RowIndex:
        """The reference row of every row, before any selection."""
        return StepIndex(self.matched) if self.index is None else self.index

    def only(self, chosen: Chosen) -> Pairing:
        """The pairing with the rows that are not ``chosen`` left out of the alignment."""
        taken = replace(self, chosen=chosen)
        used = sum(len(rows) for _, rows in used_ranges(taken, len(chosen)))
        if used * _SPARSE >= len(chosen):
            return replace(taken, used=used)
        return self.sparse(np.concatenate([rows for _, rows in used_ranges(taken, len(chosen))]))

    def drawn(self, ordinals: RowNumbers, n_rows: int) -> Pairing:
        """The pairing of those used rows that have these ordinals (ascending) among them."""
        rows = used_rows(self, n_rows, ordinals)
        chosen = np.zeros(n_rows, bool)
        chosen[rows] = True
        return replace(self.only(chosen), eligible=self.n_used, represented=self.n_represented)

    def sparse(self, rows: RowNumbers) -> Pairing:
        """The pairing of these matched rows (ascending) alone; every other row takes no part in the
        alignment.
        """
        index = SparseIndex(rows, gather(self.partners, rows))
        return replace(self, index=index, chosen=None, used=len(rows))


def used_ranges(pairing: Pairing, n_rows: int) -> Iterator[tuple[int, RowNumbers]]:
    """First row of a range, and the rows in it that are matched and chosen; range by range."""
    for start in range(0, n_rows, ID_RANGE):
        stop = min(start + ID_RANGE, n_rows)
        has = pairing.partners.take(start, stop) >= 0
        yield (
            start,
            start
            + np.flatnonzero(has if pairing.chosen is None else has & pairing.chosen[start:stop]),
        )


def used_rows(pairing: Pairing, n_rows: int, ordinals: RowNumbers) -> RowNumbers:
    """Row numbers of the rows with these ordinals (ascending), counted among the matched and chosen
    rows alone.
    """
    used, before = [ordinals[:0]], 0
    for _, rows in used_ranges(pairing, n_rows):
        first, last = np.searchsorted(ordinals, (before, before + len(rows)))
        used.append(rows[ordinals[first:last] - before])
        before += len(rows)
    return np.concatenate(used)


def pair(
    table: Table,
    reference: Table,
    join: JoinOptions,
    *,
    live: int | None = None,
    part: bool = False,
) -> Pairing:
    """Pair rows by id; row by row where neither table has ids or the ids are identical in identical
    order.

    The rows of a reference without ids are known by their numbers; a table without ids meets no
    reference that has some.

    Of a reference that holds more than one run, the first ``live`` rows are those of the last one.

    Raises `IdError` where the ids are of two types, where one is duplicated (unless the first shall
    count), or where none is shared (unless this is a ``part`` of a table).
    """
    if table.stored_ids is None and reference.stored_ids is None:
        pairing = _by_position(table, reference, "row number")
    elif _are_in_one_order(table, reference, join, live):
        pairing = _by_position(table, reference, "identical ids")
    else:
        pairing = _by_id(table, reference, join, part=part)
    if live is None:
        return pairing

    # How many of the live rows have a partner: a look at the index, a range at a time.
    n_rows, matched = table.n_rows, 0
    for start in range(0, n_rows, ID_RANGE):
        partners = pairing.partners.take(start, min(start + ID_RANGE, n_rows))
        matched += int(np.count_nonzero((partners >= 0) & (partners < live)))
    return replace(pairing, live=Live(live, matched))


def _by_position(table: Table, reference: Table, paired_by: str) -> Pairing:
    matched = min(table.n_rows, reference.n_rows)
    new, unmatched = table.n_rows - matched, reference.n_rows - matched
    return Pairing(reference.source, None, None, matched, new, unmatched, paired_by)


def _are_in_one_order(table: Table, reference: Table, join: JoinOptions, live: int | None) -> bool:
    """Whether both tables have the same ids row by row, none of them twice."""
    if table.stored_ids is None:
        raise IdError(
            f"rows are matched by id; {reference.where} stores ids and {table.where} has none; give"
            f" them: {call('create_run', **{f'{table.key[:-1]}_ids': None})}, or"
            f" {call('table', ids=None)} (range({table.n_rows}) where the row numbers are the ids)"
        )
    ours, theirs = table.row_ids, reference.row_ids
    if ours.kind != theirs.kind:
        raise IdError(
            f"ids must be of one type; those of {table.where} are {ours.kind} and those of"
            f" {reference.where} {theirs.kind}; convert one of them when its run is written"
        )
    identical = len(ours) == (live or len(theirs)) and (
        stored_alike(ours, theirs)
        or (first_few(ours) == first_few(theirs) and are_identical(ours, theirs))
    )
    return identical and not may_repeat(theirs if live is None else ours, table.key, join)


def _by_id(table: Table, reference: Table, join: JoinOptions, *, part: bool) -> Pairing:
    """By the cheapest join that can be: a merge, one in memory, else one over scratch files."""
    ours, theirs = table.row_ids, reference.row_ids
    joined = (
        merged(ours, theirs, join)
        or _in_memory(ours, theirs, join)
        or partitioned(ours, theirs, join)
    )
    _require_distinct(ours, joined.our_duplicates, join)
    _require_distinct(theirs, joined.their_duplicates, join)
    matched, new, unmatched = (
        joined.matched,
        len(ours) - joined.matched,
        len(theirs) - joined.matched,
    )

    spelled = []
    if new and unmatched and ours.kind == "string":
        spelled = differences(Unmatched(ours, joined.index), Unmatched(theirs, joined.inverse))
    if not matched and not part:
        mine, known = (shown(ids.open().take(0, 1))[0] for ids in (ours, theirs))
        hint = (
            "; ".join(map(str, spelled))
            or "runs are aligned and compared on the rows whose ids both have; give runs with"
            " common ids"
        )
        raise TooFewMatchedError(
            f"{table.where} and {reference.where} share no id (for example {mine} and {known});"
            f" {hint}"
        )
    for difference in spelled:
        warnings.warn(
            f"{table.where} and {reference.where}: {difference}", EmbstabWarning, stacklevel=3
        )

    counts = {"run": joined.our_duplicates.n, "reference": joined.their_duplicates.n}
    return Pairing(
        reference.source,
        joined.index,
        joined.inverse,
        matched,
        new,
        unmatched,
        joined.strategy,
        joined.n_bytes,
        duplicates=counts if any(counts.values()) else {},
        differ_only_by={difference.by: difference.n for difference in spelled},
    )


def _in_memory(
    ours: Ids | RowNumberIds, theirs: Ids | RowNumberIds, join: JoinOptions
) -> Joined | None:
    """A join of all ids at once; None where they do not fit."""
    if (len(ours) + len(theirs)) * RECORD_BYTES[ours.kind] > join.memory:
        return None
    sides = []
    for ids in (ours, theirs):
        reader, n = ids.open(), len(ids)
        starts = range(0, n, ID_RANGE)
        sides.append(joined([read_keyed(reader, at, min(at + ID_RANGE, n)) for at in starts]))
    matched = match(*sides)
    index, inverse = (np.full(len(ids), -1, np.int64) for ids in (ours, theirs))
    index[matched.ours], inverse[matched.theirs] = matched.theirs, matched.ours
    return Joined(
        index=ArrayIndex(index),
        inverse=ArrayIndex(inverse),
        matched=len(matched.ours),
        our_duplicates=matched.our_duplicates,
        their_duplicates=matched.their_duplicates,
        strategy="joined ids",
    )


def _require_distinct(ids: Ids | RowNumberIds, again: Duplicates, join: JoinOptions) -> None:
    if not again.n:
        return
    named = dict.fromkeys(shown(ids_at(ids, np.array(again.rows))))
    if join.duplicates == "error":
        raise IdError(
            f"ids must be unique where rows are joined; {ids.where} repeats {again.n} of them, for"
            f" example {', '.join(named)}; drop the duplicates and write the run again",
            f"{option(duplicates='first')} keeps the first row of each",
        )
    warnings.warn(
        f"{ids.where} repeats {again.n} ids, for example {', '.join(named)}; the first row of each"
        " counts",
        EmbstabWarning,
        stacklevel=3,
    )
