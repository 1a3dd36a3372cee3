"""A fit, from tables to a transform, one step of the paper after another.

Pair the rows; read the moments of every table; factorize them (reading again where the condition
number asks for it); standardize; rotate the aligned pairs onto the reference; record the
diagnostics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dask_embstab.core.fit_transform import (
    Basis,
    Target,
    geometry_basis,
    require_matched,
    rotated,
    rotation_of,
    scores_basis,
    unrotated,
)
from dask_embstab.core.moments import Pairs
from dask_embstab.core.square_root import Root
from dask_embstab.errors import InputError, TooFewMatchedError
from dask_embstab.passes.engine.blas import one_thread
from dask_embstab.passes.fit.aligned import aligned_rows, paired_tables
from dask_embstab.passes.fit.diagnostics import fit_diagnostics
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.read import (
    aligned_pairs,
    for_all_rows,
    read_moments,
    read_unit_pairs,
    require_memory_for,
)
from dask_embstab.passes.fit.reference import Reference
from dask_embstab.passes.fit.reread import graded_roots
from dask_embstab.passes.fit.state import TableRead
from dask_embstab.passes.fit.target import require_nonzero, require_rows, require_width, target_of
from dask_embstab.passes.join.options import join_options
from dask_embstab.passes.join.rows import identity
from dask_embstab.repairs import call, option
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.table import Table
from dask_embstab.tables.table_moments import Shared, TableMoments
from dask_embstab.tables.transform import Transform

_NARROW = 128
"""Components up to which one thread of BLAS is as fast as all."""


def fit_tables(
    items: Table, users: Table | None, reference: Reference | None, options: FitOptions
) -> Transform:
    """The transform that aligns these tables to the reference (or standardizes them, where there is
    none).
    """
    tables = {"items": items}
    if users is not None and (
        options.keep == "scores" or (reference is not None and options.align_on != "items")
    ):
        tables["users"] = users

    if options.keep == "scores":
        for table in tables.values():
            require_rows(table.where, table.n_rows, table.d)

    theirs = [] if reference is None else reference.tables
    with (
        _blas_threads(items.d),
        unchanged(*tables.values(), *theirs, *options.columns),
        join_options(**options.join_options) as join,
    ):
        require_memory_for(tables, reference, options, whole=True)
        pairings = paired_tables(tables, reference, options, join, whole=True)
        aligned = aligned_rows(pairings, reference, options, join)
        reads = read_moments(tables, aligned, options)
        n_users = None if users is None else users.n_rows
        return fit_reads(
            reads, n_users, None if reference is None else reference.described, options
        )


def fit_moments(
    tables: Mapping[str, TableMoments], reference: Reference | None, options: FitOptions
) -> Transform:
    """Fit from moments that were taken before; no table is read.

    What only a read can do is refused: what chooses rows or scales them belongs to `summarize`.
    """
    again = {
        "method": "qr" if options.method == "qr" else None,
        "unit_rows": options.unit_rows or None,
    }
    for name, value in again.items():
        if value is not None:
            raise InputError(
                f"{option(**{name: value})} needs another read of the tables; fit from the tables"
            )

    for choice in options.selections.values():
        for name in choice.given:
            raise InputError(
                f"{option(name)} is about rows, and moments hold their sums alone",
                (
                    f"{call('moments', **{name: None})} takes it"
                    if name != "pairs"
                    else "fit from the tables"
                ),
            )

    for key in options.aligned if reference is not None else ():
        if (shared := tables[key].shared) is not None:
            require_width(options, shared.d)
        if not tables[key].matched:
            raise TooFewMatchedError(
                f"{tables[key].where} and its reference share no id; a run is aligned on the rows"
                " it shares with its reference"
            )

    reads = {key: TableRead(summary) for key, summary in tables.items()}
    n_users = tables["users"].n_rows if "users" in tables else None
    described = None if reference is None else reference.described
    with _blas_threads(next(iter(tables.values())).d):
        return fit_reads(reads, n_users, described, options)


def _blas_threads(d: int) -> contextlib.AbstractContextManager[None]:
    """One thread of BLAS for matrices that gain nothing by more: its threads spin while they wait
    for each other, so that an svd of 64 x 64 took 90 ms beside another program, and 2 alone.
    """
    return one_thread() if d <= _NARROW else contextlib.nullcontext()


def summarize(
    table: Table, reference: Table | None, described: Mapping[str, Any], options: FitOptions
) -> TableMoments:
    """Moments of one table (or of a part of one) with its reference rows, from one read.

    A few rows that were drawn count for all that they stand for, as in a fit of two tables.
    """
    paired = None if reference is None else Reference(reference, None, {})
    with (
        unchanged(table, reference, *options.columns),
        join_options(**options.join_options) as join,
    ):
        require_memory_for({"items": table}, paired, options, whole=False)
        pairings = paired_tables({"items": table}, paired, options, join, whole=False)
        aligned = aligned_rows(pairings, paired, options, join)
        read = read_moments({"items": table}, aligned, options)["items"]
        known = None if reference is None else identity(reference)

    if reference is None:
        return read.summary

    moments, pairs = read.summary.moments, read.pairs
    zero_rows = moments.zeros.reference + (pairs.unmatched_zero_rows if pairs else 0)
    shared = Shared(
        pairs.pairing.matched if pairs else 0, reference.n_rows, reference.d, zero_rows, described
    )
    if pairs and moments.pairs and pairs.pairing.n_represented > pairs.pairing.n_used:
        moments = replace(moments.counted_once, pairs=for_all_rows(moments.pairs, read))
    return replace(read.summary, moments=moments, reference=known, shared=shared)


def fit_reads(
    reads: dict[str, TableRead],
    n_users: int | None,
    reference: dict[str, Any] | None,
    options: FitOptions,
) -> Transform:
    """The fit as in the paper; a table is read again where its condition number or unit rows ask
    for it.
    """
    for read in reads.values():
        require_nonzero(read.summary, every_component=options.keep == "scores")
        if options.keep == "scores":
            require_rows(read.summary.where, read.summary.n_rows, read.summary.d)

    # Factorize each Gramian (or R factor), then standardize: the SVD of the score space.
    # What keeps geometry is compared in the items' own (only centred) space.
    moments = {key: read.summary.moments for key, read in reads.items()}
    roots: dict[str, Root] = {}
    if options.keep == "geometry":
        basis = geometry_basis(moments["items"], with_users=n_users is not None)
    else:
        roots = graded_roots(reads, options.method)
        counts = moments["items"].n_nonzero, moments["users"].n_nonzero
        basis = scores_basis(
            roots["items"], roots["users"], *counts, rank=options.rank, balance=options.balance
        )
    target = target_of(basis, reads, options, rotated=reference is not None)

    # Rotate onto the reference: orthogonal Procrustes on the aligned pairs.
    if reference is None:
        matrices, figures = unrotated(basis, target, moments["items"])
    else:
        require_matched(len(basis.items), target, scores=basis.balance is not None)
        # The means come from the rows as they are; directions are compared in a read of their own.
        if options.unit_rows:
            means = aligned_pairs(basis, reads, options) if options.center else None
            pairs = read_unit_pairs(basis, target, reads, options)
        else:
            means = pairs = aligned_pairs(basis, reads, options)
        matrices, figures = rotated(basis, target, pairs, means)
        figures |= {"anchor_bound": _anchor_bound(basis, target, reads, pairs, options)}
    transform = Transform(*matrices)
    known = fit_diagnostics(transform, basis, reads, roots, n_users, reference, options)
    return replace(transform, diagnostics=figures | known)


def _anchor_bound(
    basis: Basis, target: Target, reads: Mapping[str, TableRead], pairs: Pairs, options: FitOptions
) -> float | None:
    """Estimate of the distance from the rotation of all rows; None without anchors, with weights or
    a narrower width.
    """
    if basis.items.shape[1] > target.width:
        return None

    drawn_of = []
    for key in options.aligned:
        partners, table = reads[key].pairs, reads[key].table
        choice = options.selection(key)
        if partners is None or table is None or choice.anchors is None or choice.weighted:
            return None
        if not partners.pairing.verified:  # else all shared rows are used: no more than anchors
            drawn_of.append((key, table, partners.pairing))

    if not drawn_of:
        return 0.0

    from dask_embstab.core.scatter import Influence, anchor_bound  # of anchors alone
    from dask_embstab.passes.join.anchors import anchor_scatter

    _, rotation = rotation_of(target, pairs)
    mean_x, mean_y = (
        (total / pairs.weight for total in pairs.sums) if target.center else (None, None)
    )
    left, right = rotation.Q @ rotation.Zh.T, rotation.Zh.T
    s = rotation.singular_values / pairs.n
    sampled = []
    for key, table, drawn in drawn_of:
        share = drawn.n_represented / drawn.n_used / pairs.weight
        influence = Influence(
            getattr(basis, key), left, right, s, share, mean_x, mean_y, options.unit_rows
        )
        sampled.append(
            (anchor_scatter(table, drawn, influence), drawn.n_eligible, drawn.n_represented)
        )

    return anchor_bound(len(rotation.Q), pairs.weight, sampled)
