"""Train a real weekly series: factorizations of a web shop's last 90 days, each from its own random
start.

The events are the invoice lines of the UCI data set "Online Retail" (CC BY 4.0,
doi:10.24432/C5BW33) that have a customer and a positive quantity, as ``online_retail.csv.gz``. A
week's run factorizes the counts of a window that ends there (`dask_embstab.demo.als`), over the
items and customers with at least 5 events in it; ids are stock codes and customer numbers.

    python examples/webshop.py OUT [--data FOLDER] [--seed 0] [--weeks 41]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from gmf import default_folder
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

import dask_embstab as es
from dask_embstab.demo.als import Factors, factorize


@dataclass(frozen=True)
class Events:
    """Invoice lines: at ``days[k]`` (ordinals) customer ``user_ids[users[k]]`` bought
    ``item_ids[items[k]]``, ``pieces[k]`` of it where the data say how many; ids sorted.
    """

    days: NDArray[np.int64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    pieces: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Week:
    """What one week's training sees: counts of events, float32, (user_ids, item_ids)."""

    name: str
    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    interactions: sparse.csr_array


def default_file(folder: Path | None = None) -> Path:
    """The data in ``folder`` (default: the one that EMBSTAB_DATA names, else
    ``../shared/data``).
    """
    return (folder or default_folder()) / "online_retail" / "online_retail.csv.gz"


def read_events(path: Path) -> Events:
    """The lines with a customer and a positive quantity."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        names = next(rows)
        day, user, item, quantity = map(
            names.index, ("InvoiceDate", "CustomerID", "StockCode", "Quantity")
        )
        kept = [
            (row[day][:10], row[user].removesuffix(".0"), row[item], row[quantity])
            for row in rows
            if row[user] and int(row[quantity]) > 0
        ]
    columns = list(zip(*kept, strict=True))
    dates, users, items = (
        np.unique(np.array(column), return_inverse=True) for column in columns[:3]
    )
    ordinals = np.array([date.fromisoformat(str(day)).toordinal() for day in dates[0]])
    pieces = np.array(columns[3]).astype(np.int64)
    return Events(ordinals[dates[1]], users[1], items[1], users[0], items[0], pieces)


def weeks(
    events: Events, *, n_weeks: int | None = None, window_days: int = 90, min_events: int = 5
) -> Iterator[Week]:
    """Yield windows a week apart, oldest first; the first ends when the data have filled one.

    Rows and columns with fewer than ``min_events`` events among those that stay are left out.
    """
    first, last = int(events.days.min()) + window_days, int(events.days.max()) + 1
    ends = range(first, last + 1, 7)
    shape = events.user_ids.size, events.item_ids.size
    for end in ends[:n_weeks]:
        inside = (events.days >= end - window_days) & (events.days < end)
        ones = np.ones(int(inside.sum()), np.float32)
        counts = sparse.coo_array(
            (ones, (events.users[inside], events.items[inside])), shape=shape
        ).tocsr()
        counts.sum_duplicates()
        users, items = frequent(counts, min_events)
        name = (date.fromordinal(end) - timedelta(days=1)).isoformat()
        yield Week(name, events.user_ids[users], events.item_ids[items], counts[users][:, items])


def frequent(
    counts: sparse.csr_array, min_events: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The largest sets of rows and of columns of which each has at least ``min_events`` events with
    the other set.
    """
    rows, columns = np.ones(counts.shape[0], bool), np.ones(counts.shape[1], bool)
    while True:
        kept_rows = rows & (counts @ columns.astype(np.float32) >= min_events)
        kept_columns = columns & (counts.T @ kept_rows.astype(np.float32) >= min_events)
        if (kept_rows == rows).all() and (kept_columns == columns).all():
            return np.flatnonzero(rows), np.flatnonzero(columns)
        rows, columns = kept_rows, kept_columns


def train(
    week: Week,
    *,
    seed: int,
    components: int = 32,
    n_iterations: int = 15,
    regularization: float = 1.0,
    alpha: float = 0.1,
) -> Factors:
    """Factorize a week from a random start that is a function of ``seed`` and the week."""
    start = np.random.SeedSequence((seed, date.fromisoformat(week.name).toordinal()))
    return factorize(
        week.interactions,
        components=components,
        n_iterations=n_iterations,
        regularization=regularization,
        alpha=alpha,
        n_cg_steps=3,
        seed=int(start.generate_state(1)[0]),
    )


def write_series(
    events: Events,
    out: Path,
    *,
    seed: int,
    n_weeks: int | None = None,
    components: int = 32,
    n_iterations: int = 15,
) -> list[es.Run]:
    """Train every week and write it as a run, ``out/<date>.zarr``; oldest first.

    The items and customers of a run are in the order of their ids, which are strings.
    """
    out.mkdir(parents=True, exist_ok=True)

    def trained(week: Week) -> tuple[Week, Factors]:
        return week, train(week, seed=seed, components=components, n_iterations=n_iterations)

    # A start depends on the seed and the week alone, so the order in which weeks are trained does
    # not matter.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        return [write(out, *week) for week in pool.map(trained, weeks(events, n_weeks=n_weeks))]


def write(out: Path, week: Week, factors: Factors) -> es.Run:
    """Write a week's factors as a run."""
    path = out / f"{week.name}.zarr"
    return es.create_run(
        path,
        factors.items,
        factors.users,
        item_ids=week.item_ids,
        user_ids=week.user_ids,
        name=week.name,
    )


def main(argv: Sequence[str] | None = None) -> list[es.Run]:
    parser = argparse.ArgumentParser(
        description="Train a real weekly series of a web shop, and keep its runs."
    )
    parser.add_argument("out", type=Path, help="where the runs are written")
    parser.add_argument(
        "--data", type=Path, help="the data, with a folder online_retail (default: $EMBSTAB_DATA)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random starts (default: 0)")
    parser.add_argument("--weeks", type=int, help="how many (default: all)")
    options = parser.parse_args(argv)
    path = require_file(options.data)
    try:
        runs = write_series(
            read_events(path), options.out, seed=options.seed, n_weeks=options.weeks
        )
    except es.EmbstabError as error:
        sys.exit(f"error: {error}")
    print(f"{len(runs)} runs, {runs[0].name} to {runs[-1].name}, in {options.out}")
    return runs


def require_file(folder: Path | None) -> Path:
    """The data in ``folder`` (default: the one that EMBSTAB_DATA names); the program ends where
    there are none.
    """
    path = default_file(folder)
    if not path.exists():
        sys.exit(
            f"error: there is no {path.name} in {path.parent}; give the folder that holds"
            " online_retail, or set EMBSTAB_DATA"
        )
    return path


if __name__ == "__main__":
    main()
