"""The d x d figures of a fit against NumPy on the rows themselves: each constant, sign and limit of
the formulas (`docs/mutation.md` says what is left).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import dask_embstab as es
from dask_embstab.core.error_bounds import (
    ProductErrors,
    certificates,
    column_lengths,
    product_errors,
)
from dask_embstab.core.fit_transform import (
    Basis,
    Target,
    geometry_basis,
    require_matched,
    rotated,
    unrotated,
)
from dask_embstab.core.moments import Moments, Pairs, Panel, moments, pair_sums
from dask_embstab.core.procrustes import (
    Alignment,
    Chance,
    Rotation,
    alignment,
    chance,
    narrowing,
    procrustes,
)
from dask_embstab.core.scatter import Influence, Scatter, anchor_bound
from dask_embstab.core.square_root import root_from_gramian, root_from_triangle
from dask_embstab.core.standardize import standardize
from dask_embstab.core.types import EPS

Array = np.ndarray[Any, Any]
sizes = given(seed=st.integers(0, 10**6), k=st.integers(1, 5))


def rows(seed: int, n: int, k: int) -> Array:
    return np.random.default_rng(seed).normal(size=(n, k))


def turned(X: Array, Y: Array) -> Array:
    P, _, Zh = np.linalg.svd(X.T @ Y)
    return X @ P @ Zh


# --- alignment


@settings(max_examples=10)
@sizes
def test_every_figure_of_an_alignment_is_that_of_the_rows(seed: int, k: int) -> None:
    Y = rows(seed, 12, k)
    X = turned(rows(seed + 1, 12, k) + Y, Y)
    diagnostics = alignment(X.T @ X, Y.T @ Y, X.T @ Y)
    between = X @ X.T - Y @ Y.T
    error, gap = np.linalg.norm(X - Y), np.linalg.norm(between)
    assert diagnostics.error == pytest.approx(error, rel=1e-6)
    assert diagnostics.relative_error == pytest.approx(error / np.linalg.norm(Y), rel=1e-6)
    assert diagnostics.gram_gap == pytest.approx(gap, rel=1e-6)
    steepest = np.linalg.norm(X, 2) + np.linalg.norm(Y, 2)
    assert diagnostics.lower_bound == pytest.approx(gap / steepest, rel=1e-6)
    assert diagnostics.bound == pytest.approx(max((2 * k) ** 0.25 * np.sqrt(gap), error), rel=1e-6)
    nuclear = np.sqrt(np.linalg.norm(between, "nuc"))
    assert diagnostics.nuclear_bound == pytest.approx(max(nuclear, error), rel=1e-6)
    assert (
        diagnostics.lower_bound
        <= error
        <= min(diagnostics.bound, diagnostics.nuclear_bound) * (1 + 1e-12)
    )
    assert (diagnostics.bound_reason, diagnostics.at_rounding) == (None, ())


@pytest.mark.parametrize("k", [2, 8])
@pytest.mark.parametrize("n", [100, 4000, 50_000])
def test_rounding_of_a_turned_table_is_no_error(n: int, k: int) -> None:
    for seed in range(3):
        X, turn = rows(seed, n, k), np.linalg.qr(rows(seed + 1, k, k))[0]
        # Summed in strips, as panels are: one sum of 50,000 rows is off by more.
        joint = np.hstack([X, X @ turn]).reshape(-1, min(n, 1000), 2 * k)
        G = (joint.transpose(0, 2, 1) @ joint).sum(axis=0)
        Q = procrustes(G[:k, k:]).Q
        diagnostics = alignment(Q.T @ G[:k, :k] @ Q, G[k:, k:], Q.T @ G[:k, k:])
        assert (diagnostics.error, diagnostics.gram_gap, diagnostics.lower_bound) == (0, 0, 0)


def scalar(x: float, y: float, cross: float) -> Alignment:
    return alignment(np.array([[x]]), np.array([[y]]), np.array([[cross]]))


def test_what_is_below_the_floors_is_rounding_and_no_bound_is_below_its_floor() -> None:
    near = scalar(1.0, 1.0, 1.0 - 2.0**-53)  # errors of 1.5e-8, 2.1e-8 and 1e-8 by the formulas
    assert set(near.at_rounding) == {"error", "gram_gap", "nuclear_bound"}
    assert (near.error, near.gram_gap, near.lower_bound, near.relative_error) == (0, 0, 0, 0)
    assert near.nuclear_bound == pytest.approx(2e-4)
    assert near.bound == pytest.approx(2**0.25 * np.sqrt(np.hypot(2.0**-25.5, 6e-8)), rel=1e-6)
    larger = scalar(4.0, 4.0, 4.0 * (1.0 - 2.0**-53))
    assert larger.nuclear_bound == pytest.approx(4e-4)
    assert larger.bound == pytest.approx(2 * near.bound)  # type: ignore[operator]
    for delta in (1e-7, 1e-6):
        figures = scalar(1.0, (1 + delta) ** 2, 1 + delta)
        assert figures.at_rounding == ()
        assert figures.error == pytest.approx(delta, rel=0.05)
        assert figures.gram_gap == pytest.approx(2 * delta, rel=0.05)
    assert scalar(0.0, 0.0, 0.0).relative_error == scalar(0.0, 0.0, 0.0).lower_bound == 0


@pytest.mark.parametrize(("angle", "nearest"), [(1e-5, True), (1e-4, False), (-1e-4, False)])
def test_bounds_are_given_where_no_rotation_brings_the_rows_nearer(
    angle: float, *, nearest: bool
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    diagnostics = alignment(np.eye(2), np.eye(2), 0.5 * turn)
    assert (diagnostics.bound is not None, diagnostics.nuclear_bound is not None) == (
        nearest,
        nearest,
    )
    assert (diagnostics.bound_reason is None) == nearest


# --- chance


def expectation(free: int, n: float) -> float:
    """Of C = G_x^1/2 Z G_y^1/2 / sqrt(n): 8/(3 pi) sqrt(k/n), and twice 0.6 / sqrt(k n)."""
    return float(8 / (3 * np.pi) * np.sqrt(free / n) + 1.2 / np.sqrt(free * n))


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 6), m=st.integers(0, 1))
def test_chance_is_what_is_left_without_the_leading_directions(seed: int, k: int, m: int) -> None:
    Y = rows(seed, 400, k) + 1
    X = turned(0.5 * rows(seed + 1, 400, k) + Y, Y)
    leading = np.linalg.qr(rows(seed + 2, k, k))[0][:m]
    result = chance(X.T @ X, Y.T @ Y, X.T @ Y, leading, rank=k, n_pairs=400)
    assert result is not None
    out = np.eye(k) - leading.T @ leading
    size = np.linalg.norm(X @ out) * np.linalg.norm(Y @ out)
    unrelated = expectation(k - m, 400)
    agreement = np.sum((X @ out) * (Y @ out)) / size
    assert result.beyond == pytest.approx((agreement - unrelated) / (1 - unrelated), rel=1e-9)
    along = np.sum((X @ leading.T) * (Y @ leading.T))
    square = np.sum(X**2) + np.sum(Y**2) - 2 * along - 2 * unrelated * size
    assert result.error == pytest.approx(np.sqrt(square) / np.linalg.norm(Y), rel=1e-9)


def test_chance_is_not_reported_of_too_few_rows() -> None:
    eye, none = np.eye(3), np.zeros((0, 3))

    def told(G: Array = eye, leading: Array = none, rank: int = 3, n: float = 1e6) -> Chance | None:
        return chance(G, G, G, leading, rank=rank, n_pairs=n)

    assert told() == Chance(pytest.approx(np.sqrt(2 - 2 * expectation(3, 1e6))), pytest.approx(1))
    assert told(leading=eye[:1], rank=2) is not None
    assert told(leading=eye[:1], rank=1) is None
    assert told(leading=eye[:2], rank=2) is None
    enough = (8 / (3 * np.pi) * np.sqrt(3) + 1.2 / np.sqrt(3)) ** 2
    assert told(n=enough * 1.001) is not None
    assert told(n=enough * 0.999) is None
    for left, known in ((1e-8, True), (1e-10, False)):
        assert (told(np.diag([1, left, left]), eye[:1]) is not None) == known
    only_x = chance(eye, np.diag([1.0, 0, 0]), np.diag([1.0, 0, 0]), eye[:1], rank=3, n_pairs=1e6)
    assert only_x is None


# --- precision


@settings(max_examples=10)
@sizes
def test_the_error_of_a_float32_product_is_estimated_term_by_term(seed: int, k: int) -> None:
    R, M, other_R, other_M = (rows(seed + i, k, k) for i in range(4))
    M[:, : k // 2] *= 1e-20  # zero-filled, but for rounding
    ours, others = column_lengths(R @ M), column_lengths(other_R @ other_M)
    errors = product_errors(R, M, ours, others, size=3.0)
    columns, scores = [], 0.0
    for j in range(k // 2, k):
        terms = sum((np.linalg.norm(R[:, i]) * M[i, j]) ** 2 for i in range(k))
        b = 2.0**-24 * np.sqrt((1 + k / 12) * terms)
        columns.append(b / np.linalg.norm(R @ M[:, j]))
        scores += (b * np.linalg.norm(other_R @ other_M[:, j])) ** 2
    assert errors.columns == pytest.approx(max(columns), rel=1e-9)
    assert errors.scores == pytest.approx(np.sqrt(scores) / 3, rel=1e-9)
    assert product_errors(R, M, ours).scores is None
    assert product_errors(R, 0 * M, 0 * ours, others) == ProductErrors(0.0, None)


@pytest.mark.parametrize("error", [0.0, 4.99e-6, 5e-6, 5.01e-6])
def test_half_of_1e_5_is_left_to_a_float32_product(error: float) -> None:
    wanted = "float32" if error <= 5e-6 else "float64"
    for result in (ProductErrors(error, None), ProductErrors(0, error), ProductErrors(error, 0)):
        assert result.product == wanted


# --- scatter


def pieces(seed: int, n: int, r: int, D: int) -> tuple[Array, Array, Array, Array, Array]:
    """Rows, partners that are near to them, and P, s, Z of their mean cross-product."""
    x = rows(seed, n, r)
    y = x @ np.linalg.qr(rows(seed + 1, D, r))[0].T + 0.3 * rows(seed + 2, n, D)
    P, s, Zh = np.linalg.svd(x.T @ y / n, full_matrices=False)
    return x, y, P, s, Zh.T


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), r=st.integers(2, 4), more=st.integers(0, 2), unit=st.booleans())
def test_a_row_turns_the_rotation_as_its_influence_says(
    seed: int, r: int, more: int, *, unit: bool
) -> None:
    """The squared derivative of the polar factor along x y', by differences, over (1 - h)^2."""
    x, y, P, s, Z = pieces(seed, 30, r, r + more)
    if unit:
        lengths = 1 + np.random.default_rng(seed).random((2, 30, 1))
        x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
        P, s, Zh = np.linalg.svd(x.T @ y / 30, full_matrices=False)
        Z = Zh.T
    else:
        lengths = np.ones((2, 30, 1))
    influence = Influence(np.eye(r), P, Z, s, 1 / 30, None, None, unit)
    C, wanted, squares, both = (P * s) @ Z.T, 0.0, 0.0, np.zeros((2, r))

    def polar(C: Array) -> Array:
        U, _, Vh = np.linalg.svd(C, full_matrices=False)
        return U @ Vh

    for a, b in zip(x, y, strict=True):
        step = 1e-6 * s[-1] / np.linalg.norm(np.outer(a, b))
        moved = polar(C + step * np.outer(a, b)) - polar(C - step * np.outer(a, b))
        products = (a @ P) * (b @ Z)
        left_out = np.clip(1 - (products / s).max() / 30, 0, 1)
        one = np.sum((moved / (2 * step)) ** 2) / left_out**2
        wanted, squares = wanted + one, squares + one**2
        both += np.stack([products, np.minimum(products, 3 * s)])
    result = influence(x * lengths[0], y * lengths[1])
    assert result.n == 30
    assert result.total == pytest.approx(wanted, rel=1e-4)
    assert result.squares == pytest.approx(squares, rel=1e-4)
    np.testing.assert_allclose(result.products, both, atol=1e-9)
    assert result.freedom == pytest.approx(2 * wanted**2 / (squares - wanted**2 / 30), rel=1e-3)


def test_means_are_taken_away_before_the_influence() -> None:
    x, y, P, s, Z = pieces(3, 20, 3, 3)
    plain = Influence(np.eye(3), P, Z, s, 0.05, None, None, unit=False)
    centred = replace(plain, mean_x=np.arange(3.0), mean_y=np.arange(3.0) - 1)
    assert centred(x + np.arange(3.0), y + np.arange(3.0) - 1).total == pytest.approx(
        plain(x, y).total
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), r=st.integers(1, 3), weak=st.booleans(), n=st.integers(8, 40))
def test_the_estimate_of_anchors_is_its_formula(seed: int, r: int, n: int, *, weak: bool) -> None:
    rng = np.random.default_rng(seed)
    scatters, variance, spread = [], 0.0, 0.0
    mean, error = np.zeros((2, r)), np.zeros((2, r))
    for population, represented in ((10 * n, 9 * n), (3 * n, 3 * n)):
        products = n * rng.uniform(0.0 if weak else 5.0, 0.3 if weak else 6.0, size=(2, r))
        squares = products**2 / n + n * rng.uniform(0.5, 1.0, size=(2, r))
        total = n * rng.uniform(1e-4, 1e-3)
        scatter = Scatter(n, total, total**2 / n * rng.uniform(1.5, 3), products, squares)
        scatters.append((scatter, population, represented))
        share, rest = represented / n / (12 * n), max(1, n - r)
        part = share**2 * (1 - n / population) * n / rest
        freedom = 2 * total**2 / (scatter.squares - total**2 / n)
        variance += part * total
        spread += (part * total) ** 2 / max(1.0, min(rest, freedom))
        mean += share * products
        error += part * (squares - products**2 / n)
    limit = stats.t.ppf(0.995, max(1, 2 * n - r))
    reversed_ = np.count_nonzero((mean < limit * np.sqrt(error)).all(axis=0))
    quantile = stats.t.ppf(0.995, variance**2 / spread)
    wanted = min(np.sqrt(quantile**2 * variance + 4 * reversed_), 2 * np.sqrt(r))
    assert anchor_bound(r, 12 * n, scatters) == pytest.approx(wanted, rel=1e-9)
    unbounded = replace(scatters[0][0], total=np.inf)
    assert anchor_bound(r, 12 * n, [(unbounded, 99, 99)]) == 2 * np.sqrt(r)


def test_influences_that_are_all_alike_have_as_many_degrees_of_freedom_as_rows() -> None:
    alike = Scatter(10, 10.0, 10.0, np.ones((2, 1)), np.ones((2, 1)))
    assert alike.freedom == 10.0
    assert replace(alike, squares=30.0).freedom == pytest.approx(2 * 100 / 20)


# --- the steps of a fit


def basis_of(M: Array, certificate: Array | None = None) -> Basis:
    s = np.arange(len(M[0]), 0, -1.0)
    known = None if certificate is None else (certificate, certificate)
    return Basis(M, M, s, np.zeros(0), "rows", 1.0, known)


def pairs_of(X: Array, Y: Array) -> Pairs:
    return pair_sums((X, Y), X.shape[1], centred=True)


@pytest.mark.parametrize(
    ("given_", "scores", "least"),
    [
        ({"smaller": 100}, False, 10),
        ({"smaller": 101}, False, 11),
        ({"smaller": 0}, False, 1),
        ({"smaller": 50}, True, 12),
        ({"smaller": 121}, True, 13),
        ({"smaller": 500, "min_matched": 7}, True, 7),
    ],
)
def test_a_tenth_and_four_rows_per_component(
    given_: dict[str, Any], scores: bool, least: int
) -> None:
    enough = Target(3, matched=least, shared=1000, **given_)
    require_matched(3, enough, scores=scores)
    few = replace(enough, matched=least - 1)
    with pytest.raises(es.TooFewMatchedError, match=rf"at least {least} rows.*; {least - 1} are"):
        require_matched(3, few, scores=scores)
    certain = given_.get("min_matched") or max(1, 12 * scores)
    require_matched(3, Target(3, matched=1000, shared=certain, **given_), scores=scores)
    with pytest.raises(es.TooFewMatchedError, match=rf"at least {certain} rows.*; {certain - 1} "):
        require_matched(3, Target(3, matched=1000, shared=certain - 1, **given_), scores=scores)


def test_a_first_run_is_padded_its_mean_removed_and_weak_columns_named() -> None:
    X = rows(0, 30, 3) + 2
    X[:6] = 0
    read = moments(Panel(X, 0), centred=True)
    read = replace(read, zeros=replace(read.zeros, rows=6))
    weak = basis_of(np.eye(3), np.array([1e-3, 1.001e-3, 0.0]))
    made, figures = unrotated(weak, Target(5, center=True), read)
    assert figures["weakly_determined_components"] == [1]
    np.testing.assert_array_equal(made.items, np.eye(3, 5))
    assert made.items_offset is not None
    np.testing.assert_allclose(X[6:].mean(axis=0) @ made.items, -made.items_offset, atol=1e-12)
    np.testing.assert_array_equal(made.users, np.eye(3, 5))
    assert unrotated(basis_of(np.eye(3)), Target(3), read)[1]["weakly_determined_components"] == []


def test_geometry_keeps_all_and_tells_the_spectrum() -> None:
    X = rows(1, 40, 4)
    result = geometry_basis(Moments(40, 4, rest=X.T @ X), with_users=True)
    np.testing.assert_allclose(result.singular_values, np.linalg.svd(X, compute_uv=False))
    np.testing.assert_array_equal(result.items, np.eye(4))
    np.testing.assert_array_equal(result.users, np.eye(4))
    assert (result.factor, result.balance, len(result.discarded)) == (1.0, None, 0)
    assert geometry_basis(Moments(40, 4, rest=X.T @ X), with_users=False).users is None


def test_a_rotation_brings_mean_to_mean_and_says_what_it_knows() -> None:
    X, turn = rows(2, 60, 3), np.linalg.qr(rows(3, 3, 3))[0]
    Y = (X @ turn) + 5.0
    target = Target(3, ("items",), center=True, matched=60, shared=60)
    made, figures = rotated(replace(basis_of(np.eye(3)), balance=None), target, pairs_of(X, Y))
    assert made.items_offset is not None
    np.testing.assert_allclose(X @ made.items + made.items_offset, Y, atol=1e-9)
    assert made.users_offset is None
    known = figures["alignment"]
    assert (known["rows"], known["free_directions"], known["lost_energy"]) == (60, 0, 0.0)
    assert known["determinant"] == np.sign(np.linalg.det(turn))
    assert known["beyond_chance"] == pytest.approx(1)


@pytest.mark.parametrize(("share", "warned"), [(0.045, True), (0.055, False)])
def test_five_hundredths_beyond_chance_is_an_alignment(share: float, *, warned: bool) -> None:
    """G = I and C = c I: the agreement beyond chance is what it is made to be."""
    n, k = 10_000, 4
    free = k - 1
    unrelated = expectation(free, n)
    c = unrelated + share * (1 - unrelated)
    joint = n * np.block([[np.eye(k), c * np.eye(k)], [c * np.eye(k), np.eye(k)]])
    sums = Pairs(n, float(n), float(n), k, joint, np.zeros(2 * k))
    target = Target(k, ("items",), matched=n, shared=n)
    with np.errstate(all="raise"):
        if warned:
            with pytest.warns(es.EmbstabWarning, match="no better than unrelated"):
                rotated(basis_of(np.eye(k)), target, sums)
        else:
            rotated(basis_of(np.eye(k)), target, sums)


def test_lost_energy_is_refused_beyond_its_limit() -> None:
    X = rows(5, 80, 4) * [3, 3, 1, 1]
    Y = X[:, :2]
    target = Target(2, ("items",), matched=80, shared=80, max_lost_energy=1.0)
    geometry = replace(basis_of(np.eye(4)), balance=None)
    made, figures = rotated(geometry, target, pairs_of(X, Y))
    lost = 1 - np.sum((X @ made.items) ** 2) / np.sum(X**2)
    assert figures["alignment"]["lost_energy"] == pytest.approx(lost, rel=1e-9)
    assert figures["alignment"]["determinant"] is None
    rotated(geometry, replace(target, max_lost_energy=lost + 1e-9), pairs_of(X, Y))
    with pytest.raises(es.InputError, match="may be lost"):
        rotated(geometry, replace(target, max_lost_energy=lost - 1e-9), pairs_of(X, Y))


def test_weights_of_any_common_size_are_one_alignment() -> None:
    X, Y = rows(6, 50, 3), rows(7, 50, 3)
    target = Target(3, ("items",), matched=50, shared=50)
    one, many = (
        rotated(basis_of(np.eye(3)), target, pair_sums((X, X + 0.1 * Y), 3, w, centred=False))[1]
        for w in (np.ones(50), np.full(50, 7.0))
    )
    for name, value in one["alignment"].items():
        assert many["alignment"][name] == pytest.approx(value), name


# --- Procrustes


def test_the_gap_and_the_free_directions() -> None:
    def of(*s: float, proper: bool = False) -> Rotation:
        return Rotation(np.eye(len(s)), np.array(s), np.eye(len(s)), proper)

    assert of(4.0, 2.0, 1.0).gap == 3 / 8
    assert of(4.0).gap == 1.0
    assert of(4.0, 2.0, -1.0, proper=True).gap == 1 / 8
    assert of(4.0, 1.0, -2.0, proper=True).gap == 0.0
    assert of(0.0, 0.0).gap == 0.0
    assert of(1.0, 1e-9).gap > 0
    assert of(1.0, 1e-10).gap == of(1.0, 1e-11).gap == 0.0
    assert of(1.0, 0.5, 0.0, proper=True).gap == 0.25
    assert [of(1.0, s).free_directions for s in (1e-9, 1e-10, -1e-11)] == [0, 1, 1]
    assert of(1.0, 1e-3, 2e-3).weak_components() == [1]


def test_a_proper_rotation_costs_the_smallest_singular_value() -> None:
    mirror = np.diag([3.0, 2.0, -1.0])
    solution = procrustes(mirror, proper=True)
    assert np.linalg.det(solution.Q) == pytest.approx(1)
    np.testing.assert_allclose(solution.singular_values, [3, 2, -1])
    assert procrustes(mirror[:2], proper=True).singular_values.tolist() == [3.0, 2.0]
    assert procrustes(-mirror, proper=True).proper


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), r=st.integers(2, 5))
def test_no_step_leads_from_a_narrowing_to_a_nearer_one(seed: int, r: int) -> None:
    X = rows(seed, 40, r) * np.geomspace(1, 5, r)
    Y = rows(seed + 1, 40, r - 1)
    Q = narrowing(X.T @ Y, X.T @ X).Q
    np.testing.assert_allclose(Q.T @ Q, np.eye(r - 1), atol=1e-12)
    least = np.linalg.norm(X @ Q - Y)
    for step in range(30):
        A = np.random.default_rng(step).normal(size=(r, r)) * 10.0 ** -(1 + step % 3)
        other = np.linalg.qr(np.eye(r) + A - A.T)[0] @ Q
        assert np.linalg.norm(X @ other - Y) >= least * (1 - 1e-6)


# --- certificates


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 4), plain=st.booleans())
def test_certificates_are_their_formula(seed: int, k: int, *, plain: bool) -> None:
    T, W = rows(seed, 40, k) * np.geomspace(1, 30, k), rows(seed + 1, 40, k)
    roots = [
        root_from_gramian(A.T @ A, n_rows=40, eps=EPS)
        if plain
        else root_from_triangle(np.linalg.qr(A, mode="r"), eps=EPS)
        for A in (T, W)
    ]
    frame = standardize(*roots)
    s = frame.singular_values
    spread = []
    for root, M in zip(roots, (frame.items, frame.users), strict=True):
        random, one_sign = root.units
        B = np.abs(np.linalg.norm(root.R, axis=0)[:, None] * M)
        b = np.linalg.norm(B, axis=0)
        E = [
            [np.sqrt(s[i]) * b[j] + b[i] * np.sqrt(s[j]) + random * b[i] * b[j] for j in range(k)]
            for i in range(k)
        ]
        spread.append((EPS * np.array(E), EPS * one_sign * (B.T @ B)))

    def columns(own: Array, other: Array) -> Array:
        result = np.zeros(k)
        for j in range(k):
            for i in range(k):
                if i == j:
                    K = np.hypot(own[i, i], other[i, i]) / (4 * s[i])
                else:
                    K = np.hypot(own[i, j] * s[i], other[i, j] * s[j]) / abs(s[i] ** 2 - s[j] ** 2)
                result[j] += s[i] * K**2 / s[j]
        return np.sqrt(result)

    (E, E_sign), (F, F_sign) = spread
    floor = 4 * EPS * np.sqrt(k)
    ours, theirs = certificates(frame, *roots)
    wanted = 5 * columns(E, F) + columns(E_sign, F_sign) + floor
    np.testing.assert_allclose(ours, np.minimum(wanted, 2), rtol=1e-9)
    wanted = 5 * columns(F, E) + columns(F_sign, E_sign) + floor
    np.testing.assert_allclose(theirs, np.minimum(wanted, 2), rtol=1e-9)
