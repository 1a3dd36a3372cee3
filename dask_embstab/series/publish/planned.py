"""A planned change: the run of another model, perhaps of another width, comes into the series by
one call.

Gates that ask whether the model is still the same do not hold it. A wider model widens the space:
earlier rows have zeros there. A narrower space keeps the directions that hold most of the head's
rows, with axes as near to the old ones as can be; earlier versions are then read in it, as after a
lazy rebase.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.core.types import Matrix
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.fit.reductions import moments_reduction
from dask_embstab.repairs import option
from dask_embstab.series.log.basis import read_matrices, read_run, store_matrices
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.published import published_run
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run

MODEL_GATES = (
    "alignment",
    "alignment_change",
    "rotation",
    "mirror",
    "agreement",
    "low_agreement",
    "chance_share",
    "norm_ratio",
    "spectrum",
    "query_recall",
    "code_agreement",
)
"""Gates that compare the run with the model before it."""


@dataclass(frozen=True, slots=True)
class Change:
    """The settings of the run and those that are recorded for the runs that follow; components of
    the space, and before.
    """

    settings: Settings
    recorded: Settings
    width: int
    before: int

    @property
    def narrows(self) -> bool:
        """Whether the space gets fewer components."""
        return self.width < self.before

    def require_no_shadow(self, *, shadow: bool) -> None:
        """Raise where readers are not to see the run that narrows the space in which they read."""
        if shadow:
            raise InputError(
                "a narrower space is one that all versions are read in, and readers do not see a"
                f" shadow; {self.width} of {self.before} components were asked for; leave out"
                f" {option('width')}, or {option('shadow')}"
            )


def planned_change(
    store: Store,
    log: Log,
    source: Run,
    model: str,
    settings: Settings,
    recorded: Settings,
    asked: int | None,
) -> Change:
    """What changes with the first run of ``model``: the space gets ``asked`` components, else as
    many as cut neither.

    Raises `InputError` where the head is of this model already.
    """
    head = log.version(None)
    if head.model == model:
        raise InputError(
            f"a planned change leads to another model; {model!r} is the head's (version"
            f" {head.version}); give the new model's name, or add the run without"
            f" {option('new_model')}"
        )

    before = read_run(store, log.located(head)).table("items").d
    width = max(before, source.table("items").d) if asked is None else asked
    own = replace(settings, width=width, gates={**settings.gates, **dict.fromkeys(MODEL_GATES)})
    return Change(
        own, recorded if recorded.width is None else replace(recorded, width=width), width, before
    )


def narrowed_basis(store: Store, log: Log, settings: Settings, width: int) -> dict[str, Any]:
    """A basis for all stored runs in which they are read with ``width`` components, fewer than the
    head has now.

    One read of the head's tables. Raises `InputError` where more of their rows' sums of squares
    would be lost than ``max_lost_energy`` allows.
    """
    head = read_run(store, log.located(log.version(None)))
    tables = {key: table for key in TABLES if (table := getattr(head, key)) is not None}
    reduction = moments_reduction(centred=False)
    reads = run_all(
        {key: reduce_table(table, reduction, label="width") for key, table in tables.items()}
    )
    gramians = {key: read.value.gramian for key, read in reads.items()}
    P = nearest_axes(
        sum(G / max(np.trace(G), np.finfo(float).tiny) for G in gramians.values()), width
    )
    lost = {key: 1.0 - float(np.trace(P.T @ G @ P) / np.trace(G)) for key, G in gramians.items()}
    worst = max(lost, key=lost.__getitem__)
    if lost[worst] > settings.max_lost_energy:
        raise InputError(
            f"a narrower space may lose {settings.max_lost_energy:.3g} of the energy of the head's"
            f" rows; {width} components lose {lost[worst]:.3g} of its {worst}; give more"
            " components",
            f"{option('max_lost_energy')} allows more",
        )

    known, narrowed = read_matrices(store, log.basis), {}
    for located in log.stored.values():
        M, d = known.get(str(located.run)), published_run(store, located).table("items").d
        now = (
            np.eye(d, len(P)) if M is None else M
        )  # a run that is narrower has zeros in the space's last components
        narrowed[str(located.run)] = now @ P[: now.shape[1]]

    onto = {"version": None, "path": None, "width": width, "lost_energy": lost}
    return {"onto": onto, "moves": {}, "applied": False} | store_matrices(store, narrowed)


def nearest_axes(G: Matrix, width: int) -> Matrix:
    """Orthonormal columns (d, width) that span the leading eigenvectors of ``G``, as near to the
    first axes as can be.
    """
    leading = np.linalg.eigh(G)[1][:, ::-1][:, :width]
    U, _, Vh = np.linalg.svd(leading[:width].T)
    P: Matrix = leading @ (U @ Vh)
    return P
