"""Which rows of a run decide its rotation, and how much each counts? As the settings say, or the call that adds it.

Numbers (weights, counts) are an array stored with the run's own table, known by its name, or a file; so every run of a
series brings its own. Ids to align on are a file. What was taken is recorded with a checksum.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from dask_embstab.core.types import Rows
from dask_embstab.errors import InputError
from dask_embstab.passes.fit.options import Selection
from dask_embstab.repairs import option
from dask_embstab.series.log.settings import Settings
from dask_embstab.tables.ids.id_pairs import ids_of_kind
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.read.column import as_column
from dask_embstab.tables.read.source import checksum
from dask_embstab.tables.read.views import MappedSource, SideBySide, column_source
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

OPTIONS = ("weights", "only", "counts", "min_count", "sample", "anchors", "seed")
"""Options of `fit` that are settings of a series; the first four may be given with a run."""
_NOT_NUMBERS = ("vectors", "id")


@dataclass(frozen=True, slots=True)
class Selected:
    """By aligned table: the selection, what is recorded of it, and the rows that count (None: all)."""

    selections: Mapping[str, Selection] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def counted(self, run: Run, key: str) -> Table:
        """The stabilized run's table with zeros in place of rows that stay out: they have no say in a mean."""
        table = run.table(key)
        if key not in self.rows:
            return table
        beside = SideBySide(table.source, column_source(self.rows[key]))
        return replace(table, source=MappedSource(beside, _kept, table.d, table.dtype))


def selected(source: Run, settings: Settings, given: Mapping[str, Any]) -> Selected:
    """What the settings and the call say of a run's rows, read and checked.

    Raises `InputError` where numbers are not there, or ``min_count`` has no counts to go by.
    """
    options = {name: getattr(settings, name) for name in OPTIONS}
    options |= {name: value for name, value in given.items() if value is not None}
    if options["min_count"] is not None and options["counts"] is None:
        raise InputError(
            f"min_count is {options['min_count']}, and how often the rows of {source.path} were seen is not known; set"
            " counts to the name of an array stored with every run",
            f"{option('counts')} gives those of this run",
        )
    asked = any(value is not None for name, value in options.items() if name != "seed")
    if not asked:
        return Selected()

    selections, recorded, rows = {}, {}, {}
    for key in settings.aligned:
        table = source.table(key)
        own: dict[str, Any] = {
            name: value.get(key) if isinstance(value, Mapping) else value for name, value in options.items()
        }
        named = {name: str(own[name]) for name in ("weights", "counts", "only") if _is_text(own[name])}
        for name in ("weights", "counts"):
            own[name] = _numbers(own[name], source, key)
        own["only"] = _ids(own["only"])
        selections[key] = choice = Selection(**own)
        recorded[key] = {name: own[name] for name in ("min_count", "sample", "anchors", "seed")} | {
            name: {"from": named.get(name), "crc32c": _checksum(name, own[name], table)}
            for name in ("weights", "counts", "only")
            if own[name] is not None
        }
        if (chosen := choice.chosen(table)) is not None:
            rows[key] = chosen
    return Selected(selections, recorded, rows)


def _kept(rows: Rows) -> Rows:
    """Rows whose last component, 1 or 0, says whether they count."""
    return rows[:, :-1] * rows[:, -1:]


def _is_text(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _numbers(value: Any, source: Run, key: str) -> Any:
    """One number per row: as given, or from where a text says."""
    if not _is_text(value) or value == "norm":
        return value
    group = source.group.get(key)
    stored = group.get(str(value)) if isinstance(group, zarr.Group) and value not in _NOT_NUMBERS else None
    if isinstance(stored, zarr.Array):
        return stored
    path = Path(value)
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix in (".csv", ".parquet", ".pq"):
            return _labelled(_frame(path), source.table(key), path)
        return zarr.open_array(path, mode="r")
    except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
        raise InputError(
            f"{value} is no array stored with the {key} of {source.path}, and no file of numbers (.npy, a Zarr array, or"
            f" CSV or Parquet with a column of ids and one of numbers): {error}"
        ) from error


def _labelled(frame: pd.DataFrame, table: Table, path: Path) -> pd.Series[Any]:
    """Numbers by id."""
    if frame.shape[1] != 2:
        raise ValueError(f"it has {frame.shape[1]} columns")
    ids = ids_of_kind(frame.iloc[:, 0].to_numpy(), table.row_ids, str(path))
    return pd.Series(pd.to_numeric(frame.iloc[:, 1]).to_numpy(), index=pd.Index(ids))


def _ids(value: Any) -> Any:
    """Ids: as given, or the first column of a CSV, Parquet or .npy file."""
    if not _is_text(value):
        return value
    path = Path(value)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return _frame(path).iloc[:, 0].to_numpy()
    except (OSError, ValueError) as error:
        raise InputError(f"{option('only')} are ids, or a CSV, Parquet or .npy file of ids; {path}: {error}") from error


def _frame(path: Path) -> pd.DataFrame:
    if path.suffix in (".parquet", ".pq"):
        return pd.read_parquet(path)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _checksum(name: str, value: Any, table: Table) -> int | None:
    """Of the numbers in the order of the rows, or of the ids as texts."""
    if isinstance(value, str):
        return None
    if name == "only":
        return int(crc32c.crc32c("\n".join(map(str, np.asarray(value).tolist())).encode()))
    column = as_column(value, table.row_ids, what=f"{name} of {table.where}")
    found = 0
    for start in range(0, table.n_rows, ID_RANGE):
        found = checksum(column.take(start, min(start + ID_RANGE, table.n_rows))[:, None], found)
    return found
