"""A run that is wider than the space it is aligned to: the rectangular rotation, and what
it loses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, draws
from scipy import linalg

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.core.procrustes import narrowing

WIDE, NARROW, N = 7, 4, 60


def wide_and_narrow(seed: int = 0, noise: float = 0.0) -> tuple[Array, Array]:
    """Rows of `WIDE` components whose first `NARROW` ones, in hidden axes, are the narrow rows."""
    rng = np.random.default_rng(seed)
    narrow = rng.normal(size=(N, NARROW))
    hidden = np.hstack(
        [narrow + noise * rng.normal(size=narrow.shape), 0.3 * rng.normal(size=(N, WIDE - NARROW))]
    )
    return hidden @ linalg.qr(rng.normal(size=(WIDE, WIDE)))[0], narrow


def error_of(Q: Array, x: Array, y: Array) -> float:
    return float(np.linalg.norm(x @ Q - y))


def test_a_wider_table_finds_the_components_that_it_shares_with_a_narrower_one() -> None:
    wide, narrow = wide_and_narrow()
    transform = es.fit(wide, reference=narrow, keep="geometry", width=NARROW)
    assert transform.items.shape == (WIDE, NARROW)
    np.testing.assert_allclose(transform.items.T @ transform.items, np.eye(NARROW), atol=1e-12)
    np.testing.assert_allclose(wide @ transform.items, narrow, atol=1e-4)
    alignment = transform.diagnostics["alignment"]
    lost = 1 - np.linalg.norm(wide @ transform.items) ** 2 / np.linalg.norm(wide) ** 2
    assert alignment["lost_energy"] == pytest.approx(lost, abs=1e-9)
    assert alignment["error"] == pytest.approx(error_of(transform.items, wide, narrow), abs=1e-5)


@given(seed=st.integers(0, 10_000), noise=st.floats(0, 1), r=st.integers(3, 9), D=st.integers(1, 8))
@settings(max_examples=draws(15))
def test_the_rectangular_rotation_is_a_local_minimum_no_worse_than_dropping_columns(
    seed: int, noise: float, r: int, D: int
) -> None:
    D = min(D, r - 1)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, r)) * rng.uniform(0.1, 3, size=r)
    y = x[:, :D] + noise * rng.normal(size=(50, D))
    result = narrowing(x.T @ y, x.T @ x).Q
    np.testing.assert_allclose(result.T @ result, np.eye(D), atol=1e-10)
    P, _, Zh = np.linalg.svd(x.T @ y, full_matrices=False)
    best = error_of(result, x, y)
    assert best <= error_of(P @ Zh, x, y) + 1e-9
    for _ in range(5):
        skew = rng.normal(size=(r, r)) * 1e-2
        turned = linalg.expm(skew - skew.T) @ result
        assert best <= error_of(turned, x, y) * (1 + 1e-3) + 1e-6


def test_a_narrower_space_is_never_chosen_unasked() -> None:
    wide, narrow = wide_and_narrow()
    with pytest.raises(
        es.InputError,
        match=f"is {WIDE} and the reference has {NARROW}.*width={WIDE}.*width={NARROW}",
    ):
        es.fit(wide, reference=narrow, keep="geometry")
    with pytest.raises(es.InputError, match="at least that many"):
        es.fit(wide, reference=narrow, keep="geometry", width=NARROW - 1)
    with pytest.raises(es.InputError, match=f"rank of the run is {WIDE}.*rank={NARROW}"):
        es.fit(wide, wide[::-1], reference=narrow, width=NARROW)


def test_a_loss_beyond_what_is_allowed_is_refused_with_its_share() -> None:
    wide, narrow = wide_and_narrow()
    lost = es.fit(wide, reference=narrow, width=NARROW).diagnostics["alignment"]["lost_energy"]
    assert 0.01 < lost < 0.2
    with pytest.raises(
        es.InputError, match=f"keep {1 - lost:.1%} .*at most 1.0% may be lost.*max_lost_energy="
    ):
        es.fit(wide, reference=narrow, width=NARROW, max_lost_energy=0.01)
    with pytest.raises(es.InputError, match=r"from 0 to 1; it is 1\.5"):
        es.fit(wide, reference=narrow, width=NARROW, max_lost_energy=1.5)


def test_a_centred_fit_onto_a_narrower_reference_meets_its_mean() -> None:
    wide, narrow = wide_and_narrow()
    made = es.fit(wide + 3.0, reference=narrow - 2.0, keep="geometry", width=NARROW, center=True)
    np.testing.assert_allclose(made.transform_items(wide + 3.0), narrow - 2.0, atol=1e-4)


def test_the_command_line_writes_the_narrow_run(make_run: Any, tmp_path: Path) -> None:
    wide, narrow = wide_and_narrow(noise=0.1)
    run, reference = make_run("wide", wide), make_run("narrow", narrow)
    arguments = [
        "stabilize",
        run.path,
        str(tmp_path / "out"),
        "--reference",
        reference.path,
        "--json",
    ]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    made = CliRunner().invoke(main, [*arguments, "--width", str(NARROW)])
    assert made.exit_code == 0
    assert 0 < json.loads(made.stdout)["alignment"]["lost_energy"] < 0.5
    assert es.open_run(tmp_path / "out").items.vectors.shape == (N, NARROW)
