"""Which code is small enough and good enough? Every code measured on the user's own rows.

Sampled queries search sampled items, in rows as they are and in rows of every code. What a budget
chooses from that is certified on other queries and all items, where neighbours are closer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import BITS
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.metrics.estimates import Estimate, estimate
from dask_embstab.core.metrics.rankings import Counts, overlaps, rank_biased_overlap
from dask_embstab.core.types import Matrix, RowNumbers, Rows
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.passes.compress import code_figures, codes_of, frozen_codes
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.repairs import option
from dask_embstab.tables.read.source import ArraySource
from dask_embstab.tables.read.views import MappedSource
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_ITEMS, _QUERIES, _K = 1 << 16, 1000, 10
_BUDGET = re.compile(
    r"recall@(?P<k>[1-9][0-9]{0,3})=(?P<recall>0?\.[0-9]+|1(\.0+)?)|bytes=(?P<bytes>[1-9][0-9]{0,5})"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """At least ``recall`` at ``k``, or at most ``n_bytes`` a row."""

    k: int = _K
    recall: float | None = None
    n_bytes: int | None = None

    @classmethod
    def of(cls, text: Any) -> Budget:
        """From ``recall@10=0.95`` or ``bytes=24``."""
        found = _BUDGET.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InputError(
                f"a budget is like recall@10=0.95 or bytes=24; {option('budget')} is {shown(text)}"
            )
        if found["bytes"]:
            return cls(n_bytes=int(found["bytes"]))
        return cls(int(found["k"]), float(found["recall"]))


@dataclass(frozen=True, slots=True)
class Entry:
    """A code and what it keeps: recall@k and rank-biased overlap of exact searches (means and 95 %
    intervals over queries), the root mean square error of scores over that of the scores, and the
    slope of the exact scores on the coded ones.
    """

    code: str
    rotate: bool
    n_bytes: int
    recall: Estimate
    overlap: Estimate
    score_error: float
    slope: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Frontier:
    """Every code that was measured, by bytes; on so many queries and items, at depth ``k``."""

    entries: tuple[Entry, ...]
    k: int
    n_queries: int
    n_items: int
    chosen: Entry | None = None
    certified: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Search:
    """Queries (users, or items among themselves) and how deep their lists are compared."""

    run: Run
    k: int
    seed: int

    @property
    def among_themselves(self) -> bool:
        """Whether queries are items: every one finds itself first."""
        return self.run.users is None

    @property
    def queries(self) -> Table:
        """The table of queries."""
        return self.run.table("items" if self.among_themselves else "users")

    def shared(self, tables: Sequence[Table], asked: Matrix) -> tuple[Counts, ...]:
        """What the rankings of the other tables share with those of the first, by depth from 1 to
        k, without the queries themselves.
        """
        own = int(self.among_themselves)
        metric: Metric = "cosine" if own else "dot"
        found = rank_tables(tables, asked, self.k + own, metric=metric, label="compress: measuring")
        if found[0].n_ranked < self.k + own:
            raise InputError(
                f"recall@{self.k} needs more than {self.k} items that are not zero;"
                f" {tables[0].where} has {found[0].n_ranked}"
            )
        exact = found[0].rows
        return tuple(
            np.maximum(overlaps(exact, ranked.rows)[:, own:] - own, 0) for ranked in found[1:]
        )

    def code(self, name: str, *, rotate: bool) -> RowCode:
        """The code that the run's items would get."""
        return codes_of(self.run, name, rotate=rotate, rank=None, seed=self.seed)["items"]


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
) -> tuple[dict[str, RowCode], dict[str, Any]]:
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
            found = choose(run, Budget.of(budget), seed=seed)
            assert found.chosen is not None
            code, rotate, record = found.chosen.code, found.chosen.rotate, found.to_dict()
        codes = codes_of(
            run, "int8" if code is None else code, rotate=rotate, rank=rank, seed=seed, force=force
        )
    return codes, {**record, "tables": code_figures(run, codes, like)}


def measure(run: Run, *, k: int = _K, seed: int = 0) -> Frontier:
    """All codes on a sample: items (at most 65,536) and half of the sampled queries."""
    if not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k must be a whole number from 1 on; it is {shown(k)}")
    search, items = _Search(run, k, seed), run.table("items")
    chosen = _halves(search.queries, seed)[0]
    few = _sampled(items, _ITEMS, seed, chosen if search.among_themselves else chosen[:0])
    asked = _read(search.queries, chosen)
    exact = _read(few, np.arange(few.n_rows))
    pairs = exact[np.arange(len(asked)) % len(exact)], asked
    tried = [
        _entry(search, few, asked, pairs, name, rotate=rotate)
        for name in BITS
        for rotate in (False, True)
    ]
    entries = [entry for entry in tried if entry is not None]
    entries.sort(key=lambda entry: (entry.n_bytes, -entry.recall.mean, entry.rotate))
    return Frontier(tuple(entries), k, len(asked), few.n_rows)


def choose(run: Run, budget: Budget, *, seed: int = 0) -> Frontier:
    """The smallest code whose recall is enough (or the best one that is small enough), certified on
    held-out queries and all items; `InputError` where none will do.
    """
    found = measure(run, k=budget.k, seed=seed)
    if budget.n_bytes is not None:
        fit = [entry for entry in found.entries if entry.n_bytes <= budget.n_bytes]
        if not fit:
            least = found.entries[0]
            raise InputError(
                f"the smallest code, {least.code}, takes {least.n_bytes} bytes a row; the budget is"
                f" {budget.n_bytes}"
            )
        best = max(fit, key=lambda entry: (entry.recall.mean, -entry.n_bytes))
        return replace(found, chosen=best, certified=_certify(run, best, budget.k, seed))
    assert budget.recall is not None
    reached = None
    for entry in _efficient(found.entries):
        if entry.recall.low < budget.recall:
            continue
        reached = _certify(run, entry, budget.k, seed)
        if reached.low >= budget.recall:
            return replace(found, chosen=entry, certified=reached)
    best = max(found.entries, key=lambda entry: entry.recall.mean)
    got = f"{best.recall.mean:.4f} of a sample" if reached is None else f"{reached.mean:.4f}"
    raise InputError(
        f"no code keeps recall@{budget.k} of {budget.recall} for certain; {best.code} reached {got}"
        "; ask for less, or keep the rows as they are"
    )


def _efficient(entries: Sequence[Entry]) -> list[Entry]:
    """Those that no smaller one is better than, by bytes."""
    kept: list[Entry] = []
    for entry in entries:
        if not kept or entry.recall.mean > kept[-1].recall.mean:
            kept.append(entry)
    return kept


def _certify(run: Run, entry: Entry, k: int, seed: int) -> Estimate:
    """Recall of queries that had no say in the choice, over all items: two reads of them."""
    search, items = _Search(run, k, seed), run.table("items")
    asked = _read(search.queries, _halves(search.queries, seed)[1])
    coded = _coded(items, search.code(entry.code, rotate=entry.rotate))
    (shared,) = search.shared([items, coded], asked)
    found, n = estimate(shared[:, -1] / k, search.queries.n_rows), search.queries.n_rows
    if len(asked) < n and found.high - found.low < 3 / len(asked) and found.mean == 1:
        # All alike says little of few queries: the rule of three.
        return replace(found, low=max(0.0, 1 - 3 / len(asked) * (1 - len(asked) / n)))
    return found


def _entry(
    search: _Search,
    few: Table,
    asked: Matrix,
    pairs: tuple[Matrix, Matrix],
    name: str,
    *,
    rotate: bool,
) -> Entry | None:
    """What one code keeps; None where the rows are beyond its range."""
    code = search.code(name, rotate=rotate)
    if code.overflows(*code.encode(_read(few, np.arange(few.n_rows)))):
        return None
    (shared,) = search.shared([few, _coded(few, code)], asked)
    rows, queries = pairs
    scores = np.einsum("ij,ij->i", rows, queries)
    coded = np.einsum("ij,ij->i", through(code, rows).astype(np.float64), queries)
    size, energy = float(np.sqrt(np.mean(scores**2))), float(coded @ coded)
    return Entry(
        code=name,
        rotate=rotate,
        n_bytes=code.row_bytes,
        recall=estimate(shared[:, -1] / search.k, np.inf),
        overlap=estimate(rank_biased_overlap(shared), np.inf),
        score_error=float(np.sqrt(np.mean((coded - scores) ** 2))) / size if size else 0.0,
        slope=float(coded @ scores) / energy if energy else 1.0,
    )


def through(code: RowCode, rows: Rows) -> Rows:
    """The rows as their codes give them back."""
    return code.decode(*code.encode(rows))


def _coded(table: Table, code: RowCode) -> Table:
    source = MappedSource(table.source, partial(through, code), table.d, np.dtype(np.float32))
    return replace(table, source=source)


def _halves(queries: Table, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Rows that choose and rows that certify, drawn by ``seed``, ascending."""
    rng = np.random.default_rng(seed % 2**64)
    drawn = rng.choice(queries.n_rows, min(2 * _QUERIES, queries.n_rows), replace=False)
    half = -(-len(drawn) // 2)
    return np.sort(drawn[:half]), np.sort(drawn[half:] if len(drawn) > 1 else drawn)


def _sampled(table: Table, n: int, seed: int, among: RowNumbers) -> Table:
    """That many rows of a table (all, if it has no more) and those ``among`` them, in memory."""
    if table.n_rows <= n:
        return table
    rng = np.random.default_rng((seed + 1) % 2**64)
    rows = np.union1d(rng.choice(table.n_rows, n, replace=False), among)
    return replace(table, source=ArraySource(_read(table, rows)), stored_ids=None)


def _read(table: Table, rows: RowNumbers) -> Matrix:
    (found,) = compute([rows_of(table, rows)], label="compress: sampling", n_tasks=0)
    if not np.isfinite(found).all():
        row = rows[np.flatnonzero(~np.isfinite(found).all(axis=1))[0]]
        raise NotFiniteError(f"row {row} of {table.where} is not finite; repair or drop it")
    return np.asarray(found)
