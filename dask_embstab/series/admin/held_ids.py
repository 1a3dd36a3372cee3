"""In which rows do ids stand that somebody asks for? In those of the runs of a series, and of their
running references.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import IdError, InputError
from dask_embstab.repairs import option
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.published import published_reference, published_run
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Store
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.ids.kinds import hashable
from dask_embstab.tables.ids.lookup import asked_ids
from dask_embstab.tables.layout import ATTRIBUTE, TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class HeldIds:
    """Rows of one stored run, and of the running reference kept with it, that have one of
    the ids.
    """

    name: str
    located: Version
    run: RowNumbers
    reference: RowNumbers
    already: RowNumbers
    """Rows of the run whose ids the running reference has forgotten before."""


@dataclass(frozen=True, slots=True)
class IdMatches:
    """Which of the ids anything has, where, and ids that are spelled nearly as one of them."""

    known: npt.NDArray[np.bool_]
    held: list[HeldIds]
    similar: set[str]


def listed(ids: Any) -> list[Any]:
    """The ids, each once, in the order in which they came."""
    if isinstance(ids, str | bytes | int | np.integer | UUID):
        ids = [ids]
    try:
        if isinstance(ids, Mapping):
            raise TypeError("its keys or its values could be meant")
        values = np.asarray(ids) if hasattr(ids, "__array__") else None
        wanted = list(dict.fromkeys(ids if values is None else values.tolist()))
    except Exception as error:  # whatever a foreign column raises, it gives no ids
        raise InputError(
            f"ids are a list or a column of ids; a {type(ids).__name__} came ({error})"
        ) from error

    if not wanted:
        raise InputError(
            "at least one id must be given; none came; give the ids that are to be forgotten"
        )
    return wanted


def located(
    store: Store, log: Log, wanted: list[Any], table: str | None
) -> tuple[str | None, IdMatches]:
    """The table that has the ids, which of them anything has, and the rows in every stored run:
    every id is read once.

    Raises `InputError` where ids are of another kind, rows have none, or both tables have some of
    them and none is named.
    """
    tried: dict[str, IdMatches] = {}
    refused: list[IdError] = []
    for key in TABLES if table is None else (table,):
        try:
            tried[key] = _held_in(store, log, wanted, key)
        except IdError as error:
            refused.append(error)

    if not tried:
        raise refused[0]

    having = {key: matches for key, matches in tried.items() if matches.known.any()}
    if len(having) > 1:
        raise InputError(
            "an id belongs to one table; both items and users have some of these;"
            f" {option('table')} says which are meant"
        )
    if not having:
        similar = {other for matches in tried.values() for other in matches.similar}
        return table, IdMatches(np.zeros(len(wanted), bool), [], similar)
    ((key, matches),) = having.items()
    return key, matches


def _held_in(store: Store, log: Log, wanted: list[Any], key: str) -> IdMatches:
    known, held, similar = np.zeros(len(wanted), bool), [], set()
    for name, located in log.stored.items():
        run = published_run(store, located)
        if getattr(run, key) is None:
            continue
        rows, seen, others = _rows_with(run.table(key), wanted)
        known |= seen
        similar |= others
        of_reference = already = np.empty(0, np.int64)
        if (
            located.has_reference
            and getattr(state := published_reference(store, located), key) is not None
        ):
            of_reference, seen, others = _rows_with(state.table(key), wanted)
            known |= seen
            similar |= others
            already = np.asarray(attribute(state, "forgotten").get(key, ()), np.int64)
        held.append(HeldIds(name, located, rows, of_reference, already))

    return IdMatches(known, held, similar)


def _rows_with(
    table: Table, wanted: list[Any]
) -> tuple[RowNumbers, npt.NDArray[np.bool_], set[str]]:
    """Rows with one of the ids, ascending; which ids have any; ids there that are only spelled
    otherwise.

    A bounded number of the table's ids is held at a time.
    """
    import pandas as pd

    if table.stored_ids is None:
        raise IdError(
            f"rows must have ids to be forgotten by; those of {table.where} are known by their"
            " number, which would be that of another row then; take the row out of the deliveries"
            " and make the series anew"
        )

    kind = table.stored_ids.kind
    codes, distinct = pd.factorize(hashable(asked_ids(wanted, kind)))  # two texts may be one number
    others = spelled_otherwise(distinct.tolist()) if kind == "string" else []
    n, seen = len(distinct), np.zeros(len(distinct) + len(others), bool)
    index = pd.Index(np.concatenate([distinct, np.array(others, object)]) if others else distinct)
    reader, rows = table.stored_ids.open(), [np.empty(0, np.int64)]
    for start in range(0, table.n_rows, ID_RANGE):
        part = reader.take(start, min(start + ID_RANGE, table.n_rows))
        places = index.get_indexer(pd.Index(hashable(part)))
        rows.append(start + np.flatnonzero((places >= 0) & (places < n)))
        seen[places[places >= 0]] = True

    return (
        np.concatenate(rows),
        seen[codes],
        {other for other, is_there in zip(others, seen[n:], strict=True) if is_there},
    )


def spelled_otherwise(texts: list[str]) -> list[str]:
    """Other texts that a person would take for these: in another Unicode normal form, or another
    case.
    """
    forms = (
        partial(unicodedata.normalize, "NFC"),
        partial(unicodedata.normalize, "NFD"),
        str.lower,
        str.upper,
    )
    return list(dict.fromkeys(form(text) for text in texts for form in forms).keys() - set(texts))


def attribute(run: Run, name: str) -> Mapping[str, Any]:
    """What a running reference records of its tables; nothing where it does not."""
    recorded: Mapping[str, Any] = run.attrs[ATTRIBUTE].get(name, {})
    return recorded
