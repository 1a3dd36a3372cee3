"""From the first read of a table to a graded root of its Gramian, by the route its condition number
allows.

``auto`` keeps the Gramian where its error, which grows with the square of the condition number,
stays below what the input's precision asks for; beyond that it reads the table again with a
preconditioner made of that same Gramian, and once more with a better one while the diagonally
scaled Gramian of the preconditioned table is not near the identity.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dask_embstab.core.square_root import (
    Preconditioner,
    Root,
    gramian_error,
    gramian_spectrum,
    preconditioned_condition,
    preconditioner,
    refined,
    require_factor,
    root_from_gramian,
    root_from_preconditioned,
    root_from_triangle,
    without_null_directions,
)
from dask_embstab.core.tree import micro_block_rows
from dask_embstab.errors import ConditionError
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.fit.reductions import preconditioned_reduction
from dask_embstab.passes.fit.state import TableRead
from dask_embstab.repairs import option
from dask_embstab.tables.table_moments import TableMoments

_FLOAT64_ERROR, _STORED_ERROR = 1e-13, 5e-8
_GRAM_LIMIT = 1e-4
"""Largest error at which ``method="gram"`` still answers; beyond it, it refuses."""
_WELL_PRECONDITIONED = 1e4
_MOST_READS = 4


def graded_roots(reads: Mapping[str, TableRead], method: str) -> dict[str, Root]:
    """A graded root for every table; further reads are counted in ``reads``."""
    roots: dict[str, Root] = {}
    waiting: dict[str, Preconditioner] = {}
    for key, read in reads.items():
        G, eps = read.summary.gramian, read.summary.eps
        if read.triangle is not None:
            roots[key] = root_from_triangle(read.triangle, eps=eps)
            continue
        # Whether the Gramian serves: another read of a table of one panel costs nothing.
        spectrum, summary = gramian_spectrum(G), read.summary
        small = read.table is not None and summary.n_rows <= micro_block_rows(summary.moments.d)
        allowed = _FLOAT64_ERROR if small or summary.dtype == "float64" else _STORED_ERROR
        serves = np.isfinite(spectrum.condition) and gramian_error(spectrum.condition) <= allowed
        if method != "gram" and not serves:
            if read.table is None:
                raise ConditionError(
                    f"moments hold the Gramian alone, and {summary.where} is too ill-conditioned"
                    " for it; fit from the tables",
                    f"{option(method='gram')} accepts the larger error that the certificate then"
                    " states",
                )
            waiting[key] = preconditioner(G)
        else:
            _require_gram_holds(read.summary, spectrum.condition)
            roots[key] = root_from_gramian(
                G, n_rows=read.summary.n_rows, eps=eps, spectrum=spectrum
            )

    roots |= _preconditioned_roots(reads, waiting)
    for key, root in roots.items():
        summary = reads[key].summary
        require_factor(root, summary.gramian, eps=summary.eps, where=summary.where)

    return roots


def _require_gram_holds(summary: TableMoments, condition: float) -> None:
    if gramian_error(condition) > _GRAM_LIMIT:
        seen = (
            f"{condition:.1e}"
            if np.isfinite(condition)
            else "beyond what float64 can see in a Gramian"
        )
        raise ConditionError(
            "the Gramian needs a condition number below"
            f" {np.sqrt(_GRAM_LIMIT / gramian_error(1.0)):.0e} once columns are scaled; that of"
            f" {summary.where} is {seen}",
            f"{option(method='auto')} or {option(method='qr')} reads that table again",
        )


def _preconditioned_roots(
    reads: Mapping[str, TableRead], waiting: dict[str, Preconditioner]
) -> dict[str, Root]:
    """Read these tables again, times their preconditioners, until each is near the identity."""
    roots: dict[str, Root] = {}
    while waiting:
        again: dict[str, Preconditioner] = {}
        passes = {}
        for key, by in waiting.items():
            table = reads[key].table
            assert table is not None
            passes[key] = reduce_table(
                table, preconditioned_reduction(by.P), label="fit: reading again"
            )
            reads[key].n_reads += 1
        for key, read in run_all(passes).items():
            gramian, by = without_null_directions(read.value, waiting[key])
            poor = preconditioned_condition(gramian) > _WELL_PRECONDITIONED
            if poor and reads[key].n_reads < _MOST_READS:
                again[key] = refined(by, gramian)
            else:
                summary = reads[key].summary
                root = roots[key] = root_from_preconditioned(gramian, by, eps=summary.eps)
                # Here weak directions are seen too, as far as their own rounding lets them.
                require_factor(root, gramian, by, eps=summary.eps, where=summary.where)
        waiting = again
    return roots
