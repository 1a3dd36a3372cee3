"""The verbs: open, create, fit, apply, stabilize, evaluate and the others, by topic in `verbs`.

Each topic is imported when one of its verbs is first used: a command waits for its own alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_embstab.verbs.apply import apply, stabilize
    from dask_embstab.verbs.compare import evaluate, search
    from dask_embstab.verbs.compress import compress, frontier
    from dask_embstab.verbs.export import export
    from dask_embstab.verbs.fit import fit, fold_bias, moments
    from dask_embstab.verbs.index import query_index, upgrade_index
    from dask_embstab.verbs.ingest import ingest
    from dask_embstab.verbs.progress import progress
    from dask_embstab.verbs.report import report
    from dask_embstab.verbs.runs import create_run, load_transform, open_run, table
    from dask_embstab.verbs.space import check_space, detect_space, space_of
    from dask_embstab.verbs.transforms import fold
    from dask_embstab.verbs.upgrade import begin_backfill, upgrade_plan

__all__ = [
    "apply",
    "begin_backfill",
    "check_space",
    "compress",
    "create_run",
    "detect_space",
    "evaluate",
    "export",
    "fit",
    "fold",
    "fold_bias",
    "frontier",
    "ingest",
    "load_transform",
    "moments",
    "open_run",
    "progress",
    "query_index",
    "report",
    "search",
    "space_of",
    "stabilize",
    "table",
    "upgrade_index",
    "upgrade_plan",
]

_HOME = {
    "apply": (
        "apply",
        "stabilize",
    ),
    "compare": (
        "evaluate",
        "search",
    ),
    "compress": (
        "compress",
        "frontier",
    ),
    "export": ("export",),
    "fit": (
        "fit",
        "fold_bias",
        "moments",
    ),
    "index": (
        "query_index",
        "upgrade_index",
    ),
    "ingest": ("ingest",),
    "progress": ("progress",),
    "report": ("report",),
    "runs": (
        "create_run",
        "load_transform",
        "open_run",
        "table",
    ),
    "space": (
        "check_space",
        "detect_space",
        "space_of",
    ),
    "transforms": ("fold",),
    "upgrade": (
        "begin_backfill",
        "upgrade_plan",
    ),
}
"""Verbs by their topic."""


def __getattr__(name: str) -> Any:
    for topic, names in _HOME.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"dask_embstab.verbs.{topic}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
