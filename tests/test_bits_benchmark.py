"""The comparison of two commits counts every bit, and names the commits that changed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bits
import numpy as np
import pytest


def test_a_difference_is_any_other_bit_in_units_of_the_largest_value() -> None:
    before = {"a: x": np.array([1.0, 0.0]), "a: y": np.arange(3), "only before": np.zeros(1)}
    now = {"a: x": np.array([1.0, -0.0]), "a: y": np.arange(3)}
    compared = bits.differences(before, now)
    assert (compared["compared"], compared["differ"]) == (2, ["a: x"])
    assert compared["largest"] == {"x float64": 0.0}
    now["a: x"] = np.array([1.0, 2 * np.finfo(float).eps])
    assert bits.differences(before, now)["largest"] == {"x float64": 2.0}
    now["a: x"] = np.zeros(3)
    assert bits.differences(before, now)["largest"] == {"x float64": np.inf}


def test_every_commit_that_changes_an_array_is_found_and_broken_ones_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [0, 0, 1, 1, 1, 2, 2, None, 3]
    commits = [str(number) for number in range(len(values))]

    def arrays(commit: str, *_: object) -> dict[str, Any]:
        value = values[int(commit)]
        return {} if value is None else {"a: x": np.array([value])}

    monkeypatch.setattr(bits, "arrays", arrays)
    steps = bits.changes(commits, 0, len(values) - 1, Path(), "")
    assert steps == [(1, 2), (4, 5), (6, 8)]
