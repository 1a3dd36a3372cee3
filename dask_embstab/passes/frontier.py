"""Which code is small enough and good enough? Every code measured on the user's own rows.

Sampled queries search sampled items, in rows as they are and in rows of every code. What a budget
chooses from that is certified on other queries and all items, where neighbours are closer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import BITS, Code, random_rotation
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.metrics.estimates import Estimate, estimate
from dask_embstab.core.metrics.rankings import Counts, overlaps, rank_biased_overlap
from dask_embstab.core.types import Matrix, RowNumbers, Rows
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.options import require_each
from dask_embstab.passes.compress import code_figures, codes_of, frozen_codes
from dask_embstab.passes.evaluate.ranked import Metric, rank_tables
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.repairs import option
from dask_embstab.tables.read.source import ArraySource
from dask_embstab.tables.read.views import MappedSource
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_ITEMS, _QUERIES, _K = 1 << 16, 1000, 10
_SAMPLE_VALUES = 1 << 25
"""Numbers in the sampled items at most: 256 MiB."""
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
    """Queries of a run (users, or items among themselves) and how deep lists are compared."""

    run: Run
    k: int

    @property
    def among_themselves(self) -> bool:
        """Whether queries are items: every one finds itself first."""
        return self.run.users is None

    @property
    def queries(self) -> Table:
        """The table of queries."""
        return self.run.table("items" if self.among_themselves else "users")

    def shared(self, items: Table, codes: Sequence[RowCode], asked: Matrix) -> Iterator[Counts]:
        """For each code what the rankings of coded items share with those of the items, by depth
        from 1 to k, without the queries themselves; one read of the items for each, and one more.
        """
        own = int(self.among_themselves)
        metric: Metric = "cosine" if own else "dot"
        coded = [_coded(items, code) for code in codes]
        exact, *found = rank_tables(
            [items, *coded], asked, self.k + own, metric=metric, label="compress: measuring"
        )
        if exact.n_ranked < self.k + own:
            raise InputError(
                f"recall@{self.k} needs more than {self.k} items that are not zero; {items.where}"
                f" has {exact.n_ranked}"
            )
        for ranked in found:
            yield np.maximum(overlaps(exact.rows, ranked.rows)[:, own:] - own, 0)


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
    require_each("frontier", {"k": k, "seed": seed})
    search, items = _Search(run, k), run.table("items")
    chosen = _halves(search.queries, seed)[0]
    asked = _read(search.queries, chosen)
    rows = _sampled(items, seed, chosen if search.among_themselves else chosen[:0])
    few = replace(items, source=ArraySource(rows), stored_ids=None)

    matrices = (None, random_rotation(items.d, seed))
    tried = (Code(name, items.d, matrix) for name in BITS for matrix in matrices)
    codes = [code for code in tried if not code.overflows(*code.encode(rows))]
    pairs = rows[np.arange(len(asked)) % len(rows)], asked
    entries = [
        _entry(code, shared, pairs)
        for code, shared in zip(codes, search.shared(few, codes, asked), strict=True)
    ]
    entries.sort(key=lambda entry: (entry.n_bytes, -entry.recall.mean, entry.rotate))
    return Frontier(tuple(entries), k, len(asked), len(rows))


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
    search, n = _Search(run, k), _Search(run, k).queries.n_rows
    asked = _read(search.queries, _halves(search.queries, seed)[1])
    code = codes_of(run, entry.code, rotate=entry.rotate, rank=None, seed=seed)["items"]
    (shared,) = search.shared(run.table("items"), [code], asked)
    found = estimate(shared[:, -1] / k, n)
    if len(asked) < n and found.high - found.low < 3 / len(asked) and found.mean == 1:
        # All alike says little of few queries: the rule of three.
        return replace(found, low=max(0.0, 1 - 3 / len(asked) * (1 - len(asked) / n)))
    return found


def _entry(code: Code, shared: Counts, pairs: tuple[Matrix, Matrix]) -> Entry:
    """What one code keeps, by the depths that rankings ``shared`` and the scores of ``pairs``."""
    rows, queries = pairs
    scores = np.einsum("ij,ij->i", rows, queries)
    coded = np.einsum("ij,ij->i", through(code, rows).astype(np.float64), queries)
    size, energy = float(np.sqrt(np.mean(scores**2))), float(coded @ coded)
    return Entry(
        code=code.name,
        rotate=code.matrix is not None,
        n_bytes=code.row_bytes,
        recall=estimate(shared[:, -1] / shared.shape[1], np.inf),
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


def _sampled(table: Table, seed: int, among: RowNumbers) -> Matrix:
    """Rows of a table, drawn by ``seed``, and those ``among`` them: all, if it has no more."""
    n = min(_ITEMS, _SAMPLE_VALUES // table.d)
    if table.n_rows <= n:
        return _read(table, np.arange(table.n_rows))
    rng = np.random.default_rng((seed + 1) % 2**64)
    return _read(table, np.union1d(rng.choice(table.n_rows, n, replace=False), among))


def _read(table: Table, rows: RowNumbers) -> Matrix:
    found = read_rows(table, rows, label="compress: sampling")
    if not np.isfinite(found).all():
        row = rows[np.flatnonzero(~np.isfinite(found).all(axis=1))[0]]
        raise NotFiniteError(f"row {row} of {table.where} is not finite; repair or drop it")
    return found
