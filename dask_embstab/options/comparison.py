"""Options of what compares runs."""

from __future__ import annotations

from dask_embstab.options.record import Option

_COMPARES = ("evaluate", "report", "Series.diff")
# fmt: off
COMPARISON: tuple[Option, ...] = (
    # --- how two runs are compared
    Option("k", "count", "Length of the compared top lists.", _COMPARES, default=100),
    Option("users", "count", "Shared users (without users: items) to sample.", _COMPARES,
           default=1000),
    Option("queries", "place", "Log of queries to ask: ids, or vectors of the space of both.",
           ("evaluate", "report"), unset="a sample", metavar="FILE"),
    Option("versions", "versions", "Numbers of at least two versions.", commands=("Series.skew",),
           unset="the last eight live ones", metavar="N,N,..."),
    Option("k", "count", "Depth of the recall.", ("Series.skew",), default=10),
    Option("users", "count", "Shared users (without users: items) to sample.", ("Series.skew",),
           default=200),
    Option("seed", "count", "Another sample.", (*_COMPARES, "Series.skew"), least=0, default=0),
    Option("metric", "choice", "How items are ranked.", ("evaluate", "Series.skew"),
           choices=("dot", "cosine"), unset="dot for users, cosine among items"),
    Option("groups", "by table", "Group of each item: an array of the run, or a file.",
           ("evaluate",), metavar="NAME|FILE"),
    Option("judgments", "text", "Query id, item id, grade: CSV, TSV, Parquet or TREC qrels.",
           ("evaluate",), metavar="FILE"),
    Option("displacement", "place", "Write every id's displacement: Zarr, or .parquet.",
           ("evaluate",), metavar="PLACE"),
    Option("most_moved", "count", "Ids to list that moved most.", ("evaluate",), least=0,
           default=10),
    Option("out", "place", "Where the page is written.", python=("report",)),
    Option("measured", "flag", "Also what a report measures on a sample of the runs.",
           ("Series.metrics",)),
)
# fmt: on
