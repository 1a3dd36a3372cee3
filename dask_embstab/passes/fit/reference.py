"""What a run lands on: its tables, and what is recorded about them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dask_embstab.errors import EmbstabWarning
from dask_embstab.passes.fit.options import Balance
from dask_embstab.repairs import option
from dask_embstab.tables.coerce import as_run, as_table
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Lag:
    """An earlier run that the alignment is to hold too: its tables, whose pairs weigh ``weight`` in all."""

    name: str
    weight: float
    tables: Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class Reference:
    """The tables to land on, and what is recorded about them.

    ``live``: how many rows of a table, its first ones, are of the run that was live last; by default all. Where there are
    ``lags``, the tables' own pairs weigh ``weight`` over the number of the run's rows.
    """

    items: Table | None
    users: Table | None
    described: dict[str, Any]
    live: Mapping[str, int] = field(default_factory=dict)
    lags: tuple[Lag, ...] = ()
    weight: float = 1.0


def as_reference(reference: Any) -> Reference | None:
    """A reference from a run, its path, or a table of items."""
    if reference is None:
        return None
    run = as_run(reference)
    if run is None:
        table, is_named = as_table(reference), isinstance(reference, str | os.PathLike)
        named = {"path": table.where if is_named else None, "name": None if is_named else table.where}
        return Reference(table, None, {**named, "stabilized": None, "balance": None})
    made = run.transform
    balance = None if made is None else made.diagnostics.get("balance")
    described = {"path": run.path, "name": run.name, "stabilized": made is not None, "balance": balance}
    return Reference(run.items, run.users, described)


def balance_for(asked: Balance | None, reference: Reference | None) -> Balance:
    """The balance that was asked for, else the reference's own, else rows; a warning where the two differ."""
    recorded: Balance | None = None if reference is None else reference.described["balance"]
    if asked is not None and recorded is not None and asked != recorded:
        told = EmbstabWarning(
            f"{option(balance=asked)} was asked for and the reference was made with {recorded!r}: the lengths of"
            " aligned rows will differ from the reference's by a constant factor",
            f"{option(balance=recorded)} keeps the reference's",
        )
        warnings.warn(told, stacklevel=3)
    return asked or recorded or "rows"
