"""One read of the rows that two tables share: all sums of `core.metrics.agreement`, a sample of
rows, the rows that moved most and, where asked for, every pair's own figures in scratch files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import add

import numpy as np

from dask_embstab.core.metrics.agreement import Agreement, agreement_of
from dask_embstab.core.moments import Panel, row_lengths
from dask_embstab.core.similarity import row_pairs
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Matrix, RowNumbers, Vector
from dask_embstab.passes.engine.graph import Pass, compute, run_all
from dask_embstab.passes.engine.reduce import Reduced, Reduction, reduce_table
from dask_embstab.passes.evaluate.groups import Groups
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.passes.join.reference_rows import plan_reference_read
from dask_embstab.passes.join.rows import rows_at_places, rows_of
from dask_embstab.passes.join.sample import RowSample
from dask_embstab.tables.ids.row_index import FileIndex
from dask_embstab.tables.ids.scratch_files import below
from dask_embstab.tables.table import Table

_PLACES, _ROWS_AT_PLACE, _OTHERS = 32, 8, 64
"""Rows of other ids that every row is compared with, and where they are read."""
_ANGLE_BYTES = 8 * 1024
COLUMNS = ("cosine", "distance", "norm_a", "norm_b")
"""Of one pair: the cosine of its rows, the length of their difference, and both lengths."""

PAIR_BYTES = 8 * len(COLUMNS)


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Scratch files of one float64 per row of the first table and per column; NaN where a row has
    no pair.
    """

    files: tuple[FileIndex, ...]

    @classmethod
    def in_folder(cls, folder: str) -> PairFiles:
        """New ones."""
        return cls(tuple(FileIndex(below(folder, name)) for name in COLUMNS))

    def put(self, panel: Panel, columns: tuple[Vector, ...]) -> None:
        """The columns of the pairs of one panel."""
        for file, values in zip(self.files, columns, strict=True):
            whole = np.full(len(panel.rows), np.nan)
            whole[_numbers(panel)] = values
            file.put(panel.start, whole.view(np.int64))

    def take(self, start: int, stop: int) -> list[Vector]:
        """All columns of these rows."""
        return [file.take(start, stop).view(np.float64) for file in self.files]


@dataclass(frozen=True, slots=True)
class MostMoved:
    """The ``size`` pairs of the smallest cosines, ascending, ties by row: row numbers and columns
    (cosine, length, length).
    """

    size: int
    rows: RowNumbers
    columns: Matrix

    def __post_init__(self) -> None:
        order = np.lexsort((self.rows, self.columns[0]))[: self.size]
        object.__setattr__(self, "rows", self.rows[order])
        object.__setattr__(self, "columns", self.columns[:, order])

    def __add__(self, other: MostMoved) -> MostMoved:
        """Of the pairs of both."""
        rows = np.concatenate([self.rows, other.rows])
        return MostMoved(self.size, rows, np.hstack([self.columns, other.columns]))


@dataclass(frozen=True, slots=True)
class Matched(Sums):
    """Of the pairs of rows with one id; ``zero_pairs`` were left out of all of it."""

    agreement: Agreement
    zero_pairs: int
    sample: RowSample
    most_moved: MostMoved


@dataclass(frozen=True, slots=True)
class MatchedRows:
    """What is measured of a table's pairs: against which ``others`` (m, d), how many rows are
    sampled by which ``seed``, how many are listed, and in how many groups they are.
    """

    others: Matrix
    sample: int
    seed: int
    listed: int
    n_groups: int = 0
    files: PairFiles | None = None

    def __call__(self, panel: Panel) -> Matched:
        """Of one panel; the number of each pair's group comes as its weight."""
        d = panel.rows.shape[1]
        a, b = panel.paired or (np.empty((0, d)), np.empty((0, d)))
        pairs = row_pairs(a, b, others=self.others)
        codes = (np.empty(0) if panel.weights is None else panel.weights) if self.n_groups else None
        agreement = agreement_of(pairs, codes, self.n_groups, family=panel.family)
        rows = panel.start + _numbers(panel)
        if self.files is not None:
            apart = row_lengths(b - a)
            self.files.put(panel, (pairs.cosines, apart, *pairs.lengths))
        sample = RowSample.of(rows, self.sample, self.seed)
        moved = MostMoved(self.listed, rows, np.stack([pairs.cosines, *pairs.lengths]))
        return Matched(agreement, panel.zeros.pairs, sample, moved)


def _numbers(panel: Panel) -> RowNumbers:
    """Places of the pairs among the rows of a panel."""
    if panel.paired is None:
        return np.empty(0, np.int64)
    return np.arange(len(panel.rows)) if panel.matched is None else np.flatnonzero(panel.matched)


def _finite_check(value: Matched) -> float:
    """Not finite either where squares are not: errors and moments are sums of them."""
    return float(np.square(value.agreement.lengths).sum())


def measure_matched(
    tables: Mapping[str, tuple[Table, Table]],
    pairings: Mapping[str, Pairing],
    join: JoinOptions,
    measured: Mapping[str, MatchedRows],
    groups: Mapping[str, Groups],
) -> dict[str, Matched]:
    """Of both tables of each name: one read of the first's rows and of the second's that match.

    ``measured`` says what; its rows to compare with are read here.
    """
    wanted = {key: _others(b, measured[key].seed) for key, (_, b) in tables.items()}
    read = compute(list(wanted.values()), label="evaluate: rows to compare with", n_tasks=0)
    passes: dict[str, Pass[Reduced[Matched]]] = {}
    for (key, (a, _)), others in zip(tables.items(), read, strict=True):
        matched = replace(measured[key], others=others[others.any(axis=1)][:_OTHERS])
        reduction: Reduction[Matched] = Reduction(
            matched,
            add,
            _finite_check,
            n_squares=1 + -(-matched.n_groups * _ANGLE_BYTES // (8 * a.d**2)),
            n_copies=8,
        )
        pairs = plan_reference_read(pairings[key], a, join, label="evaluate")
        column = groups[key].column if key in groups else None
        passes[key] = reduce_table(
            a, reduction, label="evaluate: matched rows", pairs=pairs, weights=column
        )
    return {key: reduced.value for key, reduced in run_all(passes).items()}


def _others(table: Table, seed: int) -> object:
    rng = np.random.default_rng(seed)
    rows = rows_at_places(table.n_rows, _PLACES, _ROWS_AT_PLACE, rng)
    return rows_of(table, np.random.default_rng(seed).permutation(rows), verified=False)
