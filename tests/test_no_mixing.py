"""No client mixes two spaces unknowingly, by whatever route vectors of two could meet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.exchange import run_tables

usearch: Any = pytest.importorskip("usearch", reason="usearch is an extra")

N, USERS, D = 300, 40, 6
RNG = np.random.default_rng(0)
T, W, A, B = (RNG.normal(size=shape) for shape in ((N, D), (USERS, D), (D, D), (D, D)))
MODELS = {
    "old": (T, W),
    "new": (T @ A, W @ np.linalg.inv(A).T),
    "third": (T @ B, W @ np.linalg.inv(B).T),
}


def trained(folder: Path, name: str, at: str | None = None, **more: Any) -> es.Run:
    ids = {"item_ids": np.arange(N), "user_ids": np.arange(USERS)}
    return es.create_run(folder / (at or name), *MODELS[name], **ids, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three runs, an index of the old one, and a backfill that is a third done."""
    folder = tmp_path_factory.mktemp("mixing")
    runs = {name: trained(folder, name) for name in MODELS}
    es.export(runs["old"], folder / "index", format="usearch", table="items")
    moving = es.begin_backfill(
        folder / "moving", folder / "index", runs["old"], runs["new"], part_rows=100
    )
    moving.step()
    return folder


def rows_of(folder: Path, name: str) -> Any:
    return np.asarray(es.open_run(folder / name).users.vectors)  # type: ignore[union-attr]


ROUTES: dict[str, Callable[[Path, Path], Any]] = {
    "a run asks an index": lambda a, _: es.query_index(a / "index", a / "new"),
    "vectors ask an index": lambda a, _: es.query_index(
        a / "index", rows_of(a, "old"), space=a / "new"
    ),
    "a run that is said to be another asks an index": lambda a, _: es.query_index(
        a / "index", a / "new", space=a / "old"
    ),
    "an index is moved by the transform of another run": lambda a, out: es.upgrade_index(
        a / "index", out, es.fit(a / "third", reference=a / "new", keep="geometry")
    ),
    "an index is moved backwards": lambda a, out: es.upgrade_index(
        a / "index", out, es.upgrade_plan(a / "old", a / "new", k=5).transform
    ),
    "an index is moved by what leads into its own space and back": lambda a, out: es.upgrade_index(
        a / "index", out, es.fit(a / "old", reference=a / "new", keep="geometry").inverse()
    ),
    "the old model asks a backfill": lambda a, _: es.Backfill(a / "moving").search(a / "old", 5),
    "vectors of a third model ask a backfill": lambda a, _: es.Backfill(a / "moving").search(
        rows_of(a, "third"), 5, space=es.space_of(a / "third")
    ),
    "a backfill of another run's index begins": lambda a, out: es.begin_backfill(
        out, a / "index", a / "third", a / "new"
    ),
    "the old model asks its own index through the bridge of the new one": lambda a, _: (
        es.query_index(
            a / "index", a / "old", bridge=es.upgrade_plan(a / "old", a / "new", k=5).transform
        )
    ),
    "a bridge leads elsewhere": lambda a, _: es.query_index(
        a / "index", a / "new", bridge=es.upgrade_plan(a / "third", a / "new", k=5).transform
    ),
    "a run asks another": lambda a, _: es.search(a / "new", a / "old", 5),
    "another run rescores": lambda a, _: es.search(
        rows_of(a, "old"), a / "old", 5, rescore=a / "new"
    ),
    "the old model's queries judge the new one": lambda a, _: es.upgrade_plan(
        a / "old", a / "new", k=5, queries=a / "old"
    ),
    "the old model's queries judge a moved index": lambda a, out: es.upgrade_index(
        a / "index",
        out,
        es.fit(a / "old", reference=a / "new", keep="geometry"),
        new=a / "new",
        queries=a / "old",
    ),
    "one model's queries ask two": lambda a, _: es.evaluate(
        a / "old", a / "new", k=5, queries=a / "old"
    ),
    "the old model's queries judge an add": lambda a, out: es.Series.init(
        out.parent / "series"
    ).add(a / "new", queries=a / "old"),
    "a check": lambda a, _: es.check_space(
        es.fit(a / "new", reference=a / "third", keep="geometry"), a / "index"
    ),
}


@pytest.mark.parametrize("route", list(ROUTES))
def test_every_route_refuses_vectors_of_another_space(
    route: str, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(es.SpaceError):
        ROUTES[route](made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("route", ["a list of vectors", "a table", "a backfill"])
def test_vectors_that_say_nothing_are_refused(route: str, made: Path) -> None:
    rows = rows_of(made, "old")
    moving, index = es.Backfill(made / "moving"), made / "index"
    call = {
        "a backfill": lambda: moving.search(rows, 5),
        "a table": lambda: es.query_index(index, rows),
        "a list of vectors": lambda: es.query_index(index, rows.tolist()),
    }[route]
    with pytest.raises(es.EmbstabError, match="do not say"):
        call()


def test_a_run_that_cannot_say_its_space_is_told(made: Path, tmp_path: Path) -> None:
    """More rows of the same model are another table as training left it, and so are those of a
    retrained one: nobody can tell.
    """
    asked = es.create_run(tmp_path / "queries", items=T[:20], item_ids=np.arange(20))
    with pytest.warns(es.EmbstabWarning, match="not known to be of one space"):
        _, ids = es.search(asked, made / "old", 5, metric="dot")
    np.testing.assert_array_equal(ids, es.search(asked.items, made / "old", 5, metric="dot")[1])


def test_a_bridge_leads_the_new_models_queries_into_the_old_index(
    made: Path, tmp_path: Path
) -> None:
    plan = es.upgrade_plan(made / "old", made / "new", k=5)
    assert plan.transform is not None
    plan.transform.save(tmp_path / "bridge.npz")
    new = es.open_run(made / "new")
    _, ids = es.query_index(made / "index", new, k=5, bridge=tmp_path / "bridge.npz")
    _, exact = es.search(new, new, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(ids, exact, strict=True)]) > 0.9
    assert es.space_of(plan.transform).origin == es.space_of(made / "index").origin


def test_the_inverse_of_a_transform_leads_back_and_says_so(made: Path, tmp_path: Path) -> None:
    there = es.fit(made / "old", reference=made / "new", keep="geometry")
    assert es.check_space(there, made / "new")
    assert es.check_space(there.inverse(), made / "old")
    es.upgrade_index(made / "index", tmp_path / "new", there)
    es.upgrade_index(tmp_path / "new", tmp_path / "old", there.inverse())
    assert es.check_space(tmp_path / "old", made / "index")
    whole = es.fit(made / "old")
    assert es.check_space(whole.inverse(), made / "old")


def test_a_transform_that_says_nothing_of_its_vectors_is_told(made: Path, tmp_path: Path) -> None:
    rows = es.table(T, ids=np.arange(N))
    silent = es.fit(rows, reference=made / "new", keep="geometry")
    with pytest.warns(es.EmbstabWarning, match="does not say of which space"):
        es.upgrade_index(made / "index", tmp_path / "out", silent)


def test_an_index_is_not_of_the_run_that_took_the_place_of_its_own(tmp_path: Path) -> None:
    run = trained(tmp_path, "old", "run")
    es.export(run, tmp_path / "index", format="usearch", table="items")
    shutil.rmtree(tmp_path / "run")
    again = trained(tmp_path, "new", "run")
    with pytest.raises(es.SpaceError):
        es.query_index(tmp_path / "index", again)


@pytest.mark.parametrize("format", ["usearch", "faiss"])
def test_a_run_that_is_replaced_while_it_is_exported_gets_no_other_fingerprint(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the fingerprint and the first row that is read."""
    pytest.importorskip(format, reason=f"{format} is an extra")
    from dask_embstab.exchange import faiss_index

    run = trained(tmp_path, "old", "run")
    trained(tmp_path, "new")
    module = faiss_index if format == "faiss" else run_tables
    name = "space_of_run" if format == "faiss" else "provenance"
    before = getattr(module, name)

    def replaced(*given: Any, **more: Any) -> Any:
        result = before(*given, **more)
        monkeypatch.undo()
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(tmp_path / "new", tmp_path / "run")
        return result

    monkeypatch.setattr(module, name, replaced)
    try:
        es.export(run, tmp_path / "out", format=format, table="items")
    except es.EmbstabError:
        assert not (tmp_path / "out").exists()
    else:
        assert es.check_space(tmp_path / "out", run)
        _, ids = es.query_index(tmp_path / "out", rows_of(tmp_path, "run"), k=5, space=run)
        result = es.space_of(tmp_path / "out").origin
        new = result == es.space_of(tmp_path / "new").origin
        _, exact = es.search(
            *([tmp_path / "new"] * 2 if new else [trained(tmp_path, "old")] * 2), 5
        )
        assert (ids == exact).mean() > 0.9


def test_what_a_backfill_rests_on_may_not_change(made: Path, tmp_path: Path) -> None:
    """The old index, the bridge, a part and the new run: each replaced by one of a third space."""
    other = trained(tmp_path, "third", "other")
    es.export(other, tmp_path / "index", format="usearch", table="items")

    def copied() -> tuple[Path, es.Backfill]:
        place = tmp_path / "world"
        shutil.rmtree(place, ignore_errors=True)
        for name in MODELS:
            shutil.copytree(made / name, place / name)
        shutil.copytree(made / "index", place / "index")
        begun = es.begin_backfill(
            place / "moving", place / "index", place / "old", place / "new", part_rows=100
        )
        begun.step()
        begun.search(place / "new", 5)
        return place, begun

    def replaced(place: Path, by: Path) -> None:
        shutil.rmtree(place)
        shutil.copytree(by, place)

    place, moving = copied()
    replaced(place / "index", tmp_path / "index")
    with pytest.raises(es.SpaceError, match="began"):
        moving.search(place / "new", 5)

    place, moving = copied()
    es.fit(other, reference=made / "old").save(place / "moving/bridge.npz")
    with pytest.raises(es.InputChangedError, match="another than when"):
        moving.search(place / "new", 5)

    place, moving = copied()
    replaced(place / "moving/parts/000000000000", tmp_path / "index")
    with pytest.raises(es.SpaceError, match="began"):
        moving.search(place / "new", 5)

    place, moving = copied()
    replaced(place / "new", place / "third")
    for call in (moving.step, lambda: moving.search(es.open_run(place / "third"), 5)):
        with pytest.raises(es.EmbstabError):
            call()


def test_runs_that_share_a_chunk_are_of_two_spaces(tmp_path: Path) -> None:
    """Frozen or empty rows at the beginning of a table."""
    rows = np.vstack([np.zeros((50, D)), T[:200]])
    a, b = (
        es.create_run(tmp_path / name, rows @ M, chunk_rows=25)
        for name, M in (("a", np.eye(D)), ("b", A))
    )
    with pytest.raises(es.SpaceError):
        es.check_space(a, b)
