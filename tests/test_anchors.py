"""A few shared rows, the same ones every day, and an estimate of what they cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from oracle import Array, assert_close, rotation, world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.read.stored.gather import DirectGatherReader

MakeRun = Callable[..., es.Run]
SEEDS = 100


def drifted(
    d: int, seed: int, n: int = 4000, noise: float = 0.3, wider: int = 0
) -> tuple[Array, Array]:
    """Rows of an uneven spectrum and heavy tails, and the same rows turned, with noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.pareto(4, size=(n, 1)) + 0.5
    rows = rng.normal(size=(n, d)) * np.linspace(2, 1, d) * lengths
    turned = np.pad(rows, ((0, 0), (0, wider))) @ np.linalg.qr(rng.normal(size=(d + wider,) * 2))[0]
    return rows, turned + noise * rng.normal(size=turned.shape) * lengths


WORLDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "d = 2": (lambda: drifted(2, 0), {}),
    "d = 8": (lambda: drifted(8, 1), {}),
    "much noise": (lambda: drifted(5, 2, noise=1.5), {}),
    "wider reference": (lambda: drifted(3, 3, wider=2), {}),
    "centred": (lambda: tuple(x + 3 for x in drifted(4, 4)), {"center": True}),
    "unit rows": (lambda: drifted(4, 5), {"unit_rows": True}),
    "a quarter of all rows": (lambda: drifted(6, 6, n=480), {}),
}


@pytest.mark.parametrize("name", WORLDS)
def test_the_bound_covers_and_is_not_idle(name: str) -> None:
    make, options = WORLDS[name]
    rows, reference = make()
    n = 20 * rows.shape[1]
    full = es.fit(rows, reference=reference, **options)
    distances, bounds = [], []
    for seed in range(SEEDS):
        fitted = es.fit(rows, reference=reference, anchors=n, seed=seed, **options)
        assert fitted.diagnostics["items"]["aligned"] == n
        distances.append(np.linalg.norm(fitted.items - full.items))
        bounds.append(fitted.diagnostics["anchor_bound"])
    assert np.sum(np.array(bounds) < distances) <= 0.02 * SEEDS
    # In two dimensions one angle is all, and its estimate has the few degrees of freedom of the
    # heavy tail.
    assert np.median(bounds) <= (8 if rows.shape[1] == 2 else 5) * np.median(distances)
    assert np.min(distances) > 0


def test_in_scores_mode_and_on_both_tables(make_run: MakeRun) -> None:
    T, B = drifted(4, 7, n=1500)
    W, A = drifted(4, 8, n=2500)
    run, reference = (
        make_run("in", T, W, chunk_rows=500),
        make_run("reference", B, A, chunk_rows=500),
    )
    for options in ({}, {"align_on": "both", "keep": "geometry"}):
        full = es.fit(run, reference=reference, **options)
        missed, ratios = 0, []
        left = np.linalg.pinv(es.fit(run).items) if not options else np.eye(4)
        for seed in range(20):
            fitted = es.fit(run, reference=reference, anchors=120, seed=seed, **options)
            distance = (
                np.linalg.norm(left @ (fitted.items - full.items))
                if options
                else _turn(fitted, full)
            )
            missed += fitted.diagnostics["anchor_bound"] < distance
            ratios.append(fitted.diagnostics["anchor_bound"] / distance)
        assert missed <= 1
        assert np.median(ratios) <= 5


def _turn(sampled: es.Transform, full: es.Transform) -> float:
    """|Q_N - Q| where M Q_N and M Q are known: Q' Q_N = (M Q)^-1 (M Q_N)."""
    return float(
        np.linalg.norm(np.linalg.solve(full.items, sampled.items) - np.eye(len(full.items)))
    )


def test_anchors_are_the_same_rows_in_any_order_and_memory(make_run: MakeRun) -> None:
    T, W = world(81)
    B = world(82)[0] + T
    ids = np.array([f"i{i}" for i in range(60)], dtype=object)
    reference = make_run("reference", B, item_ids=ids)
    straight = es.fit(make_run("a", T, W, item_ids=ids), reference=reference, anchors=20)
    order = np.random.default_rng(0).permutation(60)
    shuffled = es.fit(
        make_run("b", T[order], W, item_ids=ids[order]), reference=reference, anchors=20
    )
    assert_close(shuffled.items, straight.items, 1e-9)
    assert_close(shuffled.diagnostics["anchor_bound"], straight.diagnostics["anchor_bound"], 1e-9)
    other = es.fit(make_run("c", T, W, item_ids=ids), reference=reference, anchors=20, seed=1)
    assert np.abs(other.items - straight.items).max() > 1e-6


def test_anchors_decide_the_rotation_alone() -> None:
    rows, reference = drifted(3, 9, n=200)
    fitted = es.fit(rows, reference=reference, anchors=40)
    from dask_embstab.passes.join.anchors import anchor_rows
    from dask_embstab.passes.join.options import join_options
    from dask_embstab.passes.join.pairing import pair
    from dask_embstab.tables.table import make_table

    table, other = make_table(rows, where="a"), make_table(reference, where="b")
    with join_options() as join:
        few = anchor_rows(pair(table, other, join), table, 40, 0)
    assert len(set(few.tolist())) == 40
    assert_close(fitted.items, rotation(rows[few], reference[few]), 1e-9)


def test_only_their_rows_of_the_reference_are_read(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, reference = drifted(3, 9, n=400)
    run, known = (
        make_run("in", rows, chunk_rows=100),
        make_run("reference", reference, chunk_rows=100),
    )
    taken: list[tuple[int, bool]] = []
    original = DirectGatherReader.take

    def noted(self: Any, start: int, stop: int) -> Any:
        taken.append((stop - start, self._verify))
        return original(self, start, stop)

    monkeypatch.setattr(DirectGatherReader, "take", noted)
    monkeypatch.setattr("dask_embstab.tables.read.direct_source.DirectSource.block", _but(known))
    fitted = es.fit(run, reference=known, anchors=60)
    assert sum(n for n, _ in taken) == 3 * 60, (
        "60 for the rotation, 60 of either table for the bound"
    )
    assert not any(verified for _, verified in taken)
    assert fitted.diagnostics["items"]["matched_energy"] == 1.0


def _but(run: es.Run) -> Any:
    from dask_embstab.tables.read.direct_source import DirectSource

    original = DirectSource.block

    def block(self: Any, start: int, stop: int) -> Any:
        assert run.path not in self.files.root, "the reference is read"
        return original(self, start, stop)

    return block


def test_as_many_anchors_as_rows_are_all_rows() -> None:
    rows, reference = drifted(3, 9, n=200)
    fitted, full = es.fit(rows, reference=reference, anchors=200), es.fit(rows, reference=reference)
    np.testing.assert_array_equal(fitted.items, full.items)
    assert (fitted.diagnostics["anchor_bound"], full.diagnostics["anchor_bound"]) == (0.0, None)


def test_anchors_of_a_selection_stand_for_the_selection(make_run: MakeRun) -> None:
    rows, reference = drifted(3, 9, n=2000)
    ids = np.arange(2000)
    run, known = make_run("in", rows, item_ids=ids), make_run("reference", reference, item_ids=ids)
    for n in (100, 1000):
        selected = es.fit(run, reference=known, only=ids[:n])
        fitted = es.fit(run, reference=known, only=ids[:n], anchors=n)
        np.testing.assert_array_equal(fitted.items, selected.items)
        assert fitted.diagnostics["anchor_bound"] == 0.0
        fitted = es.fit(run, reference=known, only=ids[:n], anchors=n - 10)
        assert (
            0
            < np.linalg.norm(fitted.items - selected.items)
            < fitted.diagnostics["anchor_bound"]
            < 0.6
        )


def test_onto_a_narrower_reference_anchors_state_no_bound() -> None:
    rows, reference = drifted(4, 9, n=400)
    fitted = es.fit(rows, reference=reference[:, :3], width=3, anchors=100)
    assert fitted.diagnostics["anchor_bound"] is None


def test_weighted_anchors_state_no_bound_and_free_directions_the_widest() -> None:
    rows, reference = drifted(3, 9, n=200)
    fitted = es.fit(rows, reference=reference, anchors=60, weights="norm")
    assert fitted.diagnostics["anchor_bound"] is None
    rows[:, 2] = 0
    with pytest.warns(es.EmbstabWarning, match="free"):
        fitted = es.fit(rows, reference=reference, anchors=60)
    assert fitted.diagnostics["anchor_bound"] <= 2 * 3**0.5


def test_the_command_line(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    rows, reference = drifted(3, 9, n=200)
    paths = make_run("in", rows).path, make_run("reference", reference).path
    for command in (
        ["stabilize", paths[0], paths[0] + ".out"],
        ["fit", paths[0], paths[0] + ".npz"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--reference", paths[1], "--anchors", "60", "--seed", "3", "--json"])
        assert ended.value.code == 0
        output = json.loads(capsys.readouterr().out)
        assert output["items"]["aligned"] == 60
        expected = es.fit(paths[0], reference=paths[1], anchors=60, seed=3)
        assert output["anchor_bound"] == expected.diagnostics["anchor_bound"]
