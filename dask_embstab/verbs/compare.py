"""Verbs that compare two runs, and search one."""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.errors import InputError, verb
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import JOIN, taken
from dask_embstab.passes.evaluate.driver import EvaluateOptions, measure_runs
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.results import Metrics
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.passes.join.space import require_runs_meet
from dask_embstab.passes.search import SearchMetric, nearest
from dask_embstab.repairs import option
from dask_embstab.series.log.basis import of_one_width
from dask_embstab.series.places import series_version
from dask_embstab.tables.coerce import (
    TableLike,
    as_run,
    as_table,
    run_of,
)
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.tables.table import Table


@verb()
def evaluate(
    a: RunLike | TableLike,
    b: RunLike | TableLike,
    *,
    k: int = 100,
    users: int = 1000,
    seed: int = 0,
    metric: Metric | None = None,
    groups: Any = None,
    queries: Any = None,
    judgments: Any = None,
    displacement: Any = None,
    most_moved: int = 10,
    duplicates: KeepDuplicates = "error",
    scratch: str | os.PathLike[str] | None = None,
    join_memory: int | str | None = None,
    storage_options: StorageOptions | None = None,
) -> Metrics:
    """How comparable two runs are: cosines and lengths of the rows with one id, overlaps of top
    lists, recall of stale queries, and quality by judgments.

    Reads the rows that match once, in both runs, and the items once more for the top lists of
    sampled queries. Memory: a few panels and (d, d) matrices per thread, and about 100 bytes per
    query and k. All figures, their formulas and sources, and what is good are in docs/metrics.md.

    Parameters
    ----------
    a, b
        Runs, their paths, tables of items (also paths of arrays), dicts with ``"items"`` and
        ``"users"``, or versions of a series by the text ``"SERIES@3"`` or ``"SERIES@head"``.
    k
        Length of the top lists. Figures by depth are given at 1, 5, 10, 20, 50, 100 and so on up to
        k, and at k.
    users
        Queries to sample of those that both runs have: users, or items where the runs have no
        users. Confidence intervals (95 %) say what the sample leaves open.
    seed
        Another sample.
    metric
        ``"dot"`` or ``"cosine"``: how items are ranked. Default: dot products for users, cosines
        among items.
    groups
        Group of each row of a's items, or a dict by table name: one value per row (an array, a
        labelled Series, the name of an array stored with the run's table, a file: .npy, Zarr, or
        CSV or Parquet with ids and values). Texts are groups; more than 20 different numbers are
        cut into quarters of the rows, but for those that more than a quarter of the rows have,
        which are a group each. Cosines are given by group, top lists by the query's group.
    queries
        A log of queries in place of a sample of all (of a long one ``users`` are drawn): ids, as
        often as they were asked, of rows that both runs have; or vectors of the space of both,
        which ask both. A list or an array of ids, a table of vectors, or a file of either (Parquet,
        Arrow, CSV, npy).
    judgments
        Which items are relevant to which queries: triples of query id, item id and grade (a list,
        three columns, a dict of dicts, a frame, or a file: CSV or TSV with a header, Parquet, TREC
        qrels). Adds nDCG, recall, precision and MRR of all four rankings.
    displacement
        Write a table of every matched id (but those with a row of zeros) with its cosine, the
        distance of its rows and both lengths to this new place: a Zarr group, or a Parquet data set
        where the name ends with ``.parquet`` (with pyarrow).
    most_moved
        How many ids of the smallest cosines to list.
    duplicates, scratch, join_memory
        As in `fit`. Displacements take 32 bytes of scratch per row.

    Raises
    ------
    InputError
        Where nothing can be compared, or an option does not fit the tables.

    Examples
    --------
    >>> first = es.stabilize(monday, folder / "first.zarr")
    >>> later = es.stabilize(tuesday, folder / "later.zarr", reference=first)
    >>> before, after = es.evaluate(monday, tuesday), es.evaluate(first, later)
    >>> before.items.mean_cosine < 0.5, round(after.items.mean_cosine, 6)
    (True, 1.0)
    """
    a, b, queries, scratch = bound(storage_options, a, b, queries, scratch)
    join = taken(locals(), JOIN)
    first, second = compared_runs(a, b)
    options = EvaluateOptions(
        k,
        users,
        seed,
        metric,
        groups,
        judgments,
        displacement,
        most_moved,
        queries=queries,
        join=join,
    )
    return measure_runs(first, second, options)


def compared_runs(a: Any, b: Any) -> tuple[Run, Run]:
    """Both as runs; versions of series in one space where their widths differ."""
    versions = [series_version(given) for given in (a, b)]
    first, second = (
        opened or as_run(given) or run_of({"items": as_table(given)})
        for opened, given in zip(versions, (a, b), strict=True)
    )
    return of_one_width(first, second) if all(versions) else (first, second)


@verb()
def search(
    queries: RunLike | TableLike,
    run: RunLike | TableLike,
    k: int = 10,
    *,
    metric: SearchMetric | None = None,
    rescore: RunLike | TableLike | None = None,
    candidates: int | None = None,
    storage_options: StorageOptions | None = None,
) -> tuple[Any, Any]:
    """The k nearest rows of ``run``'s items for every query, exactly: ``(scores, ids)``.

    Parameters
    ----------
    queries
        A table of queries (q, d); of a run its users, or its items where it has no users. A stored
        run says of which space they are; a table (such as ``run.users``) does not, and is taken as
        it is.
    run
        A run, whose items are searched, or a table; d components. Compressed runs are decoded on
        the way.
    k
        Rows for each query, at most the rows that are not zero; those never are an answer.
    metric
        ``"dot"`` or ``"cosine"``; of a run of ``sign`` codes also ``"hamming"``: queries are coded
        alike, and the score is minus the number of bits that differ. Default: dot where the
        queries are users, else cosine.
    rescore
        A run or table whose rows rank the best anew: search in codes, and compute the scores of
        what was found from the rows of these ids as they were, or as float16. Its scores are
        exact; its lists are those of the whole search where the candidates held them.
    candidates
        How many of the best of each query are rescored; 10 k without.

    Returns
    -------
    scores (q, k) in float64, descending, ties by row number; ids (q, k), UUIDs as
    their 16 bytes, as `Table.ids` has them.

    The table is read once for every million query-row pairs to be kept (q k), in float32 products
    whose rounding is allowed for, so that the result is that of float64; memory does not grow with
    the table.

    Raises
    ------
    SpaceError
        Where queries, or what rescores, are a stored run of another space than ``run``.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = es.table(np.eye(3), ids=["a", "b", "c"])
    >>> scores, ids = es.search(np.array([[0.1, 0.9, 0.2]]), items, 2)
    >>> ids
    array([['b', 'c']], dtype=object)
    """
    queries, run, rescore = bound(storage_options, queries, run, rescore)
    theirs, theirs_run = as_run(queries), run_of(run)
    rescoring = None if rescore is None else run_of(rescore)
    for other, what in ((theirs, "the queries"), (rescoring, option("rescore"))):
        if other is not None:
            require_runs_meet(other, theirs_run, what)
    asked, of_users = _queries(queries, theirs)
    searched = theirs_run.table("items")
    exact = None if rescoring is None else rescoring.table("items")
    if exact is None and candidates is not None:
        raise InputError(f"{option('candidates')} are rescored; give {option('rescore')} with it")
    usual: Metric = "dot" if of_users else "cosine"
    with unchanged(asked, searched, exact):
        return nearest(
            asked,
            searched,
            k,
            metric or usual,
            rescore=exact,
            candidates=candidates,
            rescored_by=metric if metric in ("dot", "cosine") else usual,
        )


def _queries(given: RunLike | TableLike, run: Run | None) -> tuple[Table, bool]:
    """Queries as a table, and whether they are users; ``run`` is what was given, as one."""
    if run is None or run.users is None:
        return as_table(given) if run is None else run.table("items"), False
    return run.users, True
