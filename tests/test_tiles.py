"""The compiled kernel multiplies as NumPy does, reads no number beyond its rows, and its bits do
not depend on the width of the processor's vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dask_embstab as es
from dask_embstab.core import tile_kernel, tiles
from dask_embstab.core.products import COMPILED, gramian
from dask_embstab.core.types import Matrix
from dask_embstab.passes.engine import plan
from dask_embstab.passes.engine.blas import product_family

EPS = np.finfo(float).eps
needs_kernel = pytest.mark.skipif(
    not tile_kernel.vector_width(), reason="no llvmlite, or no kernel for this processor"
)
widths = st.integers(8, 150)


def product_of(x: Matrix, y: Matrix, cut: tiles.Tiling, width: int) -> Matrix:
    output = np.zeros(cut.size)
    strides = [rows.strides[0] // rows.itemsize for rows in (x, y)]
    tile_kernel.compiled(width).run(
        *(x.ctypes.data, strides[0], y.ctypes.data, strides[1], len(x)),
        *(cut.tiles.ctypes.data, len(cut.tiles), output.ctypes.data),
    )
    product: Matrix = output[cut.places]
    return product


@needs_kernel
@given(n=st.integers(0, 300), d=widths, more=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_products_are_those_of_numpy_and_no_number_beside_the_rows_is_read(
    n: int, d: int, more: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    D = int(rng.integers(8, 150))
    x, y = (np.full((n, width + more), np.nan)[:, more:] for width in (d, D))
    x[:], y[:] = rng.standard_normal(x.shape), rng.standard_normal(y.shape)
    square, cross = tiles.gramian(x), tiles.cross_product(x, y)
    assert (square == square.T).all()
    assert (np.abs(square - x.T @ x) <= 64 * EPS * (np.abs(x).T @ np.abs(x))).all()
    assert (np.abs(cross - x.T @ y) <= 64 * EPS * (np.abs(x).T @ np.abs(y))).all()


@needs_kernel
@given(n=st.integers(0, 300), d=widths, D=widths, seed=st.integers(0, 2**32 - 1))
def test_no_bit_depends_on_the_width_of_vectors(n: int, d: int, D: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, D))
    one, *others = (
        (
            product_of(x, x, tiles.tiling(d, None, width), width),
            product_of(x, y, tiles.tiling(d, D, width), width),
        )
        for width in (2, 4, tile_kernel.vector_width())
    )
    assert all((one[0] == other[0]).all() and (one[1] == other[1]).all() for other in others)


@given(d=st.integers(8, 300), D=st.none() | st.integers(8, 300), width=st.sampled_from([2, 4, 8]))
def test_tiles_stay_within_the_rows_and_hold_every_entry(d: int, D: int | None, width: int) -> None:
    cut = tiles.tiling(d, D, width)
    i, j, kinds, _ = cut.tiles.T
    columns = np.array([tile_kernel.KINDS[kind][0] for kind in kinds]) * width
    assert (i >= 0).all()
    assert (j >= 0).all()
    assert (i + tile_kernel.HEIGHT <= d).all()
    assert (j + columns <= (d if D is None else D)).all()
    assert cut.size == int(columns.sum()) * tile_kernel.HEIGHT
    entries = np.unique(cut.places)
    assert len(entries) == (d * (d + 1) // 2 if D is None else d * D)
    assert entries[-1] < cut.size


def test_other_rows_than_the_kernel_reads_are_left_to_blas() -> None:
    rows = np.random.default_rng(0).standard_normal((2048, 64))
    for odd in (rows[:, :7], rows.astype(">f8"), np.asfortranarray(rows), rows[:, ::2], rows[::-1]):
        assert np.allclose(gramian(odd, family=COMPILED), odd.T @ odd)


@pytest.mark.parametrize("reference", [False, True])
def test_a_fit_by_the_kernel_is_the_fit_and_its_bits_hang_on_no_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: bool
) -> None:
    rng = np.random.default_rng(0)
    items, users = rng.standard_normal((20_000, 24)), rng.standard_normal((300, 24))
    runs = [
        es.create_run(
            tmp_path / f"{chunk}.zarr", items, users, item_ids=np.arange(20_000), chunk_rows=chunk
        )
        for chunk in (20_000, 8192, 4096)
    ]
    onto = es.create_run(
        tmp_path / "onto.zarr", items[:, ::-1], users[:, ::-1], item_ids=np.arange(20_000)
    )
    plain = es.fit(runs[0], reference=onto if reference else None)
    monkeypatch.setattr(plan, "_LARGE", 0)
    used: list[int] = []
    compiled = tiles.gramian
    monkeypatch.setattr(tiles, "gramian", lambda rows: (used.append(len(rows)), compiled(rows))[1])
    fits = [es.fit(run, reference=onto if reference else None) for run in runs]
    assert bool(used) == (product_family(is_large=True) == COMPILED)
    for fit in fits:
        assert np.allclose(fit.items, plain.items, rtol=1e-9, atol=1e-11)
        assert (fit.items == fits[0].items).all()
