"""Options of the command line alone."""

from __future__ import annotations

from dask_embstab.options.record import Option

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
# fmt: off
COMMAND_LINE: tuple[Option, ...] = (
    Option("components", "count", "Without a PATH.", default=64, metavar="D", commands=("doctor",)),
    Option("disk_bytes", "bytes", "Written, read, removed.", default="256MiB", metavar="BYTES",
           commands=("doctor",)),
    Option("seconds", "number", "For every step.", least=0.001, most=600, default=0.1,
           metavar="SECONDS", commands=("doctor",)),
    Option("scheduler", "text", "Address of a running Dask scheduler; threads without.",
           metavar="ADDRESS", commands=_PASSES),
    Option("cluster", "place", "Start the cluster that this YAML file describes, for this call.",
           metavar="FILE", commands=_PASSES),
    Option("items_as", "text", "What messages and reports call items: documents, or mouse/mice.",
           metavar="NAME", commands=(*_PASSES, "lookup")),
    Option("users_as", "text", "What they call users: queries.", metavar="NAME",
           commands=(*_PASSES, "lookup")),
    Option("memory_limit", "bytes", "Refuse a pass that needs more, e.g. 400MB.", metavar="BYTES",
           commands=("fit", "moments", "stabilize", "apply", "compress", "export", "ingest",
                     "Series.add", "Series.apply",
                     "Series.rebase", "Series.forget", "Series.replay")),
)
# fmt: on
