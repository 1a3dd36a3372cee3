"""The jobs whose bits `bits.py` compares: every job, with the package that is first on PYTHONPATH.

    PYTHONPATH=CHECKOUT python benchmarks/bits_jobs.py FOLDER RUNS PATTERN

They use what the package of every commit has. Rows come from one seed, and the runs are written by
Zarr alone, so that all commits read the same bytes. Every array of a job goes to ``JOB.npz``.
"""

from __future__ import annotations

import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr

import dask_embstab as es

OPTIONS: dict[str, dict[str, Any]] = {
    "alone": {"reference": None},
    "gram": {"reference": None, "method": "gram"},
    "qr": {"reference": None, "method": "qr"},
    "gramians": {"reference": None, "balance": "gramians"},
    "rank": {"reference": None, "rank": 4},
    "onto": {},
    "raw": {"reference": "day0"},
    "users": {"align_on": "users"},
    "both": {"align_on": "both"},
    "unit": {"unit_rows": True},
    "anchors": {"anchors": 300, "seed": 7},
    "sample": {"sample": 300, "seed": 7},
    "spilled": {"join_memory": "1MiB"},
    "geometry": {"keep": "geometry", "reference": "day0"},
    "centred": {"keep": "geometry", "reference": "day0", "center": True},
    "turned": {"keep": "geometry", "reference": "day0", "align_on": "both"},
    "float64": {"dtype": "float64"},
}
EVERYWHERE = ("alone", "qr", "onto", "both", "geometry")
KINDS: dict[str, dict[str, Any]] = {
    "small-f64": {"n": 700, "d": 8, "dtype": "f8", "options": OPTIONS},
    "plain-f32": {"n": 9_000, "d": 32, "dtype": "f4", "options": OPTIONS},
    "wide-f32": {"n": 12_000, "d": 64, "dtype": "f4"},
    "many-f32": {"n": 80_000, "d": 4, "dtype": "f4", "options": ("onto", "users", "spilled")},
    "sharded-f32": {"n": 6_000, "d": 16, "dtype": "f4", "shards": True},
    "zstd-f64": {"n": 3_000, "d": 24, "dtype": "f8", "compressors": "auto"},
    "half-texts": {"n": 2_000, "d": 16, "dtype": "f2", "texts": True},
    "steep-f64": {"n": 3_000, "d": 16, "dtype": "f8", "decades": 6},
    "deficient-f32": {"n": 3_000, "d": 16, "dtype": "f4", "lost": 3},
}
"""Runs by rows, components and the like; for ``decades`` the singular values of the items fall."""
DAYS = 4


def write_runs(place: Path, kind: dict[str, Any]) -> None:
    """Days of one model that drifts: each has rows of its own order, some gone and some new."""
    n, d, rng = kind["n"], kind["d"], np.random.default_rng(18)
    rows = {"items": rng.standard_normal((n, d)), "users": rng.standard_normal((2 * n, d))}
    scale = np.logspace(0, -kind.get("decades", 0), d)
    scale[d - kind.get("lost", 0) :] = 0
    for day in range(DAYS):
        turn = np.linalg.qr(rng.standard_normal((d, d)))[0] * np.linspace(0.7, 1.4, d)
        maps = {"items": scale[:, None] * turn, "users": np.linalg.inv(turn).T}
        group = zarr.open_group(place / f"day{day}", mode="w-")
        group.attrs["embstab"] = {"format": 1, "kind": "run", "name": f"day{day}"}
        for key in rows:
            rows[key] = rows[key] + 0.05 * rng.standard_normal(rows[key].shape)
            count = len(rows[key])
            chosen = rng.permutation(count)[: count - count // 10] if day else np.arange(count)
            _write_table(group.create_group(key), rows[key][chosen] @ maps[key], chosen, kind)


def _write_table(group: zarr.Group, rows: Any, ids: Any, kind: dict[str, Any]) -> None:
    n, d = rows.shape
    chunk = max(256, n // 7 // 64 * 64)
    names: dict[str, Any] = {"dimension_names": (group.basename[:-1], "component")}
    layout: dict[str, Any] = {"compressors": kind.get("compressors")} | names
    if kind.get("shards"):
        layout["shards"] = (4 * chunk, d)
    made = group.create_array("vectors", shape=(n, d), chunks=(chunk, d), dtype=kind["dtype"],
                              fill_value=np.nan, **layout)  # fmt: skip
    made[:] = rows.astype(kind["dtype"])
    made = group.create_array("id", shape=(n,), chunks=(chunk,), compressors=None,
                              dtype="string" if kind.get("texts") else "i8",
                              dimension_names=(group.basename[:-1],))  # fmt: skip
    made[:] = ids.astype(str).astype(object) if kind.get("texts") else ids


def jobs(runs: Path, out: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every job by name; each gives its arrays."""
    for kind, described in KINDS.items():
        reference, target = out / f"{kind}.reference", runs / kind / "day1"
        yield f"{kind}.reference", partial(stabilized, runs / kind / "day0", reference)
        for name in described.get("options", EVERYWHERE):
            options: dict[str, Any] = {"reference": reference} | OPTIONS[name]
            if options["reference"] == "day0":
                options["reference"] = runs / kind / "day0"
            yield f"{kind}.{name}", partial(stabilized, target, out / f"{kind}.{name}", **options)
        yield f"{kind}.apply", partial(applied, target, reference, out)
        yield f"{kind}.bias", partial(biased, target)
        yield f"{kind}.moments", partial(of_moments, target, reference)
    for policy in ("consensus", "previous", "first"):
        yield (
            f"series.{policy}",
            partial(series, runs / "plain-f32", out / f"series.{policy}", policy),
        )


def stabilized(run: Path, out: Path, **options: Any) -> dict[str, Any]:
    """A run stabilized in one call."""
    return arrays(es.stabilize(run, out, **options))


def applied(run: Path, reference: Path, out: Path) -> dict[str, Any]:
    """A transform that is fitted, saved and applied."""
    es.fit(run, reference=reference).save(out / "transform.npz")
    return arrays(es.apply(out / "transform.npz", run, out / "applied", overwrite=True))


def biased(place: Path) -> dict[str, Any]:
    """A transform of tables with a bias."""
    run: Any = es.open_run(place)
    bias = np.random.default_rng(3).standard_normal(run.items.n_rows)
    return transform_arrays(es.fit(*es.fold_bias(run.items, run.users, bias), keep="scores"))


def of_moments(place: Path, reference: Path) -> dict[str, Any]:
    """A transform that is fitted from moments."""
    run: Any = es.open_run(place)
    items, users = es.moments(run.items, reference=reference), es.moments(run.users)
    return transform_arrays(es.fit(items, users, reference=reference, keep="scores"))


def series(runs: Path, place: Path, policy: str) -> dict[str, Any]:
    """The runs of four days as a series publishes them."""
    made, values = es.Series.init(place, policy=policy), dict[str, Any]()
    for day in range(DAYS):
        made.add(runs / f"day{day}")
        values |= {f"day {day} {name}": value for name, value in arrays(made.open()).items()}
    return values


def arrays(run: Any) -> dict[str, Any]:
    """Vectors and ids of a run as they are stored or viewed, and its transform."""
    values = transform_arrays(run.transform)
    for key in ("items", "users"):
        values[f"{key} vectors"] = run.table(key).vectors.compute()
        values[f"{key} ids"] = np.array(
            [str(one) for one in np.asarray(run.table(key).ids).tolist()]
        )
    return values


def transform_arrays(transform: Any) -> dict[str, Any]:
    """The arrays of a transform."""
    names = ("items", "users", "singular_values", "items_offset", "users_offset")
    values = {name: getattr(transform, name) for name in names}
    return {f"transform {name}": value for name, value in values.items() if value is not None}


def main(folder: Path, runs: Path, only: str) -> None:
    """Do every job whose name ``only`` matches; one that fails leaves its traceback in
    ``JOB.error``.
    """
    dask.config.set(scheduler="threads", num_workers=1)
    listed = dict(jobs(runs, folder / "out"))
    wanted = {name for name in listed if re.search(only, name)}
    wanted |= {f"{name.split('.')[0]}.reference" for name in wanted} & listed.keys()
    for kind in {name.split(".")[0].replace("series", "plain-f32") for name in wanted}:
        if not (runs / kind).exists():
            write_runs(runs / kind, KINDS[kind])
    for name in (name for name in listed if name in wanted):
        try:
            np.savez(folder / f"{name}.npz", **listed[name]())
        except Exception:  # noqa: BLE001 (whatever a commit raises)
            (folder / f"{name}.error").write_text(traceback.format_exc())
    shutil.rmtree(folder / "out")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
