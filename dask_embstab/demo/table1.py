"""The three figures of the first paper's table 1: how comparable is a retrained run with the first one?

Zielnicki & Hsiao, arXiv 2508.07574. Stabilizing keeps every score, so a run's own rankings are the same before and after;
what it makes possible is to use vectors of two runs together. The rank-biased overlap here is therefore that of the first
run's users on the later run's items with the later run's users on the same items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.api import evaluate
from dask_embstab.passes.evaluate import Metrics
from dask_embstab.report.table import Cell
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

LEGEND = (
    "users, items: mean cosine of the vectors that one id has in the first run and in this one.",
    "RBO: rank-biased overlap of two rankings of this run's items, by the first run's users and by this run's own.",
    "retrained: the overlap of each run's own rankings, its users on its items, which stabilizing does not change.",
)
"""What the figures say, a line for each group of them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside the first: mean same-id cosines of users and items, overlap across the runs and of each on its own."""

    users: float
    items: float
    rbo: float
    retrained: float


@dataclass(frozen=True, slots=True)
class Row:
    """One run compared with the first, as training left both and after both were stabilized."""

    name: str
    before: Comparison
    after: Comparison

    def cells(self) -> tuple[Cell, ...]:
        """Its name, and its figures in the order of `HEADER`."""
        old, new = self.before, self.after
        return (self.name, old.users, new.users, old.items, new.items, old.rbo, new.rbo, new.retrained)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        pairs = {
            key: {"before": getattr(self.before, key), "after": getattr(self.after, key)}
            for key in ("users", "items", "rbo")
        }
        return {**pairs, "retrained": self.after.retrained}


def compare(first: Run, later: Run) -> Comparison:
    """Measure a run against the first one; both have users and items."""
    own = evaluate(first, later)
    across = evaluate(replace(later, users=first.users), later)
    return Comparison(*_cosines(own), _overlap(across), _overlap(own))


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
    """Scores of some users on all items, (rows, items); a stabilized run has its rows in the order of the raw one's."""
    users = run.table("users").vectors[rows].compute()
    items = run.table("items").vectors.compute()
    return users.astype(np.float64) @ items.astype(np.float64).T


def _cosines(metrics: Metrics) -> tuple[float, float]:
    assert metrics.users is not None, "both runs have users"
    assert metrics.items is not None, "both runs have items"
    return metrics.users.mean_cosine, metrics.items.mean_cosine


def _overlap(metrics: Metrics) -> float:
    assert metrics.rank_correlation is not None, "both runs have users and items"
    return metrics.rank_correlation.rbo
