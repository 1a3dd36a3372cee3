"""Groups of numbers: quarters of the rows, frequent values alone, equal values together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.passes.evaluate.groups import group_edges


def sizes(values: Any) -> dict[str, int]:
    """Rows of each group of these numbers, one per row."""
    rows = np.random.default_rng(0).normal(size=(len(values), 3))
    metrics = es.evaluate(rows, rows, k=1, users=5, groups=np.asarray(values)).items.groups
    assert metrics is not None
    return {name: group.rows for name, group in metrics.items()}


def test_a_column_of_zeros_keeps_its_head_apart() -> None:
    assert sizes(np.r_[np.zeros(1600), 1:401]) == {
        "below 1": 1600,
        "1 to 101": 100,
        "101 to 201": 100,
        "201 to 301": 100,
        "from 301": 100,
    }


def test_frequent_values_of_the_rest_are_groups_too() -> None:
    counts = np.r_[np.full(700, -1.0), np.full(240, 5), 10:50]
    assert list(sizes(counts).values()) == [700, 240, 10, 10, 10, 10]


@pytest.mark.parametrize("frequent", [0.0, 20.0, 39.0])
def test_the_most_frequent_value_may_be_anywhere(frequent: float) -> None:
    result = sizes(np.r_[np.full(160, frequent), 0:40])
    assert max(result.values()) == 161
    assert sum(result.values()) == 200
    assert len(result) >= 5


def test_edges_that_are_nearly_equal_have_names_of_their_own() -> None:
    seconds = 1_700_000_000 + np.arange(80)
    assert list(sizes(seconds).values()) == [20, 20, 20, 20]


@pytest.mark.parametrize("looked_at", [[], [np.nan], [3.0, 3.0]])
def test_one_value_looked_at_still_has_an_edge(looked_at: list[float]) -> None:
    assert len(group_edges(np.array(looked_at, np.float64))) == 1
