"""Rows of zeros are transformed and counted; they change no mean, no rotation, no balance, no floor
and no figure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import vectors_of, world

import dask_embstab as es
from dask_embstab.core.zero_rows import ZeroRows, zero_rows

MakeRun = Callable[..., es.Run]
Array = np.ndarray[Any, Any]


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 300),
    d=st.integers(1, 20),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
)
def test_rows_of_zeros_are_found(seed: int, n: int, d: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)).astype(dtype)
    rows[rng.random(size=(n, d)) < rng.random()] = rng.choice([0.0, -0.0])
    rows[rng.random(n) < rng.random()] = 0
    np.testing.assert_array_equal(zero_rows(rows), np.flatnonzero(~rows.any(axis=1)))


def test_what_is_tiny_or_not_finite_is_not_zero() -> None:
    rows = np.zeros((40, 3))
    rows[:6, 1] = (5e-324, np.nan, np.inf, -np.inf, -5e-324, 1e300)
    assert zero_rows(rows).tolist() == list(range(6, 40))
    assert zero_rows(rows[:9]).tolist() == [6, 7, 8]


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_moments_of_parts_count_them_as_those_of_the_whole(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    tables = [
        np.where(rng.random((60, 1)) < share, 0.0, world(number)[0]) for number in (seed, seed + 1)
    ]
    is_zero = [~rows.any(axis=1) for rows in tables]
    left_out = is_zero[0] | is_zero[1]
    whole = es.moments(tables[0], reference=tables[1])
    energies = [pytest.approx(float(np.square(rows[left_out]).sum())) for rows in tables]
    expected = ZeroRows(
        int(is_zero[0].sum()), int(left_out.sum()), int(is_zero[1].sum()), *energies
    )
    assert whole.moments.zeros == expected
    assert (whole.matched, whole.moments.n_nonzero) == (60, 60 - expected.rows)

    cut = int(rng.integers(1, 60))
    parts = [
        es.moments(tables[0][part], reference=tables[1][part])
        for part in (slice(cut), slice(cut, None))
    ]
    a, b = (replace(part, reference=whole.reference) for part in parts)
    for name in ("rows", "pairs", "reference"):
        assert getattr((a + b).moments.zeros, name) == getattr(whole.moments.zeros, name)
        assert getattr((whole - b).moments.zeros, name) == getattr(a.moments.zeros, name)
    with tempfile.TemporaryDirectory() as folder:
        whole.save(f"{folder}/moments.npz")
        loaded = es.TableMoments.load(f"{folder}/moments.npz")
    assert (loaded.moments.zeros, loaded.digest()) == (whole.moments.zeros, whole.digest())


OPTIONS: list[dict[str, Any]] = [
    {"keep": "scores"},
    {"keep": "scores", "align_on": "both", "balance": "gramians"},
    {"keep": "scores", "unit_rows": True},
    {"keep": "scores", "method": "qr"},
    {"keep": "geometry", "align_on": "both", "center": True},
    {"keep": "scores", "weights": "norm", "align_on": "users"},
]


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: " ".join(map(str, options.values()))
)
def test_added_rows_of_zeros_change_no_transform(
    make_run: MakeRun, options: dict[str, Any]
) -> None:
    """Cold rows at random places of either table, of either run: in one, in the other, or
    in both.
    """
    rng = np.random.default_rng(3)
    (T, W), (U, V) = world(0), world(1)
    keys = {"items": (T, T + 0.1 * U), "users": (W, W + 0.1 * V)}
    plain, cold = {}, {}
    for name, side in (("reference", 0), ("run", 1)):
        tables = {key: rows[side] for key, rows in keys.items()}
        ids = {key: np.arange(len(rows)) for key, rows in tables.items()}
        plain[name] = make_run(
            f"plain-{name}", **tables, item_ids=ids["items"], user_ids=ids["users"]
        )
        for key, rows in tables.items():
            order = rng.permutation(3 * len(rows))
            tables[key] = np.vstack([rows, np.zeros((2 * len(rows), rows.shape[1]))])[order]
            ids[key] = order
        cold[name] = make_run(
            f"cold-{name}", **tables, item_ids=ids["items"], user_ids=ids["users"]
        )
    expected = es.fit(plain["run"], reference=plain["reference"], **options)
    fitted = es.fit(cold["run"], reference=cold["reference"], **options)
    np.testing.assert_allclose(fitted.items, expected.items, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fitted.users, expected.users, rtol=0, atol=1e-9)
    if options.get("center"):
        np.testing.assert_allclose(fitted.items_offset, expected.items_offset, rtol=0, atol=1e-9)
    for name in ("relative_error", "rows", "gram_gap"):
        assert fitted.diagnostics["alignment"][name] == pytest.approx(
            expected.diagnostics["alignment"][name], rel=1e-6
        )
    for key, rows in (("items", 120), ("users", 180)):
        assert fitted.diagnostics[key]["zero_rows"] == rows


def test_cold_users_do_not_change_the_lengths_of_items(make_run: MakeRun, tmp_path: Path) -> None:
    T, W = world(0, n_items=200, n_users=600)
    lengths = []
    for name, users in (("warm", W), ("cold", np.vstack([W, np.zeros((1800, W.shape[1]))]))):
        transformed = es.stabilize(make_run(name, T, users), tmp_path / f"{name}-out.zarr")
        lengths.append(np.linalg.norm(vectors_of(transformed, "items"), axis=1))
    np.testing.assert_allclose(*lengths, rtol=1e-12)


# --- how few shared rows are too few


def _cold(n_warm: int, n_cold: int, seed: int) -> tuple[Array, Array]:
    """Rows and ids: the same warm ones, beside cold ones that no other seed has."""
    rows = np.vstack(
        [world(7, n_items=n_warm)[0] + 0.01 * world(seed, n_items=n_warm)[0], np.zeros((n_cold, 4))]
    )
    return rows, np.concatenate([np.arange(n_warm), 1000 * seed + np.arange(n_cold)])


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_tenth_is_a_tenth_of_the_rows_that_are_not_zero(
    make_run: MakeRun, *, shuffled: bool
) -> None:
    """All 20 warm rows are shared, and none of 400 cold ones: that is enough."""
    runs = []
    for seed in (1, 2):
        rows, ids = _cold(20, 400, seed)
        order = np.random.default_rng(seed).permutation(420) if shuffled else np.arange(420)
        runs.append(make_run(f"run-{seed}", rows[order], item_ids=ids[order]))
    diagnostics = es.fit(runs[1], reference=runs[0]).diagnostics["items"]
    assert {
        name: diagnostics[name]
        for name in ("matched", "aligned", "zero_rows", "zero_pairs", "new", "unmatched_reference")
    } == {
        "matched": 20,
        "aligned": 20,
        "zero_rows": 400,
        "zero_pairs": 0,
        "new": 400,
        "unmatched_reference": 400,
    }
    assert diagnostics["reference_zero_rows"] == 400


def test_shared_rows_of_zeros_do_not_make_up_for_missing_ones(make_run: MakeRun) -> None:
    """Of 320 shared ids 300 are cold in one of the runs; 20 are no tenth of the 220 that are not,
    and no min_matched.
    """
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 520, 4))
    ours[20:320] = 0
    runs = [
        make_run(f"run-{i}", rows, item_ids=ids)
        for i, (rows, ids) in enumerate([(ours, np.arange(520)), (theirs, np.r_[:320, 1000:1200])])
    ]
    with pytest.raises(
        es.TooFewMatchedError, match=r"at least 22 rows, not of zeros alone, .* 20 are shared"
    ):
        es.fit(runs[0], reference=runs[1])
    with pytest.raises(
        es.TooFewMatchedError, match=r"at least 21 rows, not of zeros alone, .* 20 are shared"
    ):
        es.fit(runs[0], reference=runs[1], min_matched=21)
    assert es.fit(runs[0], reference=runs[1], min_matched=20).diagnostics["items"]["aligned"] == 20


def test_values_that_are_not_finite_are_found_next_to_rows_of_zeros() -> None:
    rows, reference = (world(seed)[0] for seed in (0, 1))
    rows[7], reference[7, 2] = 0, np.nan
    with pytest.raises(es.NotFiniteError, match=r"the reference of .* in row 7"):
        es.fit(rows, reference=reference)
    rows[7, 1], reference[7] = np.inf, 0
    with pytest.raises(es.NotFiniteError, match=r"in row 7"):
        es.fit(rows, reference=reference)
