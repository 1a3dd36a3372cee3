"""What the sample of the gates promises: no order of the rows changes a verdict, and rows of zeros
are not in it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deliveries import Week, zeroed
from seriesworlds import drifting, rotation

import dask_embstab as es

Array = np.ndarray[Any, Any]


def figures(version: Any) -> dict[str, dict[str, float]]:
    return {verdict["gate"]: verdict["figures"] for verdict in version.verdicts}


def styles(week: int, order: Array) -> Week:
    """40 styles of 60 variants each, which are nearly alike, in this order."""
    rng = np.random.default_rng(0)
    T = np.repeat(rng.normal(size=(40, 16)), 60, axis=0) + 0.05 * rng.normal(size=(2400, 16))
    W = rng.normal(size=(600, 16))
    step = np.random.default_rng((1, week))
    T, W = T + 0.05 * week * step.normal(size=T.shape), W + 0.1 * week * step.normal(size=W.shape)
    A = rotation(step, 16)
    return Week(T[order] @ A, W @ A, np.arange(2400)[order], np.arange(600))


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_verdict_does_not_depend_on_the_order_of_rows(tmp_path: Path, *, with_ids: bool) -> None:
    seen = []
    for name, order in (
        ("sorted", np.arange(2400)),
        ("shuffled", np.random.default_rng(7).permutation(2400)),
    ):
        series = es.Series.init(tmp_path / name)
        for week in range(3):
            delivered = styles(week, order)
            if not with_ids:
                delivered = replace(delivered, item_ids=None, user_ids=None)
            version = series.add(
                delivered.write(tmp_path / f"{name}-{week}.zarr"), name=f"week-{week}"
            ).version
        seen.append(figures(version))
    for gate, by_table in seen[0].items():
        for key, figure in by_table.items():
            # Without ids a row is its number, so another order is another sample.
            assert seen[1][gate][key] == pytest.approx(
                figure, rel=1e-6 if with_ids else 0.05, abs=1e-6
            ), (gate, key)
    assert seen[0]["agreement"]["items"] > 0.8
    assert seen[0]["chance_share"]["items"] == 0.0


def cold(week: Week, n: int, seed: int) -> Week:
    """With ``n`` cold rows in either table at random places; half of their ids are in every week,
    half are this week's.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for key in ("item", "user"):
        rows, ids = getattr(week, f"{key}s"), getattr(week, f"{key}_ids")
        more = [f"cold-{i}" if i < n // 2 else f"cold-{seed}-{i}" for i in range(n)]
        order = rng.permutation(len(rows) + n)
        made[f"{key}s"] = np.vstack([rows, np.zeros((n, rows.shape[1]))])[order]
        made[f"{key}_ids"] = np.array([str(i) for i in ids] + more)[order]
    return replace(week, **made)


def test_cold_rows_change_no_figure(tmp_path: Path) -> None:
    """Nine of ten rows of either table are zeros, half of them with ids that no other week has."""
    seen = []
    for name, n in (("warm", 0), ("cold", 5000)):
        series = es.Series.init(tmp_path / name)
        for week in range(3):
            delivered = cold(drifting(week), n, week)
            version = series.add(
                delivered.write(tmp_path / f"{name}-{week}.zarr"), name=f"week-{week}"
            ).version
        seen.append(version)
    warm, cold_ = (figures(version) for version in seen)
    for gate, by_table in warm.items():
        if gate != "scores":  # of rows by their numbers
            for key, figure in by_table.items():
                assert cold_[gate][key] == pytest.approx(figure, rel=0.02, abs=1e-3), (gate, key)
    assert cold_["scores"]["run"] < 1e-5
    assert [seen[1].figures[key]["zero_rows"] for key in ("items", "users")] == [5000, 5000]
    sampled = seen[1].figures["sampled"]
    assert sampled["items"] == {
        "rows": 390,
        "zero_rows": 2500,
    }, "every shared row that is not zero is in the sample"
    assert seen[0].figures["sampled"]["items"] == {"rows": 390, "zero_rows": 0}


def test_rows_that_turn_to_zeros_are_lost_rows(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series")
    for week in range(2):
        series.add(drifting(week).write(tmp_path / f"{week}.zarr"))
    with pytest.raises(es.HoldError, match=r"rows of users 0\.5 "):
        series.add(zeroed(drifting(2), "user").write(tmp_path / "zeroed.zarr"))
