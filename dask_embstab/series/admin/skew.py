"""Which versions of a series are compared with each other, and in which space?"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.options import require_each
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.skew import Skew, measure_skew
from dask_embstab.passes.join.options import KeepDuplicates, join_options
from dask_embstab.series.log.basis import of_one_width
from dask_embstab.series.log.log import Log
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run

_LATEST = 8
"""Versions that are compared where none are named."""


def skew_of(
    log: Log,
    open_version: Callable[[int], Run],
    versions: Any,
    *,
    k: int,
    n_queries: int,
    seed: int,
    metric: Metric | None,
    duplicates: KeepDuplicates,
) -> Skew:
    """Of these versions, or of the latest live ones; narrower ones have zeros in the last
    components.
    """
    require_each("Series.skew", {"k": k, "users": n_queries, "seed": seed, "metric": metric})
    latest = [version.version for version in log.live_runs.values()][-_LATEST:]
    try:
        numbers = sorted(
            {operator.index(one) for one in (latest if versions is None else versions)}
        )
    except Exception:  # noqa: BLE001 (whatever a foreign type raises, it holds no numbers)
        raise InputError(
            f"versions must be whole numbers, such as [1, 2, 5]; they are {shown(versions)}"
        ) from None
    if len(numbers) < 2:
        raise InputError(
            f"at least two versions are compared; {len(numbers)} came; publish more runs, or give"
            " others"
        )
    runs = {number: open_version(number) for number in numbers}
    widest = max(runs.values(), key=lambda run: run.table("items").d)
    runs = {number: of_one_width(run, widest)[0] for number, run in runs.items()}
    tables = [table for run in runs.values() for table in (run.items, run.users) if table]
    with unchanged(*tables), join_options(duplicates=duplicates) as join:
        return measure_skew(runs, join, k=k, n_queries=n_queries, seed=seed, metric=metric)
