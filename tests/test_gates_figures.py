"""What gates look at and how they judge it: figures of sampled rows against those of whole tables, thresholds, verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import rotation as best_rotation

import dask_embstab as es
from dask_embstab.core.similarity import distances, likeness, spectrum_change
from dask_embstab.series.publish.gates import THRESHOLDS, judge, thresholds


@given(seed=st.integers(0, 1000), n=st.integers(40, 200), d=st.integers(2, 6))
def test_figures_are_those_of_the_whole_tables(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = x + 0.3 * rng.normal(size=(n, d))
    cut = int(rng.integers(1, n))
    both = likeness(x[:cut], y[:cut]) + likeness(x[cut:], y[cut:])
    error, removable = distances([both], unit_rows=False)
    assert error == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y))
    turned = np.linalg.norm(x @ best_rotation(x, y) - y) / np.linalg.norm(y)
    assert removable == pytest.approx(error - turned, abs=1e-9)
    assert both.norm_ratio == pytest.approx(np.linalg.norm(x) / np.linalg.norm(y))
    u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    assert both.cosines == pytest.approx(np.sum(u * v))
    unit_error, _ = distances([both], unit_rows=True)
    assert unit_error == pytest.approx(np.linalg.norm(u - v) / np.sqrt(n))


def test_a_direction_that_all_rows_share_is_no_agreement() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(4000, 8)) + 3.0 for _ in range(2))
    assert likeness(x, y).cosines / 4000 > 0.8
    assert abs(likeness(x, y).agreement) < 0.02
    assert likeness(x, x).agreement == pytest.approx(1.0)
    assert likeness(x, -x).lowest_correlation < -0.9


def test_spectra_are_compared_by_their_shape() -> None:
    assert spectrum_change([4.0, 3.0], [8.0, 6.0]) == pytest.approx(0.0)
    assert spectrum_change([1.0, 0.0], [0.0, 1.0]) == 1.0
    assert spectrum_change([1.0], [1.0, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("gate", "passing", "holding_"),
    [("rows", 0.4, 0.41), ("matched", 0.3, 0.29), ("norm_ratio", 1 / 1.4, 0.7), ("norm_ratio", 1.4, 1.41)],
)
def test_the_worst_table_decides(gate: str, passing: float, holding_: float) -> None:
    def verdict(*figures: float) -> Any:
        found = judge({gate: dict(zip(("items", "users"), figures, strict=False))}, THRESHOLDS)
        return next(v for v in found if v["gate"] == gate)

    assert verdict(passing, passing)["verdict"] == "pass"
    assert (verdict(passing, holding_)["verdict"], verdict(passing, holding_)["at"]) == ("hold", "users")
    assert verdict(holding_, passing)["at"] == "items"
    assert verdict(float("nan"), passing)["verdict"] == "hold"
    assert verdict()["verdict"] == "not applicable"


def test_thresholds_are_numbers_of_known_gates() -> None:
    assert thresholds({"rows": None})["rows"] is None
    for wrong in ({"nonsense": 1.0}, {"rows": "many"}, {"rows": float("nan")}):
        with pytest.raises(es.InputError, match="gate"):
            thresholds(wrong)  # type: ignore[arg-type]
