"""How alike are the days of a series, two by two: as training left them, and as they are published?

Read is a sample of the rows of at most `MOST_DAYS` runs. What training left is told by the inverse
of each run's transform, so that the inputs need not be there any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import InputError
from dask_embstab.passes.sampled import (
    SampledRows,
    compared,
    cosine_and_ceiling,
    sampled_rows,
    shared_rows,
)
from dask_embstab.series.admin.held_ids import attribute
from dask_embstab.series.admin.skew import skew_of
from dask_embstab.series.log.basis import read_run
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.published import published_reference, published_run, transform_of
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Store
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.transform import Transform

MOST_DAYS = 40
_SAMPLE, _SAMPLE_PER_COMPONENT = 2048, 12
_BYTES = 1 << 29
"""Of sampled rows in memory: as trained and as published."""
_IDS = 500_000_000
"""Ids that are read at most, of all runs together (but always those of the last two)."""
_FACTORED = 2e11
"""Sum of d^3 over the pairs of runs whose ceiling is found: a minute of one core, at most."""
_MOST_SKEW, _SKEW_QUERIES, _SKEW_K = 8, 200, 10
_SKEW_BYTES = 4 << 30
"""Of the items tables that are read whole for the version skew, all together."""


def evenly(n: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``n``, evenly spread; the first and the last two are
    among them.

    >>> evenly(10, 4), evenly(3, 40)
    ([0, 4, 8, 9], [0, 1, 2])
    """
    if n <= most:
        return list(range(n))
    spread = np.linspace(0, n - 2, max(most - 1, 1)).round().astype(int)
    return [*dict.fromkeys(spread.tolist()), n - 1]


def days_of(store: Store, log: Log) -> dict[str, Any] | None:
    """Plain values: names of the days, and by table what was measured between them; None before the
    second run.
    """
    versions = [log.located(version) for version in log.live_runs.values()]
    head = log.head
    if head is None or len(versions) < 2:
        return None
    # The head last, whatever was rolled back.
    versions.sort(key=lambda version: version.run == head.run)
    last = read_run(store, versions[-1])
    d, n_rows = last.table("items").d, max(t.n_rows for t in (last.items, last.users) if t)
    n = max(_SAMPLE, _SAMPLE_PER_COMPONENT * d)
    limits = (
        MOST_DAYS,
        _BYTES // (2 * 4 * n * d),
        _IDS // n_rows,
        int((_FACTORED / d**3) ** 0.5),
    )
    chosen = evenly(len(versions), max(2, min(limits)))
    runs = [read_run(store, versions[k]) for k in chosen]
    figures: dict[str, Any] = {
        "runs": [str(versions[k].run) for k in chosen],
        "versions": [versions[k].version for k in chosen],
        "of": len(versions),
        "sample": n,
        "tables": {},
    }
    for key in TABLES:
        if all(getattr(run, key) is not None for run in runs):
            samples = [sampled_rows(run.table(key), n) for run in runs]
            raw = [
                _as_trained(one, run, versions[k], key)
                for one, run, k in zip(samples, runs, chosen, strict=True)
            ]
            last_two = compared(
                runs[-1].table(key),
                shared_rows(samples[-1], samples[-2]),
                unnamed=_forgotten(store, [versions[k] for k in chosen[-2:]], key),
            )
            figures["tables"][key] = _between(samples, raw, chosen) | {"last": last_two}
    settings = Settings.of(log.versions[-1].settings)
    opened = partial(_opened, store, log)
    return figures | {"skew": _skew(log, opened, settings, runs[-1])}


def _forgotten(store: Store, located: Sequence[Version], key: str) -> set[Any]:
    """The ids that a `forget` took from the running references of these runs, which hold them
    still.
    """
    ids: set[Any] = set()
    for version in located:
        if version.has_reference:
            forgotten = attribute(published_reference(store, version), "forgotten")
            rows = np.asarray(forgotten.get(key, ()), np.int64)
            if len(rows):
                table = published_run(store, version).table(key)
                ids |= set(plain(ids_at(table.row_ids, rows)))
    return ids


def _opened(store: Store, log: Log, version: int) -> Run:
    return read_run(store, log.located(log.with_run(version)))


def _as_trained(one: SampledRows, run: Run, version: Version, key: str) -> SampledRows:
    """The rows before the run's transform, as far as its rank lets them be told."""
    back: Transform = transform_of(run, version).inverse()
    rows: Rows = (
        back.transform_items(one.rows) if key == "items" else back.transform_users(one.rows)
    )
    return replace(one, rows=rows)


def _between(
    published: Sequence[SampledRows], trained: Sequence[SampledRows], numbers: Sequence[int]
) -> dict[str, Any]:
    """Mean same-id cosines of all pairs of days before and after, and by their distance in runs."""
    n = len(published)
    after: list[list[float | None]] = [[1.0] * n for _ in range(n)]
    before: list[list[float | None]] = [[1.0] * n for _ in range(n)]
    by_gap: dict[int, list[tuple[Any, Any, Any]]] = {}
    for i in range(n):
        for j in range(i + 1, n):
            mean, ceiling = cosine_and_ceiling(shared_rows(published[i], published[j]))
            raw, _ = cosine_and_ceiling(shared_rows(trained[i], trained[j]))
            after[i][j] = after[j][i] = mean
            before[i][j] = before[j][i] = raw
            by_gap.setdefault(numbers[j] - numbers[i], []).append((raw, mean, ceiling))
    return {
        "before": before,
        "after": after,
        "by_gap": [
            {
                "gap": gap,
                "pairs": len(pairs),
                **{
                    name: _mean([values[k] for values in pairs])
                    for k, name in enumerate(("as_trained", "stabilized", "ceiling"))
                },
            }
            for gap, pairs in sorted(by_gap.items())
        ],
    }


def _skew(
    log: Log, open_version: Callable[[int], Run], settings: Settings, last: Run
) -> dict[str, Any] | None:
    """Recall of the queries of one version on the table of another; None where the tables of two
    versions are more than is read for a report.
    """
    items = last.table("items")
    n = min(_MOST_SKEW, _SKEW_BYTES // (items.n_rows * items.d * items.dtype.itemsize))
    live = [version.version for version in log.live_runs.values()]
    chosen = [live[k] for k in evenly(len(live), n)] if n >= 2 else []
    if len(chosen) < 2:
        return None
    options: dict[str, Any] = {"k": _SKEW_K, "n_queries": _SKEW_QUERIES, "seed": 0, "metric": None}
    try:
        skew = skew_of(log, open_version, chosen, **options, duplicates=settings.duplicates)
    except InputError:  # no query that all of them have
        return None
    return {**skew.to_dict(), "runs": [str(log.versions[n - 1].run) for n in skew.versions]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
