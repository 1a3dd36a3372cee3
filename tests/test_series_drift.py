"""How far a chain carries its runs from where the first would have put them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import test_series
from oracle import assert_close, refactored, vectors_of, world
from test_series import MakeRun, drifting

import dask_embstab as es
from dask_embstab.series.log.thresholds import THRESHOLDS

template, days = test_series.template, test_series.days


@pytest.mark.parametrize(
    ("align_on", "policy", "unit_rows"),
    [
        ("items", "previous", False),
        ("users", "previous", True),
        ("both", "previous", False),
        ("items", "consensus", None),
        ("both", "consensus", True),
        ("items", "consensus", False),
    ],
)
def test_the_chain_is_compared_with_the_first(
    days: list[es.Run], tmp_path: Path, align_on: str, policy: str, unit_rows: bool | None
) -> None:
    chain = es.Series.init(
        tmp_path / "chain", align_on=align_on, policy=policy, unit_rows=unit_rows
    )
    for day in days:
        chain.add(day)
    units = chain.settings.units
    direct = es.stabilize(
        days[4],
        tmp_path / "direct.zarr",
        reference=chain.open(1),
        align_on=align_on,
        unit_rows=units,
    )
    keys = ("items", "users") if align_on == "both" else (align_on,)
    ours, theirs = (
        np.vstack([vectors_of(run, key) for key in keys]) for run in (chain.open(), direct)
    )
    reported = [v.figures["chain_minus_first"] for v in chain.log().versions]
    assert reported[0] is None
    assert (reported[1] == 0.0) == (policy == "previous" or units), (
        "raw rows on unit rows are another fit"
    )
    assert reported[4] == pytest.approx(
        np.linalg.norm(ours - theirs) / np.linalg.norm(ours), rel=1e-9
    )
    assert reported[4] > 1e-3, "with drift the two differ"


def test_the_comparison_needs_shared_ids_and_can_be_left_out(
    make_run: MakeRun, tmp_path: Path
) -> None:
    moving = [
        make_run(f"m{day}", *drifting(day), item_ids=np.arange(60) + 29 * day) for day in range(3)
    ]
    for options, wanted in (
        ({}, [None, 0.0, None]),
        ({"chain_minus_first": False}, [None, None, None]),
    ):
        series = es.Series.init(
            tmp_path / f"series{len(options)}", gates=dict.fromkeys(THRESHOLDS), **options
        )
        for run in moving:
            series.add(run)
        assert [v.figures["chain_minus_first"] for v in series.log().versions] == wanted


def chained(make_run: MakeRun, tmp_path: Path, n: int, dtype: str) -> tuple[Any, Any, Any]:
    """The last of ``n`` re-factored runs, aligned by both policies, and the chain's own figure."""
    T, W = world(0)
    both = [es.Series.init(tmp_path / policy, policy=policy) for policy in ("previous", "first")]
    with dask.config.set(scheduler="synchronous"):
        for day in range(n):
            run = make_run("day", *refactored(T, W, day), dtype=dtype, chunk_rows=64)
            for series in both:
                series.add(run, name=f"day-{day}")
            shutil.rmtree(run.path)
    return (
        vectors_of(both[0].open()),
        vectors_of(both[1].open()),
        both[0].head().figures["chain_minus_first"],
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("n", [7, pytest.param(365, marks=pytest.mark.long)])
def test_with_refactored_scores_the_chain_equals_the_first(
    make_run: MakeRun, tmp_path: Path, n: int, dtype: str, tolerance: float
) -> None:
    chain, first, reported = chained(make_run, tmp_path, n, dtype)
    assert_close(chain, first, tolerance)
    assert reported < tolerance
