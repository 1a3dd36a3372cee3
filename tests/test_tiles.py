"""The compiled kernel multiplies as NumPy does, reads no number beyond its rows, and its bits do
not depend on the width of the processor's vectors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dask_embstab as es
from dask_embstab.core import tile_kernel, tiles
from dask_embstab.core.products import COMPILED, cross_product, gramian, joint_gramian
from dask_embstab.core.types import Matrix, Rows
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
    tile_kernel.compiled(width).product(
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tables_of_other_lengths_have_no_product(dtype: str) -> None:
    """The kernel would read beyond the shorter one."""
    x, y = np.ones((100, 16), dtype), np.ones((10, 16), dtype)
    for product in (
        lambda: cross_product(x, y, family=COMPILED),
        lambda: joint_gramian((x, y), family=COMPILED),
    ):
        with pytest.raises(ValueError, match="mismatch"):
            product()


@needs_kernel
@given(n=st.integers(0, 300), d=widths, D=widths, seed=st.integers(0, 2**32 - 1))
def test_float32_is_multiplied_as_the_same_rows_in_float64(
    n: int, d: int, D: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = (
        np.full((n, width + 3), np.nan, np.float32)[:, seed % 3 : seed % 3 + width]
        for width in (d, D)
    )
    x[:], y[:] = rng.standard_normal(x.shape), rng.standard_normal(y.shape)
    assert (tiles.gramian(x) == tiles.gramian(x.astype(float))).all()
    joint = np.hstack([x, y]).astype(float)
    assert (tiles.gramian(x, y) == tiles.gramian(joint)).all()


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


@pytest.mark.parametrize("installed", ["0.44.0", "0.9", "unknown", None])
def test_an_older_llvmlite_is_none(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    """Numba may have brought one along."""

    def version(_: str) -> str:
        if installed is None:
            raise PackageNotFoundError
        return installed

    monkeypatch.setattr(tile_kernel, "version", version)
    assert not tile_kernel.is_installed.__wrapped__()


@needs_kernel
def test_threads_that_begin_at_once_compile_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(tile_kernel.compiled, [2] * 16))
    assert len({id(kernel) for kernel in kernels}) == 1


AT_ONCE = """
import sys, threading
import numpy as np
from dask_embstab.core import tiles

rows, ready = np.ones((4096, 64)), [threading.Event() for _ in range(8)]

def multiply(event):
    while True:
        tiles.gramian(rows)
        event.set()

for event in ready:
    threading.Thread(target=multiply, args=(event,), daemon=True).start()
assert all(event.wait(60) for event in ready)
"""


@needs_kernel
def test_a_process_ends_well_while_threads_multiply() -> None:
    """They began at once, and both the first kernel and the last moment are theirs."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE],
        env=os.environ | {"PYTHONPATH": str(Path(es.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_other_rows_than_the_kernel_reads_are_left_to_blas() -> None:
    rows = np.random.default_rng(0).standard_normal((2048, 64))
    unaligned = np.frombuffer(b"\0" + rows.tobytes(), np.float64, offset=1).reshape(rows.shape)
    for odd in (
        *(rows[:, :7], rows.astype(">f8"), np.asfortranarray(rows), rows[:, ::2], rows[::-1]),
        *(unaligned, np.broadcast_to(rows[0], rows.shape)),
    ):
        assert np.allclose(gramian(odd, family=COMPILED), odd.T @ odd)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("matched", [0, 15_000, 20_000])
def test_a_fit_by_the_kernel_is_the_fit_and_its_bits_hang_on_no_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matched: int, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    items = rng.standard_normal((20_000, 24)).astype(dtype)
    users = rng.standard_normal((300, 24)).astype(dtype)
    ids = np.arange(20_000)
    runs = [
        es.create_run(tmp_path / f"{rows}.zarr", items, users, item_ids=ids, chunk_rows=rows)
        for rows in (20_000, 8192, 4096)
    ]
    theirs = np.where(ids < matched, ids, ids + 20_000)
    onto = es.create_run(tmp_path / "onto.zarr", items[:, ::-1], users[:, ::-1], item_ids=theirs)
    reference = onto if matched else None

    plain = es.fit(runs[0], reference=reference)
    monkeypatch.setattr(plan, "_LARGE", 0)
    dtypes: list[str] = []
    compiled = tiles.gramian

    def noted(*parts: Rows) -> Matrix:
        dtypes.extend(part.dtype.name for part in parts)
        return compiled(*parts)

    monkeypatch.setattr(tiles, "gramian", noted)
    fits = [es.fit(run, reference=reference) for run in runs]

    if product_family(is_large=True) == COMPILED:
        assert set(dtypes) == {dtype}
    for fit in fits:
        assert np.allclose(fit.items, plain.items, rtol=1e-9, atol=1e-11)
        assert (fit.items == fits[0].items).all()


def test_a_row_that_is_not_finite_is_named_by_the_kernel_s_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_LARGE", 0)
    rows = np.random.default_rng(0).standard_normal((5000, 24)).astype("float32")
    rows[4321, 5] = np.inf
    onto = es.create_run(tmp_path / "onto.zarr", np.nan_to_num(rows, posinf=0), rows[:300])
    for reference in (None, onto):
        with pytest.raises(es.NotFiniteError, match="row 4321"):
            es.fit(
                es.create_run(tmp_path / "run.zarr", rows, rows[:300], overwrite=True),
                reference=reference,
            )
