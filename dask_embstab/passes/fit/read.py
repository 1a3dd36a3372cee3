"""The reads of a fit: moments of every table with its reference rows, and pairs of unit rows once
the basis is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dask_embstab.core.fit_transform import Basis, Target, require_matched
from dask_embstab.core.moments import Pairs
from dask_embstab.core.sums import total
from dask_embstab.errors import InputError
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.memory import read_load, require_memory, small_matrices
from dask_embstab.passes.engine.plan import plan
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.fit.aligned import AlignedRows
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.reductions import (
    moments_reduction,
    pairs_reduction,
    triangle_reduction,
    unit_pairs_reduction,
)
from dask_embstab.passes.fit.reference import Reference
from dask_embstab.passes.fit.state import TableRead
from dask_embstab.passes.fit.target import with_matched
from dask_embstab.repairs import option
from dask_embstab.tables.table import Table
from dask_embstab.tables.table_moments import TableMoments

_MOST_WEIGHT = 1e140
"""Sums of squares of weights within this and its inverse, on average, stay within float64."""


def require_memory_for(
    tables: Mapping[str, Table], reference: Reference | None, options: FitOptions, *, whole: bool
) -> None:
    """Raise, before rows are paired, where the least that the first read holds is beyond the limit
    that the user gave.
    """
    loads, widest = [], 0
    for key, table in tables.items():
        theirs: Table | None = (
            getattr(reference, key) if reference is not None and key in options.aligned else None
        )
        width = 0 if theirs is None else theirs.d
        reference_width = width * (1 + len(reference.lags)) if reference else 0
        values = (int(not width) + (options.method == "qr"), int(width > 0))
        loads.append(
            read_load(
                table,
                *plan(table, reference_width=reference_width),
                width=reference_width,
                values=values,
            )
        )
        widest = max(widest, width)

    small = (
        small_matrices(tables["items"].d, widest, scores=options.keep == "scores") if whole else 0
    )
    require_memory(loads, small=small)


def read_moments(
    tables: Mapping[str, Table], aligned: Mapping[str, AlignedRows], options: FitOptions
) -> dict[str, TableRead]:
    """One read of every table, with the reference rows of those that decide the rotation."""
    # Directions are found once the basis is known: until then nobody needs the reference's rows.
    now = {} if options.unit_rows and not options.center else aligned
    weights = {key: options.selection(key).row_weights(rows.table) for key, rows in now.items()}
    listed = [key for key, rows in now.items() if rows.pairs.pairing.listed]

    reduction: Any = (triangle_reduction if options.method == "qr" else moments_reduction)(
        centred=options.center
    )
    passes: dict[tuple[str, bool], Any] = {}
    for key, table in tables.items():
        pairs, weigh = (
            (now[key].pairs, weights[key]) if key in now and key not in listed else (None, None)
        )
        passes[key, False] = reduce_table(
            table, reduction, label="fit: reading", pairs=pairs, weights=weigh
        )
    # Listed pairs are other rows than the table's, some of them several times: a small pass of
    # their own.
    for key in listed:
        rows, alone = now[key], pairs_reduction(centred=options.center)
        passes[key, True] = reduce_table(
            rows.table, alone, label="fit: reading", pairs=rows.pairs, weights=weights[key]
        )
    reduced = run_all(passes)

    reads = {}
    for key, table in tables.items():
        read, rows_of = reduced[key, False], aligned.get(key)
        moments, R = (
            (read.value.moments, read.value.R) if options.method == "qr" else (read.value, None)
        )
        if key in listed:
            # Every row is in `rest`; the pairs' own rows are counted there once already.
            sums = reduced[key, True].value
            zeros = replace(sums.zeros, rows=moments.zeros.rows, energy=0.0)
            moments = replace(moments.with_pairs(sums.pairs), zeros=zeros)
        summary = TableMoments(moments, str(table.dtype), table.where)
        if rows_of is None:
            reads[key] = TableRead(summary, table, triangle=R, n_reads=1, digests=read.digests)
        else:
            theirs = read.partner_digests | rows_of.pairs.digests
            reads[key] = TableRead(
                summary, table, rows_of.pairs, rows_of.table, R, 1, read.digests, theirs
            )
    return reads


def aligned_pairs(basis: Basis, reads: Mapping[str, TableRead], options: FitOptions) -> Pairs:
    """Sums over the pairs that the first read compared, in the basis: of one table, or of both
    stacked.
    """
    sums = pair_sums({key: reads[key].summary.moments.pairs for key in options.aligned}, reads)
    stacked: Pairs = total(sums[key].transformed(getattr(basis, key)) for key in sorted(sums))
    return stacked


def read_unit_pairs(
    basis: Basis, target: Target, reads: Mapping[str, TableRead], options: FitOptions
) -> Pairs:
    """One more read of the aligned tables: pairs with every row scaled to length one after it
    was transformed.
    """
    passes = {}
    for key in options.aligned:
        read = reads[key]
        if read.table is None:
            raise InputError(
                f"{option(unit_rows=True)} needs another read of the tables; moments alone do not"
                " hold it; fit from the tables"
            )
        reduction, aligned = unit_pairs_reduction(getattr(basis, key)), read.aligned or read.table
        weights = options.selection(key).row_weights(aligned)
        passes[key] = reduce_table(
            aligned, reduction, label="fit: unit rows", pairs=read.pairs, weights=weights
        )
        read.n_reads += 1

    unit_pairs: dict[str, Pairs | None] = {}
    for key, done in run_all(passes).items():
        value, read = done.value, reads[key]
        unit_pairs[key], read.energies = value.moments.pairs, (value.energy_x, value.energy_y)
        read.unit_zeros = replace(value.moments.zeros, rows=read.summary.moments.zeros.rows)
        read.reference_digests |= done.partner_digests

    require_matched(len(basis.items), with_matched(target, reads), scores=basis.balance is not None)
    if all(pairs is not None and not pairs.weight > 0 for pairs in unit_pairs.values()):
        raise InputError(
            f"{option(unit_rows=True)} needs matched rows that are not zero; all of them are; check"
            " how they were written"
        )
    stacked: Pairs = total(pair_sums(unit_pairs, reads).values())
    return stacked


def pair_sums(
    pairs_of: Mapping[str, Pairs | None], reads: Mapping[str, TableRead]
) -> dict[str, Pairs]:
    """The sums of every aligned table, anchors standing for all rows; an error where one
    has none.
    """
    sums = {
        key: for_all_rows(pairs, reads[key])
        for key, pairs in pairs_of.items()
        if pairs is not None and pairs.weight > 0
    }
    if len(sums) < len(pairs_of):
        raise InputError(
            f"the rows of {' and '.join(sorted(set(pairs_of) - set(sums)))} to align on are none,"
            " or all of weight 0; select others"
        )

    for key, pairs in sums.items():
        if not 1 / _MOST_WEIGHT < pairs.weight / pairs.n < _MOST_WEIGHT:
            raise InputError(
                f"weights of {key} must lie within {1 / _MOST_WEIGHT:g} and {_MOST_WEIGHT:g} on"
                f" average; they are {pairs.weight / pairs.n:.3g}; multiply all of them by one"
                " number, which changes nothing else"
            )

    return sums


def for_all_rows(pairs: Pairs, read: TableRead) -> Pairs:
    """Sums over drawn rows with the weight of all the rows they stand for: another table may be
    aligned too.
    """
    drawn = read.pairs
    if drawn is None or drawn.pairing.n_represented == drawn.pairing.n_used:
        return pairs
    return pairs.times(drawn.pairing.n_represented / drawn.pairing.n_used)
