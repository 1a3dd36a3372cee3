"""A table: vectors, ids, and what messages call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dask_embstab.core.types import Rows
from dask_embstab.display import Displayed
from dask_embstab.errors import InputError
from dask_embstab.repairs import call
from dask_embstab.tables.ids.ids import Ids, RowNumberIds, as_ids
from dask_embstab.tables.layout import CODES, DIMENSION
from dask_embstab.tables.read.arrays import as_array
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.dask_source import DaskSource, as_dask, require_whole_rows
from dask_embstab.tables.read.direct_source import DirectSource, few_rows
from dask_embstab.tables.read.limits import require_workable
from dask_embstab.tables.read.source import ArraySource, Source
from dask_embstab.tables.read.stored.nodes import child
from dask_embstab.tables.read.views import source_written
from dask_embstab.tables.read.zarr_source import ZarrSource, require_full_width

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True, repr=False)
class Table(Displayed):
    """n row vectors of d components; ``where`` names it in messages, ``key`` is "items" or
    "users".

    Examples
    --------
    >>> monday.items.vectors.shape, monday.items.ids[:2].compute().tolist()
    ((200, 4), ['i0', 'i1'])
    """

    source: Source
    stored_ids: Ids | None
    where: str
    key: str = "items"

    @property
    def n_rows(self) -> int:
        """Rows."""
        return self.source.shape[0]

    @property
    def d(self) -> int:
        """Components."""
        return self.source.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16, float32 or float64."""
        return self.source.dtype

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return self.source.chunk_rows

    @property
    def summary(self) -> str:
        """Its shape, its dtype and what its rows are known by, in a few words."""
        ids = "no ids" if self.stored_ids is None else f"{self.stored_ids.kind} ids"
        return f"{self.n_rows} x {self.d} {self.dtype}, {ids}"

    def _facts(self) -> dict[str, object]:
        return {"table": self.where, "rows": self.summary, "chunk_rows": self.chunk_rows}

    @property
    def is_direct(self) -> bool:
        """Whether rows are read a panel at a time, with no chunk decoded whole."""
        return self.source.access in ("memory", "panels")

    @property
    def written(self) -> str | None:
        """Another text once the table is written anew (its metadata is another file then), is read
        by another view, or is not stored at all. None on other stores than local ones, of what is
        no view.
        """
        return source_written(self.source)

    @property
    def vectors(self) -> Any:
        """The rows as a lazy Dask array, (n, d)."""
        return as_dask(self.source.array, self.chunk_rows)

    @property
    def ids(self) -> Any:
        """The ids as a lazy Dask array, (n,); None where rows are known by their number alone."""
        if self.stored_ids is None:
            return None
        return as_dask(self.stored_ids.array, self.chunk_rows, unique=True)

    @property
    def row_ids(self) -> Ids | RowNumberIds:
        """Ids to be read a range at a time: the stored ones, or the row numbers that stand for
        them.
        """
        return RowNumberIds(self.n_rows, self.where) if self.stored_ids is None else self.stored_ids

    def rows_of(self, ids: Any) -> Rows:
        """The vectors of these ids, (len(ids), d) in their order and the stored dtype, without
        scanning the table.

        The first call builds a sorted index of the ids, out of core, in a hidden folder beside the
        run; it is built again when the ids are written anew. Single rows are read without their
        chunks' checksums. Raises `IdError` where an id is in no row.

        Examples
        --------
        >>> monday.items.rows_of(["i7", "i3"]).shape
        (2, 4)
        """
        from dask_embstab.tables.ids.lookup import find_rows

        rows = find_rows(self.row_ids, ids, self.key)
        block = few_rows(self.source, rows)
        opened = block.compute() if hasattr(block, "compute") else block
        return np.array(opened.open().take(0, len(rows)))

    def to_xarray(self) -> xr.Dataset:
        """A Dataset with lazy ``vectors`` and, where there are ids, ``id``: a coordinate of the
        vectors and no index.

        Examples
        --------
        >>> dict(monday.items.to_xarray().sizes)
        {'item': 200, 'component': 4}
        """
        import xarray as xr

        row = DIMENSION[self.key]
        variables: dict[str, tuple[tuple[str, ...], Any]] = {
            "vectors": ((row, "component"), self.vectors)
        }
        if self.stored_ids is not None:
            variables["id"] = ((row,), self.ids)
        return xr.Dataset(variables).set_coords(set(variables) & {"id"})


def make_table(vectors: Any, ids: Any = None, *, where: str, key: str = "items") -> Table:
    """Check an array-like and make it a table."""
    vectors = as_array(vectors, what=where)
    if isinstance(vectors, zarr.Array):
        _require_rows_first(vectors, where)
    if vectors.ndim != 2:
        raise InputError(
            f"vectors must have two axes, (row, component); {where} has the shape"
            f" {tuple(vectors.shape)}"
        )

    source = _source(vectors, where)
    n, d = source.shape
    if not n or not d:
        raise InputError(
            f"a table needs at least one row and one component; {where} has the shape {(n, d)}"
        )
    if source.dtype.kind != "f" or source.dtype.itemsize > 8:
        raise InputError(
            f"vectors must be float16, float32 or float64; {where} has {source.dtype}; convert it,"
            " e.g. with .astype('float32')"
        )
    table = Table(source, None if ids is None else as_ids(ids, n, where=where), where, key)
    stored = isinstance(vectors, zarr.Array) and not table.is_direct
    decoded_rows = getattr(source, "unit_rows", table.chunk_rows)
    require_workable(decoded_rows * d * table.dtype.itemsize if stored else 0, d, where)
    return table


def _require_rows_first(array: zarr.Array[Any], where: str) -> None:
    """Raise where the array itself says that its rows are the second axis."""
    names: Any = (
        getattr(array.metadata, "dimension_names", None)
        or array.attrs.get("_ARRAY_DIMENSIONS")
        or ()
    )
    if (
        len(names) == 2
        and (names[0] == "component" or names[1] in DIMENSION.values())
        and names[0] != names[1]
    ):
        raise InputError(
            f"vectors must have the axes (row, component); those of {where} are ({names[0]},"
            f" {names[1]}); turn it: give {call('create_run')} the Dask array da.from_zarr(array).T"
        )


def table_of(group: zarr.Group, key: str, path: str) -> Table:
    """The table in a group that holds ``vectors`` and perhaps ``id``."""
    where, vectors, ids = f"{path}/{key}", child(group, "vectors"), child(group, "id")
    if not isinstance(vectors, zarr.Array):
        if CODES not in group:
            raise InputError(f"a table is a group with an array named vectors; {where} has none")
        from dask_embstab.tables.read.coded import coded_source  # of a table of codes alone

        source = coded_source(group, where)
        n = source.shape[0]
        return Table(source, None if ids is None else as_ids(ids, n, where=where), where, key)
    return make_table(vectors, ids, where=where, key=key)


def require_one_width(items: Table | None, users: Table | None) -> None:
    """Raise unless both tables have the same number of components."""
    if items is not None and users is not None and items.d != users.d:
        raise InputError(
            f"items and users must have the same number of components; {items.where} has {items.d}"
            f" and {users.where} {users.d}; a score is their dot product"
        )


def _source(vectors: Any, where: str) -> Source:
    if isinstance(vectors, zarr.Array):
        require_full_width(vectors, where)
        files = chunk_files(vectors)
        return ZarrSource(vectors) if files is None else DirectSource.of(vectors, files)
    if isinstance(vectors, np.ndarray):
        return ArraySource(vectors)
    require_whole_rows(vectors, where)
    return DaskSource(vectors)
