"""Verbs that say which space vectors are of, and refuse to let two meet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError, NotARunError, verb
from dask_embstab.exchange.migrate.detect import Detected, detect
from dask_embstab.exchange.place import RECORD
from dask_embstab.exchange.space_file import read_sidecar, sidecar
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import read_regular
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import require_each
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.series.places import named_version, series_at
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.coerce import as_run, as_table
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import SPACE_SUFFIX, Space, require_one_space, space_of_transform
from dask_embstab.tables.transform import Transform
from dask_embstab.verbs.runs import load_transform

_LATEST = 8
_MOST_BYTES = 1 << 20


@verb()
def space_of(given: Any, *, storage_options: StorageOptions | None = None) -> Space:
    """The fingerprint of the space that vectors are of, or that a transform leads into.

    Parameters
    ----------
    given
        A run or a `Transform`, the path of either, a `Series` (its head), ``"SERIES@3"``, a
        `Space`, its plain values, or the path of an export (a folder with ``export.json``) or of an
        index (a file with a ``.space.json`` named after it).

    Notes
    -----
    Reads metadata only; of a run as training left it the checksum of its first chunk, or a spread
    of 64 rows where none is stored. A run that was aligned to such rows is of a space of its own.

    Raises
    ------
    InputError
        Where nothing of these is given, or nothing tells the space.

    Examples
    --------
    >>> es.space_of(series).version
    2
    >>> es.space_of(monday).origin == es.space_of(tuesday).origin
    False
    """
    (given,) = bound(storage_options, given)
    if isinstance(given, Space):
        return given
    if isinstance(given, Transform):
        return space_of_transform(given)
    if isinstance(given, Mapping) and "origin" in given:
        return Space.from_dict(given)
    series = given if isinstance(given, SeriesReader) else series_at(given)
    if series is not None:
        return series.space()
    if (named := named_version(given)) is not None:
        return named[0].space(named[1])
    if isinstance(given, str | os.PathLike) and (space := _recorded(given)) is not None:
        return space
    return _of_run_or_transform(given)


@verb()
def check_space(a: Any, b: Any, *, storage_options: StorageOptions | None = None) -> Space:
    """The space that ``a`` and ``b`` share (of both, whatever `space_of` takes); `SpaceError` where
    they are of two.

    Call it before queries of the one are compared with vectors of the other.

    Examples
    --------
    >>> es.check_space(series.transform_for(), series.open(1)).name
    'monday'
    >>> try:
    ...     es.check_space(monday, tuesday)
    ... except es.SpaceError as error:
    ...     "must be of one space" in str(error)
    True
    """
    a, b = bound(storage_options, a, b)
    ours, theirs = space_of(a), space_of(b)
    require_one_space(ours, theirs, _place_of(a), _place_of(b))
    return theirs


@verb()
def detect_space(
    vectors: Any,
    spaces: SeriesReader | str | os.PathLike[str],
    *,
    key: str = "items",
    rows: int = 1000,
    seed: int = 0,
    storage_options: StorageOptions | None = None,
) -> Detected:
    """Which space vectors are of that carry no fingerprint, and whether two are mixed among them.

    Parameters
    ----------
    vectors
        A table with the ids of the series: a run, a path, an array with ids (`table`).
    spaces
        A `Series` or its folder: its own space and those of the models of its last eight live
        versions are looked at.
    key
        The table whose rows they are, ``"items"`` or ``"users"``.
    rows
        Rows to sample, by a hash of their ids.
    seed
        Another sample.

    Notes
    -----
    Reads the ids of the table and of eight versions, and ``rows`` rows of each. Raises
    `TooFewMatchedError` where no id is known.

    Examples
    --------
    >>> es.detect_space(tuesday, series).spaces[0].space.name
    'tuesday'
    """
    vectors, spaces = bound(storage_options, vectors, spaces)
    require_each("detect_space", {"key": key, "rows": rows, "seed": seed})
    series = spaces if isinstance(spaces, SeriesReader) else SeriesReader(spaces)
    latest = [version.version for version in series.log().live_runs.values()][-_LATEST:]
    opened = ((number, series.open(number)) for number in reversed(latest))
    return detect(as_table(vectors, key=key), opened, key=key, n=rows, seed=seed)


def _of_run_or_transform(given: Any) -> Space:
    try:
        run = as_run(given)
    except NotARunError:
        run = None
    if isinstance(run, Run):
        return space_of_run(run)
    if isinstance(given, str | os.PathLike):
        return space_of_transform(load_transform(given))
    raise InputError(
        "a space is that of a run, a transform, a series or an export, or of the path of one;"
        f" {shown(given)} came"
    )


def _recorded(place: str | os.PathLike[str]) -> Space | None:
    """What an export or an index carries with it."""
    if (local := local_path(place)) is None:
        return None
    # Not Path.is_file: it raises for a name that is too long.
    if os.path.isfile(export := local / RECORD):  # noqa: PTH113
        return Space.from_dict(_values(export).get(ATTRIBUTE, {}).get("space"))
    if os.path.isfile(sidecar(local, SPACE_SUFFIX)):  # noqa: PTH113
        return read_sidecar(local)[0]
    return None


def _values(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_regular(path, _MOST_BYTES))
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        return values
    except ValueError as error:
        raise InputError(f"{path} holds no fingerprint of a space: {error}") from error


def _place_of(given: Any) -> str:
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    return given.where if isinstance(given, Run) else f"the {type(given).__name__.lower()} given"
