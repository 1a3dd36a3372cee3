"""The verb that shows: a page of a series, of two runs or of one stabilized run."""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.arguments import shown
from dask_embstab.diagnose.report import report_run, report_runs
from dask_embstab.errors import InputError, verb
from dask_embstab.files.atomic import require_file_place
from dask_embstab.files.published import publishing
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.render.report import Report
from dask_embstab.repairs import option
from dask_embstab.series.places import series_at, series_version
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.coerce import TableLike, run_of
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import RunLike
from dask_embstab.verbs.compare import compared_runs, evaluate


@verb()
def report(
    a: SeriesReader | RunLike | TableLike,
    b: RunLike | TableLike | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    k: int = 100,
    users: int = 1000,
    seed: int = 0,
    queries: Any = None,
    storage_options: StorageOptions | None = None,
) -> Report:
    """How a series, two runs or one stabilized run are doing: one HTML page that needs nothing
    beside it, under 1 MB however large the tables.

    Parameters
    ----------
    a
        A `Series` or its folder (`Series.report`); a stabilized run or its path; or, with ``b``,
        anything that `evaluate` takes.
    b
        The other run or table.
    out
        Where the page is written, whole or not at all, over what stood there. The `Report` that is
        returned has it too: it shows itself in a notebook, and `Report.to_dict` gives its numbers.
    k, users, seed, queries
        Of two runs, as in `evaluate`.

    Notes
    -----
    Of two runs every table is read as `evaluate` does, and of one run nothing but its metadata;
    besides, of each table and the reference's, the ids once and a sample of 4,096 rows (12 per
    component where that is more); of a reference also one chunk, which tells whether it is still
    the run that was aligned to: rows of another are not compared, and a note says so. Raises
    `InputError` where ``a`` alone is a run as training left it.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> rows = np.random.default_rng(0).normal(size=(100, 4))
    >>> report = es.report(rows, rows)
    >>> report.well, report.verdict
    (True, 'Comparable: both runs hold the same ids in one space')
    """
    a, b, out, queries = bound(storage_options, a, b, out, queries)
    if out is not None:
        require_file_place(out)
    if queries is not None and b is None:
        raise InputError(
            f"{option('queries')} are asked of two runs; give the other, or leave it out"
        )
    series = a if isinstance(a, SeriesReader) else series_at(a)
    if series is not None:
        if b is not None:
            raise InputError(
                f"a report is of one series, or of two runs; a series and {shown(b)} came; give the"
                " series alone"
            )
        made = series.report()
    elif b is None:
        made = report_run(series_version(a) or run_of(a))
    else:
        first, second = compared_runs(a, b)
        with unchanged(first.items, first.users, second.items, second.users):
            metrics = evaluate(first, second, k=k, users=users, seed=seed, queries=queries)
            made = report_runs(first, second, metrics)
    if out is not None:
        with publishing(out):
            made.save(out)
    return made
