"""The verbs: open, create, fit, apply, stabilize, evaluate and the others, by topic in `verbs`."""

from __future__ import annotations

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
