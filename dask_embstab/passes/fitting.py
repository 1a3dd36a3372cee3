"""A fit, from tables to a transform: pair the rows, reduce each table in one read, factorize, rotate, account for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from dask_embstab.core.errors import ConditionError, InputError
from dask_embstab.core.landing import (
    AlignOn,
    Basis,
    Keep,
    Target,
    geometry_basis,
    landed_pairs,
    rotated,
    scores_basis,
    unrotated,
)
from dask_embstab.core.moments import Moments
from dask_embstab.core.precision import product_errors
from dask_embstab.core.root import Root
from dask_embstab.core.transform import Transform
from dask_embstab.core.types import Vector
from dask_embstab.passes.blas import kernel_family
from dask_embstab.passes.compute import compute
from dask_embstab.passes.pairing import Pairing, pair
from dask_embstab.passes.reduce import finished, reduce_table
from dask_embstab.passes.reductions import moments_reduction, triangle_reduction
from dask_embstab.passes.routes import graded_roots
from dask_embstab.tables.source import Digests
from dask_embstab.tables.table import Table

Method = Literal["auto", "gram", "qr"]
Balance = Literal["rows", "gramians"]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Every choice of a fit, made once by the public function."""

    keep: Keep
    align_on: AlignOn
    method: Method
    rank: int | None
    width: int | None
    balance: Balance
    center: bool
    weights: Vector | None
    min_matched: int | None

    def __post_init__(self) -> None:
        choices = {"keep": Keep, "align_on": AlignOn, "method": Method, "balance": Balance}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in get_args(allowed):
                raise InputError(f"{name} must be one of {', '.join(map(repr, get_args(allowed)))}; it is {value!r}")
        for name in ("rank", "width", "min_matched"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise InputError(f"{name} must be at least 1; it is {count}")
        if self.keep == "geometry" and self.rank is not None:
            raise InputError("rank= truncates scores; with keep='geometry' use width= instead")
        if self.keep == "scores" and self.center:
            raise InputError("center=True moves the origin, which changes scores; use keep='geometry' with it")


@dataclass(frozen=True, slots=True)
class Reference:
    """The tables to land on, and what is recorded about them."""

    items: Table | None
    users: Table | None
    described: dict[str, Any]

    @property
    def width(self) -> int:
        """Its components."""
        table = self.items or self.users
        assert table is not None
        return table.d


@dataclass(frozen=True, slots=True)
class TableRead:
    """What the first read of one table gave."""

    table: Table
    pairing: Pairing | None
    moments: Moments
    triangle: Any
    digests: Digests
    reference_digests: Digests


def fit_tables(items: Table, users: Table | None, reference: Reference | None, options: FitOptions) -> Transform:
    """The transform that lands these tables on the reference (or standardizes them, where there is none)."""
    reads = _read(items, users, reference, options)
    item_read, user_read = reads["items"], reads.get("users")
    roots: dict[str, Root] = {}
    n_reads = dict.fromkeys(reads, 1)
    if options.keep == "scores":
        roots = graded_roots({key: _routed(read) for key, read in reads.items()}, options.method, n_reads)
        assert user_read is not None
        basis = scores_basis(
            roots["items"],
            roots["users"],
            item_read.moments.n,
            user_read.moments.n,
            rank=options.rank,
            balance=options.balance,
        )
    else:
        basis = geometry_basis(item_read.moments, with_users=users is not None)
    target = _target(basis, reference, options)
    if reference is None:
        transform, figures = unrotated(basis, target, item_read.moments)
    else:
        pairs = landed_pairs(basis, *(None if r is None else r.moments.pairs for r in (item_read, user_read)))
        transform, figures = rotated(basis, target, pairs)
    figures |= _account(transform, basis, reads, roots, n_reads, users, reference, options)
    return Transform(
        transform.items,
        transform.users,
        transform.singular_values,
        transform.items_offset,
        transform.users_offset,
        figures,
    )


def _read(items: Table, users: Table | None, reference: Reference | None, options: FitOptions) -> dict[str, TableRead]:
    """The one read of every table that is needed, with its reference rows where it is aligned on."""
    tables = {"items": items}
    if users is not None and (options.keep == "scores" or (reference is not None and options.align_on != "items")):
        tables["users"] = users
    if options.keep == "scores":
        for table in tables.values():
            _require_rows(table)
    pairings = _pairings(tables, reference, options)
    reduction: Any = (triangle_reduction if options.method == "qr" else moments_reduction)(centred=options.center)
    nodes = {
        key: reduce_table(
            table, reduction, pairing=pairings.get(key), weights=options.weights if key in pairings else None
        )
        for key, table in tables.items()
    }
    partials = compute(
        [node for node, _ in nodes.values()], label="fit: reading", n_tasks=sum(n for _, n in nodes.values())
    )
    reads = {}
    for key, partial in zip(nodes, partials, strict=True):
        value = finished(partial, reduction)
        moments, R = (value.moments, value.R) if options.method == "qr" else (value, None)
        _require_nonzero(moments, tables[key])
        reads[key] = TableRead(tables[key], pairings.get(key), moments, R, partial.digests, partial.partner_digests)
    return reads


def _pairings(tables: dict[str, Table], reference: Reference | None, options: FitOptions) -> dict[str, Pairing]:
    if reference is None:
        return {}
    wanted = ("items", "users") if options.align_on == "both" else (options.align_on,)
    pairings = {}
    for key in wanted:
        theirs: Table | None = getattr(reference, key)
        if key not in tables or theirs is None:
            whose = "the run" if key not in tables else "the reference"
            raise InputError(f"align_on={options.align_on!r} needs {key} in run and reference; {whose} has none")
        pairings[key] = pair(tables[key], theirs)
    return pairings


def _routed(read: TableRead) -> tuple[Table, Moments, Any]:
    return read.table, read.moments, read.triangle


def _target(basis: Basis, reference: Reference | None, options: FitOptions) -> Target:
    """How wide the landed tables are: a silent loss of components is never an answer."""
    d, r = basis.items.shape
    least = r if reference is None else reference.width
    default = (options.rank or d) if reference is None else reference.width
    width = options.width or default
    name = "rank" if options.keep == "scores" else "number of components"
    if r > width:
        repair = " or rank= to keep the best scores of that rank" if options.keep == "scores" else ""
        landed_on = "width" if reference is None or options.width else "reference"
        padded = "" if reference is None else " (the reference is zero-padded)"
        raise InputError(
            f"the {name} of the run is {r} and the {landed_on} has {width} components; pass width={r} to land in"
            f" more{padded}{repair}"
        )
    if width < least:
        raise InputError(f"width={width} is less than the {least} components of the reference; give at least that many")
    return Target(width, options.align_on, center=options.center, min_matched=options.min_matched)


def _require_rows(table: Table) -> None:
    if table.n_rows < table.d:
        raise InputError(
            f"keeping scores needs at least as many rows as components; {table.where} has {table.n_rows} rows of"
            f" {table.d} components; give more rows, or use keep='geometry'"
        )


def _require_nonzero(moments: Moments, table: Table) -> None:
    if not np.trace(moments.gramian) > 0:
        raise ConditionError(f"every value of {table.where} is zero, so it spans no space; check how it was written")


def _account(
    transform: Transform,
    basis: Basis,
    reads: dict[str, TableRead],
    roots: dict[str, Root],
    n_reads: dict[str, int],
    users: Table | None,
    reference: Reference | None,
    options: FitOptions,
) -> dict[str, Any]:
    """Everything that is known about the fit, as plain JSON values."""
    routes = {root.route for root in roots.values()}
    method = (
        "gram" if not routes else "qr" if "qr" in routes else "preconditioned" if len(routes - {"gram"}) else "gram"
    )
    return {
        "keep": options.keep,
        "method": method,
        "rank": int(np.count_nonzero(basis.singular_values > 0)),
        "width": transform.width,
        "balance": basis.balance,
        "balance_factor": basis.factor,
        "centred": options.center,
        "items": _table_figures(reads["items"], roots.get("items"), n_reads["items"]),
        "users": None
        if users is None
        else _table_figures(reads["users"], roots.get("users"), n_reads["users"])
        if "users" in reads
        else {"rows": users.n_rows, "matched": None},
        "reference": None if reference is None else reference.described,
        "singular_values": basis.singular_values.tolist(),
        "discarded_singular_values": basis.discarded.tolist(),
        "product": _products(transform, roots),
        "kernel_family": kernel_family(),
    }


def _table_figures(read: TableRead, root: Root | None, n_reads: int) -> dict[str, Any]:
    pairing = read.pairing
    figures: dict[str, Any] = {
        "rows": read.moments.n,
        "dtype": str(read.table.dtype),
        "matched": None if pairing is None else pairing.matched,
        "new": None if pairing is None else pairing.new,
        "gone": None if pairing is None else pairing.gone,
        "paired_by": None if pairing is None else pairing.how,
        "reads": n_reads,
        "digests": [read.digests[chunk] for chunk in sorted(read.digests)],
        "reference_digests": [read.reference_digests[chunk] for chunk in sorted(read.reference_digests)],
    }
    if root is not None:
        figures |= {
            "route": root.route,
            "rank": root.rank,
            "condition": root.condition,
            "certificate": root.error,
            "equilibrated_singular_values": root.sigma.tolist(),
        }
    return figures


def _products(transform: Transform, roots: dict[str, Root]) -> dict[str, Any]:
    """The precision in which `apply` shall multiply, and the estimates that say so."""
    if not roots:
        # A rotation: every column of the product is as long as its inputs allow, and nothing is amplified.
        return {"items": "float32", "users": "float32", "column_error": None, "score_error": None}
    assert transform.users is not None
    s_1 = float(transform.singular_values[0])
    R_T, R_W = roots["items"].R, roots["users"].R
    errors = {
        "items": product_errors(R_T, transform.items, R_W, transform.users, s_1),
        "users": product_errors(R_W, transform.users, R_T, transform.items, s_1),
    }
    return {
        **{key: error.product for key, error in errors.items()},
        "column_error": {key: error.columns for key, error in errors.items()},
        "score_error": {key: error.scores for key, error in errors.items()},
    }
