"""The version-skew matrix of a series, against plain NumPy; what `evaluate` takes by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Array, vectors_of, world
from test_consensus import OFF

import dask_embstab as es
from dask_embstab.cli.main import main

MakeRun = Callable[..., es.Run]


def command(*arguments: Any, wanted: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments], prog_name="embstab")
    assert (ended.value.code or 0) == wanted


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> es.Series:
    """Three versions; the second lacks ten items, the third has others in their place."""
    place = tmp_path_factory.mktemp("skew")
    made = es.Series.init(place / "s", gates=OFF)
    for day in range(3):
        (T, W), (U, V) = world(0), world(day + 1)
        ids = np.arange(60) + (10 if day == 2 else 0)
        kept = slice(10, None) if day == 1 else slice(None)
        rows = (T + 0.3 * day * U)[(ids % 60)][kept]
        made.add(
            es.create_run(
                place / f"{day}.zarr",
                rows,
                W + 0.3 * day * V,
                item_ids=ids[kept],
                user_ids=np.arange(90),
                chunk_rows=16,
            )
        )
    return made


def best(queries: Array, rows: Array, ids: Array, k: int) -> list[set[int]]:
    order = np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :k]
    return [set(line) for line in ids[order].tolist()]


def share(ranked: list[set[int]], wanted: list[set[int]], k: int) -> float:
    return float(np.mean([len(a & b) / k for a, b in zip(ranked, wanted, strict=True)]))


@pytest.mark.usefixtures("small_tasks")
def test_the_matrix_is_that_of_plain_numpy(series: es.Series) -> None:
    skew = series.skew(k=5, users=90)
    runs = [series.open(version) for version in (1, 2, 3)]
    items = [vectors_of(run) for run in runs]
    users = [vectors_of(run, "users") for run in runs]
    ids = [run.items.ids.compute() for run in runs]
    assert (skew.versions, skew.k, skew.sampled, skew.queries) == ((1, 2, 3), 5, 90, "users")
    for i in range(3):
        for j in range(3):
            lists = [best(users[q], items[j], ids[j], 5) for q in (i, j)]
            assert skew.recall[i][j].mean == pytest.approx(share(*lists, 5)), (i, j)
        assert skew.recall[i][i].mean == 1


@pytest.mark.usefixtures("small_tasks")
def test_the_mixed_table_holds_each_newest_item_once(series: es.Series) -> None:
    """Each as the version that its hash names has it; what that version lacks is of the newest."""
    from dask_embstab.tables.ids.texts import mix64

    skew = series.skew(k=5, users=90)
    runs = [series.open(version) for version in (1, 2, 3)]
    known = [
        dict(zip(run.items.ids.compute().tolist(), vectors_of(run), strict=True)) for run in runs
    ]
    newest = runs[2].items.ids.compute()
    parts = mix64(np.arange(60, dtype=np.int64).view(np.uint64)) % np.uint64(3)
    mixed = np.stack(
        [
            known[part][item] if item in known[part] else known[2][item]
            for item, part in zip(newest.tolist(), parts.astype(int).tolist(), strict=True)
        ]
    )
    users = [vectors_of(run, "users") for run in runs]
    fresh = best(users[2], vectors_of(runs[2]), newest, 5)
    for i in range(3):
        expected = share(best(users[i], mixed, newest, 5), fresh, 5)
        assert skew.mixed[i].mean == pytest.approx(expected)


def test_without_users_items_are_the_queries(tmp_path: Path) -> None:
    made = es.Series.init(tmp_path / "s", gates=OFF)
    T, U = world(0)[0], world(1)[0]
    for day in range(2):
        made.add(es.create_run(tmp_path / f"{day}.zarr", T + 0.2 * day * U))
    skew = made.skew(k=4, users=60)
    assert (skew.queries, skew.metric) == ("items", "cosine")
    rows = [vectors_of(made.open(version)) for version in (1, 2)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    lists = []
    for queries in unit:
        scores = queries @ unit[1].T
        np.fill_diagonal(scores, -np.inf)
        lists.append([set(line) for line in np.argsort(-scores, axis=1)[:, :4].tolist()])
    assert skew.recall[0][1].mean == pytest.approx(share(*lists, 4))


def test_the_command_says_what_python_says(
    series: es.Series, capsys: pytest.CaptureFixture[str]
) -> None:
    place = series.store.place("")
    command("series", "skew", place, "--versions", "1,3", "--k", "3", "--json")
    output = json.loads(capsys.readouterr().out)
    assert output == series.skew([3, 1], k=3).to_dict()
    command("series", "skew", place)
    assert "on a mixture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("versions", "message"),
    [([1], "at least two"), (["a", "b"], "whole numbers"), (7, "whole numbers"), ([1, 99], "99")],
)
def test_bad_versions_are_one_clear_error(series: es.Series, versions: Any, message: str) -> None:
    with pytest.raises(es.InputError, match=message):
        series.skew(versions)


# --- what `evaluate` takes by name


def test_versions_tables_and_arrays_are_compared_by_name(
    series: es.Series, capsys: pytest.CaptureFixture[str]
) -> None:
    place = series.store.place("")
    named = es.evaluate(f"{place}@1", f"{place}@head", k=5)
    assert named == series.diff(1, 3, k=5)
    command("evaluate", f"{place}@1", f"{place}@3", "--k", "5", "--json")
    assert json.loads(capsys.readouterr().out) == named.to_dict()
    command("evaluate", f"{place}@1", f"{place}@3", "--k", "5")
    assert "linear CKA" in capsys.readouterr().out
    paths = [series.open(version).path for version in (1, 3)]
    tables = es.evaluate(*(f"{path}/items" for path in paths), k=5)
    assert tables.items.mean_cosine == named.items.mean_cosine
    assert tables.users is None
    arrays = es.evaluate(*(f"{path}/items/vectors" for path in paths), k=5)
    assert arrays == tables


def test_options_of_the_command_are_those_of_python(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (T, W), (U, V) = world(0), world(1)
    runs = make_run("a", T, W), make_run("b", T + 0.3 * U, W + 0.3 * V)
    np.save(tmp_path / "market.npy", np.arange(60) % 2)
    np.save(tmp_path / "age.npy", np.arange(90))
    (tmp_path / "j.csv").write_text("query,item,grade\n3,4,1\n3,9,2\n5,1,1\n")
    command(
        *("evaluate", runs[0].path, runs[1].path, "--k", 7, "--users", 40, "--seed", 3),
        *("--metric", "cosine", "--most-moved", 2, "--judgments", tmp_path / "j.csv"),
        *("--groups", f"items={tmp_path}/market.npy", "--groups", f"users={tmp_path}/age.npy"),
        *("--displacement", tmp_path / "moved.zarr", "--json"),
    )
    metrics = es.evaluate(
        *runs,
        k=7,
        users=40,
        seed=3,
        metric="cosine",
        most_moved=2,
        judgments=tmp_path / "j.csv",
        groups={"items": np.arange(60) % 2, "users": np.arange(90)},
        displacement=tmp_path / "again.zarr",
    )
    assert json.loads(capsys.readouterr().out) == metrics.to_dict()
    assert (tmp_path / "moved.zarr" / "users" / "cosine").is_dir()


@pytest.mark.parametrize("given", ["no-series@1", "no-series@head", "s@99"])
def test_a_version_that_is_not_there_is_one_line(
    series: es.Series,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
) -> None:
    monkeypatch.chdir(Path(str(series.store.place(""))).parent)
    command("evaluate", given, "0.zarr", wanted=2)
    assert capsys.readouterr().err.count("\n") == 1
