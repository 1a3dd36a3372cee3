"""Laws that kill what a mutation campaign left alive: limits that no other test would miss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.core.square_root import require_factor, root_from_triangle
from dask_embstab.core.types import EPS

RNG = np.random.default_rng(3)
T, W = RNG.normal(size=(400, 5)), RNG.normal(size=(300, 5))


@pytest.mark.parametrize("rank", [5, 4])
def test_a_factor_that_is_none_is_refused_at_any_rank(rank: int) -> None:
    rows = T.copy()
    if rank < 5:
        rows[:, 4] = rows[:, 0] - rows[:, 1]
    root = root_from_triangle(np.linalg.qr(rows, mode="r"), eps=EPS)
    assert root.rank == rank
    gramian = rows.T @ rows
    require_factor(root, gramian, eps=EPS, where="T")
    for off in (1e-10, 1e-3, 1.0):
        with pytest.raises(es.ConditionError, match="by route 'qr' it is off"):
            require_factor(replace(root, R=root.R * (1 + off)), gramian, eps=EPS, where="T")


def orthogonal(s: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Tables whose score matrix has these singular values."""
    items, users = (np.linalg.qr(RNG.normal(size=(n, len(s))))[0] for n in (60, 50))
    return items * np.sqrt(s), users * np.sqrt(s)


def test_only_components_of_one_cluster_are_called_weakly_determined() -> None:
    assert es.fit(*orthogonal([5, 4, 3, 2, 1])).diagnostics["weakly_determined_components"] == []
    clustered = es.fit(*orthogonal([5, 3, 3 * (1 + 1e-14), 2, 1])).diagnostics
    assert clustered["weakly_determined_components"] == [1, 2]


def test_products_are_float32_where_that_keeps_five_digits() -> None:
    def opposed(kappa: float) -> dict[str, str]:
        axes = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
        A = axes * np.geomspace(1, 1 / kappa, 5) @ axes.T
        return es.fit(T @ A, W @ np.linalg.inv(A)).diagnostics["product"]  # type: ignore[no-any-return]

    near, far = opposed(2), opposed(1e4)
    assert (near["items"], near["users"]) == ("float32", "float32")
    assert (far["items"], far["users"]) == ("float64", "float64")
