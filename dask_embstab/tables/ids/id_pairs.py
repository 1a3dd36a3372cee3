"""Which ids of a run mean the same as which other ids of its reference? Two columns, from whatever
holds them.

A seed dictionary, merged or renamed products: given as two sequences, as a list of pairs, or as a
CSV or Parquet file with two columns. An id may stand in several pairs; a pair that is repeated
counts once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_embstab.arguments import is_a
from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import EmbstabError, IdError, InputError
from dask_embstab.extras import require_extra
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import small_file
from dask_embstab.tables.ids.ids import Ids, RowNumberIds, as_ids, id_ranges
from dask_embstab.tables.ids.kinds import UUID, IdArray, hashable, listed_ids, shown
from dask_embstab.tables.read.arrays import as_array

if TYPE_CHECKING:
    import pandas as pd

_FORM = (
    "pairs are two columns of ids, the run's and the reference's: (ours, theirs), a list of pairs,"
    " or a CSV or Parquet file"
)


@dataclass(frozen=True, slots=True)
class IdPairs:
    """Two columns of equal length as they were given; ``where`` names them in messages."""

    ours: Any
    theirs: Any
    where: str

    def rows_in(self, ids: Ids | RowNumberIds, *, reference: bool) -> RowNumbers:
        """The row of every pair's id in a table, (n_pairs,), -1 where none has it: one read of the
        table's ids.

        Raises `IdError` where the ids are of two types, or where the table repeats one of them.
        """
        import pandas as pd

        column = self.theirs if reference else self.ours
        codes, wanted = pd.factorize(hashable(ids_of_kind(column, ids, self.where)))
        index = pd.Index(wanted)
        rows = np.full(len(wanted), -1, np.int64)
        start = 0
        for part in id_ranges(ids):
            place = index.get_indexer(pd.Index(hashable(part)))
            (present,) = np.nonzero(place >= 0)
            _, first = np.unique(place[present], return_index=True)
            again = np.delete(present, first)
            again = np.append(again, present[rows[place[present]] >= 0])
            if len(again):
                raise IdError(
                    f"ids that are paired must be unique; {ids.where} repeats"
                    f" {shown(part[again[:1]])[0]} in row {start + again[0]}; drop the duplicates"
                    " and write the run again"
                )
            rows[place[present]] = start + present
            start += len(part)

        of_pairs: RowNumbers = rows[codes]
        return of_pairs


def as_pairs(given: Any, *, where: str = "pairs") -> IdPairs:
    """Two columns of ids from what a user gave."""
    if isinstance(given, str | os.PathLike):
        local = local_path(given)
        return _from_file(given if local is None else local)

    if is_a(given, "pandas", "DataFrame"):
        given = [given.iloc[:, i].to_numpy() for i in range(given.shape[1])]
    try:
        columns = list(given)
        is_list_of_pairs = len(columns) != 2 or all(isinstance(column, tuple) for column in columns)
        if is_list_of_pairs:
            columns = [list(column) for column in zip(*columns, strict=True)]
        ours, theirs = columns
        n_ours, n_theirs = len(ours), len(theirs)
    except Exception as error:
        raise InputError(f"{_FORM}; they are {type(given).__name__}") from error

    if isinstance(ours, str | Mapping) or n_ours != n_theirs or not n_ours:
        raise InputError(f"{_FORM}; these have {n_ours} and {n_theirs} ids")
    return IdPairs(ours, theirs, where)


def frame_in(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The columns of a small Parquet file, or of CSV with a header, whose values stay texts."""
    import pandas as pd

    if Path(path).suffix in (".parquet", ".pq"):
        require_extra("pyarrow", "parquet", what=f"reading {path}")
        return pd.read_parquet(small_file(path))
    return pd.read_csv(small_file(path), dtype=str, keep_default_na=False)


def _from_file(path: str | os.PathLike[str]) -> IdPairs:
    """The first two columns of a CSV file with a header, or of a Parquet file."""
    try:
        frame = frame_in(path)
    except EmbstabError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{_FORM}; {path} cannot be read ({error})") from error

    if frame.shape[1] != 2 or not len(frame):
        raise InputError(f"{_FORM}; {path} has {frame.shape[1]} columns and {len(frame)} rows")
    return IdPairs(frame.iloc[:, 0].to_numpy(), frame.iloc[:, 1].to_numpy(), str(path))


def _numbers(texts: IdArray) -> IdArray:
    return np.array([int(text) for text in texts], np.int64)


def _uuids(texts: IdArray) -> IdArray:
    """However they are written: upper case, braces, without hyphens."""
    return np.frombuffer(b"".join(uuid.UUID(text).bytes for text in texts), UUID)


_FROM_TEXT: dict[str, Callable[[IdArray], IdArray]] = {"int64": _numbers, "uuid": _uuids}
"""By the kind of a table's ids, how texts of such are read."""


def ids_of_kind(column: Any, ids: Ids | RowNumberIds, where: str) -> IdArray:
    """The column in the form of the table's ids: texts become numbers, or UUIDs, where the table
    has such.
    """
    column = as_array(
        listed_ids(column) if isinstance(column, list | tuple) else column,
        what=where,
        error=IdError,
    )
    if column.ndim != 1:
        raise IdError(
            f"{where} must be a list or an array of ids, on one axis; it has the shape"
            f" {tuple(column.shape)}"
        )
    if not column.shape[0]:
        return np.empty(
            0, {"int64": np.dtype(np.int64), "uuid": UUID}.get(ids.kind, np.dtype(object))
        )

    checked = as_ids(column, column.shape[0], where=where)
    values = checked.open().take(0, len(checked))
    if checked.kind == "string" and ids.kind in _FROM_TEXT:
        try:
            return _FROM_TEXT[ids.kind](values)
        except (ValueError, OverflowError) as error:
            raise IdError(
                f"ids of {ids.where} are {ids.kind}; {where} has others ({error}); give such ids"
            ) from error

    if checked.kind != ids.kind:
        raise IdError(
            f"ids of {ids.where} are {ids.kind}; those of {where} are {checked.kind}; give ids of"
            " that type"
        )
    return values
