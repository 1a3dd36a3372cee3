"""Rows with other ids on both sides: ``pairs=`` aligns them as if each pair had one id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import Array, rotation, standardize, world

import dask_embstab as es
from dask_embstab.cli.main import main

Runs = tuple[es.Run, es.Run, Array, Array, Array]


def number(kind: str, of: Array) -> Any:
    return of if kind == "int64" else [f"id-{value}" for value in of]


@pytest.fixture(params=["int64", "string"])
def runs(request: pytest.FixtureRequest, make_run: Callable[..., es.Run]) -> Runs:
    """Two runs without a common id, and pairs of their rows: some ids in several of them, one pair
    twice.
    """
    T, W = world(0)
    U, V = world(1)
    rng = np.random.default_rng(5)
    n = len(T)
    ours, theirs = rng.integers(0, n, size=(2, 3 * n // 2))
    ours, theirs = np.append(ours, ours[0]), np.append(theirs, theirs[0])
    run = make_run("run", T, W, item_ids=number(request.param, 1000 + np.arange(n)))
    reference = make_run(
        "reference", U + T, V + W, item_ids=number(request.param, 9000 + np.arange(n)[::-1])
    )
    listed = [
        (number(request.param, 1000 + ours[[i]])[0], number(request.param, 9000 + theirs[[i]])[0])
        for i in range(len(ours))
    ]
    return run, reference, np.array(listed, object), ours, n - 1 - theirs


def distinct(ours: Array, theirs: Array) -> tuple[Array, Array]:
    rows = np.unique(np.stack([ours, theirs], axis=1), axis=0)
    return rows[:, 0], rows[:, 1]


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("keep", ["scores", "geometry"])
@pytest.mark.parametrize("method", ["auto", "qr"])
def test_listed_pairs_decide_the_rotation_and_all_rows_the_standardizing(
    runs: Runs, keep: str, method: str
) -> None:
    run, reference, listed, ours, theirs = runs
    made = es.fit(
        run, reference=reference, keep=keep, pairs=(listed[:, 0], listed[:, 1]), method=method
    )
    T, W = run.items.vectors.compute(), run.users.vectors.compute()
    B = reference.items.vectors.compute()
    M = standardize(T, W, balance="rows").items if keep == "scores" else np.eye(T.shape[1])
    mine, other = distinct(ours, theirs)
    np.testing.assert_allclose(made.items, M @ rotation((T @ M)[mine], B[other]), atol=1e-9)
    items = made.diagnostics["items"]
    assert (items["matched"], items["paired_by"]) == (len(mine), "listed pairs")
    assert (items["new"], items["unmatched_reference"]) == (
        len(T) - len(set(mine)),
        len(B) - len(set(other)),
    )


def test_pairs_of_equal_ids_give_what_the_join_gives(make_run: Callable[..., es.Run]) -> None:
    T, W = world(0)
    U, _ = world(1)
    ids = np.arange(len(T))
    run, reference = (
        make_run("a", T, W, item_ids=ids),
        make_run("b", (T + 0.1 * U)[::-1], W, item_ids=ids[::-1]),
    )
    for options in ({}, {"unit_rows": True}, {"weights": "norm"}):
        joined = es.fit(run, reference=reference, **options)
        listed = es.fit(run, reference=reference, pairs=[(i, i) for i in ids.tolist()], **options)
        np.testing.assert_allclose(listed.items, joined.items, atol=1e-10)
        np.testing.assert_allclose(listed.users, joined.users, atol=1e-10)


def test_centred_pairs_bring_mean_to_mean() -> None:
    T, _ = world(0)
    made = es.fit(
        T + 3,
        reference=T[::-1] - 1,
        center=True,
        pairs=(np.arange(len(T)), np.arange(len(T))[::-1]),
    )
    np.testing.assert_allclose(made.transform_items(T + 3), T - 1, atol=1e-9)


def test_a_file_of_pairs_on_the_command_line(runs: Runs, tmp_path: Path) -> None:
    run, reference, listed, _, _ = runs
    lines = [
        "ours,theirs",
        *(f"{a},{b}" for a, b in listed),
        "unknown-999,also-unknown" if isinstance(listed[0, 0], str) else "1,2",
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "fit.npz"
    arguments = [
        "fit",
        run.path,
        str(out),
        "--reference",
        reference.path,
        "--pairs",
        str(tmp_path / "pairs.csv"),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    wanted = es.fit(run, reference=reference, pairs=[tuple(pair) for pair in listed])
    np.testing.assert_array_equal(es.Transform.load(out).items, wanted.items)


def test_both_tables_take_pairs_by_name(make_run: Callable[..., es.Run]) -> None:
    T, W = world(0)
    run = make_run("a", T, W)
    items, users = ([(i, i) for i in range(len(table))] for table in (T, W))
    both = es.fit(run, reference=run, align_on="both", pairs={"items": items, "users": users})
    np.testing.assert_allclose(
        both.items, es.fit(run, reference=run, align_on="both").items, atol=1e-10
    )


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (7, "two columns"),
        ("nowhere.csv", "cannot be read"),
        (([1, 2], [3]), "2 and 1 ids"),
        (([], []), "0 and 0 ids"),
        (([1], [2], [3]), "two columns"),
        ((["x"], ["y"]), "int64"),
        (([10**6], [10**6]), "no pair of pairs .*0 of 1 do"),
        ({"users": [(1, 2)]}, "given for users"),
    ],
)
def test_pairs_that_are_none_are_one_clear_error(
    make_run: Callable[..., es.Run], pairs: Any, says: str
) -> None:
    T, W = world(0)
    run = make_run("a", T, W)
    with pytest.raises(es.InputError, match=says):
        es.fit(run, reference=run, pairs=pairs)


def test_pairs_leave_no_room_for_another_choice_of_rows(make_run: Callable[..., es.Run]) -> None:
    T, W = world(0)
    run = make_run("a", T, W)
    for options in ({"sample": 5}, {"only": [1]}, {"weights": np.ones(len(T))}):
        with pytest.raises(es.InputError, match="pairs= says which rows decide"):
            es.fit(run, reference=run, pairs=[(1, 1)] * 9, **options)
    with pytest.raises(es.InputError, match="pairs= is about rows"):
        es.fit(es.moments(T), es.moments(W, key="users"), pairs=[(1, 1)])


def test_a_paired_id_that_a_table_repeats_is_refused(make_run: Callable[..., es.Run]) -> None:
    T, W = world(0)
    run = make_run("a", T, W, item_ids=np.r_[0, 0, np.arange(2, len(T))])
    with pytest.raises(es.IdError, match="repeats 0 in row 1"):
        es.fit(run, reference=run, pairs=[(i, i) for i in range(len(T))])
    assert es.fit(run, reference=run, pairs=[(i, i) for i in range(2, len(T))]).width
