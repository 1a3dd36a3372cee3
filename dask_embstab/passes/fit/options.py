"""Every choice of a fit, made once by the public functions and checked here."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

import numpy as np
import zarr

from dask_embstab.core.fit_transform import AlignOn, Keep
from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import EmbstabWarning, InputError
from dask_embstab.options import FIT, require_rank
from dask_embstab.passes.engine.paired import Weights
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.repairs import option
from dask_embstab.tables.column import Column, as_column
from dask_embstab.tables.ids.id_pairs import IdPairs, as_pairs, ids_of_kind
from dask_embstab.tables.ids.ids import ID_RANGE, Ids, id_ranges
from dask_embstab.tables.ids.kinds import hashable
from dask_embstab.tables.ids.row_index import ArrayIndex
from dask_embstab.tables.ids.spelling import Unmatched, differences
from dask_embstab.tables.read.limits import require_workable
from dask_embstab.tables.table import Table

Method = Literal["auto", "gram", "qr"]
Balance = Literal["rows", "gramians"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a table decide the rotation, and how much each counts; standardizing ignores
    all of it.

    ``pairs``: ids of the run and the other ids that they have in the reference, instead of a join
    by equal ids.

    ``weights``: one number per row, or ``"norm"`` for the length of the reference's row;
    ``times_norm``: numbers times that length. ``only``: the ids to align on. ``counts`` with
    ``min_count``: rows seen at least that often. ``sample``: that many of the rest, drawn with
    ``seed``; ``anchors``: that many of the rest by a hash of their ids and ``seed``, the same ones
    in every run.
    """

    weights: Any = None
    only: Any = None
    counts: Any = None
    min_count: float | None = None
    sample: int | None = None
    anchors: int | None = None
    seed: int = 0
    pairs: IdPairs | None = None
    times_norm: bool = False

    def __post_init__(self) -> None:
        others = ("only", "counts", "sample", "anchors", "weights")
        given = [name for name in others if getattr(self, name) is not None]
        if isinstance(self.weights, str) and self.weights == "norm":
            given.remove("weights")
        if self.pairs is not None and given:
            raise InputError(
                f"{option('pairs')} says which rows decide the rotation, so {option(given[0])}"
                f" cannot; leave one of them out ({option(weights='norm')} goes with"
                f" {option('pairs')})"
            )
        if (self.counts is None) != (self.min_count is None):
            raise InputError(
                f"{option('counts')} and {option('min_count')} belong together: rows with fewer"
                " counts stay out; one of them came; give both"
            )
        for name in ("sample", "anchors", "seed", "min_count"):
            FIT[name].require(getattr(self, name))
        if isinstance(self.weights, str) and self.weights != "norm":
            raise InputError(f"weights must be numbers or 'norm'; they are {self.weights!r}")

    @property
    def given(self) -> list[str]:
        """The options that were given."""
        names = ("pairs", "weights", "only", "counts", "sample", "anchors")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def weighted(self) -> bool:
        """Whether rows count differently."""
        return self.weights is not None or self.times_norm

    def row_weights(self, table: Table) -> Weights:
        """The weights as a column of the table."""
        if self.weights is None:
            return "norm" if self.times_norm else None
        if isinstance(self.weights, str):
            return "norm"
        column = as_column(self.weights, table.row_ids, what=f"weights of {table.where}")
        return replace(column, times_norm=self.times_norm)

    def applied(self, pairing: Pairing, table: Table) -> Pairing:
        """The pairing with the rows that stay out of the alignment left out."""
        if (chosen := self.chosen(table)) is not None:
            pairing = pairing.only(chosen)
        if self.sample is not None and self.sample < pairing.n_used:
            kept = np.random.default_rng(self.seed).choice(
                pairing.n_used, self.sample, replace=False
            )
            pairing = pairing.drawn(np.sort(kept), table.n_rows)

        if self.anchors is not None and self.anchors < pairing.n_used:
            from dask_embstab.passes.join.anchors import anchor_rows

            few = pairing.sparse(anchor_rows(pairing, table, self.anchors, self.seed))
            stands_for = pairing.n_represented
            pairing = replace(few, verified=False, eligible=pairing.n_used, represented=stands_for)

        return pairing

    def chosen(self, table: Table) -> np.ndarray[Any, Any] | None:
        """Whether each row is one of ``only`` and was seen often enough, (n,) of bool; None where
        every row will do.
        """
        if self.only is None and self.counts is None:
            return None
        chosen = np.ones(table.n_rows, bool) if self.only is None else self._named(table)
        if self.counts is not None:
            column = as_column(self.counts, table.row_ids, what=f"counts of {table.where}")
            chosen &= _at_least(column, table.n_rows, self.min_count or 0)
        return chosen

    def _named(self, table: Table) -> np.ndarray[Any, Any]:
        import pandas as pd

        ids, only = (
            table.row_ids,
            list(self.only) if isinstance(self.only, set | frozenset) else self.only,
        )
        listed = ids_of_kind(only, ids, option("only"))
        wanted = pd.Index(hashable(listed)).unique()
        seen, selected = np.zeros(len(wanted), bool), np.zeros(table.n_rows, bool)
        start = 0
        for part in id_ranges(ids):
            places = wanted.get_indexer(pd.Index(hashable(part)))
            seen[places[places >= 0]] = True
            selected[start : start + len(part)] = places >= 0
            start += len(part)

        if ids.kind == "string":
            asked = Ids(wanted.to_numpy(dtype=object), "string", option("only"))
            partners = [
                ArrayIndex(cast("RowNumbers", of.astype(np.int8) - 1)) for of in (seen, selected)
            ]
            for difference in differences(
                Unmatched(asked, partners[0]), Unmatched(ids, partners[1])
            ):
                warnings.warn(
                    EmbstabWarning(f"{ids.where} and {option('only')}: {difference}"), stacklevel=2
                )

        return selected


def _at_least(column: Column, n_rows: int, least: float) -> np.ndarray[Any, Any]:
    return np.concatenate(
        [column.take(start, start + ID_RANGE) >= least for start in range(0, n_rows, ID_RANGE)]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """What the transform shall keep and how it is found; ``selections`` holds one `Selection` per
    aligned table.

    ``join_options`` are the arguments of `join_options`.
    """

    keep: Keep
    balance: Balance
    align_on: AlignOn = "items"
    method: Method = "auto"
    rank: int | None = None
    width: int | None = None
    center: bool = False
    unit_rows: bool = False
    rotation_only: bool = False
    min_matched: int | None = None
    max_lost_energy: float = 0.5
    selections: Mapping[str, Selection] = field(default_factory=dict)
    join_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.name in FIT:
                FIT[one.name].require(getattr(self, one.name))
        require_workable(0, self.width or 0, option("width"))
        require_workable(0, self.rank or 0, option("rank"))
        require_rank(self.keep, self.rank)
        if self.keep == "scores" and self.rotation_only:
            raise InputError(
                f"{option(rotation_only=True)} chooses between a space and its mirror image, and"
                f" the vectors that {option(keep='scores')} starts from are one or the other by a"
                " sign convention alone, so it would say nothing about the run; leave it out",
                f"{option(keep='geometry')} only rotates",
            )
        if self.keep == "scores" and self.center:
            raise InputError(
                f"{option(center=True)} moves the origin, which changes scores; use"
                f" {option(keep='geometry')} with it"
            )

    @property
    def columns(self) -> list[Any]:
        """Stored weights and counts."""
        return [
            column
            for choice in self.selections.values()
            for column in (choice.weights, choice.counts)
            if isinstance(column, zarr.Array)
        ]

    @property
    def aligned(self) -> tuple[str, ...]:
        """The tables that decide the rotation."""
        return aligned_tables(self.align_on)

    def selection(self, key: str) -> Selection:
        """The rows of table ``key`` that decide the rotation."""
        return self.selections.get(key, Selection())


def resolve_keep(keep: Keep | None, *, users: Any) -> Keep:
    """Scores where there are users, geometry where not, unless the user says."""
    if keep == "scores" and users is None:
        raise InputError(
            f"{option(keep='scores')} needs users and items; there are no users; give them",
            f"{option(keep='geometry')} needs items alone",
        )
    return keep or ("geometry" if users is None else "scores")


def aligned_tables(align_on: str) -> tuple[str, ...]:
    """The tables that decide the rotation."""
    return ("items", "users") if align_on == "both" else (align_on,)


def selections(align_on: str, options: Mapping[str, Any]) -> dict[str, Selection]:
    """One selection per aligned table: an option given as a dict by table name, or once for the
    only aligned table.
    """
    keys = aligned_tables(align_on)
    per_table: dict[str, dict[str, Any]] = {key: {} for key in keys}
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            by_table = given_by_table(name, value, keys)
        elif len(keys) > 1 and (name == "pairs" or not isinstance(value, int | str)):
            raise InputError(
                f"{option(align_on='both')} needs {option(name)} by table; one for both came; give"
                " a dict with 'items' and 'users'"
            )
        else:
            counted = options.get("counts") if name == "min_count" else None
            by_table = dict.fromkeys(counted if isinstance(counted, Mapping) else keys, value)
        for key, inner in by_table.items():
            per_table[key][name] = as_pairs(inner) if name == "pairs" else inner

    return {key: Selection(**given) for key, given in per_table.items() if given}


def given_by_table(name: str, given: Mapping[Any, Any], keys: Collection[str]) -> dict[str, Any]:
    """An option that is given as a dict by table name; raises where it is for none, or for others
    than ``keys``.
    """
    if not given or not set(given) <= set(keys):
        others = ", ".join(sorted(map(str, set(given) - set(keys)))) or "no table"
        raise InputError(
            f"{option(name)} is given for {others}; the fit aligns on {' and '.join(keys)}; give it"
            " for these, or leave it out"
        )
    return dict(given)
