"""Figures of `evaluate` do not depend on the size of the values, or one error says that they
cannot be told.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import dask_embstab as es

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(40, 3)) + 0.5, RNG.normal(size=(40, 3)) + 0.5


@pytest.mark.parametrize("exponent", [-480, -100, 100, 490])
def test_figures_of_tables_times_a_power_of_two_are_the_same(exponent: int) -> None:
    """Squares of Gramians overflow and underflow long before squares of values do."""
    scale = 2.0**exponent
    wanted, metrics = es.evaluate(A, B, k=5).items, es.evaluate(scale * A, scale * B, k=5).items
    assert wanted is not None
    assert metrics is not None
    for name in ("mean_cosine", "norm_ratio", "cosine", "components", "cka"):
        assert getattr(metrics, name) == getattr(wanted, name), name
    bounds = dataclasses.asdict(wanted.alignment)  # type: ignore[arg-type]
    with np.errstate(over="ignore"):
        for name in ("error", "lower_bound"):
            assert getattr(metrics.alignment, name) == bounds[name] * scale
        assert metrics.alignment.gram_gap == bounds["gram_gap"] * scale * scale  # type: ignore[union-attr]
    assert metrics.alignment.relative_error == bounds["relative_error"]  # type: ignore[union-attr]


@pytest.mark.parametrize(("scale", "message"), [(1e-160, "underflow"), (1e153, "overflow")])
def test_values_whose_squares_cannot_be_told_are_one_error(scale: float, message: str) -> None:
    for a, b in ((A * scale, B), (A, B * scale)):
        with pytest.raises(es.EmbstabError, match=f"squares {message} float64; rescale the table"):
            es.evaluate(a, b)
