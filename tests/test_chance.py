"""An alignment that is no better than one of unrelated rows says so; one of retrainings
does not.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, draws
from seriesworlds import gmf, rotation

import dask_embstab as es
from dask_embstab.cli.main import main

NO_BETTER = "the rows agree with their reference rows no better than unrelated rows would"


def tables(
    rng: np.random.Generator, n: int, d: int, *, mean: float, decay: float
) -> tuple[Array, Array]:
    """Items of which the first direction may be shared by all, and users."""
    spread = decay ** np.arange(d)
    return (
        rng.normal(size=(n, d)) * spread + mean * (np.arange(d) == 0),
        rng.normal(size=(2 * n, d)) * spread,
    )


def told(*given: Any, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The alignment of a fit, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = es.fit(*given, **options)
    return fitted.diagnostics["alignment"], [str(warning.message) for warning in caught]


worlds = given(
    seed=st.integers(0, 10_000),
    d=st.sampled_from([8, 16, 48]),
    per_component=st.sampled_from([5, 8, 20, 100]),
    mean=st.sampled_from([0.0, 1.0, 5.0]),
    decay=st.sampled_from([1.0, 0.85]),
    options=st.sampled_from(
        [
            {},
            {"unit_rows": True},
            {"align_on": "both"},
            {"keep": "geometry"},
            {"keep": "geometry", "center": True},
        ]
    ),
)


@settings(max_examples=draws(20))
@worlds
def test_unrelated_rows_are_reported(
    seed: int, d: int, per_component: int, mean: float, decay: float, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    run, reference = (tables(rng, per_component * d, d, mean=mean, decay=decay) for _ in range(2))
    alignment, lines = told(
        *run, reference={"items": reference[0], "users": reference[1]}, **options
    )
    assert alignment["beyond_chance"] < 0.05
    assert alignment["relative_error"] == pytest.approx(alignment["chance_error"], rel=0.35)
    assert [text for text in lines if NO_BETTER in text]


@settings(max_examples=draws(20))
@worlds
def test_retrainings_are_not(
    seed: int, d: int, per_component: int, mean: float, decay: float, options: dict[str, Any]
) -> None:
    """Correlation 0.8 of every component, in other axes."""
    rng = np.random.default_rng(seed)
    first, noise = (tables(rng, per_component * d, d, mean=m, decay=decay) for m in (mean, 0.0))
    A = rotation(rng, d)
    run = [(a + 0.75 * b) @ A for a, b in zip(first, noise, strict=True)]
    alignment, lines = told(*run, reference={"items": first[0], "users": first[1]}, **options)
    assert alignment["beyond_chance"] > 0.1
    assert not lines


def test_an_exact_alignment_is_far_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    T = rng.normal(size=(300, 12))
    alignment, lines = told(T @ rotation(rng, 12), reference=T)
    assert alignment["beyond_chance"] == pytest.approx(1.0)
    assert not lines


@pytest.mark.parametrize("n", [1, 2])
def test_rows_that_are_too_few_to_tell_have_no_figure(n: int) -> None:
    rng = np.random.default_rng(0)
    alignment, lines = told(
        rng.normal(size=(n, 12)), reference=rng.normal(size=(n, 12)), min_matched=1
    )
    assert not [text for text in lines if NO_BETTER in text]
    assert alignment["beyond_chance"] is None
    assert alignment["chance_error"] is None


def test_weights_count_as_fewer_rows() -> None:
    """With one row in ten of weight 100 a tenth of the rows decides, and chance is what that many
    rows would give.
    """
    rng = np.random.default_rng(0)
    T, B = rng.normal(size=(2, 4000, 16))
    weights = np.where(rng.random(4000) < 0.1, 100.0, 1.0)
    weighted, _ = told(T, reference=B, weights=weights)
    fewer, _ = told(T[weights > 1], reference=B[weights > 1])
    assert weighted["beyond_chance"] < 0.05
    assert weighted["chance_error"] == pytest.approx(fewer["chance_error"], rel=0.03)


def test_moments_say_it_too() -> None:
    rng = np.random.default_rng(0)
    T, B = rng.normal(size=(2, 400, 8))
    with pytest.warns(es.EmbstabWarning, match=NO_BETTER):
        fitted = es.fit(es.moments(T, reference=B))
    whole, _ = told(T, reference=B)
    assert fitted.diagnostics["alignment"]["beyond_chance"] == pytest.approx(whole["beyond_chance"])


@pytest.mark.parametrize("pairing", ["row order", "ids"])
def test_real_trainings_in_the_wrong_order_or_under_wrong_ids(tmp_path: Path, pairing: str) -> None:
    first = es.stabilize(gmf("a").write(tmp_path / "a.zarr"), tmp_path / "a-stable.zarr")
    week = gmf("b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        es.stabilize(week.write(tmp_path / "b.zarr"), tmp_path / "b-stable.zarr", reference=first)
    order = np.random.default_rng(0).permutation(len(week.items))
    wrong = tmp_path / "wrong.zarr"
    if pairing == "ids":
        es.create_run(wrong, week.items, week.users, item_ids=order, user_ids=week.user_ids)
    else:
        es.create_run(
            wrong, week.items[order], week.users, item_ids=week.item_ids, user_ids=week.user_ids
        )
    with pytest.warns(es.EmbstabWarning, match=f"{NO_BETTER}.*another order.*ids.*another model"):
        es.stabilize(wrong, tmp_path / "wrong-stable.zarr", reference=first)

    done = CliRunner().invoke(
        main, ["fit", str(wrong), str(tmp_path / "t.npz"), "--reference", str(first.path)]
    )
    assert done.exit_code == 0
    assert done.stderr.startswith(f"warning: {NO_BETTER}")
    assert done.stderr.count("\n") == 1
