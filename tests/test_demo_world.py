"""Laws of the demo's world and of the factorization trained on it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

from dask_embstab.demo.als import Factors, factorize, half_step
from dask_embstab.demo.world import Day, World, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = World(n_users=600, n_items=200, n_tastes=3, share_replaced=0.2, seed=3)


@pytest.fixture(scope="module")
def days() -> list[Day]:
    return list(simulate(SMALL))


def n_shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    return np.intersect1d(one, other).size


def dense(day: Day, like: Day) -> NDArray[np.float64]:
    """Counts of the items that two days share, with rows and columns in order of their ids."""
    items = np.intersect1d(day.item_ids, like.item_ids)
    columns = np.argsort(day.item_ids)[np.searchsorted(np.sort(day.item_ids), items)]
    return day.interactions.toarray()[np.argsort(day.user_ids)][:, columns].astype(np.float64)


def mean_cosine(x: NDArray[Any], y: NDArray[Any]) -> float:
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(np.mean(np.sum(x * y, axis=1)[norms > 0] / norms[norms > 0]))


def loss(counts: NDArray[Any], factors: Factors, *, regularization: float, alpha: float) -> float:
    """Sum the loss of Hu, Koren and Volinsky over every cell."""
    users, items = factors.users.astype(np.float64), factors.items.astype(np.float64)
    errors = (1 + alpha * counts) * ((counts > 0) - users @ items.T) ** 2
    return float(errors.sum() + regularization * ((users**2).sum() + (items**2).sum()))


# The world


def test_days_have_the_asked_sizes_dates_and_unique_ids(days: list[Day]) -> None:
    assert [day.name for day in days] == [f"2026-01-0{k}" for k in range(1, 6)]
    for day in days:
        assert day.interactions.shape == (SMALL.n_users, SMALL.n_items)
        assert day.user_ids.dtype == day.item_ids.dtype == np.int64
        assert np.unique(day.user_ids).size == SMALL.n_users
        assert np.unique(day.item_ids).size == SMALL.n_items
        assert day.item_ids.max() > 1000 * SMALL.n_items  # far from contiguous


def test_shared_ids_are_the_planned_share(days: list[Day]) -> None:
    assert [n_shared(days[0].item_ids, day.item_ids) for day in days] == [200, 190, 180, 170, 160]
    assert [n_shared(a.item_ids, b.item_ids) for a, b in pairwise(days)] == [190] * 4
    assert all(n_shared(days[0].user_ids, day.user_ids) == SMALL.n_users for day in days)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 30), (0.33, 20), (1.0, 0)])
def test_the_share_is_met_when_the_steps_are_uneven(share: float, kept: int) -> None:
    first, *_, last = simulate(World(n_users=5, n_items=30, n_days=4, share_replaced=share, seed=1))
    assert n_shared(first.item_ids, last.item_ids) == kept


def test_rows_come_in_another_order_every_day(days: list[Day]) -> None:
    for a, b in pairwise(days):
        assert np.mean(a.user_ids == b.user_ids) < 0.1
        assert np.mean(a.item_ids == b.item_ids) < 0.1


def test_the_window_holds_every_users_events_on_items_still_offered(days: list[Day]) -> None:
    full = SMALL.events_per_day * SMALL.window_days
    assert (days[0].interactions.sum(axis=1) == full).all()
    for day in days[1:]:
        events = day.interactions.sum(axis=1)
        assert events.max() <= full
        assert events.mean() > 0.7 * full


def test_same_seed_same_days_and_another_seed_other_days(days: list[Day]) -> None:
    for one, other in zip(days, simulate(SMALL), strict=True):
        assert np.array_equal(one.user_ids, other.user_ids)
        assert np.array_equal(one.item_ids, other.item_ids)
        assert np.array_equal(one.interactions.toarray(), other.interactions.toarray())
    stranger = next(simulate(replace(SMALL, seed=4)))
    assert n_shared(days[0].item_ids, stranger.item_ids) == 0


def test_a_drifted_day_resembles_the_earlier_ones_less_and_less(days: list[Day]) -> None:
    likeness = [mean_cosine(dense(days[0], day), dense(day, days[0])) for day in days]
    assert likeness[0] == pytest.approx(1)
    assert likeness[1] > 0.85
    assert likeness == sorted(likeness, reverse=True)
    shuffled = np.random.default_rng(0).permutation(dense(days[1], days[0]))
    assert likeness[4] > mean_cosine(dense(days[0], days[1]), shuffled) + 0.3


def test_drift_alone_makes_distant_windows_differ() -> None:
    world = replace(SMALL, n_days=12, window_days=6, share_replaced=0.0)

    def far(drift: float) -> float:
        first, *_, last = simulate(replace(world, drift=drift))
        return mean_cosine(dense(first, last), dense(last, first))

    assert far(0.5) < far(0.0) - 0.1


def test_popularity_has_a_long_tail(days: list[Day]) -> None:
    events = np.sort(days[0].interactions.sum(axis=0))
    assert events[-20:].sum() > 5 * events[:20].sum()


def test_a_world_refuses_what_it_cannot_simulate() -> None:
    with pytest.raises(ValueError, match="n_days must be at least 1, got 0"):
        World(n_days=0)
    with pytest.raises(ValueError, match=r"share_replaced must be within 0\.\.1, got 1\.5"):
        World(share_replaced=1.5)


# The factorization


def test_half_step_equals_the_loop_over_dense_normal_equations() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, size=(7, 9))
    fixed = rng.standard_normal((9, 3))
    solved = half_step(sparse.csr_array(counts), fixed, regularization=0.3, alpha=2.0)
    for row, x in zip(counts, solved, strict=True):
        weights = np.diag(1 + 2.0 * row)
        normal = fixed.T @ weights @ fixed + 0.3 * np.eye(3)
        np.testing.assert_allclose(
            x, np.linalg.solve(normal, fixed.T @ weights @ (row > 0)), rtol=1e-10
        )
        gradient = -2 * fixed.T @ weights @ ((row > 0) - fixed @ x) + 2 * 0.3 * x
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_half_step_does_not_depend_on_its_blocks(
    monkeypatch: pytest.MonkeyPatch, days: list[Day]
) -> None:
    fixed = np.random.default_rng(0).standard_normal((SMALL.n_items, 4))
    whole = half_step(days[0].interactions, fixed, regularization=1.0, alpha=1.0)
    monkeypatch.setattr("dask_embstab.demo.als._BLOCK_BYTES", 7 * 4 * 4 * 8)
    blocks = half_step(days[0].interactions, fixed, regularization=1.0, alpha=1.0)
    np.testing.assert_allclose(blocks, whole, rtol=1e-9)


def test_a_row_without_events_gets_zeros() -> None:
    solved = half_step(sparse.csr_array((1, 4)), np.ones((4, 2)), regularization=1.0, alpha=1.0)
    assert not solved.any()


def test_every_iteration_lowers_the_loss(days: list[Day]) -> None:
    options = {"regularization": 0.5, "alpha": 2.0}
    counts = days[0].interactions
    losses = [
        loss(
            counts.toarray(),
            factorize(counts, components=4, n_iterations=n, seed=0, **options),
            **options,
        )
        for n in range(1, 7)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_same_seed_same_factors(days: list[Day]) -> None:
    one, other = (
        factorize(days[0].interactions, components=4, n_iterations=3, seed=5) for _ in range(2)
    )
    assert one.users.dtype == one.items.dtype == np.float32
    assert np.array_equal(one.users, other.users)
    assert np.array_equal(one.items, other.items)


def test_two_seeds_give_scrambled_axes_but_nearly_equal_scores(days: list[Day]) -> None:
    one, other = (
        factorize(days[0].interactions, components=4, n_iterations=25, seed=s) for s in (0, 1)
    )
    scores = one.users @ one.items.T
    assert np.linalg.norm(scores - other.users @ other.items.T) < 0.02 * np.linalg.norm(scores)
    assert abs(mean_cosine(one.items, other.items)) < 0.5
    left, _, right = np.linalg.svd(other.items.T @ one.items)
    assert mean_cosine(one.items, other.items @ left @ right) > 0.99
    assert mean_cosine(one.users, other.users @ left @ right) > 0.99


def test_factorize_refuses_what_it_cannot_solve(days: list[Day]) -> None:
    with pytest.raises(ValueError, match="must be positive, got 0 and 10"):
        factorize(days[0].interactions, components=0, seed=0)
    with pytest.raises(ValueError, match=r"regularization must be positive, got 0\.0"):
        factorize(days[0].interactions, regularization=0.0, seed=0)
    with pytest.raises(ValueError, match="equally wide"):
        Factors(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
