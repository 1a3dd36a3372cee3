"""Options that say what a run is aligned to, by which rows, and how ids are joined."""

from __future__ import annotations

from dask_embstab.options.record import SETTINGS_VERBS, Option

_FITS = ("fit", "stabilize")
_RUNS = (*_FITS, "Series.add", *SETTINGS_VERBS)
_ROWS = (*_RUNS, "moments")
_JOINS = (*_FITS, "moments", "evaluate", "export")
# fmt: off
FITTING: tuple[Option, ...] = (
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
    Option("scratch", "place", "Folder or URL for joins beyond memory.", _JOINS,
           unset="the system's temporary folder", metavar="DIR", commands=("Series.add",)),
    Option("join_memory", "bytes", "Memory of a join, e.g. 2GiB.", _JOINS, unset="1GiB",
           metavar="BYTES", commands=("Series.add",)),
)
# fmt: on
