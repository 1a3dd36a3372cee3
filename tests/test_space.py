"""Vectors of one space may meet; those of two are refused, wherever they lie."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from seriesworlds import drifting

import dask_embstab as es
from dask_embstab.cli.main import main


def stored(folder: Path, week: int, **of: int) -> str:
    made = drifting(week, n_items=80, n_users=120, d=4, **of)
    path = str(folder / f"w{week}.zarr")
    es.create_run(path, made.items, made.users, item_ids=made.item_ids, user_ids=made.user_ids)
    return path


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("space")
    return [stored(folder, week) for week in range(4)]


@pytest.mark.parametrize("policy", ["consensus", "previous", "first"])
def test_all_versions_of_a_series_are_of_one_space(
    weeks: list[str], tmp_path: Path, policy: str
) -> None:
    series = es.Series.init(tmp_path / "s", policy=policy)
    for week in weeks[:3]:
        series.add(week)
    spaces = [series.space(n) for n in (1, 2, 3)]
    assert len({space.origin for space in spaces}) == 1
    assert [space.version for space in spaces] == [1, 2, 3]
    assert len({space.transform for space in spaces}) == 3
    assert es.space_of(series.transform_for()).origin == spaces[0].origin
    assert es.space_of(tmp_path / "s/runs/w1.zarr").origin == spaces[0].origin
    assert es.space_of(f"{tmp_path / 's'}@2") == es.Series(tmp_path / "s").space(2)
    assert es.space_of(f"{tmp_path / 's'}@2").origin == spaces[0].origin
    with pytest.raises(es.SpaceError, match="must be of one space"):
        es.check_space(series, weeks[0])


def test_runs_as_trained_are_each_of_a_space_of_their_own(weeks: list[str]) -> None:
    assert len({es.space_of(week).origin for week in weeks}) == len(weeks)
    assert es.space_of(weeks[0]) == es.space_of(es.open_run(weeks[0]))


def test_a_run_is_in_the_space_of_its_reference_however_long_the_chain(
    weeks: list[str], tmp_path: Path
) -> None:
    raw = es.stabilize(weeks[1], tmp_path / "a", reference=weeks[0], keep="geometry")
    assert es.space_of(raw).origin == es.space_of(weeks[0]).origin
    chained = es.stabilize(weeks[2], tmp_path / "b", reference=raw, keep="geometry")
    assert es.check_space(chained, weeks[0]).origin == es.space_of(raw).origin
    small = es.compress(chained, tmp_path / "c", code="int8")
    assert es.check_space(small, chained)


@pytest.mark.parametrize("format", ["safetensors", "numpy-source", "sql", "tf", "npz"])
def test_a_transform_in_another_format_says_where_it_leads(
    format: str, weeks: list[str], tmp_path: Path
) -> None:
    """A tower that asks an index is checked before it does; a file in its place is refused."""
    series = es.Series.init(tmp_path / "s", policy="first")
    for week in weeks[:2]:
        series.add(week)
    place = tmp_path / "tower"
    es.export(series.transform_for(), place, format=format, table="users")
    assert es.check_space(place, series)
    with pytest.raises(es.SpaceError):
        es.check_space(place, weeks[1])
    es.export(es.fit(weeks[2]), tmp_path / "other", format=format, table="users")
    (tmp_path / "other").rename(place)
    with pytest.raises(es.InputChangedError):
        es.space_of(place)


@pytest.mark.parametrize("code", ["int8", "sign", "pq2"])
def test_codes_are_of_the_space_of_the_rows_that_they_give_back(
    code: str, weeks: list[str], tmp_path: Path
) -> None:
    small = es.compress(weeks[0], tmp_path / "c", code=code, rotate=True, force=True)
    again = es.compress(small, tmp_path / "d", code="int8")
    assert es.check_space(small, weeks[0]) == es.space_of(es.open_run(tmp_path / "c"))
    assert es.check_space(again, weeks[0])
    with pytest.raises(es.SpaceError):
        es.check_space(small, weeks[1])
    aligned = es.fit(weeks[1], reference=small, keep="geometry")
    assert es.check_space(aligned, weeks[0])


def test_the_geometry_of_two_runs_without_reference_is_two_spaces(weeks: list[str]) -> None:
    alone = [es.fit(week, keep="geometry") for week in weeks[:2]]
    assert np.array_equal(alone[0].items, alone[1].items)
    with pytest.raises(es.SpaceError):
        es.check_space(*alone)


@pytest.mark.parametrize("rewrite", [False, True])
def test_a_rebase_moves_all_versions_to_another_space(
    weeks: list[str], tmp_path: Path, rewrite: bool
) -> None:
    series = es.Series.init(tmp_path / "s", policy="first")
    for week in weeks[:2]:
        series.add(week)
    before = series.space()
    onto = es.stabilize(weeks[3], tmp_path / "onto")
    series.rebase(onto, rewrite=rewrite)
    after = [series.space(n).origin for n in (1, 2)]
    assert after[0] == after[1] != before.origin
    series.add(weeks[2])
    assert series.space().origin == after[0]
    assert es.space_of(series.open()).origin == after[0]


def test_a_fingerprint_is_plain_values_and_damaged_ones_are_refused() -> None:
    space = es.Space("0" * 32, "1" * 32, "a", None, 3)
    assert es.Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    for wrong in (
        {},
        [],
        {"origin": 1},
        {"origin": "0", "more": 1},
        {"origin": "0", "version": True},
    ):
        with pytest.raises(es.InputError):
            es.Space.from_dict(wrong)


def test_the_command_refuses_two_spaces(weeks: list[str], tmp_path: Path) -> None:
    es.stabilize(weeks[0], tmp_path / "a.zarr")
    es.fit(weeks[1], reference=tmp_path / "a.zarr").save(tmp_path / "t.npz")
    call = ["check", str(tmp_path / "t.npz"), str(tmp_path / "a.zarr"), "--json"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["origin"] == es.space_of(tmp_path / "a.zarr").origin
    wrong = CliRunner().invoke(main, ["check", str(tmp_path / "t.npz"), weeks[1]])
    assert wrong.exit_code == 2
    assert wrong.stderr.count("\n") == 1


def test_an_index_or_export_tells_its_space(weeks: list[str], tmp_path: Path) -> None:
    run = es.stabilize(weeks[0], tmp_path / "a.zarr")
    es.export(run, tmp_path / "export", format="npy")
    (tmp_path / "items.faiss.space.json").write_text(json.dumps(es.space_of(run).to_dict()))
    assert es.check_space(tmp_path / "export", run) == es.space_of(run)
    assert es.check_space(run, tmp_path / "items.faiss") == es.space_of(run)
    for wrong in ("[", "[1]", "{}"):
        (tmp_path / "export/export.json").write_text(wrong)
        with pytest.raises(es.InputError, match="fingerprint"):
            es.space_of(tmp_path / "export")


def test_vectors_without_fingerprint_are_told_by_their_rows(
    weeks: list[str], tmp_path: Path
) -> None:
    series = es.Series.init(tmp_path / "s", policy="first")
    for week in weeks[:3]:
        series.add(week)
    stable = es.detect_space(series.open(2), series)
    assert [result.space.name for result in stable.spaces] == ["series"]
    assert stable.spaces[0].space.origin == series.space().origin
    assert (stable.mixed, stable.unclear, stable.rows) == (False, 0, 80)
    raw = es.detect_space(weeks[1], series, key="users", rows=50)
    assert (raw.spaces[0].space.name, raw.spaces[0].space.version) == ("w1", 2)
    assert raw.spaces[0].mean_cosine > 0.99
    assert not raw.mixed


def test_an_index_of_old_and_new_vectors_is_mixed(weeks: list[str], tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "s", policy="first")
    for week in weeks[:2]:
        series.add(week)
    rows = np.array(es.open_run(weeks[1]).items.vectors)
    stored = series.open(2).items
    rows[::3] = np.asarray(stored.vectors)[::3]
    ids = np.asarray(stored.ids)
    detected = es.detect_space(es.table(rows, ids=ids), series)
    assert detected.mixed
    shares = {one.space.name: one.share for one in detected.spaces}
    assert shares["w1"] == pytest.approx(2 / 3, abs=0.02)
    assert shares["series"] == pytest.approx(1 / 3, abs=0.02)
    noise = np.random.default_rng(0).normal(size=rows.shape)
    assert es.detect_space(es.table(noise, ids=ids), series).unclear > 40
    with pytest.raises(es.TooFewMatchedError):
        es.detect_space(es.table(rows, ids=ids + 10_000), series)


def test_the_command_detects(weeks: list[str], tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "s", policy="first")
    series.add(weeks[0])
    call = ["detect", weeks[0], "--spaces", str(tmp_path / "s"), "--json"]
    printed = json.loads(CliRunner().invoke(main, call).stdout)
    assert printed["spaces"][0]["space"] == "w0"


def test_scores_onto_a_run_as_trained_do_not_lead_into_its_space(
    weeks: list[str], tmp_path: Path
) -> None:
    """Rows that are standardized are nowhere near rows as trained, whatever their rotation."""
    onto_trained = [es.fit(weeks[n], reference=weeks[0]) for n in (1, 2)]
    with pytest.raises(es.SpaceError):
        es.check_space(onto_trained[0], weeks[0])
    assert es.check_space(*onto_trained)
    scores = es.stabilize(weeks[0], tmp_path / "scores")
    geometry = es.stabilize(weeks[0], tmp_path / "geometry", keep="geometry")
    for fitted, reference in (
        (es.fit(weeks[1], reference=scores, keep="geometry"), scores),
        (es.fit(weeks[1], reference=geometry, keep="scores"), geometry),
    ):
        with pytest.raises(es.SpaceError):
            es.check_space(fitted, reference)


def test_a_transform_leads_where_its_last_part_does(weeks: list[str], tmp_path: Path) -> None:
    scores = es.stabilize(weeks[0], tmp_path / "a")
    last = es.fit(weeks[1], reference=scores)
    first = es.fit(weeks[2], reference=weeks[1], keep="geometry")
    assert es.check_space(first.compose(last), scores)
    assert es.check_space(es.upgrade_plan(weeks[0], weeks[1], k=5).transform, weeks[0])
    assert es.check_space(es.upgrade_plan(scores, weeks[1], k=5).transform, scores)
    same = [es.fit(week, keep="geometry") for week in weeks[:2]]
    for one in (lambda t: t.inverse(), lambda t: t.compose(t), lambda t: t.inverse().inverse()):
        with pytest.raises(es.SpaceError):
            es.check_space(one(same[0]), one(same[1]))


def test_a_stabilized_reference_in_memory_is_of_its_space_too(
    weeks: list[str], tmp_path: Path
) -> None:
    made = replace(es.stabilize(weeks[0], tmp_path / "a"), path=None)
    assert es.check_space(es.fit(weeks[1], reference=made), made)


def test_runs_that_begin_with_the_same_rows_are_of_two_spaces(tmp_path: Path) -> None:
    rows = np.vstack([np.zeros((64, 4)), np.random.default_rng(0).normal(size=(20, 4))])
    a, b = (es.create_run(tmp_path / f"{n}", rows + n * (rows != 0)) for n in (0, 1))
    with pytest.raises(es.SpaceError):
        es.check_space(a, b)
