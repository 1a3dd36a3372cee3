"""An index of faiss that is one file: searched, moved into another space, and never taken for the
file that stood there before.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Array

import dask_embstab as es
from dask_embstab.exchange.indexes import faiss_file
from dask_embstab.exchange.opened_index import open_index

faiss: Any = pytest.importorskip("faiss", reason="faiss is an extra")

N, USERS, D = 600, 40, 8
NAMES = [f"i-{k}-\u00e9" for k in range(N)]
RNG = np.random.default_rng(0)
T, W = (RNG.normal(size=(n, D)).astype(np.float32) for n in (N, USERS))
A = RNG.normal(size=(D, D))


def runs(folder: Path) -> tuple[es.Run, es.Run]:
    """Two factorizations of one score matrix: an IVF that is moved in place would lose."""
    users = {"user_ids": np.arange(USERS)}
    old = es.create_run(folder / "old", T, W, item_ids=NAMES, **users)
    moved = (T @ A, W @ np.linalg.inv(A).T)
    return old, es.create_run(folder / "new", *moved, item_ids=NAMES, **users)


def recall(run: es.Run, ids: Array, k: int = 10) -> float:
    _, exact = es.search(run, run, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(exact, ids, strict=True)]))


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_moved_vectors_are_found_as_in_a_rebuilt_index(kind: Any, tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    place = tmp_path / "old.faiss"
    es.export(old, place, format="faiss", index=kind)
    matrix = es.upgrade_plan(new, old, k=5).transform
    assert matrix is not None
    made = es.upgrade_index(place, tmp_path / "new.faiss", matrix, new=new)
    assert es.check_space(new, tmp_path / "new.faiss")
    assert made["recall"]["moved"]["mean"] > 0.99
    assert made["recall"]["bridge"]["mean"] > 0.99
    assert made["recall"]["leave"]["mean"] < 0.5
    asked = es.upgrade_index(place, tmp_path / "again", matrix, new=new, queries=[3, 3, 9])
    assert asked["recall"]["leave"]["queries"] == 3
    with pytest.raises(es.SpaceError):
        es.upgrade_index(place, tmp_path / "wrong", matrix, new=old)
    _, ids = es.query_index(tmp_path / "new.faiss", new, k=10)
    assert recall(new, ids) > 0.99
    with pytest.raises(es.SpaceError):
        es.query_index(tmp_path / "new.faiss", old)
    assert recall(old, es.query_index(place, old, k=10)[1]) > 0.99


def test_lists_have_other_centres_once_vectors_are_moved(tmp_path: Path) -> None:
    """With few lists probed, an index that is built anew keeps its recall."""
    old, new = runs(tmp_path)
    es.export(old, tmp_path / "old.faiss", format="faiss", index="ivf")
    index, beside = faiss.read_index(str(tmp_path / "old.faiss")), tmp_path / "old.faiss.space.json"
    assert index.nlist == 15
    index.nprobe = 5
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    beside.write_text(json.dumps(es.space_of(old).to_dict()))
    before = recall(old, es.query_index(tmp_path / "old.faiss", old, k=10)[1])
    matrix = es.upgrade_plan(new, old, k=5).transform
    assert matrix is not None
    es.upgrade_index(tmp_path / "old.faiss", tmp_path / "new.faiss", matrix)
    assert faiss.read_index(str(tmp_path / "new.faiss")).nprobe == 5
    after = recall(new, es.query_index(tmp_path / "new.faiss", new, k=10)[1])
    assert before < 1
    assert after > before - 0.1


def own_index(kind: str) -> Any:
    """As users build them themselves: without a map of ids, and with distances."""
    made = {
        "flat": lambda: faiss.IndexFlatL2(D),
        "graph": lambda: faiss.IndexHNSWFlat(D, 8, faiss.METRIC_INNER_PRODUCT),
        "map": lambda: faiss.IndexIDMap2(faiss.IndexFlatIP(D)),
    }[kind]()
    if kind == "map":
        made.add_with_ids(T, np.arange(N) * 3)
    else:
        made.add(T)
    return made


@pytest.mark.parametrize("kind", ["flat", "graph", "map"])
def test_an_index_of_the_users_own_is_moved(kind: str, tmp_path: Path) -> None:
    old = es.create_run(tmp_path / "old", T)
    Q = np.linalg.qr(A)[0]
    new = es.create_run(tmp_path / "new", T @ Q)
    place = tmp_path / "own.faiss"
    faiss.write_index(own_index(kind), str(place))
    with pytest.raises(es.InputError, match="fingerprint"):
        es.query_index(place, old)
    Path(f"{place}.space.json").write_text(json.dumps(es.space_of(old).to_dict()))
    es.upgrade_index(place, tmp_path / "moved", es.fit(old, reference=new, keep="geometry"))
    scores, labels = es.query_index(tmp_path / "moved", new, k=1)
    if kind != "graph":
        assert (labels[:, 0] == np.arange(N) * (3 if kind == "map" else 1)).mean() > 0.3
    if kind == "flat":
        np.testing.assert_allclose(scores, 0, atol=1e-4)
        assert (labels[:, 0] == np.arange(N)).all()


def test_what_cannot_be_moved_or_searched_is_one_clear_error(tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    small = es.compress(old, tmp_path / "small", code="int8-component")
    es.export(small, tmp_path / "codes", format="faiss")
    fitted = es.fit(old, reference=new, keep="geometry")
    with pytest.raises(es.InputError, match="holds codes"):
        es.upgrade_index(tmp_path / "codes", tmp_path / "moved", fitted)
    es.export(old, tmp_path / "cosines", format="faiss", metric="cosine")
    centred = es.fit(old, reference=new, keep="geometry", center=True)
    with pytest.raises(es.InputError, match="length 1"):
        es.upgrade_index(tmp_path / "cosines", tmp_path / "moved", centred)
    with pytest.raises(es.InputError, match="not of users"):
        es.query_index(tmp_path / "cosines", old, table="users")
    (tmp_path / "cosines").write_bytes((tmp_path / "cosines").read_bytes()[:-9])
    Path(f"{tmp_path / 'cosines'}.space.json").write_text(json.dumps(es.space_of(old).to_dict()))
    with pytest.raises(es.DamageError):
        es.query_index(tmp_path / "cosines", old)
    signs = es.compress(old, tmp_path / "signs", code="sign")
    es.export(signs, tmp_path / "bits", format="faiss")
    with pytest.raises(es.DamageError, match="sign codes"):
        es.query_index(tmp_path / "bits", old, space=signs)
    assert not (tmp_path / "moved").exists()


def test_a_file_that_was_put_in_place_of_an_index_is_refused(tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    for run in (old, new):
        es.export(run, tmp_path / f"{run.name}.faiss", format="faiss")
    shutil.copy(tmp_path / "new.faiss", tmp_path / "old.faiss")
    for call in (
        lambda: es.query_index(tmp_path / "old.faiss", old),
        lambda: es.check_space(tmp_path / "old.faiss", old),
        lambda: es.upgrade_index(tmp_path / "old.faiss", tmp_path / "out", es.fit(old)),
    ):
        with pytest.raises(es.InputChangedError, match="another file"):
            call()


@pytest.mark.parametrize("step", ["index", "ids", "space"])
def test_an_index_that_is_replaced_is_the_old_one_or_refused_or_the_new_one(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each step: the old index is whole, and nothing half replaced is searched."""
    old, new = runs(tmp_path)
    place = tmp_path / "live.faiss"
    es.export(old, place, format="faiss")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if step == "index":
        monkeypatch.setattr(faiss_file, "write_whole", killed)
    elif step == "ids":
        monkeypatch.setattr(Path, "rename", killed)
    else:
        monkeypatch.setattr(faiss_file, "write_sidecar", killed)
    with pytest.raises(KeyboardInterrupt):
        es.export(new, place, format="faiss", overwrite=True)
    monkeypatch.undo()
    if step == "index":
        assert recall(old, es.query_index(place, old, k=10)[1]) > 0.99
    else:
        for run in (old, new):
            with pytest.raises(es.EmbstabError):
                es.query_index(place, run)
    es.export(new, place, format="faiss", overwrite=True)
    assert recall(new, es.query_index(place, new, k=10)[1]) > 0.99
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        *("live.faiss", "live.faiss.ids.npy", "live.faiss.space.json"),
        *("new", "old"),
    ]


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = runs(tmp_path)
    place, read = tmp_path / "live.faiss", faiss.read_index
    es.export(old, place, format="faiss")

    def replaced(path: str) -> Any:
        monkeypatch.undo()
        es.export(new, place, format="faiss", overwrite=True)
        return read(path)

    monkeypatch.setattr(faiss, "read_index", replaced)
    with pytest.raises(es.InputChangedError, match="replaced"):
        es.query_index(place, old)


def test_a_backfill_of_an_index_of_faiss(tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    es.export(old, tmp_path / "old.faiss", format="faiss")
    place = tmp_path / "moving"
    moving = es.begin_backfill(place, tmp_path / "old.faiss", old, new, part_rows=250)
    for _ in range(3):
        assert recall(new, moving.search(new, 10)[1]) > 0.97
        moving.step()
    assert recall(new, moving.search(new, 10)[1]) > 0.99
    assert open_index(place / "parts/000000000250", "items").engine == "faiss"
