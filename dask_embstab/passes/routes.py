"""From the first read of a table to a graded root of its Gramian, by the route its condition number allows.

``auto`` keeps the Gramian where its error, which grows with the square of the condition number, stays below what the
input's precision asks for; beyond that it reads the table again with a preconditioner made of that same Gramian, and once
more with a better one while the diagonally scaled Gramian of the preconditioned table is not near the identity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_embstab.core.errors import ConditionError
from dask_embstab.core.moments import Moments
from dask_embstab.core.root import (
    Preconditioner,
    Root,
    gramian_condition,
    gramian_error,
    preconditioned_condition,
    preconditioner,
    refined,
    root_from_gramian,
    root_from_preconditioned,
    root_from_triangle,
)
from dask_embstab.core.types import Matrix
from dask_embstab.passes.compute import compute
from dask_embstab.passes.reduce import finished, reduce_table
from dask_embstab.passes.reductions import preconditioned_reduction
from dask_embstab.tables.table import Table

_FLOAT64_ERROR, _STORED_ERROR = 1e-13, 5e-8
_GRAM_LIMIT = 1e-4
"""Largest error at which ``method="gram"`` still answers; beyond it, it refuses."""
_WELL_PRECONDITIONED = 1e4
_MOST_READS = 4

Routed = tuple[Table, Moments, Any]
"""A table, its moments, and its R factor where the first read made one."""


def graded_roots(tables: dict[str, Routed], method: str, n_reads: dict[str, int]) -> dict[str, Root]:
    """A graded root for every table; ``n_reads`` counts the further reads."""
    roots: dict[str, Root] = {}
    waiting: dict[str, tuple[Table, Preconditioner]] = {}
    for key, (table, moments, R) in tables.items():
        eps = _eps(table)
        if R is not None:
            roots[key] = root_from_triangle(R, eps=eps)
        elif method == "gram":
            roots[key] = _checked_gram(moments.gramian, table)
        elif _gram_serves(moments.gramian, table):
            roots[key] = root_from_gramian(moments.gramian, eps=eps)
        else:
            waiting[key] = table, preconditioner(moments.gramian)
    return roots | _preconditioned_roots(waiting, n_reads)


def _gram_serves(gramian: Matrix, table: Table) -> bool:
    condition = gramian_condition(gramian)
    allowed = _FLOAT64_ERROR if table.dtype.itemsize == 8 else _STORED_ERROR
    return bool(np.isfinite(condition)) and gramian_error(condition) <= allowed


def _checked_gram(gramian: Matrix, table: Table) -> Root:
    condition = gramian_condition(gramian)
    if gramian_error(condition) > _GRAM_LIMIT:
        raise ConditionError(
            f"the Gramian needs a condition number below {np.sqrt(_GRAM_LIMIT / gramian_error(1.0)):.0e} once columns are"
            f" scaled; that of {table.where} is {f'{condition:.1e}' if np.isfinite(condition) else 'beyond float64'};"
            " use method='auto' or method='qr'"
        )
    return root_from_gramian(gramian, eps=_eps(table))


def _preconditioned_roots(waiting: dict[str, tuple[Table, Preconditioner]], n_reads: dict[str, int]) -> dict[str, Root]:
    roots: dict[str, Root] = {}
    while waiting:
        gramians = _preconditioned_gramians(waiting)
        again: dict[str, tuple[Table, Preconditioner]] = {}
        for key, (table, by) in waiting.items():
            n_reads[key] += 1
            if preconditioned_condition(gramians[key]) > _WELL_PRECONDITIONED and n_reads[key] < _MOST_READS:
                again[key] = table, refined(by, gramians[key])
            else:
                roots[key] = root_from_preconditioned(gramians[key], by, eps=_eps(table))
        waiting = again
    return roots


def _preconditioned_gramians(waiting: dict[str, tuple[Table, Preconditioner]]) -> dict[str, Matrix]:
    reductions = {key: preconditioned_reduction(by.P) for key, (_, by) in waiting.items()}
    nodes = {key: reduce_table(table, reductions[key]) for key, (table, _) in waiting.items()}
    partials = compute(
        [node for node, _ in nodes.values()], label="fit: reading again", n_tasks=sum(n for _, n in nodes.values())
    )
    return {key: finished(partial, reductions[key]) for key, partial in zip(nodes, partials, strict=True)}


def _eps(table: Table) -> float:
    return float(np.finfo(table.dtype).eps)
