"""Another reference for all that is stored: scores stay, no published file changes, and one can go
back.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_consensus
from oracle import assert_close, rotation, snapshot, vectors_of, world
from test_consensus import IDS, state_of, tables

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.log.thresholds import THRESHOLDS

quick, series = test_consensus.quick, test_consensus.series
Array = np.ndarray[Any, Any]
N = range(1, 4)
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days in a series, two more as training left them, and a reference in axes of
    its own.
    """
    folder = tmp_path_factory.mktemp("template")
    series = es.Series.init(folder / "series")
    for day, ids in enumerate([*IDS, IDS[0]]):
        T, W = tables(day, 24)
        es.create_run(folder / f"day-{day}.zarr", T[ids], W, item_ids=ids, chunk_rows=8)
        assert day > 2 or series.add(folder / f"day-{day}.zarr").published
    es.stabilize(folder / "day-4.zarr", folder / "other.zarr")
    return folder


def read(run: es.Run, key: str = "items") -> Array:
    """Rows as readers get them: through Dask."""
    return np.asarray(getattr(run, key).vectors)


def all_read(series: es.Series) -> list[Array]:
    return [read(series.open(n), key) for n in N for key in ("items", "users")]


@pytest.fixture(params=[False, True], ids=["lazily", "rewritten"])
def rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- laws


def test_every_run_is_aligned_to_the_reference_and_keeps_its_scores(
    series: es.Series, template: Path, tmp_path: Path, *, rewrite: bool
) -> None:
    before, stored = all_read(series), snapshot(tmp_path / "series")
    made = series.rebase(template / "other.zarr", rewrite=rewrite)
    assert (made.published, made.version.kind, made.version.run) == (True, "rebase", "day-2")
    after = all_read(series)
    for items, users, old_items, old_users in zip(
        after[::2], after[1::2], before[::2], before[1::2], strict=True
    ):
        assert_close(items @ users.T, old_items @ old_users.T, 1e-12)
    for day, n in enumerate(N):
        raw = template / f"day-{day}.zarr"
        direct = es.stabilize(
            raw, tmp_path / f"d{n}.zarr", reference=template / "other.zarr", unit_rows=True
        )
        assert_close(read(series.open(n)), vectors_of(direct), 1e-9)
        transform = series.transform_for(version=n)
        assert_close(
            transform.transform_items(vectors_of(es.open_run(raw))), vectors_of(direct), 1e-9
        )
        assert transform.diagnostics["balance"] == "rows"
    files = snapshot(tmp_path / "series")
    assert {name: files[name] for name in stored if not name.startswith("candidates")} == {
        name: data for name, data in stored.items() if not name.startswith("candidates")
    }, "no published file changes"
    assert not series.verify().damage


def test_onto_itself_nothing_moves(series: es.Series, tmp_path: Path, *, rewrite: bool) -> None:
    before = read(series.open(2))
    series.rebase(2, rewrite=rewrite)
    np.testing.assert_array_equal(read(series.open(2)), before)
    assert series.log().moved.keys() == ({"day-0", "day-2"} if rewrite else set())
    frozen = es.Series.init(tmp_path / "frozen", policy="first")
    T, W = world(0)
    for day in range(3):
        Q = np.linalg.qr(np.random.default_rng(day).normal(size=(4, 4)))[0]
        frozen.add(es.create_run(tmp_path / f"{day}.zarr", T @ Q, W @ Q))
    before = read(frozen.open(3))
    frozen.rebase(1)
    assert_close(read(frozen.open(3)), before, 1e-12)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_back_undoes_it(series: es.Series, template: Path, *, there: bool, back: bool) -> None:
    before = all_read(series)
    series.rebase(template / "other.zarr", rewrite=there)
    between = all_read(series)
    series.add(template / "day-3.zarr")
    moved_too = read(series.open())
    series.rebase(None, rewrite=back)
    for now, then in zip(all_read(series), before, strict=True):
        assert_close(now, then, 1e-12)
    Q = rotation(between[4], before[4])
    (
        assert_close(read(series.open()), moved_too @ Q, 1e-12),
        "what was added meanwhile goes with the others",
    )
    series.rebase(None)
    for now, then in zip(all_read(series), between, strict=True):
        assert_close(now, then, 1e-12)
    assert_close(read(series.open()), moved_too, 1e-12)
    assert not series.verify().damage


@pytest.mark.parametrize("policy", ["consensus", "previous", "first"])
def test_what_is_added_is_aligned_to_the_new_space(
    series: es.Series, template: Path, tmp_path: Path, policy: str, *, rewrite: bool
) -> None:
    """Rebase then add is add then rebase, where the matrix is the head's."""
    series.change(policy=policy, unit_rows=True)
    other = es.Series(shutil.copytree(tmp_path / "series", tmp_path / "copy"))
    series.rebase(template / "other.zarr", rewrite=rewrite)
    series.add(template / "day-3.zarr")
    other.add(template / "day-3.zarr")
    n = 1 if policy == "first" else 3
    Q = rotation(read(other.open(n)), read(series.open(n)))
    assert_close(read(series.open()), read(other.open()) @ Q, 1e-9)
    if policy == "consensus":
        (ids, ours, weights), (known, theirs, before) = (
            state_of(s, "day-3") for s in (series, other)
        )
        assert ids == known
        assert_close(ours, theirs @ Q, 1e-9)
        np.testing.assert_array_equal(weights, before)
    assert (
        series.head().figures["chain_minus_first"] is None
        or series.head().figures["chain_minus_first"] < 1
    )
    assert not series.verify().damage


def test_a_run_that_shares_nothing_goes_with_its_neighbour(
    series: es.Series, template: Path, tmp_path: Path
) -> None:
    T, W = tables(7, 24)
    far = es.create_run(tmp_path / "far.zarr", T[:21], W, item_ids=np.arange(1000, 1021))
    with pytest.raises(es.HoldError, match="no stored run shares enough rows"):
        series.rebase(far)
    head = read(series.open())
    mixed = es.create_run(tmp_path / "mixed.zarr", T[:21], W, item_ids=[*range(1000, 1020), 5])
    series.change(min_matched=1, gates=dict.fromkeys(THRESHOLDS))
    with pytest.warns(es.EmbstabWarning):
        series.add(mixed)
    series.change(min_matched=10)
    before = read(series.open())
    series.rebase(template / "other.zarr")
    assert series.log().basis["moves"]["mixed"] == "as day-2"
    assert_close(read(series.open()), before @ rotation(head, read(series.open(3))), 1e-12)


def test_a_wider_reference_widens_what_is_read(
    series: es.Series, tmp_path: Path, *, rewrite: bool
) -> None:
    T, W = world(9, 24, 30, 6)
    wide = es.stabilize(
        es.create_run(tmp_path / "w.zarr", T, W, item_ids=np.arange(24)), tmp_path / "wide.zarr"
    )
    before = all_read(series)
    series.rebase(wide, rewrite=rewrite)
    after = all_read(series)
    assert after[4].shape == (20, 6)
    assert_close(after[4] @ after[5].T, before[4] @ before[5].T, 1e-12)
    narrow = es.stabilize(
        es.create_run(tmp_path / "n.zarr", T[:, :2], W[:, :2], item_ids=np.arange(24)),
        tmp_path / "narrow.zarr",
    )
    series.rebase(narrow, rewrite=rewrite)
    after = all_read(series)
    assert_close(after[4] @ after[5].T, before[4] @ before[5].T, 1e-12)
    series.rebase(None)
    assert not series.verify().damage


# --- readers


def test_views_serve_every_verb(series: es.Series, template: Path, tmp_path: Path) -> None:
    series.rebase(template / "other.zarr")
    view = series.open(2)
    copy = es.create_run(tmp_path / "copy.zarr", view.items, view.users, item_ids=view.items.ids)
    assert_close(vectors_of(copy), read(view), 1e-15)
    assert_close(view.items.rows_of([5, 3]), read(view)[[3, 1]], 1e-15)
    assert es.evaluate(view, copy, k=3).items.mean_cosine == pytest.approx(1.0)
    assert series.diff(1, 2, k=3).items.matched == 18
    landed_ = es.stabilize(template / "day-3.zarr", tmp_path / "a.zarr", reference=view)
    by_copy = es.stabilize(template / "day-3.zarr", tmp_path / "b.zarr", reference=copy)
    assert_close(vectors_of(landed_), vectors_of(by_copy), 1e-12)
    users = es.create_run(
        tmp_path / "late.zarr", None, vectors_of(es.open_run(template / "day-1.zarr"), "users")[:9]
    )
    late = series.apply(users, tmp_path / "transformed.zarr", version=2)
    assert_close(vectors_of(late, "users"), read(view, "users")[:9], 1e-12)
    assert view.items.to_xarray()["vectors"].shape == (20, 4)


def test_gc_takes_what_was_rewritten_and_no_reader_holds(
    series: es.Series, template: Path, tmp_path: Path
) -> None:
    with series.pin(1):
        series.rebase(template / "other.zarr", rewrite=True)
        removed = series.gc(grace=0).removed
    assert sorted(removed) == [
        "references/day-1.zarr",
        "references/day-2.zarr",
        "runs/day-1.zarr",
        "runs/day-2.zarr",
    ]
    assert series.gc(grace=0).removed == ["runs/day-0.zarr"]
    assert not series.verify().damage
    for name in series.manifest()["files"]:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "series" / name, tmp_path / "copy" / name)
    copy = es.Series(tmp_path / "copy")
    for n in N:
        np.testing.assert_array_equal(read(copy.open(n)), read(series.open(n)))
    taken = series.log().moved["day-0"]["run"]
    with pytest.raises(es.InputError, match="where the run day-0 was written anew"):
        series.add(template / "day-3.zarr", name=taken)
    assert not series.add(template / "day-1.zarr").published, "it is known by its own name"
    series.rollback(1)
    assert series.open().name == "day-0"
    assert series.add(template / "day-3.zarr").version.figures["items"]["unmatched_reference"] == 1


def test_damage_to_the_matrices_is_found(series: es.Series, template: Path, tmp_path: Path) -> None:
    series.rebase(template / "other.zarr")
    (file,) = (tmp_path / "series" / "bases").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"!")
    assert series.verify().damage == (f"rebase: bases/{file.name} is not what was published",)
    with pytest.raises(es.DamageError, match=r"bases/.* cannot be read"):
        series.open()
    file.unlink()
    with pytest.raises(es.DamageError):
        series.add(template / "day-3.zarr")


@pytest.mark.parametrize("arguments", [["--onto", "1"], ["--onto", "1", "--rewrite"]])
@pytest.mark.usefixtures("series")
def test_the_command_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    def call(*options: Any) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(
                ["series", "rebase", str(tmp_path / "series"), *options, "--json"],
                prog_name="embstab",
            )
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out) if out else None, err

    code, output, _ = call(*arguments)
    assert (code, output["kind"], output["version"], output["basis"]["onto"]["version"]) == (
        0,
        "rebase",
        4,
        1,
    )
    assert output["basis"]["moves"]["day-0"] == "itself"
    assert "indexes" in output["note"]
    assert ("no stored vector changes" in output["note"], ".308" in output["note"]) == (
        len(arguments) < 3,
        len(arguments) > 2,
    )
    assert call("--back")[1]["basis"]["moves"]["day-1"] == "back"
    assert call()[0] == 2
    assert call("--onto", "99")[0] == 2


def test_before_there_is_anything(tmp_path: Path, series: es.Series) -> None:
    with pytest.raises(es.InputError, match="nothing is published"):
        es.Series.init(tmp_path / "new").rebase(None)
    with pytest.raises(es.InputError, match="no rebase to go back from"):
        series.rebase(None)
