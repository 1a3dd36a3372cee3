"""Runs for tests of a series: a world that drifts a little every week, and real trainings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import webshop
from deliveries import Array, Week

import dask_embstab as es


def rotation(rng: np.random.Generator, d: int) -> Array:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def drifting(
    week: int,
    *,
    d: int = 8,
    n_items: int = 400,
    n_users: int = 600,
    size: float = 0.1,
    seed: int = 0,
) -> Week:
    """Week after week in other axes; spectra fall off, a popularity direction that all rows share
    included.
    """
    rng = np.random.default_rng((seed, 10_000))
    spread = np.maximum(1.15 ** -np.arange(d), 0.3)
    T, W = (
        rng.normal(size=(n_items, d)) * spread + 0.5,
        rng.normal(size=(n_users, d)) * spread + 0.5,
    )
    for past in range(1, week + 1):
        step = np.random.default_rng((seed, past))
        T, W = (
            T + size * step.normal(size=T.shape) * spread,
            W + size * step.normal(size=W.shape) * spread,
        )
    A = rotation(np.random.default_rng((seed, week, 1)), d) * np.linspace(0.5, 2.0, d)
    # A tenth of the items are others every week.
    item_ids = np.arange(n_items) + week * (n_items // 40)
    return Week(
        T[item_ids % n_items] @ A,
        W @ np.linalg.inv(A).T,
        item_ids,
        [f"u{i}" for i in range(n_users)],
    )


def gmf(name: str) -> Week:
    """One of three real trainings of one recommender (its weight folded into the items)."""
    folder = (
        Path(
            os.environ.get("EMBSTAB_DATA")
            or Path(__file__).resolve().parents[2] / "shared" / "data"
        )
        / "gmf"
    )
    if not folder.exists():
        pytest.skip(f"there are no real runs in {folder}; set EMBSTAB_DATA")
    with np.load(folder / f"gmf_{name}.npz") as stored:
        items, users = stored["items"] * stored["weight"], stored["users"]
    return Week(items, users, np.arange(len(items)), np.arange(len(users)))


def shop_weeks(folder: Path, n: int) -> list[es.Run]:
    """Real weekly trainings on a web shop's orders, from their own random starts."""
    if not webshop.default_file().exists():
        pytest.skip(f"there are no orders at {webshop.default_file()}; set EMBSTAB_DATA")
    return webshop.write_series(
        webshop.read_events(webshop.default_file()), folder, seed=3, n_weeks=n
    )
