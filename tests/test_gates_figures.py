"""What gates look at and how they judge it: figures of sampled rows against those of whole tables,
thresholds, verdicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import rotation as best_rotation

import dask_embstab as es
from dask_embstab.core.similarity import distances, likeness, spectrum_change
from dask_embstab.series.log.thresholds import THRESHOLDS, thresholds
from dask_embstab.series.publish.gates import judge


@given(seed=st.integers(0, 1000), n=st.integers(40, 200), d=st.integers(2, 6))
def test_figures_are_those_of_the_whole_tables(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = x + 0.3 * rng.normal(size=(n, d))
    cut = int(rng.integers(1, n))
    x[::7], y[3::11] = 0.0, 0.0
    both = likeness(x[:cut], y[:cut], others=y) + likeness(x[cut:], y[cut:], others=y)
    warm = x.any(axis=1) & y.any(axis=1)
    assert (both.n, both.zero_pairs) == (warm.sum(), n - warm.sum())
    x, y, others = x[warm], y[warm], y[y.any(axis=1)]
    error, removable = distances([both], unit_rows=False)
    assert error == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y))
    turned = np.linalg.norm(x @ best_rotation(x, y) - y) / np.linalg.norm(y)
    assert removable == pytest.approx(error - turned, abs=1e-9)
    assert both.norm_ratio == pytest.approx(np.linalg.norm(x) / np.linalg.norm(y))
    u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    assert both.cosines == pytest.approx(np.sum(u * v))
    unit_error, _ = distances([both], unit_rows=True)
    assert unit_error == pytest.approx(np.linalg.norm(u - v) / np.sqrt(len(u)))
    cosines = u @ v.T
    own = np.diag(cosines)
    chance = (cosines.sum() - own.sum()) / (len(u) * (len(u) - 1))
    assert both.agreement == pytest.approx((own.mean() - chance) / (1 - chance))
    low = np.sort(own)[int(np.ceil(0.1 * len(u))) - 1]
    assert both.low_agreement == pytest.approx(
        (low - chance) / (1 - chance), abs=0.01 / (1 - chance)
    )
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    nearer, farther = (
        np.sum(sign * (u @ others.T - own[:, None]) > 1e-9, axis=1) for sign in (1, -1)
    )
    assert both.far == np.sum(nearer > farther) + np.sum((nearer == farther) & (nearer > 0)) / 2


def test_a_direction_that_all_rows_share_is_no_agreement() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(4000, 8)) + 3.0 for _ in range(2))
    unrelated, same = (likeness(x, other, others=other[:256]) for other in (y, x))
    assert unrelated.cosines / 4000 > 0.8
    assert abs(unrelated.agreement) < 0.02
    assert unrelated.chance_share == pytest.approx(1.0, abs=0.15)
    assert (same.agreement, same.chance_share) == (pytest.approx(1.0), 0.0)
    assert likeness(x, -x, others=-x[:256]).lowest_correlation < -0.9


@pytest.mark.parametrize("d", [4, 16, 128])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.42, 1.0])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_the_share_of_unrelated_rows_is_reported(d: int, share: float, mean: float) -> None:
    rng = np.random.default_rng(d)
    y = rng.normal(size=(4096, d)) * 0.8 ** np.arange(d) + mean * (np.arange(d) == 0)
    x = y + 0.2 * rng.normal(size=y.shape) * 0.8 ** np.arange(d)
    wrong = rng.permutation(4096)[: int(share * 4096)]
    x[wrong] = x[np.roll(wrong, 1)]
    like = likeness(x, y, others=y[rng.permutation(4096)[:256]])
    assert 2 * like.far / like.n == pytest.approx(share, abs=0.03)
    assert like.chance_share <= 2 * like.far / like.n
    if share != 0.2:  # there the quantile is the median of unrelated rows: about chance
        assert (like.low_agreement < 0.02) == (share > 0.2)


def test_spectra_are_compared_by_their_shape() -> None:
    assert spectrum_change([4.0, 3.0], [8.0, 6.0]) == pytest.approx(0.0)
    assert spectrum_change([1.0, 0.0], [0.0, 1.0]) == 1.0
    assert spectrum_change([1.0], [1.0, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("gate", "passing", "holding_"),
    [
        ("rows", 0.4, 0.41),
        ("matched", 0.3, 0.29),
        ("norm_ratio", 1 / 1.4, 0.7),
        ("norm_ratio", 1.4, 1.41),
    ],
)
def test_the_worst_table_decides(gate: str, passing: float, holding_: float) -> None:
    def verdict(*figures: float) -> Any:
        result = judge({gate: dict(zip(("items", "users"), figures, strict=False))}, THRESHOLDS)
        return next(v for v in result if v["gate"] == gate)

    assert verdict(passing, passing)["verdict"] == "pass"
    assert (verdict(passing, holding_)["verdict"], verdict(passing, holding_)["at"]) == (
        "hold",
        "users",
    )
    assert verdict(holding_, passing)["at"] == "items"
    assert verdict(float("nan"), passing)["verdict"] == "hold"
    assert verdict()["verdict"] == "not applicable"


def test_thresholds_are_numbers_of_known_gates() -> None:
    assert thresholds({"rows": None})["rows"] is None
    for wrong in ({"nonsense": 1.0}, {"rows": "many"}, {"rows": float("nan")}):
        with pytest.raises(es.InputError, match="gate"):
            thresholds(wrong)  # type: ignore[arg-type]
