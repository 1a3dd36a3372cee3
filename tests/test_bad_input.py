"""What cannot be used is refused: what must hold, what came, how to repair it; and nothing is left
behind.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from oracle import foreign_run, world

import dask_embstab as es
from dask_embstab.passes.apply import plan_apply

T, W = world(41)
MakeRun = Callable[..., es.Run]
Refused = Callable[..., contextlib.AbstractContextManager[None]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


# --- no run


@pytest.mark.parametrize("what", ["nothing", "file", "empty folder", "other folder"])
def test_not_a_zarr_store(tmp_path: Path, out: Path, refused: Refused, what: str) -> None:
    place = tmp_path / "place"
    if what == "file":
        place.write_text("hello")
    elif what != "nothing":
        place.mkdir()
        (place / "notes.txt").write_text("hello") if what == "other folder" else None
    says = ("place", "there is nothing at|is not a Zarr store", "Zarr")
    for call in (
        lambda: es.open_run(place),
        lambda: es.stabilize(place, out),
        lambda: es.fit(T, W, reference=place),
        lambda: es.fit(str(place)),
        lambda: es.evaluate(place, place),
    ):
        with refused(es.NotARunError, *says):
            call()


def test_the_root_of_the_file_system_is_no_run(refused: Refused) -> None:
    with refused(es.NotARunError, "/ is not a Zarr store"):
        es.open_run("/")


def test_a_zarr_store_that_is_no_run(tmp_path: Path, out: Path, refused: Refused) -> None:
    zarr.open_group(tmp_path / "group", mode="w").create_array("scores", shape=(3,), dtype="f4")
    zarr.open_group(tmp_path / "empty", mode="w")
    zarr.create_array(tmp_path / "array", data=T)
    for name, holds in (
        ("group", "holds scores"),
        ("empty", "holds nothing"),
        ("array", "is a Zarr array"),
    ):
        with refused(es.NotARunError, "items/vectors or users/vectors", holds):
            es.stabilize(tmp_path / name, out)
    zarr.open_group(tmp_path / "bare", mode="w").create_group("items")
    with refused(es.InputError, "array named vectors", "bare/items has none"):
        es.stabilize(tmp_path / "bare", out)


def test_half_a_run(make_run: MakeRun, out: Path, refused: Refused) -> None:
    run = make_run("in", T, W)
    run = zarr.open_group(run.path, mode="a")
    run.attrs.put({"embstab": {**run.attrs["embstab"], "incomplete": True}})
    for call in (
        lambda: es.stabilize(run.store.root, out),
        lambda: es.fit(T, W, reference=run.store.root),
    ):
        with refused(es.NotARunError, "in.zarr was not finished", "write it again"):
            call()


# --- tables that cannot serve


def test_the_table_that_is_needed_is_missing(
    make_run: MakeRun, out: Path, refused: Refused
) -> None:
    items, users, both = make_run("items", T), make_run("users", users=W), make_run("both", T, W)
    with refused(es.InputError, "items are needed", "users.zarr holds only users", "create_run"):
        es.stabilize(users, out)
    with refused(es.InputError, "keep='scores' needs users", "keep='geometry'"):
        es.stabilize(items, out, keep="scores")
    for align_on in ("users", "both"):
        with refused(es.InputError, "users", "the reference"):
            es.stabilize(both, out, reference=items, align_on=align_on)
        with refused(es.InputError, "users", "the run"):
            es.stabilize(items, out, reference=both, align_on=align_on)
    with refused(es.InputError, "items", "reference"):
        es.stabilize(items, out, reference=users)
    with refused(es.InputError, "no table in common"):
        es.evaluate(items, users)
    with refused(es.InputError, "at least one table"):
        es.create_run(out)


@pytest.mark.parametrize("shape", [(60,), (60, 2, 2), ()])
def test_two_axes_are_needed(
    tmp_path: Path, out: Path, refused: Refused, shape: tuple[int, ...]
) -> None:
    zarr.open_group(tmp_path / "in.zarr", mode="w").create_array(
        "items/vectors", shape=shape, dtype="f4"
    )
    for call in (
        lambda: es.create_run(out, np.ones(shape)),
        lambda: es.create_run(out, T, da.ones(shape)),
        lambda: es.fit(np.ones(shape)),
        lambda: es.stabilize(tmp_path / "in.zarr", out),
    ):
        with refused(es.InputError, r"two axes, \(row, component\)", re.escape(str(shape))):
            call()


def test_one_number_of_components(tmp_path: Path, out: Path, refused: Refused) -> None:
    says = "same number of components", r"has 4\b.*\b3\b"
    foreign_run(tmp_path / "in.zarr", {"items": (T, None), "users": (W[:, :3], None)})
    with refused(es.InputError, *says):
        es.stabilize(tmp_path / "in.zarr", out)
    with refused(es.InputError, *says):
        es.create_run(out, T, W[:, :3])
    with refused(es.InputError, *says):
        es.fit(T, W[:, :3])


@pytest.mark.parametrize("shape", [(0, 4), (60, 0)])
def test_an_empty_table(
    tmp_path: Path, out: Path, refused: Refused, shape: tuple[int, int]
) -> None:
    zarr.open_group(tmp_path / "in.zarr", mode="w").create_array(
        "items/vectors", shape=shape, dtype="f4", chunks=(1, 4)
    )
    for call in (
        lambda: es.create_run(out, np.ones(shape)),
        lambda: es.stabilize(tmp_path / "in.zarr", out),
    ):
        with refused(es.InputError, "at least one row and one component", re.escape(str(shape))):
            call()


def test_fewer_rows_than_components(
    make_run: MakeRun, tmp_path: Path, out: Path, refused: Refused
) -> None:
    for name, tables in {"items": (T[:3], W), "users": (T, W[:3])}.items():
        run = make_run(f"few-{name}", *tables)
        with refused(
            es.InputError,
            "as many rows as components",
            rf"few-{name}.*{name} has 3 rows of 4",
            "keep='geometry'",
        ):
            es.stabilize(run, out)
        assert (
            es.stabilize(run, tmp_path / f"{name}-geometry.zarr", keep="geometry")
            .table(name)
            .n_rows
            == 3
        )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["items", "users"])
def test_values_that_are_not_finite(
    make_run: MakeRun, out: Path, refused: Refused, value: float, key: str
) -> None:
    tables = {"items": T.copy(), "users": W.copy()}
    tables[key][[17, 33, 34, 35, 36, 37, 38], 2] = value
    run, good = make_run("in", **tables), make_run("good", T, W)
    with refused(es.InputError, "finite", rf"in\.zarr/{key}", "row 17", "repair or drop"):
        es.stabilize(run, out)
    with refused(es.InputError, "finite", rf"in\.zarr/{key}", "row 17", "repair or drop"):
        es.apply(es.fit(good), run, out)
    with refused(es.InputError, "finite", rf"in\.zarr/{key}"):
        es.evaluate(run, good)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ids", [None, np.arange(60)[::-1]])
def test_reference_rows_that_are_not_finite(
    make_run: MakeRun, out: Path, refused: Refused, value: float, ids: Any
) -> None:
    B = T.copy()
    B[[5, 9]] = value
    reference = make_run("reference", B, item_ids=ids)
    run = make_run("in", T, W, item_ids=None if ids is None else ids[::-1])
    with refused(es.InputError, "finite", "reference", "row 5, 9" if ids is None else "row 50, 54"):
        es.stabilize(run, out, reference=reference)


def test_first_few_of_many_bad_rows_are_named(refused: Refused) -> None:
    bad = T.copy()
    bad[10:30] = np.nan
    with refused(es.InputError, "row 10, 11, 12, 13, 14 and 15 more"):
        es.fit(bad, W)


def test_values_too_large_to_square(refused: Refused) -> None:
    with refused(es.InputError, "overflow|large", "rescale"):
        es.fit(T * 1e200, W)


def test_a_landing_beyond_the_range_of_float16(
    make_run: MakeRun, out: Path, refused: Refused
) -> None:
    run = make_run("in", T * 1e5, W * 1e5)
    with refused(es.InputError, r"row \d+", "beyond the range of float16", "float32"):
        es.stabilize(run, out, dtype="float16")


@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_rows_written_after_the_fit(
    make_run: MakeRun, out: Path, refused: Refused, value: float
) -> None:
    """What the fit read is known to be finite and to stay in range; what has been written since is
    looked at.
    """
    run = make_run("in", T, W, dtype="float32")
    fitted = es.fit(run)
    known = plan_apply(fitted, run, None).tables["items"].linear_map.in_range
    assert list(known.values()) == fitted.diagnostics["items"]["digests"]
    vectors = zarr.open_group(run.path, mode="r+")["items/vectors"]
    rows = vectors[16:32]
    rows[1] = value
    vectors[16:32] = rows
    with refused(es.InputError, r"row 17", "finite" if np.isnan(value) else "beyond the range"):
        es.apply(fitted, es.open_run(run.path), out)


@pytest.mark.parametrize("key", ["items", "users"])
@pytest.mark.parametrize("keep", ["scores", "geometry"])
def test_a_table_of_zeros(
    make_run: MakeRun, out: Path, refused: Refused, key: str, keep: Any
) -> None:
    run = make_run("in", **{"items": T, "users": W, key: np.zeros((60, 4))})
    if (key, keep) == ("users", "geometry"):
        return  # nobody reads the users then, and a rotation keeps zeros
    with refused(es.ConditionError, rf"every value of .*{key} is zero", "check"):
        es.stabilize(run, out, keep=keep)


def test_orthogonal_tables_have_no_scores(make_run: MakeRun, out: Path, refused: Refused) -> None:
    run = make_run("in", T * [1, 1, 0, 0], W * [0, 0, 1, 1])
    with refused(es.ConditionError, "every score is zero"):
        es.stabilize(run, out)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64", "object", "U3"])
def test_vectors_that_are_no_floats(
    tmp_path: Path, out: Path, refused: Refused, dtype: str
) -> None:
    rows = np.ones((60, 4)).astype(dtype)
    says = "float16, float32 or float64", re.escape(str(rows.dtype)), "astype"
    with refused(es.InputError, *says):
        es.create_run(out, rows)
    if dtype != "object" and dtype != "U3":
        foreign_run(tmp_path / "in.zarr", {"items": (rows, None)})
        with refused(es.InputError, *says):
            es.stabilize(tmp_path / "in.zarr", out)


def test_chunks_that_split_components(tmp_path: Path, out: Path, refused: Refused) -> None:
    for name, more in (
        ("plain", {"chunks": (20, 2)}),
        ("sharded", {"chunks": (10, 2), "shards": (20, 2)}),
    ):
        zarr.open_group(tmp_path / name, mode="w").create_array("items/vectors", data=T, **more)
        with refused(es.InputError, "whole rows", r"\(20, 2\)", "d is 4", "create_run"):
            es.stabilize(tmp_path / name, out)
    with refused(es.InputError, "whole rows", "2 chunks", "rechunk"):
        es.create_run(out, da.from_array(T, chunks=(20, 2)))
    unknown = da.from_array(T, chunks=20)[da.from_array(T[:, 0], chunks=20) > 0]
    with refused(es.InputError, "chunk sizes", "compute_chunk_sizes"):
        es.create_run(out, unknown)


# --- ids


@pytest.mark.parametrize("side", ["run", "reference"])
def test_duplicate_ids_where_ids_are_joined(
    make_run: MakeRun, out: Path, refused: Refused, side: str
) -> None:
    good = np.arange(60)[::-1].astype(str)
    bad = np.array([f"twice-{i // 2}" if i < 8 else str(i) for i in range(60)])
    ids = {"run": good, "reference": good[::-1], side: bad}
    run, reference = (make_run(name, T, W, item_ids=ids[name]) for name in ids)
    with refused(
        es.IdError, "unique", rf"{side}\.zarr/items", "repeats 4", "'twice-0', 'twice-1'", "drop"
    ):
        es.stabilize(run, out, reference=reference)
    assert es.stabilize(make_run("alone", T, W, item_ids=bad), out).items.n_rows == 60, (
        "nothing is joined here"
    )


def test_ids_of_another_type_than_the_reference_s(
    make_run: MakeRun, out: Path, refused: Refused
) -> None:
    numbers, texts = (
        make_run("a", T, W, item_ids=np.arange(60)),
        make_run("b", T, W, item_ids=np.arange(60).astype(str)),
    )
    for run, reference in ((numbers, texts), (texts, numbers), (texts, make_run("c", T, W))):
        with refused(es.IdError, "one type", "string", "int64", "convert"):
            es.stabilize(run, out, reference=reference)


@pytest.mark.parametrize(
    "ids", [np.arange(59), np.ones((60, 1), int), np.linspace(0, 1, 60), [1, "a", None] * 20]
)
def test_ids_that_do_not_fit_their_table(out: Path, refused: Refused, ids: Any) -> None:
    with refused(es.IdError, r"one id per row, \(60,\)|int64 or strings"):
        es.create_run(out, T, item_ids=ids)


# --- places


@pytest.mark.parametrize("what", ["run", "file", "folder", "dangling link"])
def test_the_output_exists(make_run: MakeRun, out: Path, refused: Refused, what: str) -> None:
    run = make_run("in", T, W)
    transform = es.fit(run)
    {
        "run": lambda: es.create_run(out, W),
        "file": lambda: out.write_text("x"),
        "folder": out.mkdir,
    }.get(what, lambda: out.symlink_to("nowhere"))()
    for call in (
        lambda: es.stabilize(run, out),
        lambda: es.apply(transform, run, out),
        lambda: es.create_run(out, T),
    ):
        with refused(es.OutputExistsError, "out.zarr exists already", "overwrite=True"):
            call()
    with refused(FileExistsError):
        es.stabilize(run, out)


@pytest.mark.parametrize("inside", ["sub.zarr", "items/sub.zarr", "users"])
def test_the_output_inside_the_input(make_run: MakeRun, refused: Refused, inside: str) -> None:
    run, reference = make_run("in", T, W), make_run("reference", T, W)
    for overwrite in (False, True):
        with refused(es.InputError, "inside an input or around one", "overlap"):
            es.stabilize(run, Path(run.path) / inside, overwrite=overwrite)
        with refused(es.InputError, "inside an input or around one", "overlap"):
            es.stabilize(
                run, Path(reference.path) / inside, reference=reference, overwrite=overwrite
            )


def test_the_output_around_the_input(make_run: MakeRun, tmp_path: Path, refused: Refused) -> None:
    run = make_run("in", T, W)
    with refused(es.InputError, "inside an input or around one"):
        es.stabilize(run, tmp_path, overwrite=True)
    link = tmp_path / "link.zarr"
    link.symlink_to(run.path)
    with refused(es.InputError, "inside an input or around one"):
        es.stabilize(link, Path(run.path) / "sub.zarr")


def test_the_folder_of_the_output_does_not_exist(
    make_run: MakeRun, tmp_path: Path, refused: Refused
) -> None:
    run = make_run("in", T, W)
    with refused(es.InputError, "the folder .*none does not exist", "create it first"):
        es.stabilize(run, tmp_path / "none" / "out.zarr")
