"""What does stabilizing do to a service that retrains every day? Simulate one, stabilize it, and
report.

What it writes in its folder::

    DIR/raw/<date>.zarr           a run per day, each trained from its own random start
    DIR/stabilized/<date>.zarr    the same runs, aligned to the first day's
    DIR/heatmaps.svg              cosines between all days, before and after
    DIR/report.html, report.json  the figures
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_embstab.api import create_run, evaluate, stabilize
from dask_embstab.demo.als import factorize
from dask_embstab.demo.report import Days, heatmaps, report_page, rows_line, scores_kept
from dask_embstab.demo.table1 import (
    HEADER,
    LEGEND,
    score_change,
    table1,
)
from dask_embstab.demo.world import Day, World, simulate
from dask_embstab.errors import InputError, OutputExistsError
from dask_embstab.files.atomic import write_whole
from dask_embstab.files.place import local_path
from dask_embstab.render.table import text_table
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.store_errors import writing

Say = Callable[[str], object]
_MADE_BY = "embstab demo"
NEXT = (
    "",
    "On two trainings of your own model, as Parquet (pip install 'dask_embstab[parquet]'), npy,",
    "Zarr, ...; where there are no users, leave --users-source out:",
    "  embstab import monday-items.parquet monday.zarr --users-source monday-users.parquet",
    "  embstab import tuesday-items.parquet tuesday.zarr --users-source tuesday-users.parquet",
    "  embstab stabilize monday.zarr monday-stable.zarr",
    "  embstab stabilize tuesday.zarr tuesday-stable.zarr --reference monday-stable.zarr",
    "  embstab report monday-stable.zarr tuesday-stable.zarr report.html",
    "Every day, with gates and rollback:",
    "  embstab series init prod",
    "  embstab series add prod monday.zarr",
    "  embstab series add prod tuesday.zarr",
    "  embstab report prod report-prod.html",
)
"""What the command says last."""


@dataclass(frozen=True)
class Place:
    """The paths that a demo writes in its folder."""

    root: Path

    @property
    def picture(self) -> Path:
        """The heat maps."""
        return self.root / "heatmaps.svg"

    @property
    def page(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    @property
    def record(self) -> Path:
        """The report for programs, which also says from the start that this folder is a demo's."""
        return self.root / "report.json"

    def raw(self, day: str) -> Path:
        """The run as training left it."""
        return self.root / "raw" / f"{day}.zarr"

    def stabilized(self, day: str) -> Path:
        """The stabilized run."""
        return self.root / "stabilized" / f"{day}.zarr"

    def take(self, days: Sequence[str]) -> None:
        """Note days as the demo's own before the runs of the last are written, so that a killed
        demo is cleared too.
        """
        for path in (self.raw(days[-1]), self.stabilized(days[-1])):
            if os.path.lexists(path):
                raise _in_the_way(path)
            path.parent.mkdir(exist_ok=True)
        self.write_record({"days": list(days)})

    def write_record(self, result: dict[str, Any]) -> None:
        """Write the report for programs."""
        _write_text(self.record, json.dumps({"made_by": _MADE_BY, **result}, indent=2) + "\n")


class Pair(NamedTuple):
    """One day's run as training left it, and stabilized."""

    raw: Run
    stabilized: Run


def run_demo(
    directory: str | os.PathLike[str],
    *,
    say: Say,
    users: int,
    items: int,
    days: int,
    components: int,
    seed: int,
) -> dict[str, Any]:
    """Train a model for each day of a changing world, stabilize every run onto the first, and
    report.

    Parameters
    ----------
    directory
        Where everything is written. An earlier demo's output there is replaced; nothing else is
        touched.
    say
        Called with each line of progress, and at the end with the table.
    users, items, days, components, seed
        Size of the world and of the models, and the seed of both.

    Returns
    -------
    dict
        Plain values: ``days``, ``table`` (by day, each figure before and after), ``score_change``
        (the largest, over the largest score), ``paths`` and ``seconds``.

    Raises
    ------
    OutputExistsError
        Where ``directory`` holds something of another's at a path that the demo writes.
    """
    began = time.perf_counter()
    folder = local_path(directory)
    if folder is None:
        raise InputError(
            f"a demo is written into a local folder; {directory} is the URL of another store"
        )

    with writing(f"the demo at {folder}"):
        place = cleared(folder)
    world = World(n_users=users, n_items=items, n_days=days, n_tastes=components - 1, seed=seed)
    raw, stabilized = zip(*retrain(world, place, components=components, say=say), strict=True)
    say("measuring")
    rows = table1(raw, stabilized)
    change = max(map(score_change, raw, stabilized))
    between: Days = {"before": cosines(raw), "after": cosines(stabilized)}
    names = [run.name for run in raw]
    _write_text(place.picture, heatmaps(names, between))
    _write_text(place.page, report_page(world, rows, change, names, between))
    result = {
        "days": names,
        "table": {row.name: row.to_dict() for row in rows},
        "score_change": change,
        "paths": {
            "picture": str(place.picture),
            "report": str(place.page),
            "record": str(place.record),
        },
        "seconds": time.perf_counter() - began,
    }
    place.write_record(result)
    figures = text_table(("day", *HEADER), [row.cells() for row in rows])
    for line in (figures, *map(rows_line, rows), *_closing(change, place)):
        say(line)
    return result


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()), sync=False)


def cleared(root: Path) -> Place:
    """The demo's folder without the output of an earlier demo; whatever else is in it stays."""
    if root.exists() and not root.is_dir():
        raise InputError(f"the demo writes into a folder; {root} is a file; choose another place")

    root.mkdir(parents=True, exist_ok=True)
    place = Place(root)
    if not place.record.exists():
        taken = [path for path in (place.picture, place.page) if os.path.lexists(path)]
        if taken:
            raise _in_the_way(taken[0])

    for day in _earlier_days(place):
        for path in (place.raw(day), place.stabilized(day)):
            if path.is_dir():
                shutil.rmtree(path)

    for path in (place.picture, place.page, place.record):
        path.unlink(missing_ok=True)
    return place


def retrain(world: World, place: Place, *, components: int, say: Say) -> Iterator[Pair]:
    """Yield each day's run, written as training left it, and stabilized onto the first day's."""
    first: Run | None = None
    days: list[str] = []

    for k, day in enumerate(simulate(world)):
        days.append(day.name)
        place.take(days)
        began = time.perf_counter()
        raw = train(
            day, place.raw(day.name), components=components, seed=100 * (world.seed + 1) + k
        )
        trained = time.perf_counter()
        transformed = stabilize(raw, place.stabilized(day.name), reference=first)
        ended = time.perf_counter()
        say(
            f"day {day.name}: trained in {trained - began:.1f} s, stabilized in"
            f" {ended - trained:.2f} s"
        )
        first = first or transformed
        yield Pair(raw, transformed)


def train(day: Day, out: Path, *, components: int, seed: int) -> Run:
    """Factorize a day's interactions from a random start and write the factors as a run."""
    factors = factorize(day.interactions, components=components, seed=seed)
    return create_run(
        out,
        factors.items,
        factors.users,
        item_ids=day.item_ids,
        user_ids=day.user_ids,
        name=day.name,
    )


def cosines(runs: Sequence[Run]) -> dict[str, NDArray[np.float64]]:
    """Mean same-id cosine of items and of users between all runs, each (n, n)."""
    matrices = {key: np.eye(len(runs)) for key in TABLES}
    for i, j in combinations(range(len(runs)), 2):
        # The cosines are wanted alone: the shortest ranking is the least work beside them.
        metrics = evaluate(runs[i], runs[j], k=1, users=1)
        for key, matrix in matrices.items():
            matrix[i, j] = matrix[j, i] = getattr(metrics, key).mean_cosine
    return matrices


def _closing(change: float, place: Place) -> Iterator[str]:
    yield from LEGEND
    yield scores_kept(change)
    yield f"report: {place.page}"


def _earlier_days(place: Place) -> list[str]:
    """The days that an earlier demo noted as its own; an error where the record is another's."""
    if not os.path.lexists(place.record):
        return []
    try:
        noted = json.loads(place.record.read_text(encoding="utf-8"))
        if noted["made_by"] != _MADE_BY:
            raise ValueError(noted["made_by"])
        # Names that go through a date cannot lead out of the folder.
        return [date.fromisoformat(day).isoformat() for day in noted["days"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _in_the_way(place.record) from error


def _in_the_way(path: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{path} was not made by the demo and stands in its way; choose another folder"
    )
