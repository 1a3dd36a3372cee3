"""Do attributes say that stored values stand for others? The conventions of xarray (CF), decoded by
xarray itself.

So an array means the same by its path and as a DataArray: ``scale_factor``, ``add_offset``,
``_FillValue``, ``missing_value``, ``units`` of time. Attributes that change no value (a NaN that
marks NaN) leave an array as it is.
"""

from __future__ import annotations

import base64
import contextlib
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dask_embstab.arguments import is_a
from dask_embstab.errors import IdError, InputError

if TYPE_CHECKING:
    from xarray import Variable

_NEUTRAL = {"scale_factor": 1, "add_offset": 0}
_MISSING = ("_FillValue", "missing_value")
_DURATIONS = {"days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"}
_KINDS_OF_IDS = "iuSUOT"
_VALUES = "values"


def decoded(array: Any, *, what: str, error: type[InputError]) -> Any:
    """The Zarr array or DataArray itself where its attributes change no value; else the DataArray
    that xarray makes of it.

    Raises ``error`` where xarray cannot, and where ids become numbers with a fraction, dates or
    truth values.
    """
    is_labelled = is_a(array, "xarray", "DataArray")
    attributes = dict(array.attrs) if is_labelled else _attributes(array)
    if not (names := _changing(attributes, array.dtype)):
        return array

    import xarray as xr

    variable = array.variable if is_labelled else _variable(array, attributes)
    try:
        values = xr.decode_cf(xr.Dataset({_VALUES: variable}), decode_coords=False)[_VALUES]
    except Exception as raised:
        raise error(
            f"{what} must have attributes that xarray can decode; it cannot"
            f" ({type(raised).__name__}: {raised}); correct {', '.join(names)}"
        ) from raised

    if issubclass(error, IdError) and values.dtype.kind not in _KINDS_OF_IDS:
        raise error(
            f"{what} must be integers or strings; xarray makes {values.dtype} of them by the"
            f" attributes {', '.join(names)}; remove these attributes, or write the ids without an"
            " encoding"
        )
    return values


def _variable(array: zarr.Array[Any], attributes: Mapping[str, Any]) -> Variable:
    """The stored values, lazily, a chunk's rows at a time."""
    import dask.array as da
    import xarray as xr

    rows = int((array.shards or array.chunks)[0]) if array.ndim else 1
    lazy = da.from_array(array, chunks=(rows, *array.shape[1:]), name=False, asarray=True)
    attributes = {name: value for name, value in attributes.items() if name != "_ARRAY_DIMENSIONS"}
    return xr.Variable([f"axis {i}" for i in range(array.ndim)], lazy, attributes)


def _attributes(array: zarr.Array[Any]) -> dict[str, Any]:
    """Those of a Zarr array as xarray sees them: the fill value of version 2 marks what is missing,
    unless it is zero.
    """
    attributes, metadata = dict(array.attrs), array.metadata
    if metadata.zarr_format == 2:
        fill = metadata.fill_value
        if "_ARRAY_DIMENSIONS" in attributes and fill is not None and fill not in (0, "", b""):
            attributes["_FillValue"] = fill
    elif array.dtype.kind == "f" and isinstance(value := attributes.get("_FillValue"), str):
        with contextlib.suppress(ValueError, struct.error):
            attributes["_FillValue"] = struct.unpack("<d", base64.standard_b64decode(value))[0]
    return attributes


def _changing(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> list[str]:
    """Attributes that make other values of the stored ones when xarray decodes them."""
    names = [
        name
        for name, neutral in _NEUTRAL.items()
        if name in attributes and attributes[name] != neutral
    ]
    names += [
        name for name in _MISSING if name in attributes and not _marks_nan(attributes[name], dtype)
    ]
    units = attributes.get("units")
    if (
        isinstance(units, str)
        and dtype.kind in "iuf"
        and (" since " in units or units in _DURATIONS)
    ):
        names += ["units", *(name for name in ("calendar",) if name in attributes)]

    return names + [
        name for name in ("_Unsigned", "dtype") if name in attributes and dtype.kind in "iu"
    ]


def _marks_nan(value: Any, dtype: np.dtype[Any]) -> bool:
    if dtype.kind != "f":
        return False
    try:
        return bool(np.isnan(np.asarray(value, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return False
