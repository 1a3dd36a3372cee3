"""Every option of the verbs, once: its name, default and help, what it must be, which verbs take
it, and how the command line spells it.

Python signatures repeat names and defaults, so that type checkers and editors see them;
``tests/test_options_once.py`` holds that they, the commands, the settings of a series and
``docs/command-line.md`` agree with these records. A new option is one record here and one parameter
of its verb. Only the standard library is imported.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.repairs import option

Kind = Literal[
    "choice", "count", "integer", "number", "flag", "text", "place", "places", "bytes", "age",
    "reason",
    "by table", "runs", "gaps", "gates", "versions",
]  # fmt: skip
"""What a value is, and how a command parses its text."""
SETTINGS_VERBS = ("Series.init", "Series.change", "Series.replay")
"""Verbs that take settings of a series: what they are not given stays as it is."""
_FITS = ("fit", "stabilize")
_RUNS = (*_FITS, "Series.add", *SETTINGS_VERBS)
_ROWS = (*_RUNS, "moments")
_WRITES = ("apply", "stabilize", "Series.apply")
_OUTPUTS = (*_WRITES, "compress", "ingest")
_JOINS = (*_FITS, "moments", "evaluate", "export")
_COMPARES = ("evaluate", "report", "Series.diff")
_DTYPES = ("float16", "float32", "float64")
_PASSES = (
    "fit",
    "moments",
    "stabilize",
    "apply",
    "compress",
    "frontier",
    "evaluate",
    "export",
    "ingest",
    "report",
    "verify",
    "doctor",
    "Series.add",
    "Series.apply",
    "Series.diff",
    "Series.skew",
    "Series.rebase",
    "Series.forget",
    "Series.replay",
    "Series.verify",
    "Series.metrics",
    "upgrade_plan",
    "detect_space",
)
"""Commands that run passes."""
_SAME: Any = object()


@dataclass(frozen=True, slots=True)
class Option:
    """One option: the ``verbs`` that take it in Python and on the command line, those that take it
    in ``python`` alone, and ``commands`` without a parameter in Python.

    ``default`` is that of Python (of a flag False; ``setting_default`` that of the setting of a
    series where they differ). Where it says little, ``unset`` says what happens without the option.
    A number is at least ``least`` (a count: 1) and at most ``most``. ``flags`` is the spelling on
    the command line where it is not ``--name``, ``metavar`` its value.
    """

    name: str
    kind: Kind
    help: str
    verbs: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    default: Any = None
    setting_default: Any = _SAME
    unset: str = ""
    flags: str = ""
    metavar: str = ""
    python: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def is_setting(self) -> bool:
        """Whether a series has it as a setting."""
        return SETTINGS_VERBS[0] in self.verbs

    def default_of(self, verb: str) -> Any:
        """Its default in Python: for one run of a series (None) the settings of the series."""
        if self.is_setting and verb == "Series.add":
            return None
        if verb in SETTINGS_VERBS and self.setting_default is not _SAME:
            return self.setting_default
        return False if self.kind == "flag" and self.default is None else self.default

    @property
    def described(self) -> str:
        """The help text, with what happens without the option."""
        unset = self.unset or ("" if self.default in (None, "", {}) else str(self.default))
        return f"{self.help} Default: {unset}." if unset else self.help

    def require(self, value: Any, *, of: str = "") -> None:
        """Raise `InputError` unless the option can have this value; None is no value."""
        least = 1 if self.kind == "count" and self.least is None else self.least
        most = self.most
        if self.kind == "choice":
            # An array is in no tuple: NumPy would compare its elements.
            is_one = isinstance(value, str) and value in self.choices
            holds, must_be = is_one, f"one of {', '.join(map(repr, self.choices))}"
        elif self.kind == "flag":
            is_one = getattr(value, "ndim", 0) == 0 and value in (False, True)
            holds, must_be = is_one, "one of False, True"
        elif self.kind in ("count", "number") and least is not None:
            number = float(value) if isinstance(value, Real) else math.nan
            holds = least <= number <= (sys.float_info.max if most is None else most)
            must_be = f"at least {least}" if most is None else f"from {least} to {most}"
            if self.kind == "count" and holds and not isinstance(value, Integral):
                holds, must_be = False, f"a whole number of {must_be}"
            if self.kind == "number":
                must_be = f"a number {must_be}" if most else f"a number of {must_be}"
        else:
            return
        if value is not None and not holds:
            raise InputError(f"{of}{self.name} must be {must_be}; it is {shown(value)}")


# A table, one option after the other.
# fmt: off
OPTIONS: tuple[Option, ...] = (
    # --- what a run is aligned to, and how
    Option("reference", "place", "Run to align to; without one, standardize only.",
           (*_FITS, "moments"), metavar="RUN"),
    Option("keep", "choice", "What the transform keeps.", (*_FITS, *SETTINGS_VERBS),
           choices=("scores", "geometry"), unset="scores with users, else geometry"),
    Option("align_on", "choice", "Table whose shared rows decide the rotation.",
           (*_FITS, *SETTINGS_VERBS), choices=("items", "users", "both"), default="items"),
    Option("method", "choice", "Route to the factors.", _RUNS, choices=("auto", "gram", "qr"),
           default="auto"),
    Option("rank", "count", "Keep the best scores of rank K.", _RUNS, metavar="K"),
    Option("width", "count", "Components of the aligned tables.", _RUNS, metavar="K"),
    Option("max_lost_energy", "number", "Refuse a narrower width that loses more.", _RUNS,
           least=0, most=1, default=0.5, metavar="SHARE"),
    Option("balance", "choice", "Which table gets the free scalar of scores.", _RUNS,
           choices=("rows", "gramians"), unset="the reference's, else rows"),
    Option("center", "flag", "Remove the means first (geometry).", _RUNS, unset="do not",
           flags="--center/--no-center"),
    Option("min_matched", "count", "Refuse or hold a run with fewer shared rows.", _RUNS,
           unset="a tenth; 4 per component for scores", metavar="N"),
    Option("unit_rows", "flag", "Align directions.", _RUNS, setting_default=None,
           unset="rows as they are; directions with the policy consensus",
           flags="--unit-rows/--raw-rows"),
    Option("rotation_only", "flag", "Allow no reflection.", _RUNS, unset="allow",
           flags="--rotation-only/--reflections"),
    # --- which rows decide the rotation
    Option("weights", "by table", "Of rows: an array stored with the run, or a file.", _ROWS,
           metavar="NAME|FILE|norm"),
    Option("only", "by table", "Align on these ids alone: CSV, Parquet or npy.", _ROWS,
           metavar="FILE"),
    Option("counts", "by table", "How often rows were seen: an array of the run, or a file.", _ROWS,
           metavar="NAME|FILE"),
    Option("min_count", "number", "Align on rows seen at least so often.", _ROWS, metavar="N"),
    Option("sample", "count", "Align on N shared rows, drawn with the seed.", _ROWS, metavar="N"),
    Option("anchors", "count", "Align on N shared rows, chosen by their ids.", _ROWS, metavar="N"),
    Option("seed", "count", "Other samples and anchors.", _ROWS, least=0, default=0),
    Option("pairs", "by table", "CSV or Parquet: ids of the run, ids of the reference.", _RUNS,
           metavar="FILE"),
    Option("key", "choice", "Table of the reference that the rows belong to.",
           choices=("items", "users"), default="items", python=("moments",),
           flags="--table", commands=("moments",)),
    Option("users", "place", "Moments or table of the users, where RUN are those of the items.",
           metavar="MOMENTS|SOURCE", commands=("fit",)),
    Option("add", "places", "Moments of more rows of the table.", metavar="FILE",
           commands=("moments",)),
    Option("subtract", "places", "Moments of rows to take away.", metavar="FILE",
           commands=("moments",)),
    # --- how ids are joined
    Option("duplicates", "choice", "Of an id that repeats.",
           (*_JOINS, "Series.add", *SETTINGS_VERBS), choices=("error", "first"), default="error"),
    Option("scratch", "place", "Folder for joins beyond memory.", _JOINS,
           unset="the system's temporary folder", metavar="DIR", commands=("Series.add",)),
    Option("join_memory", "bytes", "Memory of a join, e.g. 2GiB.", _JOINS, unset="1GiB",
           metavar="BYTES", commands=("Series.add",)),
    # --- what is written
    Option("dtype", "choice", "Of the output.", _WRITES, choices=_DTYPES, unset="each table's own"),
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
    Option("dtype", "choice", "Of the vectors.", ("ingest",), choices=_DTYPES, unset="as they are"),
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
    # --- what is exported, and how
    Option("format", "text", "As docs/export.md lists: parquet, arrow, npy, csv, word2vec, ...",
           ("export",), default="parquet", metavar="FORMAT"),
    Option("metric", "choice", "By which an index finds neighbours.", ("export",),
           choices=("dot", "cosine"), unset="dot with users, else cosine"),
    Option("version", "count", "Of a series.", ("export",), unset="the head", metavar="N"),
    Option("table", "choice", "This table alone.", ("export",), choices=("items", "users"),
           unset="all"),
    Option("dtype", "choice", "Of the vectors.", ("export",), choices=_DTYPES,
           unset="the table's own; float32 for float16 in Parquet and Arrow"),
    Option("vectors_as", "choice", "How Parquet and Arrow hold a row.", ("export",),
           choices=("list", "fixed-list", "binary"), unset="list"),
    Option("index", "choice", "Of faiss: all rows, or lists of them.", ("export",),
           choices=("flat", "ivf"), unset="flat"),
    Option("formulas", "flag", "Write ids to CSV that spreadsheets run as formulas.", ("export",)),
    Option("rows_per_file", "count", "Rows of the table for each file.", ("export",),
           unset="a power of two near 128 MiB; word2vec: all", metavar="N"),
    Option("part_mb", "number", "The same as MiB of vectors.", ("export",), least=0.001,
           metavar="MIB"),
    Option("ids_changed_since", "count", "Only rows that are new or other than in this version.",
           ("export",), metavar="VERSION"),
    Option("where_moved_more_than", "number", "Only new rows and those that moved by more.",
           ("export",), least=0, metavar="X"),
    Option("moved_by", "choice", "How a move is measured.", ("export",),
           choices=("cosine", "distance"), unset="cosine, as one minus it"),
    Option("append_to", "place", "Put the transform behind the output of this ONNX model.",
           ("export",), metavar="MODEL"),
    Option("tower_output", "text", "Which output of that model.", ("export",),
           unset="the only one", metavar="NAME"),
    Option("dialect", "choice", "Of SQL.", ("export",), choices=("duckdb", "bigquery"),
           unset="duckdb"),
    # --- how two runs are compared
    Option("k", "count", "Length of the compared top lists.", _COMPARES, default=100),
    Option("users", "count", "Shared users (without users: items) to sample.", _COMPARES,
           default=1000),
    Option("versions", "versions", "Numbers of at least two versions.", commands=("Series.skew",),
           unset="the last eight live ones", metavar="N,N,..."),
    Option("k", "count", "Depth of the recall.", ("Series.skew",), default=10),
    Option("users", "count", "Shared users (without users: items) to sample.", ("Series.skew",),
           default=200),
    Option("seed", "count", "Another sample.", (*_COMPARES, "Series.skew"), least=0, default=0),
    Option("metric", "choice", "How items are ranked.", ("evaluate", "Series.skew"),
           choices=("dot", "cosine"), unset="dot for users, cosine among items"),
    # --- what becomes of an index
    Option("k", "count", "Depth of the recall.", ("upgrade_plan",), default=10),
    Option("users", "count", "Queries to sample: users, or items without any.", ("upgrade_plan",),
           default=1000),
    Option("seed", "count", "Another sample.", ("upgrade_plan",), least=0, default=0),
    Option("metric", "choice", "How items are ranked.", ("upgrade_plan",),
           choices=("dot", "cosine"), unset="dot with users, else cosine"),
    Option("queries", "place", "Vectors of the new model to judge by.", ("upgrade_plan",),
           unset="a sample of its users", metavar="TABLE"),
    Option("recall", "number", "Least recall that leaving or bridging must keep.",
           ("upgrade_plan",), least=0, most=1, default=0.95),
    Option("save", "place", "Write the bridge, a transform.", commands=("upgrade_plan",),
           metavar="FILE"),
    Option("table", "choice", "The table of the index.", ("begin_backfill",),
           choices=("items", "users"), default="items"),
    Option("part_rows", "count", "Rows to move at a time.", ("begin_backfill",), default=1 << 17),
    Option("steps", "count", "Parts to move in this call.", commands=("begin_backfill",),
           unset="all", metavar="N"),
    # --- indexes of a run
    Option("engine", "choice", "The library of the index.", commands=("index_build",),
           choices=("usearch", "hnswlib", "lancedb", "pgvector", "qdrant"), default="usearch"),
    Option("metric", "choice", "By which neighbours are found.", commands=("index_build",),
           choices=("dot", "cosine"), unset="dot with users, else cosine"),
    Option("version", "count", "Of a series.", commands=("index_build",), unset="the head",
           metavar="N"),
    Option("k", "count", "Neighbours of each query.", ("query_index",), default=10),
    Option("space", "place", "Whose vectors they are: a series, a run, a transform.",
           ("query_index",), unset="the queries' own", metavar="PLACE"),
    Option("space", "place", "The space that the transform leads into.", ("upgrade_index",),
           unset="its reference's", metavar="PLACE"),
    Option("transform", "place", "From the index's space into the other.",
           commands=("upgrade_index",), metavar="FILE"),
    Option("table", "choice", "The table of the index.", ("query_index", "upgrade_index"),
           choices=("items", "users"), default="items", commands=("index_build",)),
    Option("overwrite", "flag", "Replace an earlier index at OUT once the new one is whole.",
           ("upgrade_index",), commands=("index_build",)),
    Option("sync", "flag", "Be on the disk before being seen; no: scratch work.",
           ("upgrade_index",), default=True, unset="sync", flags="--sync/--no-sync",
           commands=("index_build",)),
    # --- which space vectors are of
    Option("key", "choice", "The table whose rows they are.", ("detect_space",),
           choices=("items", "users"), default="items", flags="--table"),
    Option("spaces", "place", "The series to look into.", commands=("detect_space",),
           metavar="SERIES"),
    Option("rows", "count", "Rows to sample.", ("detect_space",), default=1000),
    Option("seed", "count", "Another sample.", ("detect_space",), least=0, default=0),
    # --- how a series is served
    Option("every", "number", "Seconds between two looks for a new version.", python=("Live",),
           commands=("serve",), least=0, default=1.0),
    Option("host", "text", "Address to listen on.", commands=("serve",), default="127.0.0.1"),
    Option("port", "integer", "Port to listen on; 0: any free one.", commands=("serve",),
           default=8765),
    Option("most_bytes", "bytes", "Longest body of a request.", commands=("serve",),
           unset="8MB", flags="--max-body", metavar="BYTES"),
    # --- how two runs are compared, further
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
    # --- how the runs of a series are aligned
    Option("policy", "choice", "What a run is aligned to.", SETTINGS_VERBS,
           choices=("consensus", "previous", "first"), default="consensus"),
    Option("half_life", "runs", "Of a run in the consensus.", SETTINGS_VERBS, default="auto",
           unset="26; 4 times the longest of the gaps", metavar="RUNS|none|auto"),
    Option("gaps", "gaps", "Gaps to hold, in runs, with weights.", SETTINGS_VERBS, default={},
           unset="none", metavar="1,4,13|1=W,4=W|none"),
    Option("sum_weight", "number", "Of the sum of all runs, where gaps are held.", SETTINGS_VERBS,
           least=0, default=1.0, metavar="W"),
    Option("head_weight", "number", "More that the last run counts.", SETTINGS_VERBS, least=0,
           default=0.5, metavar="A"),
    Option("forget_below", "number", "Weight below which a row that is gone leaves.",
           SETTINGS_VERBS, least=0, default=1.0, metavar="W"),
    Option("keep_references", "count", "Running references kept.", SETTINGS_VERBS, default=8,
           metavar="N"),
    Option("tables", "choice", "Of every run.", SETTINGS_VERBS, choices=("items", "both"),
           unset="the first run's"),
    Option("first_run", "choice", "What becomes of the first run.", SETTINGS_VERBS,
           choices=("standardized", "raw"), default="standardized"),
    Option("dtype", "choice", "Of the runs.", SETTINGS_VERBS, choices=_DTYPES,
           unset="each table's own"),
    Option("chain_minus_first", "flag", "Report the chain's drift.", SETTINGS_VERBS, default=True,
           unset="do", flags="--chain-minus-first/--no-chain-minus-first"),
    Option("code", "text", "Store the codes of rows too; as compress, written in the same read.",
           SETTINGS_VERBS, unset="vectors alone", metavar="CODE|none"),
    Option("code_rotate", "flag", "Turn rows before coding them, as compress does.",
           SETTINGS_VERBS, unset="do not", flags="--code-rotate/--no-code-rotate"),
    Option("code_rank", "count", "Code K leading directions.", SETTINGS_VERBS, metavar="K"),
    Option("code_force", "flag", "Fit codebooks to fewer than 10,000 rows.", SETTINGS_VERBS,
           unset="do not", flags="--code-force/--no-code-force"),
    Option("gates", "gates", "Threshold of a gate, or NAME=off. `series settings` shows all.",
           SETTINGS_VERBS, default={}, unset="those of docs/series.md", flags="--gate",
           metavar="NAME=NUMBER"),
    # --- the other verbs of a series
    Option("name", "text", "Name of the run.", ("Series.add",), unset="its recorded name",
           metavar="NAME"),
    Option("model", "text", "Name of the model it belongs to.", ("Series.add",),
           unset="the run's name", metavar="NAME"),
    Option("new_model", "text", "A planned change: the first run of this model, of any width.",
           ("Series.add",), metavar="NAME"),
    Option("retries", "count", "After a quicker publisher.", ("Series.add",), least=0, default=0,
           metavar="N"),
    Option("shadow", "flag", "Publish a version that readers of the head do not see.",
           ("Series.add",)),
    Option("accept", "reason", "Publish what a gate holds; the reason is recorded.",
           ("Series.add",), metavar="REASON"),
    Option("refit_code", "flag", "Make a new code for this run and those that follow.",
           ("Series.add",)),
    Option("like", "count", "Refuse where the codes of this version are of another code.",
           ("Series.codes",), metavar="N"),
    Option("model", "text", "Use this model's transform.", ("Series.apply", "Series.transform_for"),
           unset="the one that USERS names, else the head's", metavar="NAME"),
    Option("version", "count", "Use this version's transform.",
           ("Series.apply", "Series.transform_for"), metavar="N"),
    Option("rewrite", "flag",
           "Write all runs anew; else readers multiply by one small matrix each.",
           ("Series.rebase",)),
    Option("onto", "text", "Reference: a version's run as it was published, or any run.",
           metavar="VERSION|RUN", commands=("Series.rebase",)),
    Option("back", "flag", "Undo the last rebase instead.", commands=("Series.rebase",)),
    Option("table", "choice", "Whose ids.", ("Series.forget",), choices=("items", "users"),
           unset="the one that has them"),
    Option("rewrite", "flag", "Write the runs that hold them anew too, not only the references.",
           ("Series.forget",)),
    Option("pin_age", "age", "Readers' pins older than this ended.", ("Series.gc",),
           default=86_400.0, unset="1d", metavar="AGE"),
    Option("grace", "age", "What was changed later stays; 0 removes it at once.",
           ("Series.gc",), default=3600.0, unset="1h", metavar="AGE"),
    Option("reason", "text", "Recorded with it.", ("Series.acknowledge",), default="",
           metavar="TEXT"),
    Option("first", "count", "First version to align again.", ("Series.replay",), flags="--from",
           metavar="N"),
    Option("last", "count", "Last version to align again.", ("Series.replay",), flags="--to",
           metavar="M"),
    Option("table", "choice", "Whose ids.", choices=("items", "users"), default="items",
           commands=("lookup",)),
    # --- of the command line alone
    Option("components", "count", "Without a PATH.", default=64, metavar="D", commands=("doctor",)),
    Option("disk_bytes", "bytes", "Written, read, removed.", default="256MiB", metavar="BYTES",
           commands=("doctor",)),
    Option("seconds", "number", "For every step.", least=0.001, most=600, default=0.1,
           metavar="SECONDS", commands=("doctor",)),
    Option("scheduler", "text", "Address of a running Dask scheduler; threads without.",
           metavar="ADDRESS", commands=_PASSES),
    Option("items_as", "text", "What messages and reports call items: documents, or mouse/mice.",
           metavar="NAME", commands=(*_PASSES, "lookup")),
    Option("users_as", "text", "What they call users: queries.", metavar="NAME",
           commands=(*_PASSES, "lookup")),
    Option("memory_limit", "bytes", "Refuse a pass that needs more, e.g. 400MB.", metavar="BYTES",
           commands=("fit", "moments", "stabilize", "apply", "compress", "export", "ingest",
                     "Series.add", "Series.apply",
                     "Series.rebase", "Series.forget", "Series.replay")),
)
"""In the order in which ``--help`` and the docs list them."""
# fmt: on


def options_of(verb: str) -> dict[str, Option]:
    """The options that a verb takes, in Python, on the command line or in both, by name."""
    return {one.name: one for one in OPTIONS if verb in (*one.verbs, *one.python, *one.commands)}


FIT = options_of("fit")
SETTINGS = options_of("Series.init")
SELECTION = ("weights", "only", "counts", "min_count", "sample", "anchors", "seed", "pairs")
"""Options of a fit that say which rows decide the rotation."""
JOIN = ("duplicates", "scratch", "join_memory")
"""Options of whatever joins rows by id."""


def require_each(verb: str, given: Mapping[str, Any]) -> None:
    """Raise `InputError` unless every option of this verb can have the value given."""
    known = options_of(verb)
    for name, value in given.items():
        known[name].require(value)


def taken(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of a verb's arguments (its ``locals()``) that have these names."""
    return {name: arguments[name] for name in names if name in arguments}


def require_rank(keep: str | None, rank: int | None) -> None:
    """Raise `InputError` where a rank is given that has no scores to truncate."""
    if keep == "geometry" and rank is not None:
        raise InputError(
            f"{option('rank')} truncates scores; with {option(keep='geometry')} use"
            f" {option('width')} instead"
        )
