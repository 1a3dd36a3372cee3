"""Options of what reads, writes, compresses and searches tables."""

from __future__ import annotations

from dask_embstab.options.record import DTYPES, Option

_WRITES = ("apply", "stabilize", "Series.apply")
_OUTPUTS = (*_WRITES, "compress", "ingest")
# fmt: off
TABLES: tuple[Option, ...] = (
    Option("storage_options", "storage",
           "What reaches s3://, gs://, az:// and other URLs; also from the environment.",
           flags="--storage-option", metavar="NAME=VALUE",
           python=("fit", "stabilize", "moments", "apply", "compress", "frontier", "search",
                   "evaluate", "report", "upgrade_plan", "export", "ingest", "detect_space",
                   "query_index", "upgrade_index", "begin_backfill", "Live", "Series.init",
                   "Series.add", "Series.apply", "Series.rebase", "Series.replay")),
    # --- what is written
    Option("dtype", "choice", "Of the output.", _WRITES, choices=DTYPES, unset="each table's own"),
    Option("shard_rows", "count", "Write vectors as shards of N rows.", (*_WRITES, "ingest"),
           metavar="N", unset="chunks"),
    Option("overwrite", "flag", "Replace a run at OUT once the new one is whole.",
           (*_OUTPUTS, "export")),
    Option("resume", "flag", "Go on from what an interrupted call left.", _OUTPUTS),
    Option("sync", "flag", "Be on the disk before being seen; no: scratch work.",
           (*_OUTPUTS, "export"),
           default=True, unset="sync", flags="--sync/--no-sync", commands=("fit", "moments")),
    Option("users", "place", "Table of users, where RUN is a table of items (Parquet and others).",
           ("apply", "stabilize", "compress"), flags="--users-source", metavar="SOURCE"),
    # --- what is read of files of other formats
    Option("id", "by table", "Column of the ids.", ("ingest",), unset="the only one that can be",
           metavar="COL"),
    Option("vector", "by table", "Column of the vectors, or a pattern of columns.", ("ingest",),
           unset="the only one that can be", metavar="COL"),
    Option("users", "place", "The table of users, as SOURCE.", ("ingest",),
           flags="--users-source", metavar="SOURCE"),
    Option("where", "by table", "Rows: 'day = \"2026-01-02\" and score > 0.5'.", ("ingest",),
           metavar="FILTER"),
    Option("dtype", "choice", "Of the vectors.", ("ingest",), choices=DTYPES, unset="as they are"),
    Option("name", "text", "Name of the run.", ("ingest",), unset="the last part of OUT",
           metavar="NAME"),
    # --- how rows are compressed, and searched
    Option("code", "text",
           "float16, bfloat16, int8, int6, int5, int4, sign, int8-component, pq16 or rq16.",
           ("compress",), unset="int8", metavar="CODE"),
    Option("budget", "text", "Let measurements on sampled rows choose the code.", ("compress",),
           metavar="recall@10=0.95|bytes=24|score_error=0.05"),
    Option("rotate", "flag", "Turn rows by a fixed random rotation first.", ("compress",)),
    Option("rank", "integer", "Keep K leading directions.", ("compress",), metavar="K"),
    Option("seed", "integer", "Of all that is drawn.", ("compress",), default=0),
    Option("k", "count", "Length of the lists.", ("frontier",), default=10),
    Option("seed", "integer", "Another sample, rotation and codebooks.", ("frontier",), default=0),
    Option("groups", "by table", "Groups whose figures are given apart.", ("frontier",),
           metavar="NAME|FILE"),
    Option("codes", "text", "Names, with commas between them.", ("frontier",),
           unset="all that need no training", metavar="CODE,CODE"),
    Option("rank", "count", "Also truncated to K leading directions.", ("frontier",), metavar="K"),
    Option("out", "place", "Draw it into this HTML page.", ("frontier",), metavar="PAGE"),
    Option("like", "place", "Use the code of this compressed run.", ("compress",),
           metavar="RUN"),
    Option("force", "flag", "Fit codebooks to fewer than 10,000 rows.",
           ("compress", "frontier")),
    Option("k", "count", "Rows to find for each query.", default=10, python=("search",)),
    Option("metric", "choice", "How rows are ranked.", choices=("dot", "cosine", "hamming"),
           unset="dot where the queries are users, else cosine", python=("search",)),
    Option("rescore", "place", "Run or table whose rows rank the best anew.", python=("search",)),
    Option("candidates", "count", "Rows to rescore.", python=("search",), unset="10 k"),
    # --- whose row is looked up
    Option("table", "choice", "Whose ids.", choices=("items", "users"), default="items",
           commands=("lookup",)),
)
# fmt: on
