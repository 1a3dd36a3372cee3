"""Which code is small enough and good enough? Every code measured on the user's own rows.

Sampled queries search sampled items, in rows as they are and in rows of every code. What a budget
chooses from that is certified on other queries and all items, where neighbours are closer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.metrics.estimates import Estimate, estimate, ratio_estimate
from dask_embstab.core.metrics.rankings import overlaps
from dask_embstab.errors import InputError
from dask_embstab.passes.code_quality import Entry, through
from dask_embstab.passes.code_trials import (
    Frontier,
    K,
    asked_of,
    halves,
    measure,
    queries_of,
    sampled_items,
)
from dask_embstab.passes.compress import code_figures, codes_of, frozen_codes
from dask_embstab.repairs import option
from dask_embstab.tables.run import Run

_BUDGET = re.compile(
    r"recall@(?P<k>[1-9][0-9]{0,3})=(?P<recall>0?\.[0-9]+|1(\.0+)?)|bytes=(?P<bytes>[1-9][0-9]{0,5})"
    r"|score_error=(?P<error>0?\.[0-9]+)"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """At least ``recall`` at ``k``, at most ``n_bytes`` a row, or a relative error of scores of at
    most ``score_error``.
    """

    k: int = K
    recall: float | None = None
    n_bytes: int | None = None
    score_error: float | None = None

    @classmethod
    def of(cls, text: Any) -> Budget:
        """From ``recall@10=0.95``, ``bytes=24`` or ``score_error=0.05``."""
        match = _BUDGET.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InputError(
                "a budget is like recall@10=0.95, bytes=24 or score_error=0.05;"
                f" {option('budget')} is {shown(text)}"
            )
        if match["bytes"]:
            return cls(n_bytes=int(match["bytes"]))
        if match["error"]:
            return cls(score_error=float(match["error"]))
        return cls(int(match["k"]), float(match["recall"]))


def resolve_codes(
    run: Run,
    *,
    code: str | None,
    budget: str | None,
    rotate: bool,
    rank: int | None,
    seed: int,
    like: Run | None,
    force: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The code of every table of a run, and what is recorded of the choice: as the user says, as a
    budget chooses, or as an earlier run has it.
    """
    record: dict[str, Any] = {}
    for name, value in (("budget", budget), ("like", like)):
        others = code is not None or rotate or rank is not None or None not in (budget, like)
        if value is not None and others:
            one_alone = ", ".join(map(option, ("code", "rotate", "rank", "budget", "like")))
            raise InputError(f"{option(name)} says which code it is; give it without {one_alone}")
    if like is not None:
        codes = frozen_codes(run, like)
    else:
        if budget is not None:
            frontier = choose(run, Budget.of(budget), seed=seed)
            assert frontier.chosen is not None
            code, rotate, rank = frontier.chosen.code, frontier.chosen.rotate, frontier.chosen.rank
            record = {**frontier.to_dict(), "budget": budget}
        codes = codes_of(
            run, "int8" if code is None else code, rotate=rotate, rank=rank, seed=seed, force=force
        )
    return codes, {**record, "tables": code_figures(run, codes, like)}


def choose(run: Run, budget: Budget, *, seed: int = 0) -> Frontier:
    """The smallest code whose recall, or whose error of scores, is enough (or the best one that is
    small enough), certified on held-out queries; `InputError` where none will do.
    """
    frontier = measure(run, k=budget.k, seed=seed, within=budget.score_error)
    entries = [one for one in frontier.entries if not one.rescored]
    if budget.n_bytes is not None:
        fit = [entry for entry in entries if entry.n_bytes <= budget.n_bytes]
        if not fit:
            least = entries[0]
            raise InputError(
                f"the smallest code, {least.code}, takes {least.n_bytes} bytes a row; the budget is"
                f" {budget.n_bytes}"
            )
        best = max(fit, key=lambda entry: (entry.recall.mean, -entry.n_bytes))
        return replace(frontier, chosen=best, certified=_certify(run, best, budget.k, seed))
    if (limit := budget.score_error) is not None:
        kept = _efficient(entries, lambda entry: -entry.score_error)
        return _smallest(
            frontier,
            [entry for entry in kept if entry.score_error <= limit],
            lambda entry: _certify_scores(run, entry, seed),
            lambda sure: sure.high <= limit,
            f"keeps scores within a relative error of {limit}",
            f"{kept[-1].code} reached {kept[-1].score_error:.4f} of a sample",
        )
    least_recall = budget.recall
    assert least_recall is not None
    kept = _efficient(entries, lambda entry: entry.recall.mean)
    return _smallest(
        frontier,
        [entry for entry in kept if entry.recall.low >= least_recall],
        lambda entry: _certify(run, entry, budget.k, seed),
        lambda sure: sure.low >= least_recall,
        f"keeps recall@{budget.k} of {least_recall}",
        f"{kept[-1].code} reached {kept[-1].recall.mean:.4f} of a sample",
    )


def _smallest(
    frontier: Frontier,
    entries: Sequence[Entry],
    certify: Callable[[Entry], Estimate],
    is_enough: Callable[[Estimate], bool],
    wanted: str,
    reached: str,
) -> Frontier:
    """The first of ``entries`` (ascending bytes) that keeps enough for certain; what was ``wanted``
    and ``reached`` where none does.
    """
    for entry in entries:
        sure = certify(entry)
        if is_enough(sure):
            return replace(frontier, chosen=entry, certified=sure)
        reached = f"{entry.code} reached {sure.mean:.4f}"

    raise InputError(
        f"no code {wanted} for certain; {reached}; ask for less, or keep the rows as they are"
    )


def _efficient(entries: Sequence[Entry], kept: Callable[[Entry], float]) -> list[Entry]:
    """Those that no smaller one is better than, by bytes."""
    efficient: list[Entry] = []
    for entry in entries:
        if not efficient or kept(entry) > kept(efficient[-1]):
            efficient.append(entry)
    return efficient


def _code_of_items(run: Run, entry: Entry, seed: int) -> RowCode:
    """The code of the items; users are not read for theirs."""
    alone = replace(run, users=None)
    return codes_of(alone, entry.code, rotate=entry.rotate, rank=entry.rank, seed=seed)["items"]


def _certify(run: Run, entry: Entry, k: int, seed: int) -> Estimate:
    """Recall of queries that had no say in the choice, over all items: two reads of them."""
    n = queries_of(run).n_rows
    asked = asked_of(run, halves(queries_of(run), seed)[1])
    code = _code_of_items(run, entry, seed)
    exact, coded = asked.lists(run.table("items"), [code], k, asked.numbers)
    recall = estimate(overlaps(exact, coded)[:, -1] / k, n)
    n_asked = len(asked.rows)
    if n_asked < n and recall.high - recall.low < 3 / n_asked and recall.mean == 1:
        # All alike says little of few queries: the rule of three.
        return replace(recall, low=max(0.0, 1 - 3 / n_asked * (1 - n_asked / n)))
    return recall


def _certify_scores(run: Run, entry: Entry, seed: int) -> Estimate:
    """The relative error of the scores of queries, and mostly of items, that had no say in the
    choice.
    """
    asked, items = asked_of(run, halves(queries_of(run), seed)[1]), run.table("items")
    code = _code_of_items(run, entry, seed)
    _, rows = sampled_items(items, seed + 1, asked.numbers[:0])
    coded = through(code, rows).astype(np.float64)
    off, of = (asked.rows @ x.T for x in (coded - rows, rows))
    error = ratio_estimate((off**2).sum(axis=1), (of**2).sum(axis=1))
    mean, low, high = (float(np.sqrt(x)) for x in (error.mean, error.low, error.high))
    return Estimate(mean, low, high, error.n)
