"""``.embstab`` of Xarray objects: a lazy transform that keeps dimensions, coordinates, attributes
and chunks.

``import dask_embstab.xarray`` registers it; so does the first use of any verb of
``dask_embstab``. Only Xarray is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

if TYPE_CHECKING:
    from dask_embstab.tables.table import Table
    from dask_embstab.tables.transform import Transform

__all__ = ["EmbstabAccessor"]

_COMPONENT = "component"


@xr.register_dataset_accessor("embstab")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("embstab")  # type: ignore[no-untyped-call]
class EmbstabAccessor:
    """What a Dataset and a DataArray offer as ``.embstab``."""

    def __init__(self, labelled: Any) -> None:
        self._of = labelled

    def table(self, key: Literal["items", "users"] | None = None) -> Table:
        """The vectors and their ids as a table for every verb; ``key`` is told by the dimension's
        name where it is not given.
        """
        from dask_embstab.tables.coerce import as_table

        return as_table(self._of, key=key or _key(self._of))

    def transform(
        self,
        transform: Transform | Any,
        *,
        table: Literal["items", "users"] | None = None,
        dim: str = _COMPONENT,
    ) -> Any:
        """Every row along ``dim`` transformed, lazily where the array is: a Dask array stays one,
        with its chunks of rows, and a name made of the transform and of its own.

        Parameters
        ----------
        transform
            A `Transform`, the path of a saved one, or of a stabilized run.
        table
            Whose matrix; by default users where a dimension is ``user``, else items.
        dim
            The dimension of components. Coordinates along it are dropped: what comes out has other
            components. In a Dataset ``vectors`` is transformed.

        Raises
        ------
        InputError
            Where there is no such dimension, or it has another length than the transform takes.

        Examples
        --------
        >>> import dask_embstab.xarray
        >>> moved = tuesday.items.to_xarray().embstab.transform(es.fit(tuesday, reference=monday))
        >>> moved.vectors.dims, moved.vectors.chunks is not None
        (('item', 'component'), True)
        """
        from dask_embstab.errors import verb

        return verb()(_transformed)(self._of, transform, table=table or _key(self._of), dim=dim)


def _key(labelled: Any) -> Literal["items", "users"]:
    return "users" if "user" in labelled.dims else "items"


def _transformed(given: Any, transform: Any, *, table: str, dim: str) -> Any:
    from dask_embstab.errors import InputError
    from dask_embstab.tables.transform import Transform
    from dask_embstab.verbs.runs import load_transform

    made = transform if isinstance(transform, Transform) else load_transform(transform)
    if isinstance(given, xr.Dataset):
        if "vectors" not in given.data_vars:
            raise InputError(
                "a Dataset must have a variable vectors; it has"
                f" {', '.join(map(str, given.data_vars)) or 'none'}; transform a DataArray of it"
            )
        moved = _transformed(given["vectors"], made, table=table, dim=dim)
        along = [name for name, one in given.variables.items() if dim in one.dims]
        return given.drop_vars(along).assign(vectors=moved)

    if dim not in given.dims or given.sizes[dim] != made.d:
        came = f"{given.sizes[dim]} long" if dim in given.dims else f"not among {given.dims}"
        raise InputError(
            f"the dimension {dim!r} must have the {made.d} components that the transform takes; it"
            f" is {came}; name it with dim="
        )
    axis = given.dims.index(dim)
    coordinates = {name: one for name, one in given.coords.items() if dim not in one.dims}
    data = _moved(given.variable, made, table, axis)
    return xr.DataArray(data, coordinates, given.dims, given.name, given.attrs)


def _moved(variable: xr.Variable, transform: Transform, table: str, axis: int) -> Any:
    if variable.chunks is None:
        return _rows(variable.values, transform, table, axis)
    import dask
    import dask.array as da

    whole = variable.data.rechunk({axis: -1})
    kind = whole.dtype if whole.dtype.kind == "f" else "f8"
    return da.map_blocks(
        _rows,
        whole,
        transform,
        table,
        axis,
        dtype=kind,
        chunks=(*whole.chunks[:axis], (transform.width,), *whole.chunks[axis + 1 :]),
        name=f"embstab-{table}-{dask.base.tokenize(transform, table, axis, whole.name)}",
    )


def _rows(block: Any, transform: Transform, table: str, axis: int) -> Any:
    """A block with its rows along ``axis`` transformed."""
    import numpy as np

    rows = np.moveaxis(block, axis, -1)
    apply = transform.transform_items if table == "items" else transform.transform_users
    out = apply(rows.reshape(-1, transform.d)).reshape(*rows.shape[:-1], transform.width)
    return np.moveaxis(out, -1, axis)
