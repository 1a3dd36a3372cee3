"""The three figures of the first paper's table 1: how comparable is a retrained run with the first
one?

Zielnicki & Hsiao, arXiv 2508.07574. Stabilizing keeps every score, so a run's own rankings are the
same before and after; what it makes possible is to use vectors of two runs together. All figures
are those of `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.api import evaluate
from dask_embstab.render.table import Cell
from dask_embstab.tables.run import Run

HEADER = (
    "users before",
    "users after",
    "items before",
    "items after",
    "RBO before",
    "RBO after",
    "retrained",
)
"""Names of the figures of `Row.cells`, below the name of the run."""

ROWS_HEADER = (
    "users",
    "of zeros",
    "gone",
    "new",
    "items",
    "of zeros",
    "gone",
    "new",
    "users sampled",
    "items of zeros",
)
"""Names of the counts of `Row.counts`, below the name of the run: users, items, rankings."""

LEGEND = (
    "users, items: mean cosine of the vectors that one id has in the first run and in this one.",
    (
        "RBO: rank-biased overlap of two rankings of the first run's items, by its own users and by"
        " this run's users."
    ),
    (
        "retrained: the overlap of each run's own rankings, its users on its items, which"
        " stabilizing does not change."
    ),
    "Means are over rows that both runs have, rows of zeros left out.",
)
ROWS_LEGEND = (
    "Rows behind these means: users and items that both runs have; how many of these were left out"
    " because one of their rows is zeros; how many the first run alone has (gone) and this run"
    " alone (new); users sampled for the rankings, and items of the first run that are zeros and in"
    " no ranking."
)
"""What the figures say, a line for each group of them."""


_COUNTS = ("rows", "zero_rows", "unmatched_a", "unmatched_b")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside the first: mean same-id cosines of users and items, overlap across the runs and
    of each on its own.

    ``rows`` says over how many rows each mean is, and how many were left out.
    """

    users: float
    items: float
    rbo: float
    retrained: float
    rows: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """One run compared with the first, as training left both and after both were stabilized."""

    name: str
    before: Comparison
    after: Comparison

    def cells(self) -> tuple[Cell, ...]:
        """Its name, and its figures in the order of `HEADER`."""
        old, new = self.before, self.after
        return (
            self.name,
            old.users,
            new.users,
            old.items,
            new.items,
            old.rbo,
            new.rbo,
            new.retrained,
        )

    def counts(self) -> tuple[Cell, ...]:
        """Its name, and its counts in the order of `ROWS_HEADER`."""
        rows = self.after.rows
        of_tables = [rows[key][name] for key in ("users", "items") for name in _COUNTS]
        return (self.name, *of_tables, rows["rbo"]["users"], rows["rbo"]["zero_items"])

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        pairs = {
            key: {"before": getattr(self.before, key), "after": getattr(self.after, key)}
            for key in ("users", "items", "rbo")
        }
        return {**pairs, "retrained": self.after.retrained, "rows": self.after.rows}


def compare(first: Run, later: Run) -> Comparison:
    """Measure a run against the first one; both have users and items."""
    metrics = evaluate(first, later)
    users, items, ranked = metrics.users, metrics.items, metrics.rank_correlation
    assert users is not None, "both runs have users"
    assert items is not None, "both runs have items"
    assert ranked is not None, "both runs have users and items"
    rows = {
        key: {name: getattr(table, name) for name in _COUNTS}
        for key, table in (("users", users), ("items", items))
    }
    rows["rbo"] = {"users": ranked.users, "zero_items": ranked.zero_items_a}
    return Comparison(users.mean_cosine, items.mean_cosine, ranked.rbo, ranked.retrained_rbo, rows)


def table1(raw: Sequence[Run], stabilized: Sequence[Run]) -> list[Row]:
    """A row for every run but the first, with which the others are compared."""
    return [
        Row(old.name, compare(raw[0], old), compare(stabilized[0], new))
        for old, new in zip(raw[1:], stabilized[1:], strict=True)
    ]


def score_change(raw: Run, stabilized: Run, *, n_users: int = 200, seed: int = 0) -> float:
    """Largest change of a score, over the largest score, of a sample of users on all items.

    Memory is n_users x n_items scores in float64, twice.
    """
    n = raw.table("users").n_rows
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, n_users), replace=False))
    before, after = (_scores(run, rows) for run in (raw, stabilized))
    return float(np.abs(after - before).max() / np.abs(before).max())


def _scores(run: Run, rows: Any) -> Any:
    """Scores of some users on all items, (rows, items); a stabilized run has its rows in the order
    of the raw one's.
    """
    users = run.table("users").vectors[rows].compute()
    items = run.table("items").vectors.compute()
    return users.astype(np.float64) @ items.astype(np.float64).T
