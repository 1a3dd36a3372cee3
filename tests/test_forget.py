"""Ids that must be deleted: what the series keeps is written anew without them, and everything else
stays bit for bit.
"""

from __future__ import annotations

import json
import pickle
import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_consensus
from hypothesis import given
from hypothesis import strategies as st
from oracle import meanwhile, world
from test_consensus import OFF, state_of, unit

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.admin import forget as forgetting
from dask_embstab.series.log.published import published_reference
from dask_embstab.series.publish.consensus import consensus_of
from dask_embstab.tables.remaining import Remaining, without_rows
from dask_embstab.tables.table import make_table

quick, series = test_consensus.quick, test_consensus.series
N_ITEMS, N_USERS, D = 24, 40, 4
GONE, LIVE = "i2", "i30"
"""An item that only the first runs have, and one that the last run has."""


def item_ids(day: int) -> list[str]:
    return [f"i{k}" for k in range(6 * day, 6 * day + N_ITEMS)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days in a series, a quarter of the items new every day, users known by numbers; and a
    fourth day.
    """
    folder = tmp_path_factory.mktemp("forget")
    series = es.Series.init(folder / "series", gates=OFF, forget_below=0, min_matched=1)
    for day in range(4):
        T, W = world(day, N_ITEMS, N_USERS, D)
        run = es.create_run(
            folder / f"day-{day}.zarr",
            T,
            W,
            item_ids=item_ids(day),
            user_ids=np.arange(N_USERS) + 100,
            chunk_rows=8,
        )
        assert day > 2 or series.add(run).published
    return folder


def rows(run: es.Run, key: str = "items") -> dict[Any, bytes]:
    """Every id's row, as bytes."""
    table = run.table(key)
    ids = np.asarray(table.ids).tolist()
    return dict(zip(ids, (row.tobytes() for row in np.asarray(table.vectors)), strict=True))


def references(series: es.Series) -> dict[str, dict[Any, bytes]]:
    log = series.log()
    return {
        n: rows(published_reference(series.store, v))
        for n, v in log.stored.items()
        if v.has_reference
    }


def on_disk(folder: Path, text: str) -> list[str]:
    """Files that hold a text id (ids are not compressed), the links to runs that were delivered
    left out.
    """
    needle = len(text).to_bytes(4, "little") + text.encode()
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and needle in path.read_bytes()
    ]


@pytest.mark.parametrize("rewrite", [False, True], ids=["references", "rewritten"])
def test_forgotten_ids_are_in_nothing_that_is_read_and_all_else_stays(
    series: es.Series, tmp_path: Path, template: Path, *, rewrite: bool
) -> None:
    runs, means = [rows(series.open(n)) for n in (1, 2, 3)], references(series)
    users = [rows(series.open(n), "users") for n in (1, 2, 3)]
    made = series.forget([GONE, LIVE, "nobody"], rewrite=rewrite)
    assert (made.published, made.version.kind, made.table, made.unknown) == (
        True,
        "forget",
        "items",
        ("nobody",),
    )
    assert made.references == ("day-1", "day-2")
    assert (
        made.version.forgot
        == {
            "table": "items",
            "ids": 2,
            "runs": 3 * rewrite - rewrite,
            "references": 2,
        }
        or rewrite
    )
    forgotten = {GONE, LIVE}
    for n, before in zip((1, 2, 3), runs, strict=True):
        left = {name: row for name, row in before.items() if not rewrite or name not in forgotten}
        assert rows(series.open(n)) == left
        assert list(rows(series.open(n))) == list(left), "in their order"
        assert rows(series.open(n), "users") == users[n - 1]
    for name, before in means.items():
        assert references(series)[name] == {
            key: row for key, row in before.items() if key not in forgotten
        }
    holding = tuple(f"day-{n}" for n in range(3) if not rewrite and forgotten & set(runs[n]))
    assert made.still_in == holding
    assert not series.verify().damage

    series.gc(grace=0)
    assert not series.verify().damage
    assert bool(on_disk(tmp_path / "series" / "runs", GONE)) is not rewrite
    assert not on_disk(tmp_path / "series" / "references", GONE)
    assert not on_disk(tmp_path / "series" / "references", LIVE)
    if rewrite:
        with pytest.raises(es.IdError, match="1 of 1 ids are in no row"):
            series.open(3).table("items").rows_of([LIVE])
    # Life goes on: an id that is delivered again is new.
    assert series.add(template / "day-3.zarr").published
    ids, _, weights = state_of(series, "day-3")
    weight = dict(zip(ids, weights, strict=True))
    assert weight[LIVE] == 1
    assert weight["i29"] > 1
    assert not series.verify().damage


def test_a_forgotten_row_asks_nothing_of_the_next_run(series: es.Series) -> None:
    """The reference's rows still meet the head's own rows of the same ids, though the head's run
    has one more.
    """
    series.forget([LIVE])
    log = series.log()
    head = log.located(log.head)  # type: ignore[arg-type]
    target = consensus_of(series.store, head, series.settings).table("items")
    block = target.source.block(0, target.n_rows).open().take(0, target.n_rows)
    state = published_reference(series.store, head)
    ids, mean = (
        np.asarray(state.table("items").ids).tolist(),
        np.asarray(state.table("items").vectors),
    )
    weight = np.asarray(state.group["items/weight"][:])  # type: ignore[index]
    run = series.open()
    own = dict(
        zip(
            np.asarray(run.table("items").ids).tolist(),
            unit(np.asarray(run.table("items").vectors)),
            strict=True,
        )
    )
    assert LIVE not in ids
    wanted = [m * w + 0.5 * own.get(name, 0) for name, m, w in zip(ids, mean, weight, strict=True)]
    np.testing.assert_allclose(block, wanted, atol=1e-6)


def test_asked_twice_nothing_is_left_and_in_steps_it_is_the_same(
    series: es.Series, tmp_path: Path
) -> None:
    at_once = es.Series(shutil.copytree(tmp_path / "series", tmp_path / "once"))
    at_once.forget([GONE, LIVE], rewrite=True)
    series.forget(GONE)
    series.forget([LIVE])
    assert series.log().head.version == 5  # type: ignore[union-attr]
    assert series.forget([GONE, LIVE], rewrite=True).published, "the runs held them still"
    assert references(series) == references(at_once)
    assert [rows(series.open(n)) for n in (1, 2, 3)] == [rows(at_once.open(n)) for n in (1, 2, 3)]
    for one in (series, at_once):
        again = one.forget([LIVE, GONE], rewrite=True)
        assert (again.published, again.unknown) == (False, (LIVE, GONE))
        assert "nothing that this series reads holds any of these ids" in again.note
        one.gc(grace=0)
        assert not one.verify().damage
        assert not on_disk(Path(str(one.store.place(""))), LIVE)


def test_numbers_are_forgotten_by_number_or_text(series: es.Series) -> None:
    assert series.forget([107], rewrite=True).table == "users"
    for same in (["107"], np.array([107]), 107):
        assert not series.forget(same, rewrite=True).published
    assert 107 not in rows(series.open(1), "users")
    assert len(rows(series.open(1), "users")) == N_USERS - 1


def test_ids_are_given_as_a_person_has_them(tmp_path: Path) -> None:
    """UUIDs as texts in any case, columns of any library; what is only spelled otherwise is another
    id, and named.
    """
    T, W = world(0, N_ITEMS, N_USERS, D)
    names = [f"caf\u00e9 {k}" for k in range(N_ITEMS)]
    keys = [uuid.UUID(int=0xABCD + k) for k in range(N_USERS)]
    series = es.Series.init(tmp_path / "s", gates=OFF)
    series.add(
        es.create_run(tmp_path / "r.zarr", T, W, item_ids=names, user_ids=keys, chunk_rows=8)
    )
    assert series.forget([str(keys[0]).upper(), str(keys[1])], rewrite=True).table == "users"
    assert series.forget(pd.Series(names[:2]), rewrite=True).published
    assert (series.open().table("users").n_rows, series.open().table("items").n_rows) == (
        N_USERS - 2,
        N_ITEMS - 2,
    )
    other = series.forget(["cafe\u0301 5"], rewrite=True)
    assert not other.published
    assert "spelled otherwise (caf\u00e9 5)" in other.note
    for wrong, match in (
        ({"a": 1}, "keys or its values"),
        (pd.DataFrame({"id": names}), "DataFrame"),
        ([1.5], "none"),
    ):
        with pytest.raises(es.InputError, match=match):
            series.forget(wrong, rewrite=True)


@pytest.mark.parametrize("rewrite", [False, True])
def test_under_a_rebase_views_stay_as_they_were(
    series: es.Series, template: Path, tmp_path: Path, *, rewrite: bool
) -> None:
    es.stabilize(template / "day-3.zarr", tmp_path / "other.zarr")
    before = [rows(series.open(n)) for n in (1, 2, 3)]
    series.rebase(tmp_path / "other.zarr", rewrite=rewrite)
    between = [rows(series.open(n)) for n in (1, 2, 3)]
    assert series.forget([LIVE], rewrite=True).published
    for n, old in zip((1, 2, 3), between, strict=True):
        assert rows(series.open(n)) == {name: row for name, row in old.items() if name != LIVE}
    assert series.add(template / "day-3.zarr").published
    series.rebase(None)
    for n, old in zip((1, 2, 3), before, strict=True):
        for name, row in rows(series.open(n)).items():
            np.testing.assert_allclose(np.frombuffer(row), np.frombuffer(old[name]), atol=1e-9)
    series.gc(grace=0)
    assert not series.verify().damage


def test_a_rollback_and_a_rewriting_rebase_go_on_from_it(series: es.Series, template: Path) -> None:
    series.forget([LIVE])
    series.rollback(2)
    assert series.add(template / "day-3.zarr").published
    series.rebase(1, rewrite=True)
    assert series.add(es.open_run(template / "day-0.zarr"), name="once more").published
    series.gc(grace=0)
    assert not series.verify().damage
    assert LIVE not in references(series)["day-2"]


def test_what_cannot_be_forgotten_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    series, (T, W) = es.Series.init(tmp_path / "s", gates=OFF), world(0, N_ITEMS, N_USERS, D)
    with pytest.raises(es.InputError, match="nothing is published in this series yet"):
        series.forget([1])
    numbers = np.arange(N_USERS)
    series.add(
        es.create_run(tmp_path / "both.zarr", T, W, item_ids=numbers[:N_ITEMS], user_ids=numbers)
    )
    with pytest.raises(
        es.InputError, match="both items and users have some of these; table= says which"
    ):
        series.forget([3], rewrite=True)
    assert series.forget([3], table="users", rewrite=True).runs == ("both",)
    with pytest.raises(es.InputError, match="must keep at least one row"):
        series.forget(numbers, table="items", rewrite=True)
    for wrong, match in (
        ([], "at least one id"),
        (5.5, "a float came"),
        (["a"], "int64"),
        (["1_0"], "int64"),
        ([[1]], "unhashable"),
    ):
        with pytest.raises(es.InputError, match=match):
            series.forget(wrong, table="items")
    plain = es.Series.init(tmp_path / "plain", gates=OFF)
    plain.add(es.create_run(tmp_path / "plain.zarr", T, W))
    with pytest.raises(es.IdError, match="known by their number"):
        plain.forget([3], rewrite=True)
    assert [len(one.log().versions) for one in (series, plain)] == [2, 1]


def test_the_head_s_first_run_is_its_own_reference(template: Path, tmp_path: Path) -> None:
    """Without a stored reference the run itself is asked, so it says where an id still is."""
    fresh = es.Series.init(tmp_path / "fresh", gates=OFF)
    fresh.add(template / "day-0.zarr")
    made = fresh.forget([GONE])
    assert (made.published, made.still_in) == (False, ("day-0",))
    assert "rewrite=True" in made.note
    assert fresh.forget([GONE], rewrite=True).published
    assert fresh.add(template / "day-1.zarr").version.figures["items"]["unmatched_reference"] == 5


def test_a_lost_race_is_retried(series: es.Series, template: Path) -> None:
    other = partial(series.add, template / "day-3.zarr")
    with meanwhile(forgetting, "create_version", other), pytest.raises(es.RetryError):
        series.forget([LIVE], rewrite=True)
    assert series.forget([LIVE], rewrite=True).runs == ("day-2", "day-3")
    series.gc(grace=0)
    assert not series.verify().damage


@pytest.mark.usefixtures("series")
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "series")

    def run(*options: str) -> tuple[Any, Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(["series", "forget", place, *options], prog_name="embstab")
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    code, out, _ = run(GONE, "-5", "--json")
    printed = json.loads(out)
    assert (code, printed["kind"], printed["unknown"], printed["table"], printed["still_in"]) == (
        0,
        "forget",
        ["-5"],
        "items",
        ["day-0"],
    )
    assert "--rewrite too" in printed["note"]
    code, out, _ = run("104", "--rewrite", "--table", "users", "--json")
    assert (code, json.loads(out)["runs"]) == (0, ["day-0", "day-1", "day-2"])
    code, out, _ = run("104", "--rewrite", "--json")
    assert (code, json.loads(out)["published"]) == (0, False)
    code, _, err = run("abc", "--table", "users")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = run("1", "--rewrit")
    assert code == 2
    assert "there is no option --rewrit" in err


# --- the view that all of it is written through


@given(data=st.data())
def test_remaining_rows_are_numpy_s(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 40))
    gone = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1))), np.int64)
    array, ids = np.arange(2.0 * n).reshape(n, 2), np.array([f"x{i}" for i in range(n)], object)
    table = without_rows(make_table(array, ids, where="t"), gone)
    wanted = np.delete(array, gone, axis=0)
    assert table.n_rows == len(wanted)
    start = data.draw(st.integers(0, len(wanted) - 1))
    stop = data.draw(st.integers(start + 1, len(wanted)))
    reader, step = table.source.block(start, stop).open(), data.draw(st.integers(1, 9))
    for at in range(start, stop, step):
        end = min(at + step, stop)
        np.testing.assert_array_equal(reader.take(at, end), wanted[at:end])
    selected = np.array(data.draw(st.lists(st.integers(0, len(wanted) - 1), min_size=1)))
    np.testing.assert_array_equal(
        table.source.gather(selected).open().take(0, len(selected)), wanted[selected]
    )
    np.testing.assert_array_equal(
        table.row_ids.open().take(start, stop), np.delete(ids, gone)[start:stop]
    )
    block = table.row_ids.block(start, stop)
    np.testing.assert_array_equal(
        block.ids.open().take(block.start, block.stop), np.delete(ids, gone)[start:stop]
    )
    kept = np.setdiff1d(np.arange(n), gone)
    np.testing.assert_array_equal(Remaining(n, gone).before(np.arange(len(kept))), kept)
    np.testing.assert_array_equal(Remaining(n, gone).now(np.arange(n)), np.arange(len(kept)))


def test_a_task_is_given_its_own_rows_alone() -> None:
    """However many ids are forgotten, a graph stays as large as its table."""
    n = 100_000
    table = without_rows(make_table(np.zeros((n, 2)), np.arange(n), where="t"), np.arange(0, n, 2))
    pickled = pickle.dumps(
        (table.source.block(70, 90).reader, table.row_ids.block(70, 90).ids.rows)
    )
    assert len(pickled) < 2000
