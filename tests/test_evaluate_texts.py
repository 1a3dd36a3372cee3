"""What `evaluate` says in words is true of what it measured."""

from __future__ import annotations

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab import Metrics
from dask_embstab.diagnose.comparison import comparison_lines

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
    metrics = unrelated(n_items, k)
    assert metrics.retrieval is not None
    assert (metrics.retrieval.n_ranked, metrics.retrieval.depth) == (n_items, depth)
    recall = metrics.retrieval.stale_queries.recall[depth].mean
    assert recall < 0.5
    assert f"{recall:.4f} at {depth} of {n_items}" in repr(metrics)
    text = "\n".join(comparison_lines(metrics))
    assert f"recall@{depth} {recall:.4f}" in text
    assert "recall@60" not in text
    assert f"At depth {depth} of {n_items}: stale_queries {recall:.3g}" in metrics._repr_html_()


def test_no_recall_is_quoted_of_so_few_items_that_all_are_found() -> None:
    metrics = unrelated(8)
    assert metrics.retrieval is not None
    assert metrics.retrieval.depth == 0
    assert "not informative: lists hold 8 of all 8 items" in repr(metrics)
    assert "recall of all items is not informative" in "\n".join(comparison_lines(metrics))
    assert "At depth" not in metrics._repr_html_()


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


@pytest.fixture
def strangers() -> list[dict[str, object]]:
    """Two runs of the same items and of other users."""
    rows = RNG.normal(size=(80, 4))
    return [
        {
            "items": es.table(rows, ids=range(80)),
            "users": es.table(RNG.normal(size=(30, 4)), ids=range(first, first + 30)),
        }
        for first in (0, 1000)
    ]


def test_without_a_shared_user_the_items_are_measured(strangers: list[dict[str, object]]) -> None:
    metrics = es.evaluate(*strangers, k=5, groups={"users": np.arange(30) % 2})
    assert metrics.items is not None
    assert metrics.items.mean_cosine == pytest.approx(1.0)
    assert (metrics.users, metrics.rank_correlation) == (None, None)
    assert metrics.retrieval is not None
    assert (metrics.retrieval.queries, metrics.retrieval.retrained.rbo.mean) == ("items", 1.0)
    assert "share no id" in metrics.to_dict()["unmeasured"]["users"]
    assert "users: not measured" in "\n".join(comparison_lines(metrics))
    assert "not measured" in repr(metrics)
    report = es.report(*strangers)
    assert "users: not measured" in report.html
    assert not report.well


def test_without_any_shared_id_or_with_judgments_of_users_it_is_an_error(
    strangers: list[dict[str, object]],
) -> None:
    users = [run["users"] for run in strangers]
    with pytest.raises(es.TooFewMatchedError, match=r"share no id.*give runs with common ids"):
        es.evaluate(*users)
    with pytest.raises(es.TooFewMatchedError, match=r"judgments are of .*share no id"):
        es.evaluate(*strangers, judgments=[(1, 2, 1)])
