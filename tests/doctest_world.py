"""What the examples in docstrings use: two runs of one model, and a series of both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

import dask_embstab as es


def build(template: Path) -> None:
    """``monday.zarr``, ``tuesday.zarr`` (the same scores in other axes) and ``series``."""
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(200, 4)), rng.normal(size=(300, 4))
    A = rng.normal(size=(4, 4))
    ids: dict[str, Any] = {
        "item_ids": [f"i{n}" for n in range(200)],
        "user_ids": [f"u{n}" for n in range(300)],
    }
    es.create_run(template / "monday.zarr", items, users, **ids)
    es.create_run(template / "tuesday.zarr", items @ A, users @ np.linalg.inv(A).T, **ids)
    series = es.Series.init(template / "series")
    series.add(template / "monday.zarr")
    series.add(template / "tuesday.zarr")


def names(template: Path, folder: Path) -> dict[str, Any]:
    """The names that every example knows, of a copy in ``folder``."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return {
        "np": np,
        "es": es,
        "folder": folder,
        "monday": es.open_run(folder / "monday.zarr"),
        "tuesday": es.open_run(folder / "tuesday.zarr"),
        "series": es.Series(folder / "series"),
    }
