"""Tables in memory are full citizens: every verb takes them in place of stored ones, with the same
figures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from oracle import Stop, assert_close, stop_at, vectors_of, world

import dask_embstab as es

T, W = world(91)
B = T @ np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0] + 0.05 * world(92)[0]
A = W @ np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
NAMES = [f"item-{i:02d}" for i in range(60)]
USERS = np.arange(90) * 7
ORDER = np.random.default_rng(3).permutation(60)
MakeRun = Callable[..., es.Run]
Refused = Callable[..., contextlib.AbstractContextManager[None]]

# The run and its reference, as whatever a user holds.
HELD: dict[str, Callable[[], tuple[Any, Any]]] = {
    "es.table": lambda: (
        {"items": es.table(T[ORDER], ids=np.array(NAMES)[ORDER]), "users": es.table(W, ids=USERS)},
        {"items": es.table(B, ids=NAMES), "users": es.table(A, ids=USERS)},
    ),
    "frames": lambda: (
        {
            "items": pd.DataFrame(T[ORDER], index=np.array(NAMES)[ORDER]),
            "users": pd.DataFrame(W, index=USERS),
        },
        {"items": pd.DataFrame(B, index=NAMES), "users": pd.DataFrame(A, index=USERS)},
    ),
    "Dask": lambda: (
        {
            "items": es.table(da.from_array(T[ORDER], chunks=(16, 4)), ids=np.array(NAMES)[ORDER]),
            "users": es.table(
                da.from_array(W, chunks=(16, 4)), ids=da.from_array(USERS, chunks=16)
            ),
        },
        {
            "items": es.table(da.from_array(B, chunks=(16, 4)), ids=NAMES),
            "users": es.table(A, ids=USERS),
        },
    ),
}


@pytest.fixture
def stored(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    run = make_run("run", T[ORDER], W, item_ids=np.array(NAMES)[ORDER], user_ids=USERS)
    return run, make_run("reference", B, A, item_ids=NAMES, user_ids=USERS)


@pytest.mark.parametrize("form", HELD)
@pytest.mark.parametrize("align_on", ["items", "users", "both"])
def test_every_verb_gives_what_it_gives_for_stored_runs(
    stored: tuple[es.Run, es.Run], tmp_path: Path, form: str, align_on: Any
) -> None:
    run, reference = HELD[form]()
    wanted = es.fit(stored[0], reference=stored[1], align_on=align_on)
    assert_close(es.fit(run, reference=reference, align_on=align_on).items, wanted.items, 1e-12)
    expected = es.apply(wanted, stored[0], tmp_path / "expected.zarr")
    made = {
        "apply": es.apply(wanted, run, tmp_path / "apply.zarr"),
        "stabilize": es.stabilize(
            run, tmp_path / "out.zarr", reference=reference, align_on=align_on
        ),
        "users=": es.stabilize(
            run["items"],
            tmp_path / "users.zarr",
            users=run["users"],
            reference=reference,
            align_on=align_on,
        ),
        "apply, users=": es.apply(
            wanted, run["items"], tmp_path / "apply-users.zarr", users=run["users"]
        ),
    }
    for result in made.values():
        for key in ("items", "users"):
            assert_close(vectors_of(result, key), vectors_of(expected, key), 1e-12)
            assert (
                getattr(result, key).ids.compute().tolist()
                == getattr(expected, key).ids.compute().tolist()
            )
    figures = es.evaluate(*stored, k=10)
    for pair in ((run, reference), (stored[0], reference), (run, stored[1])):
        result = es.evaluate(*pair, k=10)
        assert result.rank_correlation == figures.rank_correlation
        assert_close(result.items.mean_cosine, figures.items.mean_cosine, 1e-12)
        assert result.users.matched == 90


def test_arrays_alone(tmp_path: Path) -> None:
    """Rows without ids are known by their place, as for `fit`."""
    transform = es.fit(T, W, reference=B)
    run = es.stabilize(T, tmp_path / "a.zarr", users=W, reference=B)
    assert_close(vectors_of(run), T @ transform.items, 1e-12)
    assert_close(vectors_of(run, "users"), W @ transform.users, 1e-12)
    assert run.items.ids is None
    late = es.apply(transform, {"users": W[:7]}, tmp_path / "late.zarr")
    assert late.items is None
    assert_close(vectors_of(late, "users"), W[:7] @ transform.users, 1e-12)
    cosines = np.einsum("ij,ij->i", T, B) / np.linalg.norm(T, axis=1) / np.linalg.norm(B, axis=1)
    assert_close(es.evaluate(T.tolist(), da.from_array(B)).items.mean_cosine, cosines.mean(), 1e-12)
    assert es.evaluate(T, B).users is None


def test_views_are_tables_too(tmp_path: Path) -> None:
    """A folded bias is one more component of rows that are stored nowhere."""
    bias = np.random.default_rng(0).normal(size=60)
    items, users = es.fold_bias(T, W, bias)
    run = es.stabilize(items, tmp_path / "out.zarr", users=users)
    assert_close(vectors_of(run, "users") @ vectors_of(run).T, W @ T.T + bias, 1e-10)
    assert es.evaluate(items, items).items.mean_cosine == pytest.approx(1)


def test_records_name_what_is_in_memory(stored: tuple[es.Run, es.Run], tmp_path: Path) -> None:
    monday, tuesday = es.table(B, ids=NAMES, name="monday"), es.table(T, ids=NAMES, name="tuesday")
    run = es.stabilize(tuesday, tmp_path / "day-2.zarr", reference=monday)
    attributes = dict(run.group["transform"].attrs)
    assert attributes["run"] == {"path": None, "name": "tuesday"}
    assert attributes["reference"] == {
        "path": None,
        "name": "monday",
        "stabilized": None,
        "balance": None,
        "space": None,
    }
    assert run.name == "day-2"
    run = es.stabilize(T, tmp_path / "day-3.zarr", reference={"items": B})
    attributes = dict(run.group["transform"].attrs)
    assert (attributes["run"], attributes["reference"]["name"]) == (
        {"path": None, "name": "the items array"},
        "the items array",
    )
    named = es.stabilize(
        stored[0], tmp_path / "day-4.zarr", reference=Path(stored[1].path) / "items"
    )
    assert dict(named.group["transform"].attrs)["reference"]["path"] == str(
        Path(stored[1].path) / "items"
    )


def test_messages_name_what_is_in_memory(tmp_path: Path, refused: Refused) -> None:
    out, transform = tmp_path / "out.zarr", es.fit(T, W)
    with refused(es.InputError, "the items of the run in memory have 3"):
        es.apply(transform, T[:, :3], out)
    with refused(es.InputError, "the run in memory holds only users"):
        es.stabilize({"users": W}, out)
    with refused(es.InputError, "same number of components", "monday has 4 and the users array 3"):
        es.stabilize(es.table(T, name="monday"), out, users=W[:, :3])
    with refused(es.InputError, "at least one table"):
        es.apply(transform, {"items": None}, out)
    with refused(es.IdError, r"monday needs one id per row, \(60,\)"):
        es.table(T, ids=NAMES[:5], name="monday")
    with refused(es.InputError, "two axes", "the table"):
        es.table(T[0])
    with refused(es.InputError, "no table in common"):
        es.evaluate(T, {"users": W})


@pytest.mark.usefixtures("small_tasks")
def test_a_resumed_call_never_takes_over_chunks_of_other_rows(
    tmp_path: Path,
    writing: Callable[..., contextlib.AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dask_embstab.tables.read.source.DEFAULT_CHUNK_BYTES", 16 * 4 * 8)
    transform, out = es.fit(T, W), tmp_path / "out.zarr"
    with pytest.raises(Stop), writing(stop_at(3)):
        es.apply(transform, T, out, resume=True)
    run = es.apply(transform, T[::-1].copy(), out, resume=True)
    assert_close(vectors_of(run), T[::-1] @ transform.items, 1e-12)


@pytest.mark.parametrize("key", ["items", "users"])
def test_a_table_takes_the_place_it_is_given(tmp_path: Path, key: str) -> None:
    run = es.create_run(tmp_path / "a.zarr", **{key: es.table(T, ids=NAMES)})
    assert getattr(run, key).to_xarray().vectors.dims[0] == key[:-1]
    assert getattr(run, key).ids.compute().tolist() == NAMES
