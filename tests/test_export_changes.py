"""What a store that has an earlier version of a series must rewrite: rows that are new or differ
in any bit as they are written, and the ids that are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import hidden
from test_export import all_bytes, read_npy

import dask_embstab as es
from dask_embstab.exchange.changes import Changes
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.run_tables import write_tables

Rows = np.ndarray[Any, Any]
N, D = 60, 4
OLD_IDS = np.array([f"i{k}" for k in range(N)], object)
NEW_IDS = np.array([f"i{k}" for k in [*range(5, N), *range(100, 110)]], object)


Make = Callable[..., es.Run]


def table_of(run: es.Run) -> dict[str, Rows]:
    return dict(zip(run.items.ids.compute(), run.items.vectors.compute(), strict=True))


def changes_of(new: es.Run, old: es.Run, place: Path, **options: Any) -> dict[str, Any]:
    """What the export of a version writes, of two runs that are in no series."""
    given = {"ids_changed_since": 1, "rows_per_file": 20, **options}
    return write_tables(Export(new, place, "npy", given, {}, base=old))["items"]


def exported(out: Path) -> tuple[dict[str, Rows], set[str]]:
    ids, rows = read_npy(out / "items")
    gone = [i for path in (out / "items-gone").iterdir() for i in np.load(path)]
    return dict(zip(ids, rows, strict=True)), set(gone)


def drifted() -> tuple[Rows, Rows]:
    """Of 55 shared rows a third moved far, a third a little, and the others not at all."""
    rng = np.random.default_rng(1)
    old = rng.normal(size=(N, D)).astype("float32")
    new = np.concatenate([old[5:], rng.normal(size=(10, D)).astype("float32")])
    new[::3] += 0.3 * rng.normal(size=new[::3].shape).astype("float32")
    new[1::3] *= np.float32(1 + 1e-6)
    return old, new


@pytest.mark.parametrize("order", ["same", "ascending", "shuffled"])
def test_changed_rows_are_those_that_numpy_finds(
    make_run: Make, tmp_path: Path, order: str
) -> None:
    old, new = drifted()
    at = {
        "same": np.arange(N + 5),
        "ascending": np.argsort(NEW_IDS),
        "shuffled": np.random.default_rng(7).permutation(N + 5),
    }[order]
    first = np.argsort(OLD_IDS) if order == "ascending" else np.arange(N)
    a = make_run("a", old[first], item_ids=OLD_IDS[first], dtype="float32")
    b = make_run("b", new[at], item_ids=NEW_IDS[at], dtype="float32")
    before, now = table_of(a), table_of(b)
    shared = before.keys() & now.keys()
    differ = {i for i in shared if before[i].tobytes() != now[i].tobytes()}

    def moved(i: str, by: str) -> float:
        x, y = before[i].astype("float64"), now[i].astype("float64")
        if by == "distance":
            return float(np.linalg.norm(x - y))
        return 1 - float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    for number, (least, by) in enumerate([(None, ""), (1e-4, "cosine"), (0.4, "distance")]):
        options = {} if least is None else {"where_moved_more_than": least, "moved_by": by}
        done = changes_of(b, a, tmp_path / str(number), **options)
        kept = {i for i in differ if least is None or moved(i, by) > least}
        rows, gone = exported(tmp_path / str(number))
        assert rows.keys() == kept | (now.keys() - before.keys())
        assert all(rows[i].tobytes() == now[i].tobytes() for i in rows)
        assert gone == before.keys() - now.keys()
        counts = {k: done[k] for k in ("new", "changed", "moved_less", "unchanged", "gone")}
        assert counts == {
            "new": 10,
            "changed": len(kept),
            "moved_less": len(differ) - len(kept),
            "unchanged": 55 - len(differ),
            "gone": 5,
        }
        assert counts["unchanged"] > 10
        assert (least is None) == (counts["moved_less"] == 0)


def test_a_store_that_applies_the_changes_has_the_new_version(
    make_run: Make, tmp_path: Path
) -> None:
    old, new = drifted()
    a = make_run("a", old, item_ids=OLD_IDS, dtype="float32")
    b = make_run("b", new[::-1], item_ids=NEW_IDS[::-1], dtype="float32")
    store = table_of(a)
    changes_of(b, a, tmp_path / "out")
    rows, gone = exported(tmp_path / "out")
    store = {i: row for i, row in (store | rows).items() if i not in gone}
    wanted = table_of(b)
    assert store.keys() == wanted.keys()
    assert all(store[i].tobytes() == wanted[i].tobytes() for i in store)


def test_what_is_compared_is_what_is_written(make_run: Make, tmp_path: Path) -> None:
    """Rows that differ in float32 and not in float16 are no change of a float16 export."""
    old, new = drifted()
    a = make_run("a", old, item_ids=OLD_IDS, dtype="float32")
    b = make_run("b", new, item_ids=NEW_IDS, dtype="float32")
    before, now = (
        {i: row.astype("float16").tobytes() for i, row in table_of(run).items()} for run in (a, b)
    )
    changes_of(b, a, tmp_path / "half", dtype="float16")
    rows, _ = exported(tmp_path / "half")
    assert rows.keys() == {i for i in now if before.get(i) != now[i]}


def test_joins_out_of_memory_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n = 9000
    old, ids = rng.normal(size=(n, D)).astype("float32"), np.arange(n) * 3
    at = rng.permutation(n)
    new = old[at].copy()
    new[::2] *= 2
    a = es.create_run(tmp_path / "a.zarr", old, item_ids=ids, chunk_rows=4096)
    b = es.create_run(tmp_path / "b.zarr", new, item_ids=ids[at], chunk_rows=4096)
    options = {"rows_per_file": 4000}
    done = changes_of(b, a, tmp_path / "here", **options)
    changes_of(b, a, tmp_path / "spilled", join_memory=1 << 20, scratch=str(tmp_path), **options)
    assert all_bytes(tmp_path / "here") == all_bytes(tmp_path / "spilled")
    assert (done["changed"], done["unchanged"]) == (n // 2, n // 2)


def test_repeated_ids_are_refused_or_their_first_row_counts(make_run: Make, tmp_path: Path) -> None:
    old, new = drifted()
    twice = np.array([*OLD_IDS[:-1], OLD_IDS[0]], object)
    a = make_run("a", old, item_ids=twice, dtype="float32")
    b = make_run("b", new, item_ids=NEW_IDS, dtype="float32")
    with pytest.raises(es.IdError, match="repeats 1 of them"):
        changes_of(b, a, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- of a series


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> es.Series:
    """Two runs of one space, then a forget that wrote both anew, and a rebase."""
    folder = tmp_path_factory.mktemp("changes")
    made = es.Series.init(
        folder / "series", policy="first", keep="geometry", first_run="raw", gates={}
    )
    for name, rows, ids in zip("ab", drifted(), (OLD_IDS, NEW_IDS), strict=True):
        run = es.create_run(folder / f"{name}.zarr", rows, item_ids=ids, chunk_rows=16)
        made.add(run, accept="test")
    made.forget(["i7"], table="items", rewrite=True)
    made.rebase(
        onto=es.create_run(folder / "onto.zarr", drifted()[0] @ np.eye(D)[::-1], item_ids=OLD_IDS)
    )
    return made


def test_nothing_has_changed_since_the_version_itself(series: es.Series, tmp_path: Path) -> None:
    """And an empty file still tells the types."""
    head = series.head().version
    for name in ("npy", "parquet", "csv", "arrow", "word2vec", "word2vec-binary"):
        done = es.export(series, tmp_path / name, format=name, ids_changed_since=head)
        assert (done["items"]["rows"], done["items"]["gone"]) == (0, 0)
        assert done["items"]["unchanged"] == len(NEW_IDS) - 1
    assert np.load(tmp_path / "npy/items/part-00000.vectors.npy").shape == (0, D)
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "parquet" / "items")
    assert table.schema.names == ["id", "vector"]


def test_versions_on_either_side_of_a_rebase_or_a_forget_are_not_compared(
    series: es.Series, tmp_path: Path
) -> None:
    for version, message in (
        (3, r"version 3 \(a forget\) removed ids since version 1"),
        (4, "version 3"),
    ):
        with pytest.raises(es.InputError, match=message):
            es.export(series, tmp_path / "out", version=version, ids_changed_since=1)
    with pytest.raises(es.InputError, match=r"version 4 \(a rebase\) turned all axes"):
        es.export(series, tmp_path / "out", ids_changed_since=3)
    assert hidden(tmp_path) == []


def test_two_versions_between_moves_are_compared(series: es.Series, tmp_path: Path) -> None:
    done = es.export(
        f"{series.store.place('')}@2", tmp_path / "out", format="npy", ids_changed_since=1
    )
    assert (done["version"], done["items"]["new"], done["items"]["gone"]) == (2, 10, 5)


def test_a_negative_zero_is_another_bit_and_a_row_of_zeros_has_moved() -> None:
    old = np.array([[0.0, 1], [0, 0], [1, 1], [1, 1]], "float32")
    new = np.array([[-0.0, 1], [1, 0], [0, 0], [1, 1]], "float32")
    kept, counts = Changes(np.dtype("float32")).select(new, (old, None))
    assert kept.tolist() == [True, True, True, False]
    kept, counts = Changes(np.dtype("float32"), more_than=0.5).select(new, (old, None))
    assert kept.tolist() == [False, True, True, False]
    assert dict(counts) == {"new": 0, "changed": 2, "moved_less": 1, "unchanged": 1}


def test_rows_of_another_width_have_changed_and_move_with_zeros_behind_them() -> None:
    old, new = np.array([[3.0, 4]]), np.array([[3.0, 4, 0]])
    assert Changes(np.dtype("float64")).select(new, (old, None))[0].tolist() == [True]
    moved = Changes(np.dtype("float64"), more_than=0.0, by="distance").select(new, (old, None))
    assert moved[0].tolist() == [False]
