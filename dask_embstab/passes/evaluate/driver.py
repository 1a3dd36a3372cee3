"""How comparable are two runs? Same-id cosines and lengths, overlaps of top lists (the paper's
table 1), recall of stale queries, and quality by judgments.

A row of zeros has no direction and no place in a ranking: it is left out of every mean, and
counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dask_embstab.core.metrics.agreement import (
    alignment_figures,
    component_figures,
    cosine_figures,
    linear_cka,
    norm_figures,
)
from dask_embstab.core.moments import LEAST_SQUARES
from dask_embstab.errors import InputError, TooFewMatchedError
from dask_embstab.options import require_each
from dask_embstab.passes.engine.reduce import underflow_of
from dask_embstab.passes.evaluate.displacement import displacement_place, write_displacement
from dask_embstab.passes.evaluate.groups import Groups, by_table, groups_of
from dask_embstab.passes.evaluate.judgments import as_judgments
from dask_embstab.passes.evaluate.matched import (
    PAIR_BYTES,
    Matched,
    MatchedRows,
    PairFiles,
    measure_matched,
)
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.results import Metrics, Moved, TableMetrics
from dask_embstab.passes.evaluate.retrieval import Queries, measure_rankings
from dask_embstab.passes.join.options import JoinOptions, join_options
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.queries import as_query_log
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.ids.row_index import gather
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.named import value_of
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

Tables = Mapping[str, tuple[Table, Table]]


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The choices of `evaluate`, checked: see there. ``join`` are those of `join_options`."""

    k: int
    n_queries: int
    seed: int
    metric: Metric | None = None
    groups: Any = None
    judgments: Any = None
    displacement: Any = None
    most_moved: int = 10
    queries: Any = None
    join: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {"k": self.k, "users": self.n_queries, "seed": self.seed, "metric": self.metric}
        require_each("evaluate", given | {"most_moved": self.most_moved})


def measure_runs(a: Run, b: Run, options: EvaluateOptions) -> Metrics:
    """Every figure that the tables of both runs allow."""
    tables = _tables_of_both(a, b)
    judgments = None if options.judgments is None else as_judgments(options.judgments)
    place = None if options.displacement is None else displacement_place(options.displacement)
    with (
        unchanged(*(table for both in tables.values() for table in both)),
        join_options(**options.join) as join,
    ):
        pairings, unmeasured = _pairings(tables, join, judged=judgments is not None)
        grouped = by_table(options.groups, tables)
        tables = {key: tables[key] for key in pairings}
        groups = {
            key: groups_of(value_of("groups", given, tables[key][0], a), tables[key][0])
            for key, given in grouped.items()
            if key in tables
        }
        files = {
            key: PairFiles.in_folder(join.scratch.folder(needs=PAIR_BYTES * both[0].n_rows))
            for key, both in tables.items()
            if place is not None
        }
        measured = {
            key: MatchedRows(
                others=np.empty((0, both[0].d)),
                sample=options.n_queries if key == _queried(tables) else 0,
                seed=options.seed,
                listed=options.most_moved,
                n_groups=len(groups[key].names) if key in groups else 0,
                files=files.get(key),
            )
            for key, both in tables.items()
        }
        matched = measure_matched(tables, pairings, join, measured, groups)
        metrics = {
            key: _table_metrics(both, pairings[key], matched[key], groups.get(key))
            for key, both in tables.items()
        }
        ranked, retrieval, judged = measure_rankings(
            _queries(tables, pairings, matched, groups, options, (a, b)),
            judgments,
            options.k,
            n_queries=options.n_queries,
            seed=options.seed,
            metric=options.metric,
        )
        if place is not None:
            parts = {
                key: (tables[key][0], own, matched[key].agreement.n) for key, own in files.items()
            }
            write_displacement(place, parts)
    items, users = (metrics.get(key) for key in TABLES)
    return Metrics(items, users, ranked, retrieval, judged, unmeasured)


def _tables_of_both(a: Run, b: Run) -> Tables:
    """The tables that both runs have, of one width each."""
    tables = {
        key: (a.table(key), b.table(key)) for key in TABLES if getattr(a, key) and getattr(b, key)
    }
    if not tables:
        raise InputError(
            f"{a.where} and {b.where} have no table in common, so nothing can be compared"
        )
    for one, other in tables.values():
        if one.d != other.d:
            raise InputError(
                f"runs are compared in one space; {one.where} has {one.d} components and"
                f" {other.where} {other.d}; stabilize one onto the other first"
            )
    return tables


def _pairings(
    tables: Tables, join: JoinOptions, *, judged: bool
) -> tuple[dict[str, Pairing], dict[str, str]]:
    """By table, and why tables whose ids the runs do not share are left out; an error where that is
    all of them, or where judgments are of such users.
    """
    pairings: dict[str, Pairing] = {}
    apart: dict[str, str] = {}
    for key, (a, b) in tables.items():
        try:
            pairing = pair(a, b, join)
        except TooFewMatchedError as error:
            apart[key] = str(error)
            continue
        if pairing.matched:
            pairings[key] = pairing
        else:
            apart[key] = f"{a.where} and {b.where} share no row"
    if not pairings or (judged and apart):
        needed = "judgments are of rankings, which need shared ids in every table; " * judged
        raise TooFewMatchedError(needed + "; ".join(apart.values()))
    return pairings, apart


def _queried(tables: Tables) -> str:
    """The table whose rows are the queries: users where there are both."""
    return "users" if len(tables) == len(TABLES) else next(iter(tables))


def _queries(
    tables: Tables,
    pairings: Mapping[str, Pairing],
    matched: Mapping[str, Matched],
    groups: Mapping[str, Groups],
    options: EvaluateOptions,
    runs: tuple[Run, Run],
) -> Queries:
    name = _queried(tables)
    ranked = "items" if "items" in tables else name
    sampled = Queries(
        name=name,
        tables=tables[name],
        items=tables[ranked],
        partners=pairings[name].partners,
        item_partners=pairings[ranked].partners,
        sample=np.sort(matched[name].sample.rows),
        population=matched[name].agreement.n,
        of=matched[name].agreement.n,
        groups=groups.get(name),
        among_themselves=ranked == name,
    )
    if options.queries is None:
        return sampled
    log = as_query_log(options.queries, name)
    logged = replace(sampled, population=math.inf, of=log.n)
    for run in runs:
        log.require_space_of(run)
    if log.ids is None:
        vectors = log.rows(tables[ranked][0].d, options.n_queries, options.seed)
        return replace(logged, sample=np.arange(len(vectors)), vectors=vectors, groups=None)
    rows, _ = log.rows_in(tables[name][0], options.n_queries, options.seed)
    # Those that both runs have, and that are zeros in neither.
    each, at = np.unique(rows, return_inverse=True)
    partners = gather(pairings[name].partners, each)
    usable = partners >= 0
    a, b = sampled.read(np.stack([each, partners])[:, usable])
    usable[usable] = a.any(axis=1) & b.any(axis=1)
    if not usable.any():
        raise TooFewMatchedError(
            f"queries are ids of rows that both runs have and that are zeros in neither; of"
            f" {len(each)} ids of {log.where} none is; give others"
        )
    return replace(logged, sample=rows[usable[at]])


def _table_metrics(
    both: tuple[Table, Table], pairing: Pairing, matched: Matched, groups: Groups | None
) -> TableMetrics:
    sums = matched.agreement
    figures: dict[str, Any] = {}
    if sums.n:
        for table, energy in zip(both, sums.likeness.raw.energies, strict=True):
            if energy < LEAST_SQUARES:
                raise underflow_of(table.where)
        chance = sums.likeness.chance
        figures = {
            "cosine": cosine_figures(sums),
            "norms": norm_figures(sums),
            "components": component_figures(sums),
            "cka": linear_cka(sums),
            "alignment": alignment_figures(sums),
            "groups": groups
            and {
                name: of_group
                for number, name in enumerate(groups.names)
                if (of_group := sums.groups.figures(number, chance)) is not None
            },
            "most_moved": _named(both[0], matched),
        }
    return TableMetrics(
        matched=pairing.matched,
        mean_cosine=sums.mean_cosine,
        norm_ratio=sums.norm_ratio,
        rows=sums.n,
        zero_rows=matched.zero_pairs,
        unmatched_a=pairing.new,
        unmatched_b=pairing.unmatched_reference,
        **figures,
    )


def _named(table: Table, matched: Matched) -> tuple[Moved, ...]:
    """The rows that moved most, by their ids."""
    moved = matched.most_moved
    names = plain(ids_at(table.row_ids, moved.rows))
    return tuple(
        Moved(name, *map(float, columns))
        for name, columns in zip(names, moved.columns.T, strict=True)
    )
