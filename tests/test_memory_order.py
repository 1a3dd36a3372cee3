"""How rows lie in memory changes no bit: Fortran order, strides and slices are as good as a
contiguous copy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from oracle import Array, vectors_of

import dask_embstab as es

N, D = 700, 6


def every_other(rows: Array) -> Array:
    wide = np.zeros((2 * len(rows), 3 * rows.shape[1]), rows.dtype)
    wide[::2, 1::3] = rows
    return wide[::2, 1::3]


def stored_by_columns(rows: Array) -> Any:
    return zarr.create_array(
        zarr.storage.MemoryStore(),
        data=rows,
        chunks=(256, D),
        zarr_format=2,
        order="F",
        config={"order": "F"},
    )


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "fortran": np.asfortranarray,
    "backwards": lambda rows: np.ascontiguousarray(rows[::-1])[::-1],
    "strided": every_other,
    "big-endian": lambda rows: rows.astype(rows.dtype.newbyteorder(">")),
    "read-only": lambda rows: np.frombuffer(rows.tobytes(), rows.dtype).reshape(rows.shape),
    "dask": lambda rows: da.from_array(np.asfortranarray(rows), chunks=(200, D)),
    "zarr": stored_by_columns,
}
FITS: dict[str, dict[str, Any]] = {
    "scores": {},
    "qr": {"method": "qr"},
    "reference": {"keep": "geometry", "center": True},
    "unit rows": {"unit_rows": True},
    "weights": {"weights": "norm"},
    "anchors": {"anchors": 100},
    "a sample": {"sample": 300},
}


@pytest.fixture(scope="module", params=["float32", "float64"])
def tables(request: pytest.FixtureRequest) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(D, D))
    return tuple((rng.normal(size=(N, D)) @ mixing + 3).astype(request.param) for _ in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("options", FITS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_fits_to_the_same_bits(
    layout: str, options: str, tables: tuple[Array, ...]
) -> None:
    # The grid of panels is that of a Dask array's chunks, so the same chunks are compared.
    plain = (
        [da.from_array(rows, chunks=(200, D)) for rows in tables] if layout == "dask" else tables
    )
    laid = [LAYOUTS[layout](rows) for rows in tables]
    settings = FITS[options]
    moments, wanted = (
        [es.fit(t, w, reference=b, **settings), es.moments(t)] for t, w, b in (laid, plain)
    )
    np.testing.assert_array_equal(moments[0].items, wanted[0].items)
    np.testing.assert_array_equal(moments[0].users, wanted[0].users)
    assert moments[1].digest() == wanted[1].digest()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_stored_and_multiplied_to_the_same_bits(
    layout: str, tables: tuple[Array, ...], tmp_path: Path
) -> None:
    T, W, B = tables
    made = [
        es.create_run(tmp_path / name, rows, users, chunk_rows=256)
        for name, rows, users in (("a", LAYOUTS[layout](T), LAYOUTS[layout](W)), ("b", T, W))
    ]
    transform = es.fit(T, W, reference=B)
    outputs = [es.apply(transform, run, f"{run.path}.out") for run in made]
    for key in ("items", "users"):
        np.testing.assert_array_equal(vectors_of(made[0], key), vectors_of(made[1], key))
        np.testing.assert_array_equal(vectors_of(outputs[0], key), vectors_of(outputs[1], key))
    if layout not in ("dask", "zarr"):
        rows = LAYOUTS[layout](T)
        np.testing.assert_array_equal(transform.transform_items(rows), transform.transform_items(T))
