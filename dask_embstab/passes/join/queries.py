"""Which queries shall figures rest on? A log of those that were asked, ids or vectors, in place of
a random sample.

A log stands for the queries to come: an id that was asked twice counts twice. Of a file of ids the
sampled ones alone are kept.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.arguments import offers, shown
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.errors import EmbstabWarning, InputError, NotFiniteError, TooFewMatchedError
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.join.space import require_runs_meet
from dask_embstab.tables.coerce import as_run, as_table
from dask_embstab.tables.formats.opened import ids_in_files
from dask_embstab.tables.ids.id_pairs import ids_of_kind
from dask_embstab.tables.ids.ids import Ids, as_ids, ids_at
from dask_embstab.tables.ids.kinds import listed_ids
from dask_embstab.tables.ids.lookup import known_rows
from dask_embstab.tables.read.arrays import as_array
from dask_embstab.tables.read.labels import is_frame
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

WHERE = "the queries"


@dataclass(frozen=True, slots=True)
class QueryLog:
    """``n`` queries: ``ids`` of rows, or ``vectors``, which may be those of a ``run``; ``where`` is
    what messages call them.
    """

    where: str
    ids: Ids | None
    vectors: Table | None
    run: Run | None = None

    @property
    def n(self) -> int:
        """Queries in it, repeated ones too."""
        if self.ids is not None:
            return len(self.ids)
        assert self.vectors is not None
        return self.vectors.n_rows

    @property
    def kind(self) -> str:
        """For plain values that tell what was asked."""
        return "log of vectors" if self.ids is None else "log of ids"

    def rows_in(self, table: Table, size: int, seed: int) -> tuple[RowNumbers, int]:
        """The rows of at most ``size`` queries of a log of ids, drawn with ``seed``, ascending and
        with repeats; and how many ids of those drawn the table does not have.

        Warns of these; raises `TooFewMatchedError` where it has none, `IdError` where ids are of
        another type.
        """
        assert self.ids is not None
        names = ids_of_kind(ids_at(self.ids, self._drawn(size, seed)), table.row_ids, self.where)
        rows = known_rows(table.row_ids, names, table.key)
        known = np.sort(rows[rows >= 0])
        if not len(known):
            raise TooFewMatchedError(
                f"queries are ids of {table.where}; it has none of {len(rows)} ids of {self.where},"
                f" such as {shown(names[:1].tolist()[0])}; give ids of that table, or vectors"
            )
        if unknown := len(rows) - len(known):
            warnings.warn(
                EmbstabWarning(
                    f"{unknown} of {len(rows)} queries of {self.where} are ids that {table.where}"
                    " does not have; they are left out"
                ),
                stacklevel=2,
            )
        return known, unknown

    def rows(self, d: int, size: int, seed: int) -> Matrix:
        """At most ``size`` vectors of a log of them, drawn with ``seed``, of ``d`` components."""
        table = self.vectors
        assert table is not None
        if table.d != d:
            raise InputError(
                f"queries must be vectors of the new model, of {d} components; those that came"
                f" have {table.d}"
            )
        vectors = read_rows(table, self._drawn(size, seed), label="queries")
        if not np.isfinite(vectors).all():
            raise NotFiniteError(f"rows of {table.where} are not finite; mend them")
        return vectors

    def require_space_of(self, run: Run) -> None:
        """Raise `SpaceError` where they are the vectors of a stored run of another space."""
        if self.run is not None:
            require_runs_meet(self.run, run, WHERE)

    def _drawn(self, size: int, seed: int) -> RowNumbers:
        rng = np.random.default_rng(seed)
        return np.sort(rng.choice(self.n, min(size, self.n), replace=False))


def as_query_log(given: Any, key: str) -> QueryLog:
    """A log from whatever holds one: a list or an array of ids, a file of ids (Parquet, Arrow or
    CSV with a column of them and none of vectors, or a npy file), or a table of vectors; ``key``
    names the table that ids are of.
    """
    where, column = WHERE, None
    if isinstance(given, str | os.PathLike):
        where = os.fspath(given)
        if (ids := ids_in_files(given, key)) is not None:
            return _of_ids(ids, where)
    elif isinstance(given, list | tuple) and all(map(_is_id, given)):
        column = listed_ids(given)
    elif offers(given, "ndim") and given.ndim == 1:
        column = as_array(given, what=WHERE)
    elif is_frame(given) and len(getattr(given, "columns", ())) == 1:
        column = np.asarray(given).ravel()
    if column is not None:
        n = column.shape[0]
        return _of_ids(as_ids(column, n, where=where) if n else None, where)
    # Ids of queries are no ids of items, whatever they are.
    table = replace(as_table(given, key=key, where=where), stored_ids=None)
    return QueryLog(table.where, None, table, as_run(given))


def _is_id(one: Any) -> bool:
    return not isinstance(one, list | tuple) and not offers(one, "ndim")


def _of_ids(ids: Ids | None, where: str) -> QueryLog:
    if ids is None or not len(ids):
        raise InputError(f"a log needs at least one query; {where} has none")
    return QueryLog(where, ids, None)


def query_log_of(given: Any, run: Run) -> QueryLog | None:
    """The log that was given of a run's queries: its users, without users its items; None where
    none was. Raises `SpaceError` where it is of another stored run's space.
    """
    if given is None:
        return None
    log = as_query_log(given, "items" if run.users is None else "users")
    log.require_space_of(run)
    return log


def asked_rows(
    table: Table, log: QueryLog | None, size: int, seed: int, *, label: str
) -> tuple[Matrix, RowNumbers | None, int]:
    """At most ``size`` queries (q, d) of a log, or of a table's rows where there is none; which
    rows of the table they are (None: vectors of their own), and how many ids it does not have.
    """
    if log is not None and log.ids is None:
        return log.rows(table.d, size, seed), None, 0
    if log is not None:
        chosen, unknown = log.rows_in(table, size, seed)
    else:
        rng, n = np.random.default_rng(seed), table.n_rows
        chosen, unknown = np.sort(rng.choice(n, min(size, n), replace=False)), 0
    rows = read_with_repeats(table, chosen, label=label)
    if not np.isfinite(rows).all():
        raise NotFiniteError(f"rows of {table.where} are not finite; mend them")
    return rows, chosen, unknown


def read_with_repeats(table: Table, rows: RowNumbers, *, label: str) -> Matrix:
    """Rows in this order, each of them read once."""
    each, at = np.unique(rows, return_inverse=True)
    return read_rows(table, each, label=label)[at]
