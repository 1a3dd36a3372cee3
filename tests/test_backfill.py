"""An index that is moved part by part: searched in both spaces, resumable, rolled back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.exchange.migrate import backfill, part

N, USERS, D = 400, 60, 8


def runs(folder: Path, noise: float = 0.0) -> tuple[es.Run, es.Run]:
    """Two trainings, in other axes; the new one has 20 other items."""
    rng = np.random.default_rng(0)
    T, W = rng.normal(size=(N + 20, D)), rng.normal(size=(USERS, D))
    A = rng.normal(size=(D, D))
    old, users = np.arange(N), np.arange(USERS)
    new = rng.permutation(N + 20)[:N]
    a = es.create_run(folder / "a", T[old], W, item_ids=old, user_ids=users)
    moved = T + noise * rng.normal(size=T.shape)
    b = es.create_run(
        folder / "b", moved[new] @ A, W @ np.linalg.inv(A).T, item_ids=new, user_ids=users
    )
    return a, b


def begun(folder: Path, noise: float = 0.0, part_rows: int = 40) -> tuple[es.Run, es.Backfill]:
    a, b = runs(folder, noise)
    es.export(a, folder / "index", format="usearch", table="items")
    made = es.begin_backfill(folder / "moving", folder / "index", a, b, part_rows=part_rows)
    return b, made


def recall(run: es.Run, moving: es.Backfill, k: int = 10) -> float:
    _, ids = moving.search(run, k)
    _, fresh = es.search(run, run, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(fresh, ids, strict=True)]))


def test_answers_meanwhile_are_those_of_a_whole_index(tmp_path: Path) -> None:
    """But for items that only the new model has and that are not moved yet."""
    run, moving = begun(tmp_path)
    seen = [recall(run, moving)]
    while moving.state.done < moving.state.rows:
        moving.step()
        seen.append(recall(run, moving))
    assert len(seen) == 11
    assert min(seen) > 0.85
    assert seen[-1] > 0.98
    assert seen[-1] >= seen[0]


def test_an_id_is_never_found_twice_and_counts_where_it_is(tmp_path: Path) -> None:
    run, moving = begun(tmp_path, noise=0.5)
    for _ in range(3):
        moving.step()
    queries = np.asarray(run.users.vectors)  # type: ignore[union-attr]
    scores, ids = moving.search(run, 100)
    assert all(len(set(row)) == 100 for row in ids.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()
    names = np.asarray(run.items.ids)  # type: ignore[union-attr]
    moved = dict(zip(names[:120].tolist(), np.asarray(run.items.vectors)[:120], strict=True))  # type: ignore[union-attr]
    for row, query in enumerate(queries):
        for score, name in zip(scores[row], ids[row].tolist(), strict=True):
            if name in moved:
                assert score == pytest.approx(query @ moved[name], abs=1e-3)


def test_a_backfill_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, moving = begun(tmp_path, part_rows=150)
    moving.step()
    before = recall(run, moving)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for module, name in ((part, "write_record"), (backfill, "write_whole")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(KeyboardInterrupt):
                moving.step()
        assert es.Backfill(tmp_path / "moving").state.done == 150
        assert recall(run, es.Backfill(tmp_path / "moving")) == before
    again = es.Backfill(tmp_path / "moving")
    assert [again.step().done, again.step().done, again.step().done] == [300, 400, 400]
    assert recall(run, again) > 0.98


def test_rolling_back_is_the_old_index_alone(tmp_path: Path) -> None:
    run, moving = begun(tmp_path)
    before = moving.search(run, 10)
    for _ in range(4):
        moving.step()
    moving.roll_back()
    after = moving.search(run, 10)
    np.testing.assert_array_equal(after[1], before[1])
    assert not (tmp_path / "moving/parts").exists()
    assert moving.step().done == 40


def test_what_cannot_be_moved_is_one_clear_error(tmp_path: Path) -> None:
    a, b = runs(tmp_path)
    es.export(a, tmp_path / "index", format="usearch", table="items")
    es.export(a, tmp_path / "copy", format="pgvector", table="items")
    with pytest.raises(es.SpaceError):
        es.begin_backfill(tmp_path / "moving", tmp_path / "index", b, a)
    with pytest.raises(es.InputError, match="searched by its server"):
        es.begin_backfill(tmp_path / "moving", tmp_path / "copy", a, b)
    assert not (tmp_path / "moving").exists()
    with pytest.raises(es.InputError, match="no backfill"):
        es.Backfill(tmp_path / "moving")
    moving = es.begin_backfill(tmp_path / "moving", tmp_path / "index", a, b)
    with pytest.raises(es.OutputExistsError):
        es.begin_backfill(tmp_path / "moving", tmp_path / "index", a, b)
    other = np.random.default_rng(5).normal(size=(N, D))
    es.create_run(tmp_path / "other", other, item_ids=np.arange(N))
    (tmp_path / "b").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "b")
    with pytest.raises(es.InputChangedError, match="another run"):
        moving.step()
    (tmp_path / "moving/backfill.json").write_text("{}")
    with pytest.raises(es.DamageError):
        es.Backfill(tmp_path / "moving")


def test_the_command_moves_goes_on_and_rolls_back(tmp_path: Path) -> None:
    a, _ = runs(tmp_path)
    es.export(a, tmp_path / "index", format="usearch", table="items")
    places = [str(tmp_path / name) for name in ("index", "a", "b", "moving")]
    call = ["upgrade", "run", *places, "--part-rows", "100", "--json"]

    def done(*words: str) -> int:
        ended = CliRunner().invoke(main, [*words])
        assert ended.exit_code == 0, ended.stderr
        return int(json.loads(ended.stdout)["done"])

    assert done(*call, "--steps", "1") == 100
    assert done(*call, "--steps", "1") == 200
    assert done(*call) == N
    assert done("upgrade", "rollback", places[-1], "--json") == 0


def test_queries_say_their_space(tmp_path: Path) -> None:
    run, moving = begun(tmp_path)
    rows = np.asarray(run.users.vectors)  # type: ignore[union-attr]
    with pytest.raises(es.SpaceError, match="do not say"):
        moving.search(rows, 5)
    with pytest.raises(es.SpaceError):
        moving.search(es.open_run(tmp_path / "a"), 5)
    _, ids = moving.search(rows, 5, space=es.space_of(run))
    assert (ids == moving.search(run, 5)[1]).all()


def test_ids_are_those_of_the_run_in_its_own_dtype(tmp_path: Path) -> None:
    run, moving = begun(tmp_path)
    for _ in range(3):
        assert moving.search(run, 5)[1].dtype == np.int64
        moving.step()


def test_indexes_stay_open_until_they_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, moving = begun(tmp_path, part_rows=100)
    opened: list[str] = []
    original = backfill.open_index

    def counted(place: Path, table: str) -> Any:
        opened.append(place.name)
        return original(place, table)

    monkeypatch.setattr(backfill, "open_index", counted)
    moving.step()
    moving.step()
    opened.clear()
    first = moving.search(run, 5)
    assert sorted(opened) == ["000000000000", "000000000100"]  # the old one is open since `step`
    second = moving.search(run, 5)
    assert len(opened) == 2
    np.testing.assert_array_equal(first[1], second[1])
    other = es.Backfill(tmp_path / "moving")  # another process goes back, and on again
    other.roll_back()
    other.step()
    opened.clear()
    assert recall(run, moving) > 0.85
    assert opened == ["000000000000"]
    monkeypatch.setattr(backfill, "_KEPT", 0)
    fresh = es.Backfill(tmp_path / "moving")
    opened.clear()
    fresh.search(run, 5)
    fresh.search(run, 5)
    assert len(opened) == 4  # there is no room for any
