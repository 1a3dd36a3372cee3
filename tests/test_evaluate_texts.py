"""What `evaluate` says in words is true of what it measured."""

from __future__ import annotations

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.diagnose.comparison import comparison_lines
from dask_embstab.passes.evaluate.results import Metrics

RNG = np.random.default_rng(0)


def unrelated(n_items: int, k: int = 100) -> Metrics:
    """Two runs that have nothing to do with each other."""
    runs = [
        {"items": RNG.normal(size=(n_items, 4)), "users": RNG.normal(size=(50, 4))}
        for _ in range(2)
    ]
    return es.evaluate(*runs, k=k)


@pytest.mark.parametrize(("n_items", "k", "depth"), [(60, 100, 5), (200, 100, 10), (200, 7, 7)])
def test_the_recall_that_is_quoted_is_of_few_of_the_items(n_items: int, k: int, depth: int) -> None:
    found = unrelated(n_items, k)
    assert found.retrieval is not None
    assert (found.retrieval.n_ranked, found.retrieval.depth) == (n_items, depth)
    recall = found.retrieval.stale_queries.recall[depth].mean
    assert recall < 0.5
    assert f"{recall:.4f} at {depth} of {n_items}" in repr(found)
    told = "\n".join(comparison_lines(found))
    assert f"recall@{depth} {recall:.4f}" in told
    assert "recall@60" not in told


def test_no_recall_is_quoted_of_so_few_items_that_all_are_found() -> None:
    found = unrelated(8)
    assert found.retrieval is not None
    assert found.retrieval.depth == 0
    assert "not informative: lists hold 8 of all 8 items" in repr(found)
    assert "recall of all items is not informative" in "\n".join(comparison_lines(found))


def test_why_there_is_no_bound_is_said_of_two_runs_as_they_are() -> None:
    rows = RNG.normal(size=(60, 4))
    turned = rows @ np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    items = es.evaluate(rows, turned, k=5).items
    assert items is not None
    assert items.alignment is not None
    assert items.alignment.bound is None
    assert "both runs are compared as they are" in str(items.alignment.bound_reason)
    assert "rotation_only" not in str(items.alignment.bound_reason)
    itself = es.evaluate(rows, rows, k=5).items
    assert itself is not None
    assert itself.alignment is not None
    assert itself.alignment.bound_reason is None
