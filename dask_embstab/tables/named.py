"""Numbers of rows, and ids, that are known by a name: an array stored with the table itself, or a
file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dask_embstab.errors import EmbstabError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import is_url, small_file
from dask_embstab.repairs import option
from dask_embstab.tables.ids.id_pairs import frame_in, ids_of_kind
from dask_embstab.tables.read.recorded import RunStore
from dask_embstab.tables.run import Run, stored_node
from dask_embstab.tables.stores.url_store import zarr_place
from dask_embstab.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

NAMED = ("weights", "counts", "only")
"""Options of a fit that may be given by a name."""
_ARRAY = re.compile(r"[^./\\][^/\\]*")
_NOT_NUMBERS = ("vectors", "id", "codes", "scale")


def is_name(option: str, value: Any) -> bool:
    """Whether this option's value is the name of an array or file; the weights ``"norm"`` are the
    name of a rule.
    """
    return isinstance(value, str | os.PathLike) and (option, value) != ("weights", "norm")


def read_named(
    options: Mapping[str, Any], tables: Mapping[str, Table], run: Run | None
) -> dict[str, Any]:
    """Options of a fit with what is known by a name read, by table: ``tables`` are those that are
    aligned.
    """
    values = dict(options)
    for name in set(NAMED) & set(options):
        given = options[name]
        if is_name(name, given):
            given = dict.fromkeys(tables, given)
        if isinstance(given, Mapping):
            values[name] = {
                key: value_of(name, value, tables[key], run) if key in tables else value
                for key, value in given.items()
            }

    return values


def value_of(name: str, value: Any, table: Table, run: Run | None) -> Any:
    """One option for one table: as given, or from where a name says."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # in one order, for its checksum
    if not is_name(name, value):
        return value
    if name == "only":
        return _ids(value)
    return _values(value, table, run, texts=name == "groups")


def _values(value: Any, table: Table, run: Run | None, *, texts: bool) -> Any:
    """One number per row, or one text where these may be ``texts``."""
    path = _file(value)
    may_be_stored = run and _ARRAY.fullmatch(str(value)) and value not in _NOT_NUMBERS
    stored = stored_node(run, f"{table.key}/{value}") if run and may_be_stored else None
    if isinstance(stored, zarr.Array):
        return stored

    suffix = Path(path).suffix
    try:
        if suffix == ".npy":
            if is_url(path):
                return np.load(small_file(path), allow_pickle=False)
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if suffix in (".csv", ".parquet", ".pq"):
            return _labelled(frame_in(path), table, path, texts=texts)
        store = zarr_place(path) if is_url(path) else RunStore(path, read_only=True)
        return zarr.open_array(store, mode="r")
    except EmbstabError:
        raise
    except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
        raise InputError(
            f"{str(value)!r} is no array stored with {table.where}, and no file of"
            f" {'values' if texts else 'numbers'} (.npy, a Zarr array, or CSV or Parquet with a"
            f" column of ids and one of {'values' if texts else 'numbers'}): {error}"
        ) from error


def _file(value: Any) -> Path | str:
    """The local path, or the URL."""
    local = local_path(value)
    return value if local is None else local


def _labelled(
    frame: pd.DataFrame, table: Table, path: Path | str, *, texts: bool
) -> pd.Series[Any]:
    """Numbers by id; ``texts`` where they may be and some are no numbers."""
    import pandas as pd

    if frame.shape[1] != 2:
        raise ValueError(f"it has {frame.shape[1]} columns")

    ids = ids_of_kind(frame.iloc[:, 0].to_numpy(), table.row_ids, str(path))
    values = frame.iloc[:, 1]
    try:
        values = pd.to_numeric(values)
    except ValueError:
        if not texts:
            raise

    return pd.Series(values.to_numpy(), index=pd.Index(ids))


def _ids(value: Any) -> Any:
    """The first column of a CSV or Parquet file, or what a .npy file holds."""
    path = _file(value)
    try:
        if Path(path).suffix == ".npy":
            return np.load(small_file(path), allow_pickle=False)
        return frame_in(path).iloc[:, 0].to_numpy()
    except EmbstabError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{option('only')} are ids, or a CSV, Parquet or .npy file of ids; {path}: {error}"
        ) from error
