"""What a run is aligned to: the reference's tables, and what is recorded about them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dask_embstab.errors import EmbstabWarning, InputError
from dask_embstab.passes.fit.options import Balance
from dask_embstab.passes.join.rows import identity
from dask_embstab.passes.join.space import known_origin
from dask_embstab.repairs import call, option
from dask_embstab.tables.coerce import as_run, as_table
from dask_embstab.tables.table import Table
from dask_embstab.tables.table_moments import TableMoments, is_moments


@dataclass(frozen=True, slots=True)
class Lag:
    """An earlier run that the alignment is to hold too: its tables, whose pairs weigh ``weight`` in
    all.
    """

    name: str
    weight: float
    tables: Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class Reference:
    """The tables to align to, and what is recorded about them.

    ``live``: how many rows of a table, its first ones, are of the run that was live last; by
    default all. Where there are ``lags``, the tables' own pairs weigh ``weight`` over the number of
    the run's rows.
    """

    items: Table | None
    users: Table | None
    described: dict[str, Any]
    live: Mapping[str, int] = field(default_factory=dict)
    lags: tuple[Lag, ...] = ()
    weight: float = 1.0

    @property
    def tables(self) -> list[Table]:
        """All tables that a fit may read."""
        tables = [
            self.items,
            self.users,
            *(table for lag in self.lags for table in lag.tables.values()),
        ]
        return [table for table in tables if table is not None]


def as_reference(reference: Any) -> Reference | None:
    """A reference from a run, its path, or a table of items."""
    if reference is None:
        return None

    run = as_run(reference)
    if run is None:
        table, is_named = as_table(reference), isinstance(reference, str | os.PathLike)
        named = {
            "path": table.where if is_named else None,
            "name": None if is_named else table.where,
        }
        return Reference(table, None, {**named, "stabilized": None, "balance": None, "space": None})

    made = run.transform
    balance = None if made is None else made.diagnostics.get("balance")
    described = {
        "path": run.path,
        "name": run.name,
        "stabilized": made is not None,
        "balance": balance,
        "space": known_origin(run, made),
    }
    return Reference(run.items, run.users, described)


def moments_of(items: Any, users: Any) -> dict[str, TableMoments] | None:
    """Moments by table, where moments or files of them were given in place of tables; both then,
    and of one width.
    """
    if is_moments(items):
        items = TableMoments.load(items)
    if not isinstance(items, TableMoments):
        return None
    if users is None:
        return {"items": items}
    if is_moments(users):
        users = TableMoments.load(users)
    if not isinstance(users, TableMoments):
        raise InputError(
            f"give both tables as moments, or neither; users are {type(users).__name__}"
        )
    if items.d != users.d:
        raise InputError(
            f"items and users need one number of components; {items.where} has {items.d} and"
            f" {users.where} {users.d}"
        )
    return {"items": items, "users": users}


def reference_of(
    tables: Mapping[str, TableMoments], aligned: tuple[str, ...], given: Any
) -> Reference | None:
    """The reference that moments were taken with; ``given``, where it is not None, must be that
    one.

    Raises `InputError` where it is another, where the ``aligned`` tables' moments were taken
    without one, or with two.
    """
    named = as_reference(given)
    for key, table in tables.items() if named is not None else ():
        theirs: Table | None = getattr(named, key)
        if theirs is not None and table.shared is not None and table.reference != identity(theirs):
            raise InputError(
                f"moments hold the pairs with their own reference; those of {table.where} were"
                f" taken with another than {theirs.where}; give that one, or take them again with"
                f" {call('moments', reference=theirs.where)}"
            )

    known = [
        dict(table.shared.described)
        for key, table in tables.items()
        if key in aligned and table.shared
    ]
    if named is not None or any(table.shared for table in tables.values()):
        for key in aligned:
            if key not in tables:
                raise InputError(
                    f"the {key} are to decide the rotation, and only moments of items came; give"
                    " theirs too"
                )
            if tables[key].shared is None:
                raise InputError(
                    f"the moments of {tables[key].where} were taken without a reference, so they"
                    f" hold no pairs; take them again: {call('moments', reference=None)}"
                )

    if any(described != known[0] for described in known):
        raise InputError(
            "moments of items and users must be taken with one reference; these with"
            f" {known[0].get('path')} and {known[1].get('path')}; take one of them again:"
            f" {call('moments', reference=None)}"
        )
    return named or (Reference(None, None, known[0]) if known else None)


def balance_for(asked: Balance | None, reference: Reference | None) -> Balance:
    """The balance that was asked for, else the reference's own, else rows; a warning where the two
    differ.
    """
    recorded: Balance | None = None if reference is None else reference.described["balance"]
    if asked is not None and recorded is not None and asked != recorded:
        warning = EmbstabWarning(
            f"{option(balance=asked)} was asked for and the reference was made with {recorded!r}:"
            " the lengths of aligned rows will differ from the reference's by a constant factor",
            f"{option(balance=recorded)} keeps the reference's",
        )
        warnings.warn(warning, stacklevel=3)
    return asked or recorded or "rows"
