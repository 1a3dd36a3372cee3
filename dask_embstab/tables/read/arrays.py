"""May this be read as an array? Vectors, ids, weights and counts of any kind pass through here
once.

What is returned is a Zarr array, a Dask array or a NumPy array. Nothing is computed: the blocks of
a Dask array are compared with its declaration when their task runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dask_embstab.arguments import is_a, offers
from dask_embstab.errors import InputError, first_few
from dask_embstab.repairs import call
from dask_embstab.tables.read.cf import decoded
from dask_embstab.tables.read.chunk_layout import require_visible
from dask_embstab.tables.read.guarded import guarded
from dask_embstab.tables.read.limits import require_held
from dask_embstab.tables.store_errors import reading

if TYPE_CHECKING:
    from xarray import DataArray

_TEXT_KINDS = "OUST"
_OBJECT_ROWS = 1 << 18
_ASK_MISSING = ("isna", "is_null")
"""How columns of pandas, and of Arrow and Polars, tell which of their values are missing."""


def as_array(given: Any, *, what: str, error: type[InputError] = InputError) -> Any:
    """The Zarr, Dask or NumPy array that ``given`` is or stands for; ``error`` where it is none.

    ``what`` names it in messages.
    """
    if isinstance(given, zarr.Array):
        require_held(given, what)
        given = guarded(given, what=what, error=error)
    if isinstance(given, zarr.Array) or is_a(given, "xarray", "DataArray"):
        given = decoded(given, what=what, error=error)
    if is_a(given, "xarray", "DataArray"):
        given = _lazy(given)
    if isinstance(given, zarr.Array):
        return given
    if is_a(given, "dask.array", "Array"):
        # Blocks are refused in their tasks where they are not what the Dask array declares.
        require_known_chunks(given, what, error)
        meta = np.empty((0,) * given.ndim, given.dtype)
        return given.map_blocks(
            _as_declared, what=what, declared=given.dtype, error=error, dtype=given.dtype, meta=meta
        )
    return as_numpy(given, what=what, error=error)


def as_numpy(given: Any, *, what: str, start: int = 0, error: type[InputError] = InputError) -> Any:
    """An array in memory as a plain NumPy array, without a copy where it is one; row 0 of it is row
    ``start``.

    Masked values are missing values: they are refused by their rows.
    """
    if isinstance(given, np.ma.MaskedArray):
        _require_present(np.ma.getmaskarray(given), what, start, error)
        return np.asarray(given.data)
    if isinstance(given, np.ndarray):
        return np.asarray(given)

    made, missing, reason = None, [], "it is no array"
    if _stands_for_an_array(given):
        try:
            missing = [getattr(given, name)() for name in _ASK_MISSING if hasattr(given, name)]
            made = np.asarray(given)
        except Exception as raised:  # noqa: BLE001 (whatever a foreign type raises, it cannot be read)
            reason = str(raised)

    if made is None or not made.ndim:
        raise error(
            f"{what} must be an array; {_described(given)} came, which cannot be read as one"
            f" ({reason}); {_repair(given)}"
        )
    for mask in missing if made.ndim == 1 else []:
        _require_present(np.asarray(mask), what, start, error)
    return made


def _require_present(mask: Any, what: str, start: int, error: type[InputError]) -> None:
    rows = np.atleast_1d(mask)
    bad = np.flatnonzero(rows.any(axis=tuple(range(1, rows.ndim))))
    if len(bad):
        raise error(
            f"{what} must have a value in every row; masked or missing values are in row"
            f" {first_few(bad, start)}; drop these rows, or fill them: .filled(value),"
            " .fillna(value)"
        )


def rows_in_memory(array: Any, start: int, stop: int, *, what: str) -> Any:
    """Rows ``start`` to ``stop`` of what `as_array` returned, computed or decoded."""
    if isinstance(array, zarr.Array):
        with reading(what):
            require_visible(array)
            return np.asarray(array[start:stop])
    return np.asarray(array[start:stop])  # what a user's own lazy blocks raise is not wrapped


def require_known_chunks(array: Any, what: str, error: type[InputError] = InputError) -> None:
    """Raise unless a Dask array's shape is known."""
    if any(np.isnan(size) for size in array.shape):
        raise error(
            f"a Dask array must know its chunk sizes; {what} has unknown ones; call"
            " .compute_chunk_sizes() on it first"
        )


def _as_declared(
    block: Any, *, what: str, declared: np.dtype[Any], error: type[InputError], block_info: Any
) -> Any:
    """One task: the block as a NumPy array of the declared shape and dtype (in any byte order)."""
    location = block_info[0]["array-location"]
    shape = tuple(stop - start for start, stop in location)
    start, stop = location[0] if location else (0, 1)
    name = f"the block of rows {start} to {stop} of {what}"
    rows = as_numpy(block, what=name, start=start, error=error)
    texts = (
        declared.kind in _TEXT_KINDS and rows.dtype.kind in _TEXT_KINDS
    )  # ids: each one is looked at later
    if rows.shape != shape or not (
        texts or rows.dtype.newbyteorder("=") == declared.newbyteorder("=")
    ):
        raise error(
            f"{name} must be what the Dask array declares, shape {shape} and dtype {declared}; it"
            f" is {rows.shape} and {rows.dtype}; declare the chunks and dtype that the blocks have"
            " (da.from_delayed, map_blocks)"
        )
    return rows


def _lazy(array: DataArray) -> Any:
    """The DataArray's Dask or NumPy data; a lazily loaded one is chunked first, so that it is never
    read whole.
    """
    variable = array.variable
    if variable.chunks is None and not variable._in_memory:  # noqa: SLF001 (xarray has no public question for this)
        rows = (
            _OBJECT_ROWS if variable.dtype.kind in "OT" else "auto"
        )  # of objects, Dask does not know the size
        variable = variable.chunk(
            dict(zip(variable.dims, [rows, *[-1] * (variable.ndim - 1)], strict=True))
        )
    return variable.data


def _stands_for_an_array(given: Any) -> bool:
    protocols = ("__array__", "__array_interface__", "__dlpack__")
    if offers(given, "to_dask_array"):  # a Dask DataFrame would compute itself
        return False
    return isinstance(given, list | tuple | range | memoryview) or any(
        offers(given, name) for name in protocols
    )


def _described(given: Any) -> str:
    name = type(given).__name__
    return (
        f"a {name} of {', '.join(type(x).__name__ for x in given[:3])}"
        if isinstance(given, tuple)
        else f"a {name}"
    )


def _repair(given: Any) -> str:
    if offers(given, "todense"):
        return "make it dense with .toarray() or .todense()"
    if offers(given, "to_dask_array"):
        return "call .to_dask_array(lengths=True) on it"
    if offers(given, "collect"):
        return "call .collect() on it"
    if is_a(given, "xarray", "Dataset"):
        return "give one of its variables, such as dataset['vectors']"
    if isinstance(given, tuple) and any(hasattr(member, "shape") for member in given):
        return f"give the ids beside the array, {call('table', ids=None)}"
    return "give a NumPy, Dask or Zarr array, or a DataArray"
