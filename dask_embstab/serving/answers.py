"""What a service answers, as plain values: every answer is of one version and names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.types import Matrix
from dask_embstab.errors import IdError, InputError, SpaceError
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.search import nearest
from dask_embstab.serving.live import Live, Snapshot
from dask_embstab.tables.coerce import as_table
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.space import source_origin

MOST_K, MOST_QUERIES = 1000, 1000
HEAD = "head"
"""The version that is the head when the request comes."""
_FIELDS = {
    "transform": {"table", "vectors"},
    "lookup": {"table", "ids"},
    "search": {"vectors", "ids", "k", "metric", "table"},
    "version": set[str](),
}
_COMMON = {"version", "space"}


def answer(live: Live, what: str, asked: Any) -> dict[str, Any]:
    """The answer to one request, from one snapshot.

    Raises `InputError` for what cannot be asked, `IdError` where an id is in no row, and
    `SpaceError` where the client says that its vectors are of another ``space``.
    """
    if not isinstance(asked, Mapping):
        raise InputError(f"a request is a JSON object; {shown(asked)} came")
    if unknown := set(asked) - _FIELDS[what] - _COMMON:
        known = ", ".join(sorted(_FIELDS[what] | _COMMON))
        raise InputError(f"{what} takes {known}; {shown(min(unknown))} came too")
    snapshot = live.at(_version(asked.get("version")))
    space = asked.get("space")
    if what != "transform" and space is not None and space != snapshot.space.origin:
        raise SpaceError(
            f"vectors of the space {shown(space)} must not meet those of version"
            f" {snapshot.version}, which are of {snapshot.space.origin}; transform them first"
        )
    result = _ANSWERS[what](snapshot, asked)
    return {"version": snapshot.version, "space": snapshot.space.origin, **result}


def _version(given: Any) -> int | None:
    if given == HEAD and isinstance(given, str):
        return None
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given > 0):
        return given
    raise InputError(f"version must be a whole number from 1 on, or head; it is {shown(given)}")


def _about(snapshot: Snapshot, _: Mapping[str, Any]) -> dict[str, Any]:
    run = snapshot.run
    tables = {
        key: {"rows": table.n_rows, "components": table.d}
        for key in TABLES
        if (table := getattr(run, key)) is not None
    }
    model = {"name": run.name, "space": source_origin(snapshot.transform)}
    about = {"fingerprint": snapshot.space.to_dict(), "model": model}
    return {"run": run.name, **about, "tables": tables}


def _transform(snapshot: Snapshot, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Rows as the version's model made them, in the series' space; they say which model that is."""
    theirs, own = asked.get("space"), source_origin(snapshot.transform)
    if theirs is None and asked.get("version") is None:
        raise InputError(
            "vectors do not say which model made them, and another version's transform leads"
            " nowhere; send version (a number, or head), or the space of the model that /version"
            " tells"
        )
    if theirs is not None and theirs != own:
        raise SpaceError(
            f"version {snapshot.version} transforms vectors of its own model, whose space is {own};"
            f" those that came are of {shown(theirs)}"
            + (", where this leads" if theirs == snapshot.space.origin else "")
        )
    rows = _rows(asked.get("vectors"), snapshot.transform.d)
    made = snapshot.transform
    through = made.transform_items if _table(asked) == "items" else made.transform_users
    moved = through(rows)
    if not np.isfinite(moved).all():
        raise InputError("a vector is beyond the largest number once it is transformed")
    return {"vectors": moved.tolist()}


def _lookup(snapshot: Snapshot, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Stored rows, by id."""
    table = snapshot.run.table(_table(asked))
    return {"vectors": table.rows_of(_ids(asked.get("ids"))).tolist()}


def _search(snapshot: Snapshot, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest items of vectors of this space, or of stored rows."""
    if ("vectors" in asked) == ("ids" in asked):
        raise InputError("search takes vectors, or the ids of stored rows; give one of the two")
    items, k, metric = snapshot.run.table("items"), asked.get("k", 10), asked.get("metric")
    name = _table(asked, default="users" if snapshot.run.users is not None else "items")
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MOST_K:
        raise InputError(f"k must be a whole number from 1 to {MOST_K}; it is {shown(k)}")
    if metric not in (None, "dot", "cosine"):
        raise InputError(f"metric must be dot or cosine; it is {shown(metric)}")
    if "ids" in asked:
        rows: Matrix = snapshot.run.table(name).rows_of(_ids(asked["ids"]))
    elif asked.get("space") is None:
        raise InputError(
            "vectors do not say of which space they are, and those of another must not meet these;"
            f" send space too (/version tells that of the items: {snapshot.space.origin})"
        )
    else:
        rows = _rows(asked["vectors"], items.d)
    if len(rows) > MOST_QUERIES:
        raise InputError(f"search takes at most {MOST_QUERIES} queries; {len(rows)} came")
    chosen: Metric = metric or ("dot" if name == "users" else "cosine")
    scores, ids = nearest(as_table(rows, where="the queries"), items, k, chosen)
    if not np.isfinite(scores).all():
        raise InputError("a score is beyond the largest number; send vectors of another length")
    return {"scores": scores.tolist(), "ids": [plain(one) for one in ids]}


def _table(asked: Mapping[str, Any], default: str = "users") -> str:
    name = asked.get("table", default)
    if name not in TABLES:
        raise InputError(f"table must be items or users; it is {shown(name)}")
    return str(name)


def _ids(given: Any) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise InputError(f"ids must be a list of at least one id; they are {shown(given)}")
    kinds = {type(one) for one in given}
    if kinds not in ({int}, {str}):
        raise IdError(f"ids are whole numbers or texts, all of one kind; they are {shown(given)}")
    return given


def _rows(given: Any, d: int) -> Matrix:
    """Rows (n, d), one row as (1, d); float64."""
    try:
        rows = np.asarray(given if _is_numbers(given) else None, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        rows = np.empty(0)
    rows = rows[None] if rows.ndim == 1 and len(rows) else rows
    if rows.ndim != 2 or rows.shape[1] != d or not np.isfinite(rows).all():
        raise InputError(f"vectors must be rows of {d} finite numbers; {shown(given)} came")
    return rows


def _is_numbers(given: Any) -> bool:
    """Lists of JSON numbers: NumPy would take texts and truth values for such."""
    if isinstance(given, list):
        return all(map(_is_numbers, given))
    return isinstance(given, int | float) and not isinstance(given, bool)


_ANSWERS: dict[str, Callable[[Snapshot, Mapping[str, Any]], dict[str, Any]]] = {
    "version": _about,
    "transform": _transform,
    "lookup": _lookup,
    "search": _search,
}
