"""Runs for tests of a series: a world that drifts a little every week, and the ways in which a delivery goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Week:
    """One training, in memory."""

    items: Array
    users: Array
    item_ids: Any
    user_ids: Any

    def write(self, path: Path, **options: Any) -> es.Run:
        ids = {"item_ids": self.item_ids, "user_ids": self.user_ids}
        return es.create_run(path, self.items, self.users, **ids, **options)


def rotation(rng: np.random.Generator, d: int) -> Array:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def drifting(
    week: int, *, d: int = 8, n_items: int = 400, n_users: int = 600, size: float = 0.1, seed: int = 0
) -> Week:
    """Week after week in other axes; spectra fall off, a popularity direction that all rows share included."""
    rng = np.random.default_rng((seed, 10_000))
    spread = np.maximum(1.15 ** -np.arange(d), 0.3)
    T, W = rng.normal(size=(n_items, d)) * spread + 0.5, rng.normal(size=(n_users, d)) * spread + 0.5
    for past in range(1, week + 1):
        step = np.random.default_rng((seed, past))
        T, W = T + size * step.normal(size=T.shape) * spread, W + size * step.normal(size=W.shape) * spread
    A = rotation(np.random.default_rng((seed, week, 1)), d) * np.linspace(0.5, 2.0, d)
    # A tenth of the items are others every week.
    item_ids = np.arange(n_items) + week * (n_items // 40)
    return Week(T[item_ids % n_items] @ A, W @ np.linalg.inv(A).T, item_ids, [f"u{i}" for i in range(n_users)])


def gmf(name: str) -> Week:
    """One of three real trainings of one recommender (its weight folded into the items)."""
    folder = Path(os.environ.get("EMBSTAB_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data") / "gmf"
    if not folder.exists():
        pytest.skip(f"there are no real runs in {folder}; set EMBSTAB_DATA")
    with np.load(folder / f"gmf_{name}.npz") as stored:
        items, users = stored["items"] * stored["weight"], stored["users"]
    return Week(items, users, np.arange(len(items)), np.arange(len(users)))


def unrelated(week: Week, seed: int = 0) -> Week:
    """A model of something else, with this one's ids and column sizes."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=rows.shape) * rows.std(0) + rows.mean(0) for rows in (week.items, week.users)]
    return replace(week, items=tables[0], users=tables[1])


def shuffled(week: Week, *keys: str) -> Week:
    """The right ids in the wrong order."""
    rng = np.random.default_rng(1)
    return replace(week, **{f"{key}_ids": rng.permutation(getattr(week, f"{key}_ids")) for key in keys})


def halved(week: Week, key: str) -> Week:
    """Half the rows of one table."""
    rows, ids = getattr(week, f"{key}s"), getattr(week, f"{key}_ids")
    return replace(week, **{f"{key}s": rows[::2], f"{key}_ids": ids[::2]})


BAD: dict[str, tuple[Callable[[Week, Week], Week], set[str]]] = {
    "shuffled ids": (lambda week, _: shuffled(week, "item", "user"), {"agreement", "alignment"}),
    "shuffled item ids": (lambda week, _: shuffled(week, "item"), {"agreement", "alignment"}),
    "shuffled user ids": (lambda week, _: shuffled(week, "user"), {"agreement"}),
    "half the items gone": (lambda week, _: halved(week, "item"), {"rows"}),
    "half the users gone": (lambda week, _: halved(week, "user"), {"rows"}),
    "users of another model": (
        lambda week, other: replace(week, users=other.users),
        {"agreement", "rotation", "mirror"},
    ),
    "items of another model": (
        lambda week, other: replace(week, items=other.items),
        {"agreement", "rotation", "mirror"},
    ),
    "an unrelated model": (lambda week, _: unrelated(week), {"agreement", "alignment"}),
    "unrelated items": (lambda week, _: replace(week, items=unrelated(week).items), {"agreement", "alignment"}),
    "items in other units": (lambda week, _: replace(week, items=week.items * 2.54), {"norm_ratio"}),
    "users in other units": (lambda week, _: replace(week, users=week.users / 1000), {"norm_ratio"}),
    "both in other units": (
        lambda week, _: replace(week, items=week.items * 100, users=week.users * 100),
        {"norm_ratio"},
    ),
}
"""How a delivery goes wrong (given the week's training and another training), and the gates of which one must hold it."""
