"""Any permutation, any overlap, any chunking, any kind of id and any memory: the pairs are those of
the oracle.
"""

from __future__ import annotations

import re
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, align, assert_close, draws, hidden, pairs_by_id, vectors_of, world

import dask_embstab as es
from dask_embstab.passes.join.distinct import may_repeat
from dask_embstab.passes.join.options import JoinOptions, join_options
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.partitioned import partitioned
from dask_embstab.tables.ids import scratch as scratching
from dask_embstab.tables.ids.ids import Ids, as_ids
from dask_embstab.tables.ids.kinds import shown
from dask_embstab.tables.ids.texts import Texts
from dask_embstab.tables.read.arrays import rows_in_memory
from dask_embstab.tables.table import make_table

pytestmark = pytest.mark.usefixtures("small_tasks", "small_joins")
MakeRun = Callable[..., es.Run]
T, W = world(41)
B = world(42)[0] + T
KINDS = ("int64", "string", "uuid")
TINY, AMPLE = 1 << 13, 1 << 24


@pytest.fixture
def small_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges, windows and slabs of a few rows, so that a join of 60 ids runs through all of it."""
    for name in (
        "tables.ids.ids.ID_RANGE",
        "passes.join.pairing.ID_RANGE",
        "passes.join.merge._WINDOW",
    ):
        monkeypatch.setattr(f"dask_embstab.{name}", 8)
    monkeypatch.setattr("dask_embstab.passes.join.partitioned._FEWEST_ROWS", 7)
    monkeypatch.setattr("dask_embstab.passes.join.options._LEAST", 1)


def ids_of(kind: str, numbers: Array) -> Array:
    """Ids of a kind for these numbers; texts of unequal lengths, some beyond ASCII."""
    if kind == "int64":
        return np.asarray(numbers) * 7919 - 10**12
    if kind == "uuid":
        return np.array(
            [uuid.uuid5(uuid.NAMESPACE_OID, str(i)).bytes for i in numbers], dtype="V16"
        )
    return np.array([f"{'é' * (i % 3)}{i}" for i in numbers], dtype=object)


def as_stored(ids: Array, chunk: int, layout_kind: str, **layout: Any) -> Any:
    if layout_kind == "dask":
        return da.from_array(ids, chunks=chunk)
    if layout_kind == "numpy":
        return ids
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # zarr: strings and raw bytes have no final specification yet
        kind = str if ids.dtype.kind == "O" else ids.dtype
        stored = zarr.create_array(
            zarr.storage.MemoryStore(), shape=ids.shape, chunks=(chunk,), dtype=kind, **layout
        )
        stored[:] = ids
    return stored


@contextmanager
def paired(mine: Any, theirs: Any, memory: int, **options: Any) -> Iterator[Pairing]:
    tables = [
        make_table(np.ones((ids.shape[0], 2)), ids, where=name)
        for name, ids in (("run", mine), ("ref", theirs))
    ]
    with join_options(join_memory=memory, **options) as join:
        yield pair(tables[0], tables[1], join)


def index_of(pairing: Pairing, n: int, m: int) -> tuple[list[int], list[int]]:
    assert pairing.inverse is not None
    return pairing.partners.take(0, n).tolist(), pairing.inverse.take(0, m).tolist()


def expected(mine: Array, theirs: Array) -> tuple[list[int], list[int]]:
    """Partners by the plainest look-up; the first row of an id counts."""
    first: dict[Any, int] = {}
    for row, value in enumerate(theirs.tolist()):
        first.setdefault(value, row)
    index, inverse = [-1] * len(mine), [-1] * len(theirs)
    for row, value in enumerate(mine.tolist()):
        at = first.pop(value, None)
        if at is not None:
            index[row], inverse[at] = at, row
    return index, inverse


sizes = st.integers(1, 70)


@settings(max_examples=draws(20))
@given(data=st.data(), kind=st.sampled_from(KINDS), n=sizes, m=sizes, seed=st.integers(0, 999))
def test_any_join_is_the_oracle_s(data: Any, kind: str, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = [rng.permutation(90)[:size] for size in (n, m)]
    if data.draw(st.booleans()):
        numbers = [np.sort(part) for part in numbers]
    mine, theirs = (ids_of(kind, part) for part in numbers)
    index, inverse = expected(mine, theirs)
    stored = [
        as_stored(
            ids,
            data.draw(st.integers(1, 40)),
            data.draw(st.sampled_from(["dask", "numpy", "zarr"])),
        )
        for ids in (mine, theirs)
    ]
    memory = data.draw(st.sampled_from([TINY, AMPLE]))
    if max(index) < 0:
        with pytest.raises(es.IdError, match="share no id"), paired(*stored, memory):
            pass
        return
    with paired(*stored, memory) as pairing:
        matched = sum(row >= 0 for row in index)
        assert (pairing.matched, pairing.new, pairing.unmatched_reference) == (
            matched,
            n - matched,
            m - matched,
        )
        if pairing.index is None:
            assert mine.tolist() == theirs.tolist()
        else:
            assert index_of(pairing, n, m) == (index, inverse)
        if pairing.paired_by == "partitioned ids":
            assert pairing.n_bytes > 16 * (n + m)


ORDERS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "identical ids": lambda ids: (ids, ids.copy()),
    "merged ids": lambda ids: (np.sort(ids)[5:], np.sort(ids)[:-3]),
    "joined ids": lambda ids: (ids, ids[::-1]),
    "partitioned ids": lambda ids: (ids, ids[::-1]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ORDERS)
def test_the_path_of_the_join_is_the_cheapest_and_stated(path: str, kind: str) -> None:
    ids = ids_of(kind, np.random.default_rng(0).permutation(60))
    mine, theirs = (
        side.view(ids.dtype) for side in ORDERS[path](ids.view("S16") if kind == "uuid" else ids)
    )
    with paired(mine, theirs, AMPLE if path == "joined ids" else TINY) as pairing:
        assert pairing.paired_by == path
        if path != "identical ids":
            assert index_of(pairing, len(mine), len(theirs)) == expected(mine, theirs)


def test_ids_that_cease_to_ascend_are_not_merged() -> None:
    mine = np.arange(60)
    mine[50:] = mine[50:][::-1]
    with paired(mine, np.arange(60) + 1, AMPLE) as pairing:
        assert pairing.paired_by == "joined ids"
        assert index_of(pairing, 60, 60) == expected(mine, np.arange(60) + 1)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First rows of what was decoded of ids that are stored in a Zarr array."""
    seen: list[int] = []

    def counted(array: Any, start: int, stop: int, **what: Any) -> Any:
        if isinstance(array, zarr.Array):
            seen.append(start)
        return rows_in_memory(array, start, stop, **what)

    monkeypatch.setattr("dask_embstab.tables.ids.ids.rows_in_memory", counted)
    return seen


def test_a_shard_of_ids_is_decoded_once_out_of_core(
    monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    monkeypatch.setattr("dask_embstab.passes.join.partitioned._FEWEST_ROWS", 40)
    ids = ids_of("string", np.random.default_rng(3).permutation(96))
    shards = as_stored(ids, 8, "zarr", shards=(32,))
    ours, theirs = (as_ids(side, 96, where="run") for side in (shards, ids[::-1]))
    with join_options(join_memory=TINY) as join:
        assert partitioned(ours, theirs, join).matched == 96
    assert sorted(decoded) == [0, 32, 64]


def test_ids_that_ascend_are_read_once_to_tell_that_none_repeats(decoded: list[int]) -> None:
    stored = as_stored(np.sort(ids_of("uuid", np.arange(60)).view("S16")).view("V16"), 8, "zarr")
    with join_options(join_memory=AMPLE) as join:
        assert not may_repeat(as_ids(stored, 60, where="run"), "items", join)
    assert decoded == list(range(0, 60, 8))


@pytest.mark.parametrize("memory", [TINY, AMPLE])
def test_texts_that_share_a_key_are_distinguished(
    monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(Texts, "keys", lambda texts: (texts.length % 2).astype(np.uint64) << 63)
    mine, theirs = ids_of("string", np.arange(50)), ids_of("string", np.arange(70)[::-1])
    with paired(mine, theirs, memory) as pairing:
        assert index_of(pairing, 50, 70) == expected(mine, theirs)


# --- duplicates, nulls, mixed types


@pytest.mark.parametrize("memory", [TINY, AMPLE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("side", ["run", "ref"])
def test_duplicates_are_refused_by_name_or_the_first_counts(
    memory: int, kind: str, order: str, side: str
) -> None:
    rng = np.random.default_rng(1)
    twice, once = np.sort(np.r_[np.arange(40), [3, 3, 17, 30, 39]]), np.arange(50)
    if order == "shuffled":
        twice, once = rng.permutation(twice), rng.permutation(once)
    doubled, good = ids_of(kind, twice), ids_of(kind, once)
    both = (doubled, good) if side == "run" else (good, doubled)
    names = shown(ids_of(kind, np.array([3, 17, 30, 39])))
    with (
        pytest.raises(es.IdError, match=rf"unique.*{side} repeats 5 of them.*duplicates") as error,
        paired(*both, memory),
    ):
        pass
    assert all(name in str(error.value) for name in names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with paired(*both, memory, duplicates="first") as pairing:
            assert index_of(pairing, len(both[0]), len(both[1])) == expected(*both)
            assert pairing.duplicates == {
                "run": 0,
                "reference": 0,
                {"run": "run", "ref": "reference"}[side]: 5,
            }
    (warning,) = caught
    assert re.match(
        rf"{side} repeats 5 ids, for example .*; the first row of each counts", str(warning.message)
    )


def test_one_id_in_most_rows_does_not_fill_the_memory() -> None:
    many = np.where(np.arange(5000) % 100 == 0, np.arange(5000), 7)
    with (
        pytest.raises(es.IdError, match=r"repeats 49\d\d of them"),
        paired(many, np.arange(60)[::-1], 16 * TINY),
    ):
        pass


@pytest.mark.parametrize("bad", [None, 3, 2.5, float("nan"), b"x"])
@pytest.mark.parametrize("lazy", [False, True])
def test_nulls_and_mixed_types_are_named(bad: Any, lazy: bool) -> None:
    ids = np.array([f"u{i}" for i in range(20)], dtype=object)
    ids[[4, 9]] = bad
    given_ids = da.from_array(ids, chunks=5) if lazy else ids
    with (
        pytest.raises(es.IdError, match=r"none null; .* in row 4"),
        paired(given_ids, ids_of("string", np.arange(9)), TINY),
    ):
        pass


@pytest.mark.parametrize("bad", [None, 3, 2.5, b"x"])
def test_lists_are_no_way_around_it(bad: Any) -> None:
    with pytest.raises(es.IdError, match=r"none null; .* in row 1"):
        as_ids(["a", bad, "c"], 3, where="t")
    with pytest.raises(es.IdError, match="UTF-8"):
        as_ids([b"\xff", b"a"], 2, where="t").open().take(0, 2)


def test_a_list_of_raw_uuids_keeps_its_zeros() -> None:
    raw = [uuid.UUID(int=i << 8).bytes for i in range(3)]
    made = as_ids(raw, 3, where="t")
    assert (made.kind, made.open().take(0, 3).tolist()) == ("uuid", raw)


def test_a_fit_without_a_reference_reads_no_id(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("a", T, W, item_ids=np.zeros(60, int))
    monkeypatch.setattr(Ids, "open", lambda _: pytest.fail("ids were opened"))
    es.fit(run)


def test_equal_texts_are_compared_without_decoding_them(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ids_of("string", np.arange(60))
    a, b = make_run("a", T, item_ids=ids), make_run("b", B, item_ids=ids)
    with monkeypatch.context() as patched:
        patched.setattr(
            "dask_embstab.passes.join.pairing.are_identical",
            lambda *_: pytest.fail("ids were decoded"),
        )
        assert es.fit(a, reference=b).diagnostics["items"]["paired_by"] == "identical ids"
    other = make_run("c", B, item_ids=ids[::-1])
    assert es.fit(a, reference=other).diagnostics["items"]["paired_by"] == "joined ids"


@pytest.mark.parametrize("form", ["void", "bytes", "objects", "text"])
def test_uuids_in_any_form_are_stored_and_joined(make_run: MakeRun, form: str) -> None:
    made = [uuid.uuid5(uuid.NAMESPACE_OID, str(i)) for i in range(60)]
    forms = {"bytes": [u.bytes for u in made], "objects": made, "text": [str(u) for u in made]}
    ids = ids_of("uuid", np.arange(60)) if form == "void" else np.array(forms[form], dtype=object)
    order = np.random.default_rng(0).permutation(60)
    run, reference = make_run("a", T, W, item_ids=ids), make_run("b", B[order], item_ids=ids[order])
    assert run.items.stored_ids.kind == ("string" if form == "text" else "uuid")
    assert_close(es.fit(run, reference=reference).items, es.fit(T, W, reference=B).items, 1e-12)


def test_ids_beyond_int64_are_refused(make_run: MakeRun) -> None:
    ids = np.arange(60).astype(np.uint64)
    ids[3] = 2**64 - 1
    with pytest.raises(es.IdError, match="fit int64"):
        make_run("a", T, item_ids=ids)


# --- fits


def two(
    make_run: MakeRun, n: int = 50, m: int = 55, **options: Any
) -> tuple[es.Run, es.Run, tuple[Array, Array]]:
    """A run and a reference that share some ids in unrelated orders, and the pairs of rows."""
    rng = np.random.default_rng(5)
    mine, theirs = rng.permutation(60)[:n], rng.permutation(60)[:m]
    run = make_run("in", T[mine], W, item_ids=mine, user_ids=np.arange(90), **options)
    reference = make_run(
        "reference", B[theirs], W, item_ids=theirs, user_ids=np.arange(90)[::-1], **options
    )
    return run, reference, pairs_by_id(mine, theirs)


SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "only": {"only": np.arange(0, 60, 2)},
    "counts": {"counts": np.arange(50), "min_count": 11},
    "sample": {"sample": 30},
    "few": {"sample": 2, "keep": "geometry", "width": 4},
    "anchors": {"anchors": 12},
    "weights": {"weights": np.linspace(0, 2, 50)},
    "norm": {"weights": "norm", "unit_rows": True},
    "qr": {"method": "qr"},
    "centred": {"keep": "geometry", "center": True},
}


@pytest.mark.filterwarnings("ignore:the . matched rows determine")
@pytest.mark.parametrize("choice", SELECTIONS)
def test_bits_do_not_depend_on_how_rows_are_found(make_run: MakeRun, choice: str) -> None:
    run, reference, _ = two(make_run)
    ample, tiny = (
        es.fit(run, reference=reference, join_memory=size, **SELECTIONS[choice])
        for size in (AMPLE, TINY)
    )
    np.testing.assert_array_equal(ample.items, tiny.items)
    assert ample.diagnostics["alignment"] == tiny.diagnostics["alignment"]
    assert ample.diagnostics["anchor_bound"] == tiny.diagnostics["anchor_bound"]
    diagnostics = [result.diagnostics["items"] for result in (ample, tiny)]
    assert [figures["paired_by"] for figures in diagnostics] == ["joined ids", "partitioned ids"]
    ways = ["gather", "gather" if choice in ("few", "anchors") else "shuffle"]
    assert [figures["vectors"] for figures in diagnostics] == ways
    assert diagnostics[0]["scratch_bytes"] == 0 < diagnostics[1]["scratch_bytes"]
    assert diagnostics[0]["aligned"] == diagnostics[1]["aligned"]


@pytest.mark.parametrize("memory", [TINY, AMPLE])
def test_the_answer_is_the_oracle_s_and_so_is_what_the_user_is_told(
    make_run: MakeRun, memory: int
) -> None:
    run, reference, (mine, theirs) = two(make_run)
    fitted = es.fit(run, reference=reference, join_memory=memory)
    ours, known = vectors_of(run), vectors_of(reference)
    assert_close(ours @ fitted.items, align(ours, W, known, (mine, theirs))[0], 1e-9)
    diagnostics = fitted.diagnostics["items"]
    assert (diagnostics["matched"], diagnostics["new"], diagnostics["unmatched_reference"]) == (
        len(mine),
        50 - len(mine),
        55 - len(mine),
    )
    share = np.sum(known[theirs] ** 2) / np.sum(known**2)
    assert_close(
        [diagnostics["matched_energy"], diagnostics["unmatched_reference_energy"]],
        [share, 1 - share],
        1e-12,
    )
    assert_close(diagnostics["new_energy"], 1 - np.sum(ours[mine] ** 2) / np.sum(ours**2), 1e-12)


@pytest.mark.parametrize("m", [40, 60])
def test_shares_without_ids(m: int) -> None:
    diagnostics = es.fit(T, W, reference=B[:m]).diagnostics["items"]
    assert (diagnostics["matched_energy"], diagnostics["unmatched_reference_energy"]) == (1.0, 0.0)
    diagnostics = es.fit(T[:30], W, reference=B[:m]).diagnostics["items"]
    assert_close(
        diagnostics["unmatched_reference_energy"], np.sum(B[30:m] ** 2) / np.sum(B[:m] ** 2), 1e-12
    )


@pytest.mark.parametrize("form", ["sorted", "random"])
@pytest.mark.parametrize("source", ["numpy", "dask", "zarr", "run"])
def test_references_of_any_make(make_run: MakeRun, form: str, source: str) -> None:
    run, reference, (mine, theirs) = two(make_run)
    if form == "sorted":
        run, reference = (
            make_run(
                name,
                vectors_of(r)[o := np.argsort(r.items.ids.compute())],
                W,
                item_ids=r.items.ids.compute()[o],
            )
            for name, r in (("s", run), ("t", reference))
        )
        mine, theirs = pairs_by_id(run.items.ids.compute(), reference.items.ids.compute())
    known = vectors_of(reference)
    stored = {
        "numpy": known,
        "dask": da.from_array(known, chunks=9),
        "zarr": zarr.array(known, chunks=(9, 4)),
    }
    target = (
        reference
        if source == "run"
        else make_table(stored[source], reference.items.stored_ids.array, where="r")
    )
    fitted = es.fit(run, reference=target, join_memory=TINY)
    assert fitted.diagnostics["items"]["paired_by"] == (
        "merged ids" if form == "sorted" else "partitioned ids"
    )
    ours = vectors_of(run)
    assert_close(ours @ fitted.items, align(ours, W, known, (mine, theirs))[0], 1e-9)


def test_evaluate_does_not_depend_on_memory(make_run: MakeRun) -> None:
    run, reference, _ = two(make_run)
    ample, tiny = (
        es.evaluate(run, reference, k=7, users=20, join_memory=size) for size in (AMPLE, TINY)
    )
    assert ample == tiny


# --- scratch


def test_scratch_is_where_the_user_says_and_gone_afterwards(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reference, _ = two(make_run)
    (place := tmp_path / "scratch").mkdir()
    seen: list[int] = []
    original = scratching.make_owned
    monkeypatch.setattr(
        scratching, "make_owned", lambda *of, **more: (seen.append(1), original(*of, **more))[1]
    )
    es.fit(run, reference=reference, scratch=place, join_memory=TINY)
    with dask.config.set({"embstab.scratch": str(place), "embstab.join-memory": TINY}):
        es.evaluate(run, reference)
    assert len(seen) == 2
    assert list(place.iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr("dask_embstab.passes.join.shuffle.stable_order", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            es.fit(run, reference=reference, scratch=place, join_memory=TINY)
    assert list(place.iterdir()) == []
    assert hidden(tmp_path) == []


def test_scratch_that_cannot_serve_is_refused(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reference, _ = two(make_run)
    with pytest.raises(es.InputError, match="must exist and be writable"):
        es.fit(run, reference=reference, scratch=tmp_path / "nowhere", join_memory=TINY)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 17}))
    with pytest.raises(es.InputError, match=r"needs up to \d+ bytes .* 17 free.*scratch="):
        es.fit(run, reference=reference, scratch=tmp_path, join_memory=TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "reference.zarr"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"join_memory": "much"}, "like '400MB'"),
        ({"join_memory": 0}, "at least"),
        ({"duplicates": "last"}, "one of 'error', 'first'"),
        ({"anchors": 0}, "anchors must be at least 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(es.InputError, match=message):
        es.fit(T, W, reference=B, **options)


def test_a_join_takes_at_most_half_of_a_memory_limit() -> None:
    with dask.config.set({"embstab.memory-limit": "1GB"}), join_options() as join:
        assert join.memory == 500_000_000
    with join_options(join_memory="3 MiB") as join:
        assert isinstance(join, JoinOptions)
        assert join.memory == 3 << 20


def test_ids_without_their_table_are_an_error(tmp_path: Path) -> None:
    for given_ids, name in (({"item_ids": [1]}, "items"), ({"user_ids": [1]}, "users")):
        other = {"items": "users", "users": "items"}[name]
        with pytest.raises(es.InputError, match=f"no {name} are given"):
            es.create_run(tmp_path / "a", **{other: T}, **given_ids)
