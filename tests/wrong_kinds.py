"""Values of every wrong kind, to be given where a table, a path, a number, an option belongs."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import importlib
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from oracle import world

T, W = world(76)


class Tensor:
    """As a torch tensor that cannot become a NumPy array: it requires a gradient, is bfloat16 or
    lies on a GPU.
    """

    shape, ndim, dtype = (60, 4), 2, "torch.bfloat16"

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )


class Sparse:
    """As sparse.COO: a shape and a dtype, and no array."""

    shape, ndim, dtype = (60, 4), 2, np.dtype("f8")

    def todense(self) -> Any:
        """Not asked for."""
        return T


class LazyFrame:
    """As a Dask DataFrame: a length that nobody knows yet."""

    shape, ndim = (None, 4), 2

    def to_dask_array(self) -> Any:
        """Not asked for."""

    def to_delayed(self) -> Any:
        """Not asked for."""


class Unbound:
    """As a proxy of an object that is not there: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} of mine")

    def __len__(self) -> int:
        raise RuntimeError("no length of mine")

    def __iter__(self) -> Any:
        raise RuntimeError("no iteration of mine")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison of mine")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth of mine")

    __hash__ = None  # type: ignore[assignment]


NO_TABLES: dict[str, Any] = {
    "a set": {1.0, 2.0},
    "a frozenset": frozenset([1.5]),
    "a dict": {"vectors": T},
    "an empty dict": {},
    "a number": 5,
    "bytes": b"in.zarr",
    "a generator": (row for row in T),
    "an object": object(),
    "a function": len,
    "a class": SimpleNamespace,
    "a complex number": 1j,
    "a sparse matrix": Sparse(),
    "a tensor": Tensor(),
    "a lazy frame": LazyFrame(),
    "a Dataset": xr.Dataset({"other": ("x", T[:, 0])}),
    "a ragged list": [[1.0, 2.0], [3.0]],
    "a pair of array and ids": (T, np.arange(60)),
    "a masked array": np.ma.MaskedArray(T, mask=T > 0),
    "texts": np.array([["a", "b"]] * 60),
    "objects": np.array([[None, {}]] * 60, object),
    "one axis": T[:, 0],
    "three axes": T[None],
    "an empty array": np.empty((0, 4)),
    "a scalar": np.float64(3),
    "dates": np.zeros((60, 4), "M8[s]"),
    "structures": np.zeros(60, [("a", "f8")]),
    "a path to nothing": "nothing-there.zarr",
    "an empty path": "",
    "a path with a zero": "a\0b",
    "a very long path": "x" * 5000,
    "a name that is too long": "x" * 252,
    "a lone surrogate": "\ud800",
    "an unknown protocol": "foo://bucket/run",
    "what raises at everything": Unbound(),
}
"""None of these is a table, a run or a path of one."""

MORE: dict[str, Any] = {
    "nothing": None,
    "an ellipsis": ...,
    "an infinite number": float("inf"),
    "not a number": float("nan"),
    "a negative number": -1,
    "zero": 0,
    "a huge number": 10**400,
    "a number of many digits": 10**5000,
    "a number beyond int64": 1 << 63,
    "the largest int64": (1 << 63) - 1,
    "a fraction": Fraction(1, 3),
    "a truth value": True,
    "an array without axes": np.array(3.0),
    "an array of complex numbers": T + 1j,
    "an array with NaN": np.where(T > 1, np.nan, T),
    "an array of one column": T[:, :1],
    "an array of no columns": np.empty((60, 0)),
    "integers": np.arange(240).reshape(60, 4),
    "truth values": T > 0,
    "long doubles": T.astype(np.longdouble),
    "a Dask array of unknown chunks": da.from_array(T)[da.from_array(T[:, 0]) > 0],
    "a Dask array of another shape than declared": (
        da.from_array(T).map_blocks(lambda block: block[:-1], dtype=T.dtype)
    ),
    "a Dask array without axes": da.from_array(np.array(3.0)),
    "a pandas DataFrame of texts": pd.DataFrame({"a": ["x"] * 60}),
    "a pandas Series of objects": pd.Series([{}] * 60),
    "a pandas Series with missing values": pd.Series([1.0, None] * 30),
    "an index of several levels": pd.Series(
        range(60), pd.MultiIndex.from_arrays([range(60), range(60)])
    ),
    "a DataArray of three axes": xr.DataArray(T[None]),
    "a list of texts": ["a", "b\0", "\ud800"],
    "a list of lists": [[1, [2]], 3],
    "an empty list": [],
    "an empty tuple": (),
    "a range": range(3),
    "a date": dt.date(2026, 1, 2),
    "a memory view": memoryview(b"1234"),
    "a record": np.zeros(1, [("a", "f8")])[0],
    "a text of a number": "5",
    "text with a new line": "a\nb",
    "a folder": ".",
    "a path through a file": "file.txt/run.zarr",
    "a file of another kind": "file.txt",
    "a URL nobody answers at": "http://127.0.0.1:9/run.zarr",
}
"""``file.txt`` is made by who gives them, in the working directory."""


def _foreign() -> dict[str, Callable[[Any], dict[str, Any]]]:
    """By a library that may be installed, what it makes."""
    return {
        "scipy.sparse": lambda m: {"a CSR matrix": m.csr_matrix(T), "a COO array": m.coo_array(T)},
        "sparse": lambda m: {"a sparse.COO": m.COO.from_numpy(T)},
        "torch": lambda m: {
            "a torch tensor with a gradient": m.tensor(T, requires_grad=True),
            "a bfloat16 tensor": m.tensor(T).to(m.bfloat16),
        },
        "jax.numpy": lambda m: {"a bfloat16 jax array": m.asarray(T, m.bfloat16)},
        "ml_dtypes": lambda m: {"a bfloat16 array": T.astype(m.bfloat16)},
        "polars": lambda m: {
            "a Polars lazy frame": m.DataFrame({"a": [1.0, 2.0]}).lazy(),
            "a Polars frame of texts": m.DataFrame({"a": ["x", "y"]}),
            "a Polars Series with nulls": m.Series([1.0, None]),
        },
        "pyarrow": lambda m: {
            "an Arrow table of texts": m.table({"a": ["x", "y"]}),
            "an Arrow array with nulls": m.array([1.0, None]),
        },
        "dask.dataframe": lambda m: {
            "a Dask DataFrame": m.from_pandas(pd.DataFrame(T), npartitions=2)
        },
    }


for _module, _make in _foreign().items():
    with contextlib.suppress(ImportError):
        MORE |= _make(importlib.import_module(_module))

KINDS: dict[str, Any] = NO_TABLES | MORE


def value(kind: str) -> Any:
    """One of them: a new one where a verb could write into it."""
    result = KINDS[kind]
    return copy.copy(result) if isinstance(result, dict | list) else result
