"""Unit laws of the mathematics in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, assert_close, draws, rotation, world

from dask_embstab import ConditionError
from dask_embstab.core.moments import Panel, moments, unit
from dask_embstab.core.procrustes import alignment, procrustes
from dask_embstab.core.square_root import Root, root_from_gramian, root_from_triangle
from dask_embstab.core.standardize import balance_factor, column_signs, standardize
from dask_embstab.core.tree import Node, fold, merge_forests, micro_block_rows

EPS = float(np.finfo(np.float64).eps)
seeds = st.integers(0, 100_000)
pytestmark = pytest.mark.filterwarnings("error")


# --- the tree


def brackets(left: str, right: str) -> str:
    """A merge that shows the order of additions."""
    return f"({left}{right})"


@settings(max_examples=draws(80))
@given(data=st.data(), n=st.integers(1, 70))
def test_the_order_of_additions_does_not_depend_on_the_tasks(data: Any, n: int) -> None:
    leaves = [Node(0, i, chr(ord("A") + i)) for i in range(n)]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, n - 1)), max_size=8)) - {n})
    tasks = [
        merge_forests([leaves[a:b]], brackets) for a, b in zip([0, *cuts], [*cuts, n], strict=True)
    ]
    middle = data.draw(st.integers(0, len(tasks)))
    joined = merge_forests(
        [merge_forests(tasks[:middle], brackets), merge_forests(tasks[middle:], brackets)], brackets
    )
    whole = merge_forests([leaves], brackets)
    assert joined == whole
    assert fold(joined, brackets) == fold(whole, brackets)
    assert fold(joined, brackets).replace("(", "").replace(")", "") == "".join(
        leaf.value for leaf in leaves
    )
    assert len(joined) == n.bit_count(), "complete subtrees only"


def test_micro_blocks_are_powers_of_two_that_shrink_with_the_width() -> None:
    sizes = [micro_block_rows(d) for d in (1, 4, 8, 9, 32, 33, 768, 1024, 1025, 2048)]
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)


# --- alignment


def figures(X: Array, Y: Array) -> Any:
    return alignment(X.T @ X, Y.T @ Y, X.T @ Y)


@settings(max_examples=draws(50))
@given(
    seed=seeds,
    d=st.integers(1, 7),
    n=st.integers(8, 60),
    drift=st.sampled_from([1.0, 0.1, 1e-3, 1e-5]),
)
def test_the_bounds_hold_the_error_between_them(seed: int, d: int, n: int, drift: float) -> None:
    rng = np.random.default_rng(seed)
    Y = rng.normal(size=(n, d)) * 1.5 ** -np.arange(d)
    X = Y @ np.linalg.qr(rng.normal(size=(d, d)))[0] + drift * rng.normal(size=(n, d))
    X = X @ rotation(X, Y)
    diagnostics, size = figures(X, Y), np.linalg.norm(X)
    error = np.linalg.norm(X - Y)
    assert abs(diagnostics.error - error) <= 6e-8 * size
    assert diagnostics.relative_error == pytest.approx(diagnostics.error / np.linalg.norm(Y))
    assert abs(diagnostics.gram_gap - np.linalg.norm(X @ X.T - Y @ Y.T)) <= 6e-8 * size**2
    nuclear = np.sqrt(np.linalg.norm(X @ X.T - Y @ Y.T, "nuc"))
    assert nuclear - 2e-4 * size <= diagnostics.nuclear_bound <= nuclear + 2e-4 * size
    assert diagnostics.lower_bound <= error + 6e-8 * size
    assert error <= min(diagnostics.nuclear_bound, diagnostics.bound)
    papers = (2 * d) ** 0.25 * np.sqrt(np.hypot(diagnostics.gram_gap, 6e-8 * size**2))
    assert diagnostics.bound == pytest.approx(max(papers, diagnostics.error), rel=1e-4)


@pytest.mark.parametrize("d", [2, 16, 64, 256])
@pytest.mark.parametrize("drift", [1e-1, 1e-4, 1e-6, 1e-7, 1e-8, 1e-10, 1e-14])
def test_no_bound_is_rounded_below_the_error(d: int, drift: float) -> None:
    rng = np.random.default_rng(d)
    Y = rng.normal(size=(2 * d, d))
    X = Y + drift * rng.normal(size=Y.shape)
    diagnostics, error = figures(X @ rotation(X, Y), Y), np.linalg.norm(X @ rotation(X, Y) - Y)
    assert max(error, diagnostics.error) <= min(diagnostics.bound, diagnostics.nuclear_bound)
    assert diagnostics.lower_bound <= error + 6e-8 * np.linalg.norm(X)


@pytest.mark.parametrize("d", [1, 2, 5, 16])
@pytest.mark.parametrize("drift", [1e-12, 1e-8, 1e-7, 1e-6, 1e-5])
def test_no_lower_bound_is_rounded_above_the_error(d: int, drift: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Y = rng.normal(size=(3 * d + 4, d))
        X = Y + drift * rng.normal(size=Y.shape)
        X = X @ rotation(X, Y)
        assert figures(X, Y).lower_bound <= np.linalg.norm(X - Y)


def test_a_rotation_that_is_not_the_nearest_has_no_upper_bound() -> None:
    Y = np.random.default_rng(0).normal(size=(40, 3))
    X = Y * [1, 1, -1]
    result = figures(X @ procrustes(X.T @ Y, proper=True).Q, Y)
    assert (result.bound, result.nuclear_bound) == (None, None)
    assert "mirror" in result.bound_reason
    assert result.lower_bound <= result.error
    for other in (Y, X @ procrustes(X.T @ Y).Q, 0 * Y):
        assert figures(other, Y).bound_reason is None


def test_the_error_is_exact_even_where_nothing_was_aligned() -> None:
    X, Y = world(1)[0], world(2)[0]
    assert figures(X, Y).error == pytest.approx(np.linalg.norm(X - Y))
    Q = rotation(X, Y)
    nuclear = np.linalg.norm(X.T @ Y, "nuc")
    free = np.sqrt(np.sum(X**2) + np.sum(Y**2) - 2 * nuclear)
    assert figures(X @ Q, Y).error == pytest.approx(free)


def test_figures_at_rounding_level_say_so() -> None:
    X = world(1)[0]
    diagnostics = figures(X, X + 1e-13)
    assert (diagnostics.error, diagnostics.gram_gap) == (0, 0)
    assert set(diagnostics.at_rounding) == {"error", "gram_gap", "nuclear_bound"}
    assert 0 < max(diagnostics.bound, diagnostics.nuclear_bound) < 1e-3 * np.linalg.norm(X), (
        "a bound is never rounded down"
    )
    assert figures(X, X + 0.1).at_rounding == ()


# --- procrustes


@given(seed=seeds, d=st.integers(1, 6), more=st.integers(0, 3))
def test_procrustes_is_the_nearest_rotation(seed: int, d: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(30, d)), rng.normal(size=(30, d + more))
    Q = procrustes(X.T @ Y).Q
    assert_close(Q @ Q.T, np.eye(d), 1e-12)
    best = np.linalg.norm(X @ Q - Y)
    others = (np.linalg.qr(rng.normal(size=(d + more, d + more)))[0][:d] for _ in range(20))
    assert all(best <= np.linalg.norm(X @ other - Y) + 1e-9 for other in others)
    if not more:
        assert_close(Q, scipy.linalg.orthogonal_procrustes(X, Y)[0], 1e-9)


@given(seed=seeds, d=st.integers(2, 6))
def test_proper_rotations_reflect_nothing(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(30, d)), rng.normal(size=(30, d))
    solution = procrustes(X.T @ Y, proper=True)
    assert np.linalg.det(solution.Q) == pytest.approx(1)
    for _ in range(20):
        other = np.linalg.qr(rng.normal(size=(d, d)))[0]
        other[:, 0] *= np.sign(np.linalg.det(other))
        assert np.linalg.norm(X @ solution.Q - Y) <= np.linalg.norm(X @ other - Y) + 1e-9


def test_a_narrower_table_needs_no_reflection() -> None:
    C = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_array_equal(procrustes(C, proper=True).Q, procrustes(C).Q)


def test_the_gap_says_how_well_a_rotation_is_determined() -> None:
    assert procrustes(np.eye(3)).gap == pytest.approx(1)
    assert procrustes(np.diag([2.0, 1.0, 0.5])).gap == pytest.approx(0.375)
    assert procrustes(np.diag([1.0, 0.0, 0.0])).gap == 0
    assert procrustes(np.zeros((2, 2))).gap == 0


def test_the_gap_is_zero_where_a_mirror_is_free() -> None:
    C = np.diag([2.0, 1.0, 0.0])
    assert procrustes(C).gap == 0
    assert procrustes(np.diag([2.0, 1.0, 1e-13])).gap == 0
    assert procrustes(C, proper=True).gap == pytest.approx(0.25), (
        "two free directions would be needed for a rotation"
    )
    assert procrustes(np.diag([2.0, 1.0, -0.5]), proper=True).gap == pytest.approx(0.125)
    assert procrustes(np.pad(C, ((0, 0), (0, 2)))).gap == 0


# --- standardize


def root(table: Array) -> Root:
    return root_from_triangle(np.linalg.qr(table, mode="r"), eps=EPS)


@given(seed=seeds, d=st.integers(1, 6), route=st.sampled_from(["gram", "qr"]))
def test_standardize_keeps_scores_and_gives_both_tables_one_diagonal(
    seed: int, d: int, route: str
) -> None:
    T, W = world(seed, d=d)
    roots = [
        (
            root_from_gramian(table.T @ table, n_rows=len(table), eps=EPS)
            if route == "gram"
            else root(table)
        )
        for table in (T, W)
    ]
    frame, wanted = standardize(*roots), oracle.standardize(T, W)
    for table, M in ((T, frame.items), (W, frame.users)):
        transformed = table @ M
        assert_close(transformed.T @ transformed, np.diag(wanted.s), 1e-9)
    assert_close((T @ frame.items) @ (W @ frame.users).T, T @ W.T, 1e-9)
    assert (np.diff(frame.singular_values) <= 0).all()
    assert (frame.items[np.abs(frame.items).argmax(axis=0), np.arange(d)] > 0).all()
    assert frame.rank == d


def test_a_truncation_keeps_what_it_cut_in_mind() -> None:
    T, W = world(0, d=5)
    whole, cut = standardize(root(T), root(W)), standardize(root(T), root(W), rank=2)
    assert_close(cut.items, whole.items[:, :2], 1e-14)
    assert_close(np.concatenate([cut.singular_values, cut.discarded]), whole.singular_values, 1e-14)
    assert cut.rank == 5


def test_the_rank_of_scores_is_that_of_both_tables_together() -> None:
    T, W = world(0, d=4)
    line = standardize(root(T * [1, 1, 0, 0]), root(W * [0, 1, 1, 0]))
    assert line.rank == 1
    assert_close(
        (T * [1, 1, 0, 0]) @ line.items @ (W * [0, 1, 1, 0] @ line.users).T,
        np.outer(T[:, 1], W[:, 1]),
        1e-12,
    )
    assert standardize(root(T * [1, 1, 1, 0]), root(W)).rank == 3
    with pytest.raises(ConditionError, match="orthogonal"):
        standardize(root(T * [1, 1, 0, 0]), root(W * [0, 0, 1, 1]))


def test_signs_and_balance() -> None:
    assert column_signs(np.array([[1.0, 2.0], [-3.0, -1.0]])).tolist() == [-1, 1]
    assert balance_factor("gramians", 10, 1000) == 1
    assert balance_factor("rows", 16, 1) == 2
    assert balance_factor("rows", 7, 7) == 1


# --- moments


@given(seed=seeds, cut=st.integers(1, 59), weighted=st.booleans())
def test_moments_of_parts_add_up(seed: int, cut: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    (x, _), (y, _) = world(seed), world(seed + 1)
    matched, weights = rng.random(60) < 0.7, rng.random(60)

    def of(rows: slice) -> Any:
        some = matched[rows]
        if not some.any():
            return moments(Panel(x[rows], rows.start), centred=True)
        chosen = weights[rows][some] if weighted else None
        joint = np.hstack([x[rows][some], y[rows][some]])
        return moments(Panel(x[rows], rows.start, (joint,), some, chosen), centred=True)

    added, whole = of(slice(0, cut)) + of(slice(cut, 60)), of(slice(0, 60))
    assert (added.n, added.pairs.n) == (60, int(matched.sum()))
    w = (weights if weighted else np.ones(60))[matched][:, None]
    for result in (added, whole):
        assert_close(result.gramian, x.T @ x, 1e-13)
        assert_close(result.total, x.sum(axis=0), 1e-12)
        assert_close(result.pairs.cross, (x[matched] * w).T @ y[matched], 1e-12)
        assert_close(result.pairs.gramian_y, (y[matched] * w).T @ y[matched], 1e-12)
        assert_close(result.pairs.sums[0], (x[matched] * w).sum(axis=0), 1e-12)
        assert result.pairs.weight == pytest.approx(w.sum())


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_row_longer_than_the_largest_number_has_a_direction(dtype: str) -> None:
    most = np.finfo(dtype).max
    rows = np.array([[0.5] * 6, [3, 4, 0, 0, 0, 0], [0] * 6], dtype)
    rows[0] *= most
    expected = [[6**-0.5] * 6, [0.6, 0.8, 0, 0, 0, 0], [0] * 6]
    np.testing.assert_allclose(unit(rows), expected, rtol=8 * np.finfo(dtype).eps)
