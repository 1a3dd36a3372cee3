"""What a retraining means for an index: recall where it is left or bridged, and the decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import Array

import dask_embstab as es
from dask_embstab.cli.main import main

N, USERS, D = 300, 200, 6


def world(seed: int, d: int = D) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, d)), rng.normal(size=(USERS, d))


def other_axes(T: Array, W: Array, seed: int) -> tuple[Array, Array]:
    A = np.random.default_rng(seed).normal(size=(T.shape[1], T.shape[1]))
    return T @ A, W @ np.linalg.inv(A).T


def run(folder: Path, name: str, T: Array, W: Array | None, first: int = 0) -> es.Run:
    ids: dict[str, Any] = {"item_ids": np.arange(first, first + len(T))}
    if W is not None:
        ids["user_ids"] = np.arange(len(W))
    return es.create_run(folder / name, T, W, **ids)


def recall(queries: Array, rows: Array, sent: Array, stored: Array, k: int) -> float:
    fresh = np.argsort(-queries @ rows.T, axis=1)[:, :k]
    ids = np.argsort(-sent @ stored.T, axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(fresh, ids, strict=True)]))


def test_recall_is_that_of_the_definition_over_all_queries(tmp_path: Path) -> None:
    T, W = world(1)
    T2, W2 = other_axes(T + 0.05 * world(2)[0], W, 3)
    plan = es.upgrade_plan(run(tmp_path, "a", T, W), run(tmp_path, "b", T2, W2), k=7)
    assert plan.leave is not None
    assert plan.bridge is not None
    assert plan.transform is not None
    assert plan.leave.mean == pytest.approx(recall(W2, T2, W2, T, 7))
    assert plan.bridge.mean == pytest.approx(
        recall(W2, T2, plan.transform.transform_users(W2), T, 7)
    )
    assert plan.leave.low == plan.leave.high == plan.leave.mean  # all queries were asked


def test_one_score_matrix_in_other_axes_is_bridged_exactly(tmp_path: Path) -> None:
    T, W = world(1)
    a, b = run(tmp_path, "a", T, W), run(tmp_path, "b", *other_axes(T, W, 5))
    plan = es.upgrade_plan(a, b)
    assert plan.decision == "bridge"
    assert plan.bridge is not None
    assert plan.bridge.mean == 1
    assert plan.transform is not None
    bridged = plan.transform.transform_users(np.asarray(b.table("users").vectors))
    np.testing.assert_allclose(bridged @ T.T, W @ T.T, atol=1e-9)


def test_versions_of_a_stable_series_are_left_as_they_are(tmp_path: Path) -> None:
    T, W = world(1)
    first = es.stabilize(run(tmp_path, "a", T, W), tmp_path / "sa")
    later = es.stabilize(run(tmp_path, "b", *other_axes(T, W, 5)), tmp_path / "sb", reference=first)
    plan = es.upgrade_plan(first, later)
    assert plan.decision == "leave"
    assert plan.to_dict()["one_space"]


def test_unrelated_models_are_built_anew(tmp_path: Path) -> None:
    with pytest.warns(es.EmbstabWarning):
        plan = es.upgrade_plan(run(tmp_path, "a", *world(1)), run(tmp_path, "b", *world(2)))
    assert plan.decision == "reindex"
    assert plan.to_dict()["cost"]["reindex"] == {"rows": N, "bytes": N * D * 8}


def test_items_alone_are_compared_by_their_neighbours_without_themselves(tmp_path: Path) -> None:
    T, _ = world(1)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    plan = es.upgrade_plan(run(tmp_path, "a", T, None), run(tmp_path, "b", T @ Q, None), k=5)
    assert plan.decision == "bridge"
    assert plan.metric == "cosine"
    assert plan.leave is not None
    unit, moved = T / np.linalg.norm(T, axis=1)[:, None], T @ Q
    moved /= np.linalg.norm(moved, axis=1)[:, None]
    fresh, bridged = unit @ unit.T, moved @ unit.T
    np.fill_diagonal(fresh, -2)
    np.fill_diagonal(bridged, -2)
    a, b = (np.argsort(-one, axis=1)[:, :5] for one in (fresh, bridged))
    expected = np.mean([len(set(x) & set(y)) / 5 for x, y in zip(a, b, strict=True)])
    assert plan.leave.mean == pytest.approx(expected)


def test_queries_of_documents_are_bridged_as_documents_are(tmp_path: Path) -> None:
    T, W = world(1)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    a, b = run(tmp_path, "a", T, None), run(tmp_path, "b", T @ Q, None)
    plan = es.upgrade_plan(a, b, queries=W @ Q)
    assert plan.bridge is not None
    assert plan.bridge.mean == 1
    assert plan.leave is not None
    assert plan.leave.mean < 0.5


def test_without_shared_ids_there_is_no_bridge_and_the_plan_says_why(tmp_path: Path) -> None:
    a, b = run(tmp_path, "a", *world(1)), run(tmp_path, "b", *world(1), first=10_000)
    plan = es.upgrade_plan(a, b)
    assert (plan.decision, plan.bridge) == ("reindex", None)
    assert "share" in str(plan.reason)


def test_models_of_two_widths_cannot_be_left(tmp_path: Path) -> None:
    T, W = world(1)
    wide = np.zeros((N, D + 2)), np.zeros((USERS, D + 2))
    wide[0][:, :D], wide[1][:, :D] = T, W
    plan = es.upgrade_plan(run(tmp_path, "a", *wide), run(tmp_path, "b", *other_axes(T, W, 3)))
    assert plan.leave is None
    assert plan.decision == "bridge"


def test_the_users_own_queries_decide_by_id_or_by_vector(tmp_path: Path) -> None:
    T, W = world(1)
    T2, W2 = other_axes(T + 0.05 * world(2)[0], W, 3)
    a, b = run(tmp_path, "a", T, W), run(tmp_path, "b", T2, W2)
    asked = [3, 50, 121]
    by_id, by_vector = (es.upgrade_plan(a, b, queries=given) for given in (asked, W2[asked]))
    assert by_id.leave is not None
    assert by_vector.leave is not None
    assert by_id.leave.mean == by_vector.leave.mean
    assert by_id.leave.low < by_id.leave.mean  # a log stands for the queries to come
    assert by_id.leave.mean == pytest.approx(recall(W2[asked], T2, W2[asked], T, 10))
    for wrong in (np.ones((3, D + 1)), [], "nothing-there", [5.5]):
        with pytest.raises(es.EmbstabError):
            es.upgrade_plan(a, b, queries=wrong)


def test_the_command_prints_the_plan_and_saves_the_bridge(tmp_path: Path) -> None:
    T, W = world(1)
    run(tmp_path, "a", T, W)
    run(tmp_path, "b", *other_axes(T, W, 5))
    call = ["upgrade", "plan", *(str(tmp_path / name) for name in "ab")]
    saved = str(tmp_path / "bridge.npz")
    done = CliRunner().invoke(main, [*call, "--json", "--save", saved])
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert printed["decision"] == "bridge"
    assert printed["recall"]["bridge"]["mean"] == 1
    assert es.Transform.load(saved).d == D
    lines = CliRunner().invoke(main, call).stdout.splitlines()
    assert lines[0].startswith("bridge: recall@10")
    wrong = CliRunner().invoke(main, [*call, "--recall", "2"])
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)


def test_an_item_that_is_asked_by_id_is_not_its_own_answer(tmp_path: Path) -> None:
    T, _ = world(1)
    a, b = run(tmp_path, "a", T, None), run(tmp_path, "b", T[:, ::-1].copy(), None)
    plan = es.upgrade_plan(a, b, k=1, queries=list(range(50)))
    assert plan.leave is not None
    assert plan.leave.mean < 0.2


def test_tables_of_a_few_rows_say_nothing(tmp_path: Path) -> None:
    a, b = run(tmp_path, "a", *world(1)), run(tmp_path, "b", *world(2))
    with pytest.raises(es.InputError, match="says nothing"):
        es.upgrade_plan(a, b, k=N)
    one = es.create_run(tmp_path / "one", np.ones((1, D)))
    with pytest.raises(es.InputError):
        es.upgrade_plan(one, one)
