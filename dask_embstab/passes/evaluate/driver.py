"""How comparable are two runs? Same-id cosines and lengths, overlaps of top lists (the paper's
table 1), recall of stale queries, and quality by judgments.

A row of zeros has no direction and no place in a ranking: it is left out of every mean, and
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_embstab.core.metrics.agreement import (
    alignment_figures,
    component_figures,
    cosine_figures,
    linear_cka,
    norm_figures,
)
from dask_embstab.core.types import Matrix
from dask_embstab.errors import InputError
from dask_embstab.options import options_of
from dask_embstab.passes.evaluate.displacement import displacement_place, write_displacement
from dask_embstab.passes.evaluate.groups import Groups, by_table, groups_of
from dask_embstab.passes.evaluate.judgments import as_judgments
from dask_embstab.passes.evaluate.matched import Matched, MatchedRows, PairFiles, measure_matched
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.results import Id, Metrics, Moved, TableMetrics
from dask_embstab.passes.evaluate.retrieval import Queries, measure_rankings
from dask_embstab.passes.join.options import JoinOptions, join_options
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.tables.ids.kinds import UUID, shown
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.named import value_of
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


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
    join: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = options_of("evaluate")
        given = {"k": self.k, "users": self.n_queries, "metric": self.metric}
        for name, value in (given | {"most_moved": self.most_moved}).items():
            known[name].require(value)


def measure_runs(a: Run, b: Run, options: EvaluateOptions) -> Metrics:
    """Every figure that the tables of both runs allow."""
    tables = {
        key: (a.table(key), b.table(key)) for key in TABLES if getattr(a, key) and getattr(b, key)
    }
    if not tables:
        raise InputError(
            f"{a.where} and {b.where} have no table in common, so nothing can be compared"
        )
    for pair_ in tables.values():
        _require_comparable(*pair_)
    judgments = None if options.judgments is None else as_judgments(options.judgments)
    place = None if options.displacement is None else displacement_place(options.displacement)
    queried = "users" if len(tables) == len(TABLES) else next(iter(tables))
    with (
        unchanged(*(table for both in tables.values() for table in both)),
        join_options(**options.join) as join,
    ):
        groups = {
            key: groups_of(value_of("groups", given, tables[key][0], a), tables[key][0])
            for key, given in by_table(options.groups, tables).items()
        }
        pairings = {key: pair(*both, join) for key, both in tables.items()}
        for key, both in tables.items():
            _require_matched(*both, pairings[key])
        measured = {
            key: MatchedRows(
                others=np.empty((0, both[0].d)),
                sample=options.n_queries if key == queried else 0,
                seed=options.seed,
                listed=options.most_moved,
                n_groups=len(groups[key].names) if key in groups else 0,
                files=None if place is None else _pair_files(both[0], join),
            )
            for key, both in tables.items()
        }
        found = measure_matched(tables, pairings, join, measured, groups)
        metrics = {
            key: _table_metrics(both[0], pairings[key], found[key], groups.get(key))
            for key, both in tables.items()
        }
        queries = Queries(
            name=queried,
            tables=tables[queried],
            items=tables.get("items", tables[queried]),
            partners=pairings[queried].partners,
            item_partners=pairings["items" if "items" in tables else queried].partners,
            sample=np.sort(found[queried].sample.rows),
            population=found[queried].agreement.n,
            groups=groups.get(queried),
            among_themselves=len(tables) < len(TABLES),
        )
        ranked, retrieval, judged = measure_rankings(
            queries,
            judgments,
            options.k,
            n_queries=options.n_queries,
            seed=options.seed,
            metric=options.metric,
        )
        if place is not None:
            parts = {
                key: (both[0], files, found[key].agreement.n)
                for key, both in tables.items()
                if (files := measured[key].files) is not None
            }
            write_displacement(place, parts)
    return Metrics(metrics.get("items"), metrics.get("users"), ranked, retrieval, judged)


def _pair_files(table: Table, join: JoinOptions) -> PairFiles:
    return PairFiles.in_folder(join.scratch.folder(needs=32 * table.n_rows))


def _table_metrics(
    table: Table, pairing: Pairing, found: Matched, groups: Groups | None
) -> TableMetrics:
    sums = found.agreement
    figures: dict[str, Any] = {}
    if sums.n:
        chance = sums.likeness.chance
        figures = {
            "cosine": cosine_figures(sums),
            "norms": norm_figures(sums),
            "components": component_figures(sums),
            "cka": linear_cka(sums),
            "alignment": alignment_figures(sums),
            "groups": groups
            and {
                name: told
                for number, name in enumerate(groups.names)
                if (told := sums.groups.figures(number, chance)) is not None
            },
            "most_moved": _named(table, found),
        }
    return TableMetrics(
        matched=pairing.matched,
        mean_cosine=sums.mean_cosine,
        norm_ratio=sums.norm_ratio,
        rows=sums.n,
        zero_rows=found.zero_pairs,
        unmatched_a=pairing.new,
        unmatched_b=pairing.unmatched_reference,
        **figures,
    )


def _named(table: Table, found: Matched) -> tuple[Moved, ...]:
    """The rows that moved most, by their ids."""
    ids, moved = table.row_ids.open(), found.most_moved
    named = {int(row): _id(ids.take(row, row + 1)) for row in np.sort(moved.rows)}
    columns: Matrix = moved.columns
    return tuple(
        Moved(named[int(row)], *map(float, columns[:, i])) for i, row in enumerate(moved.rows)
    )


def _id(ids: Any) -> Id:
    found: Id = shown(ids)[0] if ids.dtype == UUID else ids.tolist()[0]
    return found


def _require_matched(a: Table, b: Table, pairing: Pairing) -> None:
    if not pairing.matched:
        raise InputError(f"{a.where} and {b.where} share no row; give runs with common ids")


def _require_comparable(a: Table, b: Table) -> None:
    if a.d != b.d:
        raise InputError(
            f"runs are compared in one space; {a.where} has {a.d} components and {b.where} {b.d};"
            " stabilize one onto the other first"
        )
