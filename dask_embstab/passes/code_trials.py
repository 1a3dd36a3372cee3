"""Every code on a sample of the user's own rows: queries search items, in rows as they are and in
rows of each code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import (
    BITS,
    FROZEN,
    Code,
    frozen_steps,
    leading_directions,
    rotated,
)
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.metrics.estimates import Estimate
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.display import Displayed
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.options import require_each
from dask_embstab.passes.code_quality import Asked, Entry, Sample, Tried
from dask_embstab.passes.compress import code_with_books, parts_of, require_fitted
from dask_embstab.passes.evaluate.groups import by_table, groups_of
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.render.code_page import frontier_markup, frontier_page
from dask_embstab.repairs import option
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.named import value_of
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_ITEMS, _QUERIES, K = 1 << 16, 1000, 10
_SAMPLE_VALUES = 1 << 25
"""Numbers in the sampled items at most: 256 MiB."""
_SHARES = (1.0, 0.5**0.5)
"""Of the error of scores that a budget allows, what a truncation may take; numbers have the rest,
whose square is what is left of the squares.
"""


@dataclass(frozen=True, slots=True, repr=False)
class Frontier(Displayed):
    """Every code that was measured, by bytes; on so many queries and items, at depth ``k``.

    ``certified`` is what a budget asked for (recall, or the error of scores) of the ``chosen`` one,
    by queries that had no say in the choice.
    """

    entries: tuple[Entry, ...]
    k: int
    n_queries: int
    n_items: int
    chosen: Entry | None = None
    certified: Estimate | None = None

    def _facts(self) -> dict[str, object]:
        codes = ", ".join(dict.fromkeys(entry.code for entry in self.entries))
        measured = {"k": self.k, "queries": self.n_queries, "items": self.n_items, "codes": codes}
        return measured | {"chosen": None if self.chosen is None else self.chosen.code}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def html(self) -> str:
        """Drawn, as one page that needs nothing beside it."""
        return frontier_page(self.to_dict())

    def _repr_html_(self) -> str:
        """Drawn, in a notebook."""
        values = self.to_dict()
        own = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
        return frontier_markup(values, f"c{own}-")


def measure(
    run: Run,
    *,
    k: int = K,
    seed: int = 0,
    groups: Any = None,
    codes: Any = None,
    ranks: Sequence[int] = (),
    force: bool = False,
    within: float | None = None,
) -> Frontier:
    """Codes of these names (None: all that need no training) on a sample: items (at most 65,536)
    and half of the sampled queries.

    ``ranks``: components that truncations keep; ``within`` adds those whose best scores of that
    rank are off by so much.
    """
    require_each("frontier", {"k": k, "seed": seed})
    sample = _sample(run, halves(queries_of(run), seed)[0], seed, groups)
    if within is not None:
        ranks = [*ranks, *_ranks_within(sample, within)]
    tried = list(
        _tried(run.table("items"), sample.rows, codes, sorted({*ranks}), seed=seed, force=force)
    )
    held = [one for one in tried if not one.code.overflows(*one.code.encode(sample.rows))]
    entries = list(sample.entries(run.table("items"), held, k))
    entries.sort(key=lambda one: (one.n_bytes, bool(one.rescored), -one.recall.mean, one.rotate))
    return Frontier(tuple(entries), k, len(sample.asked.rows), len(sample.rows))


def _tried(
    items: Table, rows: Matrix, names: Any, ranks: Sequence[int], *, seed: int, force: bool
) -> Iterator[Tried]:
    """Codes of the sampled ``rows``: every name plain and rotated, and truncated to every rank."""
    chosen = (*BITS, *FROZEN) if names is None else _names(names)
    kept: dict[int | None, Matrix | None] = {None: None}
    kept |= {rank: leading_directions(rows.T @ rows, rank) for rank in ranks}

    @cache
    def turned(rank: int | None) -> Matrix:
        """One for all names: its QR decomposition takes long where rows are wide."""
        return rotated(kept[rank], items.d, seed)

    for name in chosen:
        for rank, directions in kept.items():
            if names is None and (name in FROZEN or name == "sign") and rank is not None:
                continue
            for rotate in (False, True) if name not in FROZEN or names else (False,):
                matrix = turned(rank) if rotate else directions
                yield Tried(
                    _fitted(items, rows, name, matrix, seed=seed, force=force), rotate, rank
                )


def _names(given: Any) -> tuple[str, ...]:
    """One text with commas, or a list of names."""
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    is_list = isinstance(names, list | tuple) and bool(names)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{option('codes')} must be names of codes, in a list or one text with commas between"
            f" them; {shown(given)} came"
        )
    return tuple(names)


def _fitted(
    items: Table, rows: Matrix, name: str, matrix: Matrix | None, *, seed: int, force: bool
) -> RowCode:
    """The code of this name, fitted to the sampled rows where it needs that."""
    parts = parts_of(name, items.d if matrix is None else matrix.shape[1])
    if not parts and name not in FROZEN:
        return Code(name, items.d, matrix)
    if not parts:
        y = rows if matrix is None else rows @ matrix
        return Code(name, items.d, matrix, frozen_steps(np.abs(y).max(axis=0), name))
    require_fitted(items, force=force)
    return code_with_books(rows, name, matrix, seed=seed)


def _ranks_within(sample: Sample, error: float) -> list[int]:
    """The fewest leading directions whose scores are off by no more than a share of this error:
    with directions V of the items' Gramian, the squares of the scores fall into a part for each.
    """
    rows, asked = sample.rows, sample.asked.rows
    V = leading_directions(rows.T @ rows, rows.shape[1])
    energy = ((rows @ V) ** 2).sum(axis=0) * ((asked @ V) ** 2).sum(axis=0)
    left = 1 - np.cumsum(energy) / energy.sum() if energy.sum() else np.zeros(len(energy))
    ranks = [int(np.argmax(left <= (share * error) ** 2)) + 1 for share in _SHARES]
    return [rank for rank in ranks if rank < rows.shape[1]]


def queries_of(run: Run) -> Table:
    """The users, or the items where there are none."""
    return run.table("items" if run.users is None else "users")


def asked_of(run: Run, numbers: RowNumbers) -> Asked:
    """Queries of these rows, which are read."""
    return Asked(_read(queries_of(run), numbers), numbers, run.users is None)


def _sample(run: Run, chosen: RowNumbers, seed: int, groups: Any) -> Sample:
    """The sampled items, the queries of these rows, and the groups of both."""
    items, asked = run.table("items"), asked_of(run, chosen)
    numbers, rows = sampled_items(items, seed, chosen if asked.among_themselves else chosen[:0])
    tables = {key: run.table(key) for key in TABLES if getattr(run, key) is not None}
    grouped = {}
    for key, given in by_table(groups, tables).items():
        group_labels = groups_of(value_of("groups", given, tables[key], run), tables[key])
        wanted = numbers if key == "items" else chosen
        grouped[key] = group_labels.names, group_labels.of_rows(wanted)
    return Sample(rows, numbers, asked, grouped.get("items"), grouped.get("users"))


def halves(queries: Table, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Rows that choose and rows that certify, drawn by ``seed``, ascending."""
    rng = np.random.default_rng(seed % 2**64)
    drawn = rng.choice(queries.n_rows, min(2 * _QUERIES, queries.n_rows), replace=False)
    half = -(-len(drawn) // 2)
    return np.sort(drawn[:half]), np.sort(drawn[half:] if len(drawn) > 1 else drawn)


def sampled_items(table: Table, seed: int, among: RowNumbers) -> tuple[RowNumbers, Matrix]:
    """Numbers and rows of a table, drawn by ``seed``, and those ``among`` them: all, if it has no
    more.
    """
    n = min(_ITEMS, _SAMPLE_VALUES // table.d)
    if table.n_rows <= n:
        numbers = np.arange(table.n_rows)
    else:
        rng = np.random.default_rng((seed + 1) % 2**64)
        numbers = np.union1d(rng.choice(table.n_rows, n, replace=False), among)
    return numbers, _read(table, numbers)


def _read(table: Table, rows: RowNumbers) -> Matrix:
    vectors = read_rows(table, rows, label="compress: sampling")
    if not np.isfinite(vectors).all():
        row = rows[np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0]]
        raise NotFiniteError(f"row {row} of {table.where} is not finite; repair or drop it")
    return vectors
