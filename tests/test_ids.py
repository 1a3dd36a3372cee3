"""Rows meet their reference rows by id: in whatever order and with whatever overlap."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Array, align, assert_close, pairs_by_id, rotation, standardize, vectors_of, world

import dask_embstab as es
from dask_embstab.tables.read.direct_source import DirectSource

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(11)
B = standardize(T, W, balance="rows").items
B = T @ B @ rotation(np.random.default_rng(0).normal(size=(4, 4)), np.eye(4)) + 0.05 * world(12)[0]
IDS = {
    "int64": np.random.default_rng(1).permutation(10**12 + np.arange(60) * 97),
    "string": np.array(
        [f"naïve-{i:03d}" for i in np.random.default_rng(1).permutation(60)], dtype=object
    ),
}
MakeRun = Callable[..., es.Run]


def some(kind: str, *parts: slice) -> tuple[Array, Array]:
    """Rows and ids of parts of the catalogue, in a random order."""
    rows = np.concatenate([np.arange(60)[part] for part in parts])
    rows = np.random.default_rng(len(rows)).permutation(rows)
    return rows, IDS[kind][rows]


OVERLAPS = {
    "all, shuffled": (slice(None), slice(None)),
    "half": (slice(0, 40), slice(20, 60)),
    "few": (slice(0, 33), slice(27, 60)),
    "run inside reference": (slice(10, 40), slice(None)),
    "reference inside run": (slice(None), slice(10, 40)),
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_rows_are_matched_by_id_and_new_ones_are_transformed_too(
    make_run: MakeRun, tmp_path: Path, kind: str, overlap: str
) -> None:
    (mine, my_ids), (theirs, their_ids) = (some(kind, part) for part in OVERLAPS[overlap])
    reference = make_run("reference", B[theirs], item_ids=their_ids)
    make_run("in", T[mine], W, item_ids=my_ids)
    run = es.stabilize(
        tmp_path / "in.zarr", tmp_path / "out.zarr", reference=reference, min_matched=6
    )
    pairs = pairs_by_id(my_ids, their_ids)
    items, users = align(T[mine], W, B[theirs], pairs)
    assert_close(vectors_of(run), items, 1e-8)
    assert_close(vectors_of(run, "users"), users, 1e-8)
    assert run.items.ids.compute().tolist() == my_ids.tolist()
    assert run.transform is not None
    figures = run.transform.diagnostics["items"]
    assert (figures["rows"], figures["matched"]) == (len(mine), len(pairs[0]))
    assert figures["new"] == len(mine) - len(pairs[0])
    assert figures["unmatched_reference"] == len(theirs) - len(pairs[0])
    alignment = run.transform.diagnostics["alignment"]
    assert_close(alignment["error"], np.linalg.norm(items[pairs[0]] - B[theirs][pairs[1]]), 1e-5)
    assert alignment["rows"] == len(pairs[0])


def test_ids_in_one_order_are_as_good_as_row_numbers(make_run: MakeRun) -> None:
    with_ids = es.fit(
        make_run("a", T, W, item_ids=IDS["int64"]),
        reference=make_run("b", B, item_ids=IDS["int64"]),
    )
    without = es.fit(make_run("c", T, W), reference=make_run("d", B))
    np.testing.assert_array_equal(with_ids.items, without.items)
    assert with_ids.diagnostics["items"]["paired_by"] == "identical ids"
    assert without.diagnostics["items"]["paired_by"] == "row number"


@pytest.mark.parametrize(("n", "m"), [(60, 35), (35, 60)])
def test_without_ids_row_i_belongs_to_row_i(n: int, m: int) -> None:
    shared = np.arange(min(n, m))
    fitted = es.fit(T[:n], W, reference=B[:m])
    assert_close(T[:n] @ fitted.items, align(T[:n], W, B[:m], (shared, shared))[0], 1e-8)
    assert fitted.diagnostics["items"]["matched"] == 35


def test_row_numbers_stand_for_ids_that_are_missing(make_run: MakeRun) -> None:
    """A table without ids knows its rows by number, so int64 ids of the other side mean row
    numbers.
    """
    order = np.random.default_rng(3).permutation(60)
    fitted = es.fit(make_run("a", T[order], W, item_ids=order), reference=B)
    assert_close(T @ fitted.items, align(T, W, B)[0], 1e-8)
    assert fitted.diagnostics["items"]["paired_by"] == "joined ids"


def test_users_are_matched_by_id_too(make_run: MakeRun) -> None:
    order = np.random.default_rng(3).permutation(90)
    names = np.array([f"u{i}" for i in range(90)])
    A = world(12)[1]
    reference = make_run("reference", B, A, item_ids=IDS["int64"], user_ids=names)
    run = make_run("in", T, W[order][:50], item_ids=IDS["int64"][::-1], user_ids=names[order][:50])
    fitted = es.fit(run, reference=reference, align_on="users", keep="geometry")
    assert_close(fitted.users, rotation(W[order][:50], A[order][:50]), 1e-9)
    assert fitted.diagnostics["users"]["matched"] == 50


def test_a_later_batch_of_users_is_transformed_by_a_saved_transform(
    make_run: MakeRun, tmp_path: Path
) -> None:
    transform = es.fit(T, W, reference=B)
    late = make_run("late", users=W[::-1], user_ids=np.arange(90) + 500)
    run = es.apply(transform, late, tmp_path / "out.zarr")
    assert run.items is None
    assert_close(vectors_of(run, "users"), W[::-1] @ transform.users, 1e-12)
    assert run.users.ids.compute().tolist() == list(range(500, 590))


# --- too few


def test_no_shared_id_is_an_error(make_run: MakeRun) -> None:
    run, reference = (
        make_run("a", T, W, item_ids=np.arange(60)),
        make_run("b", B, item_ids=np.arange(100, 160)),
    )
    for options in ({}, {"keep": "geometry"}, {"min_matched": 1}):
        with pytest.raises(es.IdError, match="share no id") as error:
            es.fit(run, reference=reference, **options)
        assert re.search(r"\b\d+\b.*\b1\d\d\b", str(error.value)), "an example of both"


def shares(make_run: MakeRun, n: int) -> tuple[es.Run, es.Run]:
    """A run and a reference with ``n`` rows in common."""
    ids = np.arange(60)
    return make_run("a", T, W, item_ids=ids), make_run(
        "b", B, item_ids=np.where(ids < n, ids, ids + 1000)
    )


@pytest.mark.parametrize(("keep", "floor"), [("scores", 16), ("geometry", 6)])
def test_a_tenth_of_the_rows_and_four_per_component_are_needed(
    make_run: MakeRun, keep: Any, floor: int
) -> None:
    run, reference = shares(make_run, floor - 1)
    with pytest.raises(
        es.InputError, match=rf"(?s)(?=.*\b{floor}\b)(?=.*\b{floor - 1}\b).*min_matched"
    ):
        es.fit(run, reference=reference, keep=keep)


def test_too_few_are_refused_before_a_vector_is_read(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reference = shares(make_run, 3)
    monkeypatch.setattr(DirectSource, "block", lambda *_: pytest.fail("vectors are read"))
    with pytest.raises(es.InputError, match="at least 16 rows"):
        es.fit(run, reference=reference)


@pytest.mark.parametrize(("keep", "floor"), [("scores", 16), ("geometry", 6)])
def test_as_many_are_enough(make_run: MakeRun, keep: Any, floor: int) -> None:
    run, reference = shares(make_run, floor)
    assert es.fit(run, reference=reference, keep=keep).diagnostics["items"]["matched"] == floor


def test_the_floor_is_of_the_smaller_table_and_of_all_shared_rows(make_run: MakeRun) -> None:
    many = np.arange(60)
    run, reference = (
        make_run("long", T, item_ids=many),
        make_run("short", B[:20], item_ids=many[:20] + 58),
    )
    with pytest.warns(es.EmbstabWarning, match="free"):
        assert es.fit(run, reference=reference).diagnostics["items"]["matched"] == 2
    run, reference = shares(make_run, 30)
    for few in ({"sample": 5}, {"only": many[:5]}, {"anchors": 5}):
        assert (
            es.fit(run, reference=reference, keep="geometry", **few).diagnostics["items"]["aligned"]
            == 5
        )


def test_a_warning_names_the_directions_that_are_free(make_run: MakeRun) -> None:
    run, reference = shares(make_run, 3)
    with pytest.warns(es.EmbstabWarning, match=r"\b1 (is|are) free.*components? \d") as caught:
        fitted = es.fit(run, reference=reference, keep="geometry", min_matched=1)
    assert len(caught) == 1
    assert "3 matched rows" in str(caught[0].message)
    assert fitted.diagnostics["alignment"]["free_directions"] == 1
    transformed = T @ fitted.items
    assert_close(transformed @ transformed.T, T @ T.T, 1e-12)
    assert_close(transformed[:3] @ np.eye(4), T[:3] @ rotation(T[:3], B[:3]), 1e-8)


@pytest.mark.parametrize("keep", ["scores", "geometry"])
def test_min_matched_decides(make_run: MakeRun, keep: Any) -> None:
    run, reference = shares(make_run, 3)
    with pytest.warns(es.EmbstabWarning, match="free"):
        assert (
            es.fit(run, reference=reference, keep=keep, min_matched=3).diagnostics["alignment"][
                "rows"
            ]
            == 3
        )
    with pytest.raises(es.InputError, match=r"(?s)(?=.*\b20\b)(?=.*\b3\b)"):
        es.fit(run, reference=reference, keep=keep, min_matched=20)


@pytest.mark.parametrize("keep", ["scores", "geometry"])
def test_enough_rows_are_silent(make_run: MakeRun, keep: Any) -> None:
    run, reference = shares(make_run, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            es.fit(run, reference=reference, keep=keep, min_matched=30).diagnostics["items"][
                "matched"
            ]
            == 30
        )


# --- evaluate


def test_evaluate_compares_rows_of_one_id(make_run: MakeRun) -> None:
    order = np.random.default_rng(3).permutation(60)[:45]
    a = make_run("a", T, W, item_ids=IDS["string"], user_ids=np.arange(90))
    b = make_run(
        "b", 2 * B[order], W[::-1], item_ids=IDS["string"][order], user_ids=np.arange(90)[::-1]
    )
    metrics = es.evaluate(a, b, k=10, users=90)
    cosines = np.einsum("ij,ij->i", T[order], B[order])
    cosines /= np.linalg.norm(T[order], axis=1) * np.linalg.norm(B[order], axis=1)
    assert metrics.items is not None
    assert metrics.users is not None
    assert metrics.items.matched == 45
    assert_close(metrics.items.mean_cosine, cosines.mean(), 1e-12)
    lengths = [np.linalg.norm(table, axis=1).sum() for table in (T[order], 2 * B[order])]
    assert_close(metrics.items.norm_ratio, lengths[1] / lengths[0], 1e-12)
    assert (metrics.users.matched, round(metrics.users.mean_cosine, 12)) == (90, 1.0)


def test_a_run_is_like_itself_and_like_its_stabilized_self_in_rankings(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", T, W)
    transformed = es.stabilize(run, tmp_path / "out.zarr")
    assert es.evaluate(run, run).rank_correlation.rbo == pytest.approx(1)
    assert es.evaluate(run, transformed).rank_correlation.retrained_rbo == pytest.approx(1)
    assert es.evaluate(run, run, k=7).rank_correlation.k == 7
    assert es.evaluate(run, transformed).items.mean_cosine < 0.99
