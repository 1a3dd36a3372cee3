"""A lazy input's blocks are what it declares, or the call ends in one clear error and writes
nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from oracle import vectors_of, world

import dask_embstab as es

T, W = world(71)
T, W = T.astype("float32"), W.astype("float32")
IDS = np.arange(60) + 1
Refused = Callable[..., contextlib.AbstractContextManager[None]]
Change = Callable[[Any, int], Any]


def lying(array: np.ndarray[Any, Any], change: Change, rows: int = 16) -> Any:
    """A Dask array over ``array`` whose block n is ``change(block, n)``, declared as it was
    before.
    """

    def block(values: Any, block_info: Any = None) -> Any:
        return change(values, block_info[0]["chunk-location"][0])

    declared = da.from_array(array, chunks=(rows, *array.shape[1:]))
    return declared.map_blocks(
        block, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype)
    )


def only(number: int, change: Callable[[Any], Any]) -> Change:
    """One block is changed, the others are as declared."""
    return lambda values, n: change(values) if n == number else values


LIES: dict[str, tuple[Change, str]] = {
    "short by a row": (only(1, lambda x: x[:-1]), r"rows 16 to 32 .*\(16.*it is \(15"),
    "longer by a row": (only(2, lambda x: np.concatenate([x, x[:1]])), r"rows 32 to 48 .*\(17"),
    "empty": (only(0, lambda x: x[:0]), r"rows 0 to 16 .*\(0"),
    "another dtype": (only(3, lambda x: x.astype("int32")), "rows 48 to 60 .*int32"),
    "a wider dtype": (only(0, lambda x: x.astype("float64")), "rows 0 to 16 .*float64"),
    "another number of axes": (only(0, lambda x: x[..., None]), r"rows 0 to 16 .*1\)"),
    "no array": (only(0, lambda x: {"rows": x}), "rows 0 to 16 .*dict"),
}
WIDTHS = {
    "wider": (only(1, lambda x: np.hstack([x, x[:, :1]])), r"rows 16 to 32 .*\(16, 5\)"),
    "narrower": (only(1, lambda x: x[:, :3]), r"rows 16 to 32 .*\(16, 3\)"),
    "transposed": (only(1, lambda x: x.T), r"rows 16 to 32 .*\(4, 16\)"),
}


def labelled(array: Any, ids: Any) -> Any:
    return xr.DataArray(
        array, dims=("row", "component"), coords={} if ids is None else {"id": ("row", ids)}
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


@pytest.mark.parametrize("lie", LIES | WIDTHS)
def test_vectors_are_as_declared(out: Path, refused: Refused, lie: str) -> None:
    change, says = (LIES | WIDTHS)[lie]
    items = lying(T, change)
    for call in (
        lambda: es.create_run(out, items),
        lambda: es.fit(items, W),
        lambda: es.fit(T, W, reference=items),
        lambda: es.fit(labelled(T, IDS), labelled(W, None), reference=labelled(items, IDS[::-1])),
        lambda: es.moments(items),
    ):
        with refused(es.InputError, says):
            call()


@pytest.mark.parametrize("rows", [5, 7, 60])
@pytest.mark.parametrize("lie", ["short by a row", "longer by a row", "wider"])
def test_blocks_are_checked_however_they_are_cut(
    out: Path, refused: Refused, lie: str, rows: int
) -> None:
    """An output's chunks cut the input's blocks: a row too many must not vanish in the cut."""
    change, says = (LIES | WIDTHS)[lie]
    with refused(es.InputError, says):
        es.create_run(out, lying(T, change), chunk_rows=rows)


@pytest.mark.parametrize("kind", ["int64", "text"])
@pytest.mark.parametrize("lie", LIES)
def test_ids_are_as_declared(out: Path, refused: Refused, lie: str, kind: str) -> None:
    if lie == "a wider dtype":
        return  # of int64 there is none
    change, says = LIES[lie]
    ids = IDS if kind == "int64" else IDS.astype(str).astype(object)
    with refused(es.IdError, says):
        es.create_run(out, T, item_ids=lying(ids, change))
    items = es.create_run(out, T, item_ids=ids[::-1])
    with pytest.raises(es.IdError, match=says):
        es.fit(
            es.create_run(out.with_name("lazy"), T, item_ids=lying(ids, change)), reference=items
        )


@pytest.mark.parametrize("which", ["weights", "counts"])
@pytest.mark.parametrize("lie", LIES)
def test_weights_and_counts_are_as_declared(refused: Refused, lie: str, which: str) -> None:
    change, says = LIES[lie]
    column: dict[str, Any] = {which: lying(np.ones(60, "float32"), change)}
    more = {"min_count": 1} if which == "counts" else {}
    with refused(es.InputError, says, which):
        es.fit(T, W, reference=T, **column, **more)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_counts_are_numbers(refused: Refused, value: float) -> None:
    counts = np.ones(60)
    counts[7] = value
    for given in (counts, da.from_array(counts, chunks=16)):
        with refused(es.InputError, "counts of .* finite and not negative; row 7"):
            es.fit(T, W, reference=T, counts=given, min_count=1)


def test_blocks_as_declared_pass(tmp_path: Path) -> None:
    """Byte order is no lie: the values are those that were declared."""
    for name, change in {
        "plain": lambda x, _: x,
        "big-endian": lambda x, _: x.astype(">f4"),
    }.items():
        run = es.create_run(
            tmp_path / name, lying(T, change), item_ids=lying(IDS, lambda x, _: x), chunk_rows=7
        )
        np.testing.assert_array_equal(vectors_of(run), T)
        assert run.items.ids.compute().tolist() == IDS.tolist()


def test_a_declared_chunk_may_be_empty(tmp_path: Path) -> None:
    rows = da.from_array(T, chunks=((0, 20, 0, 40), 4))
    np.testing.assert_array_equal(vectors_of(es.create_run(tmp_path / "run", rows)), T)


# --- masked values are missing values


def masked(array: np.ndarray[Any, Any], rows: list[int]) -> Any:
    made = np.ma.MaskedArray(array.copy())
    made[rows] = np.ma.masked
    return made


@pytest.mark.parametrize("lazy", [False, True])
def test_masked_rows_are_missing_rows(out: Path, refused: Refused, lazy: bool) -> None:
    def given(array: Any, rows: list[int]) -> Any:
        made = masked(array, rows)
        return da.from_array(made, chunks=16) if lazy else made

    vectors = given(T, [17, 30])  # one block: which block fails first is a race
    for call in (
        lambda: es.create_run(out, vectors),
        lambda: es.fit(vectors, W),
        lambda: es.fit(T, reference=vectors),
    ):
        with refused(es.InputError, r"the (items|reference)", "masked", r"row (17|33)", "filled"):
            call()
    with refused(es.IdError, "ids of", "masked", "row 18"):
        es.create_run(out, T, item_ids=given(IDS, [18]))
    with refused(es.InputError, "weights of", "masked", "row 19"):
        es.fit(T, W, reference=T, weights=given(np.ones(60), [19]))
    with refused(es.InputError, "counts of", "masked", "row 5"):
        es.fit(T, W, reference=T, counts=given(np.ones(60), [5]), min_count=1)
    np.testing.assert_array_equal(
        vectors_of(es.create_run(out, given(T, []), item_ids=given(IDS, []))), T
    )
