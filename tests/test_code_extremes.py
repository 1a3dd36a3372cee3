"""Codes at the ends of float32: a row is given back within the stated error, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.core.codes.code import FROZEN, Code, frozen_steps, random_rotation
from dask_embstab.core.codes.product import ProductCode, fit_codebooks
from dask_embstab.core.codes.residual import ResidualCode, fit_residual

LARGEST = np.finfo(np.float32).max
SCALED = pytest.mark.parametrize("name", ["int8", "int6", "int5", "int4", "sign"])


def errors_of(code: Any, rows: Any) -> Any:
    made = code.decode(*code.encode(rows)).astype(np.float64)
    return np.linalg.norm(made - rows.astype(np.float64), axis=1)


@SCALED
@pytest.mark.parametrize("rotated", [False, True])
def test_a_row_at_the_end_of_float32_is_refused_unless_it_is_decoded_within_the_stated_error(
    name: str, rotated: bool
) -> None:
    code = Code(name, 3, random_rotation(3, 0) if rotated else None)
    n_refused = 0
    for size in (1, 1e30, 1e38, *np.linspace(3.3e38, LARGEST, 50)):
        row = np.array([[size, 0, -size / 3]], np.float32)
        if code.overflows(*code.encode(row)):
            n_refused += 1
        else:
            assert (errors_of(code, row) <= code.error_bounds(row)).all()
    assert n_refused <= 50


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_ranges_end_where_float32_does(name: str) -> None:
    rows = np.array([[LARGEST, 1], [-LARGEST, -2], [LARGEST / 2, 0.5]], np.float32)
    code = Code(name, 2, None, frozen_steps(np.abs(rows).max(axis=0), name))
    assert not code.overflows(*code.encode(rows))
    assert (errors_of(code, rows) <= code.error_bounds(rows)).all()


def test_a_row_that_codes_would_make_infinite_is_not_published(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    rows[7] = 0
    rows[7, 0] = LARGEST
    with pytest.raises(es.NotFiniteError, match="row 7 lies beyond the range of int5"):
        es.compress({"items": rows}, tmp_path / "out.zarr", code="int5")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("kind", ["pq", "rq"])
@pytest.mark.parametrize("fitted", [1e-38, 1e-20, 1])
@pytest.mark.parametrize("size", [1, 1e20, 3e37])
def test_the_nearest_entries_of_much_longer_rows_are_found(
    kind: str, fitted: float, size: float
) -> None:
    x = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32)
    few, rows = x * np.float32(fitted), x * np.float32(size)
    rows[0, 1:], rows[1, :4] = few[0, 1:], few[1, :4]
    code: Any = (
        ProductCode(6, fit_codebooks(few, 3, 0))
        if kind == "pq"
        else ResidualCode(6, fit_residual(few, 3, 0))
    )
    assert (errors_of(code, rows) <= code.error_bounds(rows)).all()
    # Of a row so long the entry that points along it most is the nearest.
    if kind == "pq" and size > 1e10 * fitted:
        along = rows[:, :2].astype(np.float64) @ code.codebooks[0].T.astype(np.float64)
        chosen = np.take_along_axis(along, code.encode(rows)[0][:, :1].astype(int), 1)[:, 0]
        long = np.abs(rows[:, :2]).max(axis=1) > 1e10 * fitted
        np.testing.assert_allclose(chosen[long], along.max(axis=1)[long], rtol=1e-4)
