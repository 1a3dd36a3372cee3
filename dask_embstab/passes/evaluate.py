"""How comparable are two runs? Same-id cosines and lengths, and the overlap of top lists (the paper's table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from operator import add
from typing import Any

import numpy as np

from dask_embstab.core.moments import Panel
from dask_embstab.core.rankings import TopK, rank_biased_overlap, top_k
from dask_embstab.core.sums import Sums
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.errors import IdError, InputError
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.engine.reduce import Reduction, finished, reduce_table
from dask_embstab.passes.join.options import Joining, joining
from dask_embstab.passes.join.pairing import Pairing, pair, used_rows
from dask_embstab.passes.join.reference_rows import beside
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.tables.ids.row_index import picked
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Agreement(Sums):
    """Over the pairs of rows with one id: how many, sum of their cosines, sums of both lengths."""

    n: int
    cosines: float
    lengths_a: float
    lengths_b: float


def agreement(panel: Panel) -> Agreement:
    """Cosine and lengths of the pairs of one panel; a row of zeros has cosine 0."""
    if panel.paired is None:
        return Agreement(0, 0.0, 0.0, 0.0)
    a, b = panel.paired
    length_a, length_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = length_a * length_b
    cosine = np.divide(np.einsum("ij,ij->i", a, b), product, out=np.zeros(len(a)), where=product > 0)
    return Agreement(len(a), float(cosine.sum()), float(length_a.sum()), float(length_b.sum()))


def agreement_of(a: Table, pairing: Pairing, how: Joining) -> Agreement:
    """Same-id agreement of two tables in one read of each."""
    reduction = Reduction(agreement, add, _agreement_probe)
    node, n_tasks = reduce_table(a, reduction, pairs=beside(pairing, a, how, label="evaluate"))
    (partial_,) = compute([node], label="evaluate: cosines", n_tasks=n_tasks)
    found: Agreement = finished(partial_, reduction)
    return found


def overlap_of(
    users: tuple[Table, Table],
    items: tuple[Table, Table],
    pairings: Mapping[str, Pairing],
    *,
    k: int,
    n_users: int,
    seed: int,
) -> tuple[float, int]:
    """Mean rank-biased overlap of the top ``k`` items of sampled shared users, and the k that the catalogues allow.

    Reads the sampled user rows and each items table once; memory is n_users x (panel + 2 k) scores per thread.
    """
    a_rows, b_rows = _sampled(pairings["users"], users[0].n_rows, n_users, seed)
    queries = compute([rows_of(users[0], a_rows), rows_of(users[1], b_rows)], label="evaluate: users", n_tasks=0)
    k = min(k, items[0].n_rows, items[1].n_rows)
    reductions = [Reduction(partial(_best, query, k=k), add, _top_probe) for query in queries]
    nodes = [reduce_table(table, reduction) for table, reduction in zip(items, reductions, strict=True)]
    partials = compute([node for node, _ in nodes], label="evaluate: rankings", n_tasks=sum(n for _, n in nodes))
    a, b = (finished(p, reduction).rows for p, reduction in zip(partials, reductions, strict=True))
    ours = picked(pairings["items"].partners, a)
    return float(np.mean([rank_biased_overlap(x, y) for x, y in zip(ours, b, strict=True)])), k


def _best(queries: Matrix, panel: Panel, *, k: int) -> TopK:
    return top_k(queries, panel.rows, panel.start, k=k)


def _agreement_probe(value: Agreement) -> float:
    return value.lengths_a + value.lengths_b


def _top_probe(value: TopK) -> float:
    return float(value.scores[:, 0].sum())


def _sampled(pairing: Pairing, n_rows: int, n_users: int, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Row numbers, in both tables, of a random sample of the shared users."""
    if not pairing.matched:
        raise IdError("the runs share no user, so no rankings can be compared; give runs with common user ids")
    drawn = np.random.default_rng(seed).choice(pairing.matched, min(n_users, pairing.matched), replace=False)
    rows = used_rows(pairing, n_rows, np.sort(drawn))
    return rows, picked(pairing.partners, rows)


@dataclass(frozen=True, slots=True)
class TableMetrics:
    """Rows with one id in both runs: how many, their mean cosine, and the second run's mean length over the first's."""

    matched: int
    mean_cosine: float
    norm_ratio: float


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Mean rank-biased overlap (p = 0.9) of the top ``k`` items."""

    rbo: float
    k: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """What `evaluate` measured; ``users`` and ``rank_correlation`` are None without users."""

    items: TableMetrics | None
    users: TableMetrics | None
    rank_correlation: RankCorrelation | None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as ``embstab evaluate --json`` prints them."""
        return asdict(self)


def measure_runs(a: Run, b: Run, *, k: int, n_users: int, seed: int, options: Mapping[str, Any]) -> Metrics:
    """Every figure that the tables of both runs allow; ``options`` are those of `joining`."""
    tables = {key: (a.table(key), b.table(key)) for key in TABLES if getattr(a, key) and getattr(b, key)}
    if not tables:
        raise InputError(f"{a.where} and {b.where} have no table in common, so nothing can be compared")
    for pair_ in tables.values():
        _require_comparable(*pair_)
    with joining(**options) as how:
        pairings = {key: pair(*both, how) for key, both in tables.items()}
        metrics = {key: _table_metrics(*both, pairings[key], how) for key, both in tables.items()}
        ranked = None
        if len(tables) == len(TABLES):
            overlap = overlap_of(tables["users"], tables["items"], pairings, k=k, n_users=n_users, seed=seed)
            ranked = RankCorrelation(*overlap)
    return Metrics(metrics.get("items"), metrics.get("users"), ranked)


def _table_metrics(a: Table, b: Table, pairing: Pairing, how: Joining) -> TableMetrics:
    found = agreement_of(a, pairing, how)
    if not found.n:
        raise InputError(f"{a.where} and {b.where} share no row; give runs with common ids")
    ratio = found.lengths_b / found.lengths_a if found.lengths_a else float("nan")
    cosine = min(1.0, max(-1.0, found.cosines / found.n))  # rounding
    return TableMetrics(pairing.matched, cosine, ratio)


def _require_comparable(a: Table, b: Table) -> None:
    if a.d != b.d:
        raise InputError(
            f"runs are compared in one space; {a.where} has {a.d} components and {b.where} {b.d}; stabilize one onto"
            " the other first"
        )
