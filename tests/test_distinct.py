"""An id in two rows is refused, or its first row counts, in whatever order the rows lie: equal
order is no way around it.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from oracle import Array, assert_close, hidden, rotation

import dask_embstab as es
from dask_embstab.passes.join import distinct
from dask_embstab.passes.join.options import join_options
from dask_embstab.tables.ids.ids import as_ids
from dask_embstab.tables.ids.kinds import IdKind
from dask_embstab.tables.ids.texts import Texts

MakeRun = Callable[..., es.Run]
KINDS = ("int64", "string", "uuid")
SMALL = 1 << 12


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tables.ids.ids", "passes.join.pairing"):
        monkeypatch.setattr(f"dask_embstab.{name}.ID_RANGE", 8)
    monkeypatch.setattr("dask_embstab.passes.join.options._LEAST", 1)
    monkeypatch.setattr("dask_embstab.passes.join.distinct._BLOCK_ROWS", 100)


def ids_of(kind: str, numbers: Any) -> Array:
    if kind == "int64":
        return np.asarray(numbers, np.int64) * 7919 - 1000
    if kind == "uuid":
        return np.array(
            [uuid.uuid5(uuid.NAMESPACE_OID, str(i)).bytes for i in numbers], dtype="V16"
        )
    return np.array([f"{'é' * (i % 3)}{i}" for i in numbers], dtype=object)


def repeats(ids: Array, memory: int | str) -> bool:
    with join_options(join_memory=memory) as join:
        return distinct.may_repeat(as_ids(ids, len(ids), where="t"), "items", join)


@given(
    numbers=st.lists(st.integers(0, 400), min_size=1, max_size=400),
    kind=st.sampled_from(KINDS),
    ordered=st.booleans(),
    memory=st.sampled_from([SMALL, "1MiB"]),
)
def test_repeated_ids_are_found_in_any_order_and_memory(
    numbers: list[int], kind: IdKind, ordered: bool, memory: int | str
) -> None:
    numbers = sorted(numbers) if ordered else numbers
    assert repeats(ids_of(kind, numbers), memory) == (len(set(numbers)) < len(numbers))


@pytest.mark.parametrize("memory", [SMALL, "1MiB"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_repeated_id_among_many_is_found(kind: str, memory: int | str) -> None:
    numbers = np.random.default_rng(0).permutation(3000)
    assert not repeats(ids_of(kind, numbers), memory)
    numbers[2777] = numbers[5]
    assert repeats(ids_of(kind, numbers), memory)


def test_equal_keys_of_unequal_ids_are_left_to_the_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Texts, "keys", lambda texts: np.zeros(len(texts), np.uint64))
    ids = ids_of("string", np.random.default_rng(1).permutation(40))
    rows = np.random.default_rng(2).normal(size=(40, 2))
    assert repeats(ids, "1MiB")
    fitted = es.fit(es.table(rows, ids=ids), reference=es.table(rows, ids=ids))
    assert fitted.diagnostics["items"]["paired_by"] == "joined ids"
    np.testing.assert_allclose(fitted.items, np.eye(2), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("numbers", [[3, 1, 3, 2, 0, 4, 5, 6], [1, 2, 2, 3, 4, 5, 6, 7], [9] * 8])
def test_the_result_does_not_depend_on_the_order_of_rows(
    make_run: MakeRun, kind: str, stored: bool, numbers: list[int]
) -> None:
    """Ids in identical order against the same rows in another order, which a join has to find."""
    rng = np.random.default_rng(3)
    T, B, ids = rng.normal(size=(8, 2)), rng.normal(size=(8, 2)), ids_of(kind, numbers)
    firsts = np.unique(numbers, return_index=True)[1]
    moved = np.r_[
        firsts[::-1], np.setdiff1d(np.arange(8), firsts)
    ]  # the first row of each id stays its first

    def table(name: str, rows: Array, order: Array) -> Any:
        if stored:
            return make_run(name, rows[order], item_ids=ids[order])
        return es.table(rows[order], ids=ids[order])

    ours, theirs = table("run", T, np.arange(8)), table("reference", B, np.arange(8))
    for reference in (theirs, table("moved", B, moved)):
        with pytest.raises(es.IdError, match=f"repeats {8 - len(firsts)} of them"):
            es.fit(ours, reference=reference, min_matched=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", es.EmbstabWarning)
        same = es.fit(ours, reference=theirs, duplicates="first", min_matched=1)
        joined = es.fit(ours, reference=table("again", B, moved), duplicates="first", min_matched=1)
    np.testing.assert_array_equal(same.items, joined.items)
    if len(firsts) > 1:
        assert_close(same.items, rotation(T[firsts], B[firsts]), 1e-12)
    assert same.diagnostics["items"]["matched"] == len(firsts)
    assert same.diagnostics["items"]["duplicates"] == {
        "run": 8 - len(firsts),
        "reference": 8 - len(firsts),
    }


def test_evaluate_refuses_them_too(make_run: MakeRun) -> None:
    rows, ids = np.random.default_rng(4).normal(size=(20, 3)), [*range(19), 3]
    run = make_run("a", rows, rows, item_ids=ids, user_ids=range(20))
    with pytest.raises(es.IdError, match="repeats 1 of them"):
        es.evaluate(run, run)


def rewrite(run: es.Run, numbers: Array) -> None:
    ids: Any = zarr.open_array(run.path, path="items/id", mode="r+")
    ids[:] = ids_of("string", numbers)


def test_what_was_found_is_remembered_until_the_ids_change(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(distinct, "_REMEMBERED_ROWS", 10)
    rows, numbers = (
        np.random.default_rng(5).normal(size=(30, 3)),
        np.random.default_rng(6).permutation(30),
    )
    runs = [
        make_run(name, rows, item_ids=ids_of("string", numbers)) for name in ("run", "reference")
    ]
    es.fit(runs[0], reference=runs[1])
    (mark,) = hidden(tmp_path)
    assert mark.name.startswith(".reference.zarr.items.distinct-")
    assert not mark.read_bytes()

    def never(_: Array) -> Any:
        raise AssertionError("ids are decoded")

    with monkeypatch.context() as patched:
        patched.setattr(distinct, "read_keys", never)
        patched.setattr(distinct, "id_ranges", never)
        assert (
            es.fit(runs[0], reference=runs[1]).diagnostics["items"]["paired_by"] == "identical ids"
        )
    numbers[7] = numbers[20]
    for run in runs:
        rewrite(run, numbers)
    with pytest.raises(es.IdError, match="repeats 1 of them"):
        es.fit(runs[0].path, reference=runs[1].path)
    numbers[7] = 100
    for run in runs:
        rewrite(run, numbers)
    es.fit(runs[0].path, reference=runs[1].path)
    (fresh,) = hidden(tmp_path)
    assert fresh.name != mark.name, "what is remembered of other ids goes"


def test_a_run_in_a_read_only_folder_is_checked_every_time(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(distinct, "_REMEMBERED_ROWS", 10)
    rows, numbers = (
        np.random.default_rng(5).normal(size=(30, 3)),
        np.random.default_rng(6).permutation(30),
    )
    runs = [make_run(name, rows, item_ids=numbers) for name in ("run", "reference")]

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "touch", denied)
    for _ in range(2):
        assert (
            es.fit(runs[0], reference=runs[1]).diagnostics["items"]["paired_by"] == "identical ids"
        )
    assert not hidden(tmp_path)


def test_gc_takes_what_is_known_of_runs_that_are_gone(make_run: MakeRun, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    series = es.Series.init(tmp_path / "series")
    series.add(make_run("first", rng.normal(size=(60, 3)), rng.normal(size=(60, 3))))
    runs, name = tmp_path / "series" / "runs", f"items.distinct-{'0' * 16}"
    for run in ("first", "gone"):
        (runs / f".{run}.zarr.{name}").touch()
        (runs / f".{run}.zarr.users.ids-{'1' * 16}").mkdir()
    assert series.gc(grace=0).removed == [
        f"runs/.gone.zarr.{name}",
        f"runs/.gone.zarr.users.ids-{'1' * 16}",
    ]
    assert len(hidden(runs)) == 2
