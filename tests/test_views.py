"""A view hands out the rows that NumPy makes of the whole tables, in any blocks, gathers and
panels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from oracle import Array

from dask_embstab.tables.read.source import Source
from dask_embstab.tables.read.views import (
    Gathered,
    MappedSource,
    Padded,
    SideBySide,
    column_source,
    source_written,
    with_ones,
)
from dask_embstab.tables.table import make_table

N, D = 23, 3
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(N, D)).astype(np.float32)
COLUMN = RNG.normal(size=N)


def stored(rows: Array, chunk: int, form: str) -> Any:
    if form == "numpy":
        return rows
    chunks = (chunk, *rows.shape[1:])
    return da.from_array(rows, chunks=chunks) if form == "dask" else zarr.array(rows, chunks=chunks)


def doubled(rows: Array) -> Array:
    return np.hstack([rows, 2 * rows])


VIEWS: dict[str, tuple[Callable[[Source, Any], Source], Array]] = {
    "mapped": (lambda rows, _: MappedSource(rows, doubled, 2 * D, rows.dtype), doubled(ROWS)),
    "ones": (lambda rows, _: with_ones(rows), np.column_stack([ROWS, np.ones(N, np.float32)])),
    "column": (
        lambda rows, column: SideBySide(rows, column_source(column)),
        np.column_stack([ROWS, COLUMN.astype(np.float32)]),
    ),
    "padded": (
        lambda rows, _: Padded(rows, N + 9),
        np.vstack([ROWS, np.zeros((9, D), np.float32)]),
    ),
    "nested": (
        lambda rows, _: SideBySide(Padded(rows, N + 4), Padded(with_ones(rows), N + 4)),
        np.pad(np.column_stack([ROWS, ROWS, np.ones(N, np.float32)]), ((0, 4), (0, 0))),
    ),
}
forms = st.sampled_from(["numpy", "dask", "zarr"])


def taken(block: Any, start: int, stop: int, panel: int) -> Array:
    reader = (block.compute() if hasattr(block, "compute") else block).open()
    return np.concatenate(
        [reader.take(at, min(at + panel, stop)).copy() for at in range(start, stop, panel)]
    )


@pytest.mark.parametrize("name", VIEWS)
@given(
    data=st.data(), form=forms, of_column=forms, chunk=st.integers(1, 30), panel=st.integers(1, 40)
)
def test_any_part_of_a_view_is_numpy_s(
    name: str, data: Any, form: str, of_column: str, chunk: int, panel: int
) -> None:
    make, expected = VIEWS[name]
    view = make(
        make_table(stored(ROWS, chunk, form), where="rows").source, stored(COLUMN, chunk, of_column)
    )
    assert (view.shape, view.dtype) == (expected.shape, expected.dtype)
    start = data.draw(st.integers(0, len(expected) - 1))
    stop = data.draw(st.integers(start + 1, len(expected)))
    np.testing.assert_array_equal(
        taken(view.block(start, stop), start, stop, panel), expected[start:stop]
    )
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1)), dtype=np.int64
    )
    np.testing.assert_array_equal(taken(view.gather(rows), 0, len(rows), panel), expected[rows])


def test_what_a_view_does_is_part_of_what_it_reads(tmp_path: Path) -> None:
    """The same text for the same view, in any process; another for another function, matrix, column
    or length.
    """
    array = zarr.create_array(tmp_path / "rows.zarr", data=ROWS, chunks=(8, D))
    column = zarr.create_array(tmp_path / "column.zarr", data=COLUMN, chunks=(8,), compressors=None)
    weight = zarr.create_array(tmp_path / "weight.zarr", data=COLUMN, chunks=(8,), compressors=None)
    rows = make_table(array, where="rows").source

    def views() -> list[Source]:
        return [
            rows,
            MappedSource(rows, partial(np.matmul, x2=np.eye(D)), D, rows.dtype),
            MappedSource(rows, partial(np.matmul, x2=2 * np.eye(D)), D, rows.dtype),
            MappedSource(rows, doubled, 2 * D, rows.dtype),
            SideBySide(rows, column_source(column)),
            SideBySide(rows, column_source(weight)),
            with_ones(rows),
            with_ones(with_ones(rows)),
            Padded(rows, N + 1),
            Padded(rows, N + 2),
            Gathered(rows, np.arange(5)),
            Gathered(rows, np.arange(5)[::-1].copy()),
        ]

    sources = list(map(source_written, views()))
    assert len(set(sources)) == len(sources)
    assert sources == list(map(source_written, views()))
    unknown = MappedSource(rows, lambda block: block, D, rows.dtype)
    assert source_written(unknown) != source_written(unknown), (
        "nothing is known of a function without a name"
    )
    zarr.create_array(tmp_path / "rows.zarr", data=2 * ROWS, chunks=(8, D), overwrite=True)
    now = list(map(source_written, views()))
    assert not set(now) & set(sources), "what they are views of was written anew"
