"""How comparable are two runs? Same-id cosines and lengths, and the overlap of top lists (the
paper's table 1).

A row of zeros has no direction and no place in a ranking: it is left out of every mean, and
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from operator import add
from typing import Any

import numpy as np

from dask_embstab.core.moments import Panel, unit
from dask_embstab.core.rankings import TopK, rank_biased_overlap, top_k
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.display import Displayed
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import compute, run_all
from dask_embstab.passes.engine.reduce import Reduction, reduce_table
from dask_embstab.passes.join.options import JoinOptions, join_options
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.reference_rows import plan_reference_read
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.passes.join.sample import RowSample
from dask_embstab.tables.ids.row_index import RowIndex, gather
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Agreement(Sums):
    """Over the pairs of rows with one id, neither of them zeros: how many, sum of cosines, sums of
    both lengths.

    ``zero_pairs`` are the pairs that were left out; ``sample`` are some of the others.
    """

    n: int
    zero_pairs: int
    cosines: float
    lengths_a: float
    lengths_b: float
    sample: RowSample


def agreement(panel: Panel, *, size: int, seed: int) -> Agreement:
    """Cosine and lengths of the pairs of one panel, and a sample of ``size`` of them."""
    if panel.paired is None:
        nothing = RowSample.of(np.empty(0, np.int64), size, seed)
        return Agreement(0, panel.zeros.pairs, 0.0, 0.0, 0.0, nothing)
    a, b = panel.paired
    numbers = np.arange(len(panel.rows)) if panel.matched is None else np.flatnonzero(panel.matched)
    sample = RowSample.of(panel.start + numbers, size, seed)
    length_a, length_b = (float(np.linalg.norm(rows, axis=1).sum()) for rows in (a, b))
    return Agreement(
        len(a), panel.zeros.pairs, float(np.vdot(unit(a), unit(b))), length_a, length_b, sample
    )


def agreement_of(
    a: Table, pairing: Pairing, join: JoinOptions, *, size: int, seed: int
) -> Agreement:
    """Same-id agreement of two tables in one read of each."""
    reduction: Reduction[Agreement] = Reduction(
        partial(agreement, size=size, seed=seed),
        add,
        _agreement_finite_check,
        n_squares=0,
        joint=False,
    )
    rows = plan_reference_read(pairing, a, join, label="evaluate")
    return reduce_table(a, reduction, label="evaluate: cosines", pairs=rows).run().value


@dataclass(frozen=True, slots=True)
class Rankings(Sums):
    """The top rows of one items table by a's users and by b's; how many rows were ranked, and how
    many are zeros.

    ``total`` is not finite where a component of a row is not.
    """

    by_a: TopK
    by_b: TopK
    n_ranked: int
    zero_rows: int
    total: float


def rankings(queries: tuple[Matrix, Matrix], panel: Panel, *, k: int) -> Rankings:
    """Of one panel. A row of zeros has score 0 with every user: it has no place in a ranking."""
    numbers = np.arange(panel.start, panel.start + len(panel.rows))
    rows, zeros = panel.rows, panel.zeros.rows
    if zeros:
        numbers = numbers[rows.any(axis=1)]
        rows = rows[numbers - panel.start]
    by_a, by_b = (top_k(query, rows, numbers, k=k) for query in queries)
    return Rankings(by_a, by_b, len(rows), zeros, float(rows.sum()))


def rank_correlation_of(
    users: tuple[Table, Table],
    items: tuple[Table, Table],
    partners: tuple[RowIndex, RowIndex],
    sample: RowNumbers,
    k: int,
) -> RankCorrelation:
    """Mean rank-biased overlaps of the top ``k`` items of these users (rows of a), who have a row
    in both runs.

    ``partners`` are the rows of b that belong to those of a, users' and items'. Reads the sampled
    user rows and each items table once; memory is 2 x users x (panel + 2 k) scores per thread.
    """
    rows = sample, gather(partners[0], sample)
    wanted = [rows_of(table, chosen) for table, chosen in zip(users, rows, strict=True)]
    queries = compute(wanted, label="evaluate: users", n_tasks=0)
    k = min(k, *(table.n_rows for table in items))
    reduction = Reduction(partial(rankings, queries, k=k), add, _rankings_finite_check, n_squares=0)
    passes = [reduce_table(table, reduction, label="evaluate: rankings") for table in items]
    a, b = (read.value for read in run_all(dict(enumerate(passes))).values())

    k = min(k, a.n_ranked, b.n_ranked)
    known = gather(partners[1], a.by_a.rows[:, :k])
    return RankCorrelation(
        rbo=_mean_overlap(a.by_a.rows[:, :k], a.by_b.rows[:, :k]),
        k=k,
        retrained_rbo=_mean_overlap(known, b.by_b.rows[:, :k]),
        new_catalogue_rbo=_mean_overlap(b.by_a.rows[:, :k], b.by_b.rows[:, :k]),
        users=len(sample),
        zero_items_a=a.zero_rows,
        zero_items_b=b.zero_rows,
    )


def _mean_overlap(a: RowNumbers, b: RowNumbers) -> float:
    """Over the lines of both; not a number where there is nothing to rank."""
    overlaps = [rank_biased_overlap(x, y) for x, y in zip(a, b, strict=True)] if a.shape[1] else []
    return float(np.mean(overlaps)) if overlaps else float("nan")


def _agreement_finite_check(value: Agreement) -> float:
    return value.lengths_a + value.lengths_b


def _rankings_finite_check(value: Rankings) -> float:
    return value.total


@dataclass(frozen=True, slots=True)
class TableMetrics:
    """Rows of both runs with one id: their mean cosine, and the second run's mean length over the
    first's.

    ``matched`` rows have an id that both runs have. Both means are over ``rows`` of them:
    ``zero_rows`` were left out, since the row of one run (or of both) is zeros and has no
    direction. ``unmatched_a`` and ``unmatched_b`` rows have an id that the other run does not have.
    Without any row the means are not numbers (null in JSON).
    """

    matched: int
    mean_cosine: float
    norm_ratio: float
    rows: int
    zero_rows: int
    unmatched_a: int
    unmatched_b: int


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Mean rank-biased overlap (p = 0.9, truncated at ``k``, 1 for equal lists) of two top lists of
    ``k`` items.

    ``rbo`` is the paper's table 1 (Zielnicki & Hsiao, arXiv 2508.07574): a's items ranked by a's
    users and by b's. ``new_catalogue_rbo``: the same of b's items. ``retrained_rbo``: each run's
    own items by its own users, which stabilizing does not change. Means over ``users`` sampled
    users whose rows are zeros in neither run; ``zero_items_a`` and ``zero_items_b`` items are zeros
    and in no ranking.
    """

    rbo: float
    k: int
    retrained_rbo: float
    new_catalogue_rbo: float
    users: int
    zero_items_a: int
    zero_items_b: int


@dataclass(frozen=True, slots=True, repr=False)
class Metrics(Displayed):
    """What `evaluate` measured; ``users`` and ``rank_correlation`` are None without users."""

    items: TableMetrics | None
    users: TableMetrics | None
    rank_correlation: RankCorrelation | None

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {}
        for key in TABLES:
            table: TableMetrics | None = getattr(self, key)
            if table is not None:
                facts[key] = (
                    f"mean cosine {table.mean_cosine:.4f}, norm ratio {table.norm_ratio:.4f},"
                    f" {table.rows} rows"
                )
        ranked = self.rank_correlation
        if ranked is not None:
            facts["rank_correlation"] = f"{ranked.rbo:.4f} at {ranked.k}, {ranked.users} users"
        return facts

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as ``embstab evaluate --json`` prints them."""
        return asdict(self)


def measure_runs(
    a: Run, b: Run, *, k: int, n_users: int, seed: int, options: Mapping[str, Any]
) -> Metrics:
    """Every figure that the tables of both runs allow; ``options`` are those of `join_options`."""
    if k < 1 or n_users < 1:
        raise InputError(f"k and users must be at least 1; they are {k} and {n_users}")
    tables = {
        key: (a.table(key), b.table(key)) for key in TABLES if getattr(a, key) and getattr(b, key)
    }
    if not tables:
        raise InputError(
            f"{a.where} and {b.where} have no table in common, so nothing can be compared"
        )
    for pair_ in tables.values():
        _require_comparable(*pair_)
    with (
        unchanged(*(table for both in tables.values() for table in both)),
        join_options(**options) as join,
    ):
        pairings = {key: pair(*both, join) for key, both in tables.items()}
        found = {
            key: agreement_of(
                a_table, pairings[key], join, size=n_users if key == "users" else 0, seed=seed
            )
            for key, (a_table, _) in tables.items()
        }
        metrics = {
            key: _table_metrics(*both, pairings[key], found[key]) for key, both in tables.items()
        }
        ranked = None
        if len(tables) == len(TABLES):
            partners = pairings["users"].partners, pairings["items"].partners
            sample = np.sort(found["users"].sample.rows)
            ranked = rank_correlation_of(tables["users"], tables["items"], partners, sample, k)
    return Metrics(metrics.get("items"), metrics.get("users"), ranked)


def _table_metrics(a: Table, b: Table, pairing: Pairing, found: Agreement) -> TableMetrics:
    if not pairing.matched:
        raise InputError(f"{a.where} and {b.where} share no row; give runs with common ids")
    # Rounding may take a mean of cosines beyond 1.
    cosine = min(1.0, max(-1.0, found.cosines / found.n)) if found.n else float("nan")
    ratio = found.lengths_b / found.lengths_a if found.n else float("nan")
    return TableMetrics(
        pairing.matched, cosine, ratio, found.n, found.zero_pairs, pairing.new, pairing.gone
    )


def _require_comparable(a: Table, b: Table) -> None:
    if a.d != b.d:
        raise InputError(
            f"runs are compared in one space; {a.where} has {a.d} components and {b.where} {b.d};"
            " stabilize one onto the other first"
        )
