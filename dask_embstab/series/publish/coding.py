"""Which codes are a run's rows stored in beside its vectors? Those of the runs before it, for as
long as the settings, the width and the space stay.

A code is made by the version that needs it first (its codebooks, steps or directions fitted to the
transformed rows of that run), lies in every run, and is read from the last one. A rebase turns it:
the numbers stay, what they mean moves with the space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dask_embstab.core.codes.row_code import RowCode, renumbered, turned
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.errors import InputError
from dask_embstab.passes.apply import Codes
from dask_embstab.passes.compress import LEAST_FITTED, codes_of, parts_of
from dask_embstab.repairs import call, option
from dask_embstab.series.log.basis import matrix_of
from dask_embstab.series.log.codes import last_coded, stamps, stored_codes
from dask_embstab.series.log.published import published_run
from dask_embstab.series.publish.candidate import Candidate
from dask_embstab.series.publish.delivery import Delivery
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.read.views import MappedSource
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class Coding:
    """The ``codes`` of a run's tables; none where it is stored as vectors alone.

    ``asked`` are the settings that they follow, ``made`` the version that made them, ``before``
    what the last version with these codes recorded of them; nothing where they are new.
    """

    codes: Codes = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    made: int = 0
    before: Mapping[str, Any] = field(default_factory=dict)


def coding_of(delivery: Delivery, candidate: Candidate) -> Coding:
    """The codes of the run that is being published: frozen ones, or new ones where the series has
    none of these settings, where they do not fit any more, or where that is asked for.
    """
    settings, log = delivery.settings, delivery.log
    if settings.code is None:
        if delivery.request.refit_code:
            raise InputError(
                f"{option('refit_code')} makes the code of a series anew; this one stores vectors"
                f" alone: {call('Series.change', code='int8')} sets a code"
            )
        return Coding()
    asked = {
        "code": settings.code,
        "rotate": settings.code_rotate,
        "rank": settings.code_rank,
    }
    last, width = last_coded(log), candidate.transform.width
    before: Mapping[str, Any] = {} if last is None else last.figures["codes"]
    old: dict[str, RowCode] = {}
    if last is not None:
        located = log.located(last)
        M = matrix_of(delivery.store, located)
        stored = stored_codes(published_run(delivery.store, located))
        old = stored if M is None else {key: turned(code, M) for key, code in stored.items()}
        # What trains nothing is the same code in any space; turned, it would only be slower.
        kept = M is None or all(code.arrays() for code in stored.values())
        wanted = {key for key in TABLES if getattr(delivery.source, key) is not None}
        fits = old.keys() == wanted and all(code.d == width for code in old.values())
        if kept and fits and before["asked"] == asked and not delivery.request.refit_code:
            return Coding(old, asked, before["made"], before)

    codes = {
        key: renumbered(code, old[key]) if key in old else code
        for key, code in _fit_codes(delivery, candidate).items()
    }
    return Coding(codes, asked, len(log.versions) + 1)


def is_coded_as(run: Run, codes: Codes) -> bool:
    """Whether a run that an interrupted call left holds these very codes."""
    return stamps(stored_codes(run)) == stamps(codes)


def _fit_codes(delivery: Delivery, candidate: Candidate) -> dict[str, RowCode]:
    settings = delivery.settings
    assert settings.code is not None
    source = _transformed(delivery.source, candidate, settings.dtype)
    few = [table for key in TABLES if (table := getattr(source, key)) is not None]
    if parts_of(settings.code, candidate.transform.width) and not settings.code_force:
        for table in (table for table in few if table.n_rows < LEAST_FITTED):
            raise InputError(
                f"codebooks need about {LEAST_FITTED} rows to be fitted to; {table.where} has"
                f" {table.n_rows}; take a code that needs none, such as int4",
                f"{call('Series.change', code_force=True)} fits them all the same",
            )
    return codes_of(
        source,
        settings.code,
        rotate=settings.code_rotate,
        rank=settings.code_rank,
        seed=0,
        force=settings.code_force,
    )


def _transformed(source: Run, candidate: Candidate, dtype: str | None) -> Run:
    """The run as it will be stored, as a view of the one that came."""
    made = candidate.transform

    def transformed(key: str) -> Table | None:
        table: Table | None = getattr(source, key)
        if table is None:
            return None
        to = table.dtype if dtype is None else np.dtype(dtype)
        mapped = _Transformed(getattr(made, key), getattr(made, f"{key}_offset"), to)
        return replace(table, source=MappedSource(table.source, mapped, made.width, to))

    return replace(source, items=transformed("items"), users=transformed("users"))


@dataclass(frozen=True, slots=True)
class _Transformed:
    """Rows times a matrix, plus an offset, in float64, in the dtype in which they are stored."""

    M: Matrix
    offset: Vector | None
    dtype: np.dtype[Any]

    def __call__(self, rows: Rows) -> Rows:
        y = rows.astype(np.float64) @ self.M
        y = y if self.offset is None else y + self.offset
        with np.errstate(over="ignore"):  # what does not fit is told by the apply
            return np.asarray(y.astype(self.dtype))
