"""Keep an embedding space stable while the model behind it is retrained: out-of-core, on Dask and
Zarr.

>>> import dask_embstab as es
>>> es.fit.__name__, es.stabilize.__name__
('fit', 'stabilize')

The examples of this package know two runs of one model, ``monday`` and ``tuesday`` (200 items, 300
users, 4 components; the same scores in other axes), ``series``, a series of both, and ``folder``, a
scratch folder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_embstab.api import (
        apply,
        begin_backfill,
        check_space,
        compress,
        create_run,
        detect_space,
        evaluate,
        export,
        fit,
        fold,
        fold_bias,
        frontier,
        ingest,
        load_transform,
        moments,
        open_run,
        progress,
        query_index,
        report,
        search,
        space_of,
        stabilize,
        table,
        upgrade_index,
        upgrade_plan,
    )
    from dask_embstab.errors import (
        AccessError,
        ConditionError,
        DamageError,
        EmbstabError,
        EmbstabWarning,
        HoldError,
        IdError,
        InputChangedError,
        InputError,
        NotARunError,
        NotFiniteError,
        OutputExistsError,
        RetryError,
        SpaceError,
        TooFewMatchedError,
    )
    from dask_embstab.exchange.migrate.backfill import Backfill
    from dask_embstab.exchange.migrate.detect import Detected
    from dask_embstab.exchange.migrate.plan import UpgradePlan
    from dask_embstab.passes.evaluate.results import Metrics
    from dask_embstab.render.report import Report
    from dask_embstab.series.series import Series
    from dask_embstab.serving.live import Live
    from dask_embstab.tables.run import Run
    from dask_embstab.tables.space import Space
    from dask_embstab.tables.table import Table
    from dask_embstab.tables.table_moments import TableMoments
    from dask_embstab.tables.transform import Transform

__version__: str
"""Of the installed package."""

__all__ = [
    "AccessError",
    "Backfill",
    "ConditionError",
    "DamageError",
    "Detected",
    "EmbstabError",
    "EmbstabWarning",
    "HoldError",
    "IdError",
    "InputChangedError",
    "InputError",
    "Live",
    "Metrics",
    "NotARunError",
    "NotFiniteError",
    "OutputExistsError",
    "Report",
    "RetryError",
    "Run",
    "Series",
    "Space",
    "SpaceError",
    "Table",
    "TableMoments",
    "TooFewMatchedError",
    "Transform",
    "UpgradePlan",
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
    "api": tuple(filter(str.islower, __all__)),
    "errors": tuple(name for name in __all__ if name.endswith(("Error", "Warning"))),
    "tables.table_moments": ("TableMoments",),
    "tables.transform": ("Transform",),
    "exchange.migrate.backfill": ("Backfill",),
    "exchange.migrate.detect": ("Detected",),
    "exchange.migrate.plan": ("UpgradePlan",),
    "passes.evaluate.results": ("Metrics",),
    "render.report": ("Report",),
    "series.series": ("Series",),
    "serving.live": ("Live",),
    "tables.run": ("Run",),
    "tables.space": ("Space",),
    "tables.table": ("Table",),
}
"""Names by the module that they are imported from: verbs and errors are told by their spelling."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import dask_embstab`` and ``embstab
    --help`` are quick.
    """
    if name == "__version__":
        from importlib import metadata  # half of the time that `import dask_embstab` would take

        return metadata.version("dask_embstab")
    for module, names in _HOME.items():
        if name in names:
            if module == "api":  # registers the accessor; commands and workers do without Xarray
                import_module("dask_embstab.xarray")
            value = getattr(import_module(f"dask_embstab.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'dask_embstab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
