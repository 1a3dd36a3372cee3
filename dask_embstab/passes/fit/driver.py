"""A fit, from tables to a transform: pair the rows, reduce each table in one read, factorize, rotate, account for it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dask_embstab.core.fit_transform import (
    Basis,
    Target,
    geometry_basis,
    landed_pairs,
    require_matched,
    rotated,
    rotation_of,
    scores_basis,
    unrotated,
)
from dask_embstab.core.moments import Pairs
from dask_embstab.core.scatter import Influence, anchor_bound
from dask_embstab.core.square_root import Root
from dask_embstab.core.sums import total
from dask_embstab.core.table_moments import Shared, TableMoments
from dask_embstab.core.transform import Transform
from dask_embstab.core.types import Matrix
from dask_embstab.core.zero_rows import ZeroRows
from dask_embstab.errors import ConditionError, InputError, TooFewMatchedError
from dask_embstab.passes.engine.graph import run_all
from dask_embstab.passes.engine.memory import Load, read_load, require_memory, small_matrices
from dask_embstab.passes.engine.plan import plan
from dask_embstab.passes.engine.reduce import reduce_table
from dask_embstab.passes.fit.diagnostics import account
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.reductions import (
    moments_reduction,
    pairs_reduction,
    triangle_reduction,
    unit_pairs_reduction,
)
from dask_embstab.passes.fit.reference import Reference
from dask_embstab.passes.fit.reread import graded_roots
from dask_embstab.passes.join.anchors import anchor_scatter
from dask_embstab.passes.join.lagged_rows import Term, lagged_rows
from dask_embstab.passes.join.listed import pair_listed
from dask_embstab.passes.join.options import Joining, joining
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.reference_rows import Beside, beside, with_energy
from dask_embstab.passes.join.rows import has_zero_rows, identity
from dask_embstab.repairs import call, option
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.table import Table


@dataclass(slots=True)
class TableRead:
    """What is known of one table: its moments, and where they come from (``table`` is None where they were given).

    ``aligned`` holds the rows that ``pairs`` are read beside: the table, or a view of its listed rows.
    ``energies`` are the sums of squares of the matched rows and of their reference rows, once they are known.
    ``triangle`` is the R factor where the first read made one; ``n_reads`` counts the reads so far.
    """

    summary: TableMoments
    table: Table | None = None
    pairs: Beside | None = None
    aligned: Table | None = None
    triangle: Matrix | None = None
    n_reads: int = 0
    digests: Digests = field(default_factory=dict)
    reference_digests: Digests = field(default_factory=dict)
    energies: tuple[float, float] | None = None
    unit_zeros: ZeroRows | None = None

    @property
    def zeros(self) -> ZeroRows:
        """Rows of zeros, and the pairs left out for one, whichever read compared the pairs."""
        return self.unit_zeros or self.summary.moments.zeros

    @property
    def matched(self) -> int | None:
        """Rows shared with the reference, before any selection; None where that was not needed."""
        if self.pairs is not None:
            return self.pairs.pairing.changes[0]
        return None if self.summary.shared is None else self.summary.matched

    @property
    def evidence(self) -> int:
        """Shared rows, before any selection, without the pairs of which a row was read as zero."""
        if self.matched is None:
            return 0
        shared = self.matched if self.pairs is None else self.pairs.pairing.matched
        nonzero = shared - self.zeros.pairs
        listed = self.pairs is not None and self.pairs.pairing.listed  # a row may be in several pairs
        return nonzero if listed else min(self.matched, nonzero, self.summary.moments.n_nonzero)

    @property
    def smaller(self) -> int:
        """Rows of the run's or of the reference's table, whichever has fewer; 0 of listed pairs.

        Rows of zeros do not count, as far as they were read.
        """
        if self.pairs is not None and not self.pairs.pairing.listed:
            matched, _, gone = self.pairs.pairing.changes
            reference = matched - self.zeros.reference + gone - self.pairs.gone_zero_rows
        elif self.pairs is None and (shared := self.summary.shared) is not None:
            reference = shared.rows - max(shared.zero_rows, self.zeros.reference)  # a part knows of its own, at least
        else:
            return 0
        return min(self.summary.moments.n_nonzero, reference)


def fit_tables(items: Table, users: Table | None, reference: Reference | None, options: FitOptions) -> Transform:
    """The transform that lands these tables on the reference (or standardizes them, where there is none)."""
    tables = {"items": items}
    if users is not None and (options.keep == "scores" or (reference is not None and options.align_on != "items")):
        tables["users"] = users
    if options.keep == "scores":
        for table in tables.values():
            _require_rows(table.where, table.n_rows, table.d)
    theirs = [] if reference is None else reference.tables
    with unchanged(*tables.values(), *theirs, *options.columns), joining(**options.joining) as how:
        reads = read_tables(tables, reference, options, how, whole=True)
        n_users = None if users is None else users.n_rows
        return fit_reads(reads, n_users, None if reference is None else reference.described, options)


def fit_moments(tables: Mapping[str, TableMoments], reference: Reference | None, options: FitOptions) -> Transform:
    """Fit from moments that were taken before; no table is read.

    What only a read can do is refused: what chooses rows or scales them belongs to `summarize`.
    """
    again = {"method": "qr" if options.method == "qr" else None, "unit_rows": options.unit_rows or None}
    for name, value in again.items():
        if value is not None:
            raise InputError(f"{option(**{name: value})} needs another read of the tables; fit from the tables")
    for choice in options.selections.values():
        for name in choice.given:
            raise InputError(
                f"{option(name)} is about rows, and moments hold their sums alone",
                f"{call('moments', **{name: None})} takes it" if name != "pairs" else "fit from the tables",
            )
    for key in options.aligned if reference is not None else ():
        if (shared := tables[key].shared) is not None:
            _require_width(options, shared.d)
        if not tables[key].matched:
            raise TooFewMatchedError(
                f"{tables[key].where} and its reference share no id; a run is aligned on the rows it shares with its"
                " reference"
            )
    reads = {key: TableRead(summary) for key, summary in tables.items()}
    n_users = tables["users"].n_rows if "users" in tables else None
    return fit_reads(reads, n_users, None if reference is None else reference.described, options)


def fit_reads(
    reads: dict[str, TableRead], n_users: int | None, reference: dict[str, Any] | None, options: FitOptions
) -> Transform:
    """The same from moments: only a table that needs another route, or unit rows, is read again."""
    roots: dict[str, Root] = {}
    items = reads["items"].summary
    for read in reads.values():
        _require_nonzero(read.summary)
    if options.keep == "scores":
        users = reads["users"].summary
        for summary in (items, users):
            _require_rows(summary.where, summary.n_rows, summary.d)
        roots = graded_roots(reads, options.method)
        counts = items.moments.n_nonzero, users.moments.n_nonzero
        basis = scores_basis(roots["items"], roots["users"], *counts, rank=options.rank, balance=options.balance)
    else:
        basis = geometry_basis(items.moments, with_users=n_users is not None)
    if reference is None:
        target = _target(basis, None, reads, options)
        transform, figures = unrotated(basis, target, items.moments)
    else:
        transform, figures = _rotated(basis, reads, options)
    return replace(
        transform, diagnostics=figures | account(transform, basis, reads, roots, n_users, reference, options)
    )


def read_tables(
    tables: Mapping[str, Table], reference: Reference | None, options: FitOptions, how: Joining, *, whole: bool = False
) -> dict[str, TableRead]:
    """One read of every table, with its reference rows where it is aligned on.

    ``whole`` tables (not parts of one) that share too few rows are refused before anything is read; a part may share none.
    """
    loads = {key: _load(table, reference, options, key) for key, table in tables.items()}
    width = max((_width(reference, options, key) for key in tables), default=0)
    small = small_matrices(tables["items"].d, width, scores=options.keep == "scores") if whole else 0
    require_memory([*loads.values()], small=small)
    found = {} if reference is None else _pairings(tables, reference, options, how, whole=whole)
    aligned = {key: table for key, (table, _) in found.items()}
    pairings = {key: pairing for key, (_, pairing) in found.items()}
    if pairings and whole:
        matched = sum(pairing.changes[0] for pairing in pairings.values())
        smaller = sum(pairing.smaller for pairing in pairings.values())
        others = tuple(k for k in tables if k not in options.aligned and getattr(reference, k) is not None)
        target = Target(0, min_matched=options.min_matched, matched=matched, smaller=smaller, others=others)
        try:
            require_matched(tables["items"].d, target, scores=options.keep == "scores")
        except TooFewMatchedError:
            # Rows of zeros count for neither side: where there are some, only the read can tell the share.
            require_matched(tables["items"].d, replace(target, smaller=0), scores=options.keep == "scores")
            theirs = [getattr(reference, key) for key in pairings]
            if not has_zero_rows([*(aligned[key] for key in pairings), *theirs]):
                raise
    pairs = {key: _beside(aligned[key], pairing, options, how, key) for key, pairing in pairings.items()}
    if reference is not None and reference.lags:
        pairs = _with_lags(pairs, aligned, reference, options, how)
    # Directions are found once the basis is known: until then nobody needs the reference's rows.
    now = {} if options.unit_rows and not options.center else pairs
    listed = [key for key in now if pairings[key].listed]
    weights = {key: options.selection(key).row_weights(aligned[key]) for key in now}

    # Listed pairs are other rows than the table's, some of them several times: a small pass of their own.
    reduction: Any = (triangle_reduction if options.method == "qr" else moments_reduction)(centred=options.center)
    alone = pairs_reduction(centred=options.center)
    passes: dict[tuple[str, bool], Any] = {}
    for key, table in tables.items():
        rows, weigh = (None, None) if key in listed else (now.get(key), weights.get(key))
        passes[key, False] = reduce_table(table, reduction, label="fit: reading", pairs=rows, weights=weigh)
    for key in listed:
        passes[key, True] = reduce_table(
            aligned[key], alone, label="fit: reading", pairs=pairs[key], weights=weights[key]
        )
    found_in = run_all(passes)

    reads = {}
    for key in tables:
        read = found_in[key, False]
        moments, R = (read.value.moments, read.value.R) if options.method == "qr" else (read.value, None)
        if key in listed:
            # Every row is in `rest`; the pairs' own rows are counted there once already.
            sums = found_in[key, True].value
            zeros = replace(sums.zeros, rows=moments.zeros.rows, energy=0.0)
            moments = replace(moments, pairs=sums.pairs, partnered=np.zeros((moments.d, moments.d)), zeros=zeros)
        summary = TableMoments(moments, str(tables[key].dtype), tables[key].where)
        beside_it = pairs.get(key)
        theirs = read.partner_digests | ({} if beside_it is None else beside_it.digests)
        reads[key] = TableRead(summary, tables[key], beside_it, aligned.get(key), R, 1, read.digests, theirs)
    return reads


def summarize(table: Table, reference: Table | None, described: Mapping[str, Any], options: FitOptions) -> TableMoments:
    """Moments of one table (or of a part of one) with its reference rows, from one read.

    A few rows that were drawn count for all that they stand for, as in a fit of two tables.
    """
    paired = None if reference is None else Reference(reference, None, {})
    with unchanged(table, reference, *options.columns), joining(**options.joining) as how:
        read = read_tables({"items": table}, paired, options, how)["items"]
        known = None if reference is None else identity(reference)
    if reference is None:
        return read.summary
    moments, found = read.summary.moments, read.pairs
    zero_rows = moments.zeros.reference + (found.gone_zero_rows if found else 0)
    shared = Shared(found.pairing.matched if found else 0, reference.n_rows, reference.d, zero_rows, described)
    if found and moments.pairs and found.pairing.n_represented > found.pairing.n_used:
        moments = replace(moments.counted_once, pairs=_for_all(moments.pairs, read))
    return replace(read.summary, moments=moments, reference=known, shared=shared)


def _rotated(basis: Basis, reads: dict[str, TableRead], options: FitOptions) -> tuple[Transform, dict[str, Any]]:
    target = _target(basis, _reference_width(reads, options), reads, options)
    require_matched(len(basis.items), target, scores=basis.balance is not None)
    means = None
    if options.center or not options.unit_rows:
        sums = {key: reads[key].summary.moments.pairs for key in options.aligned}
        means = landed_pairs(basis, _require_pairs(sums, reads))
    used = _unit_pairs(basis, target, reads, options) if options.unit_rows else means
    assert used is not None
    transform, figures = rotated(basis, target, used, means)
    return transform, figures | {"anchor_bound": _anchor_bound(basis, target, reads, used, options)}


def _reference_width(reads: dict[str, TableRead], options: FitOptions) -> int | None:
    """Components of the reference; None where nothing is known of it."""
    for read in (reads[key] for key in options.aligned):
        if read.pairs is not None:
            return int(read.pairs.pairing.reference.shape[1])
        if read.summary.shared is not None:
            return read.summary.shared.d
    return None


def _require_pairs(found: Mapping[str, Pairs | None], reads: dict[str, TableRead]) -> dict[str, Pairs]:
    """The sums of every aligned table, anchors standing for all rows; an error where one has none."""
    sums = {key: _for_all(pairs, reads[key]) for key, pairs in found.items() if pairs is not None and pairs.weight > 0}
    if len(sums) < len(found):
        raise InputError(
            f"the rows of {' and '.join(sorted(set(found) - set(sums)))} to align on are none, or all of weight 0;"
            " select others"
        )
    return sums


def _for_all(pairs: Pairs, read: TableRead) -> Pairs:
    """Sums over drawn rows with the weight of all the rows they stand for: another table may be aligned too."""
    found = read.pairs
    if found is None or found.pairing.n_represented == found.pairing.n_used:
        return pairs
    return pairs.times(found.pairing.n_represented / found.pairing.n_used)


def _anchor_bound(
    basis: Basis, target: Target, reads: dict[str, TableRead], pairs: Pairs, options: FitOptions
) -> float | None:
    """Estimate of the distance from the rotation of all rows; None without anchors, with weights or a narrower width."""
    sampled = []
    if basis.items.shape[1] > target.width:
        return None
    _, rotation = rotation_of(target, pairs)
    mean_x, mean_y = (total / pairs.weight for total in pairs.sums) if target.center else (None, None)
    for key in options.aligned:
        beside, table = reads[key].pairs, reads[key].table
        choice = options.selection(key)
        if beside is None or table is None or choice.anchors is None or choice.weighted:
            return None
        if beside.pairing.verified:
            continue  # no more rows than anchors are shared: all of them are used
        left, right = rotation.Q @ rotation.Zh.T, rotation.Zh.T
        s = rotation.singular_values / pairs.n
        drawn = beside.pairing
        share = drawn.n_represented / drawn.n_used / pairs.weight
        influence = Influence(getattr(basis, key), left, right, s, share, mean_x, mean_y, options.unit_rows)
        sampled.append((anchor_scatter(table, drawn, influence), drawn.n_eligible, drawn.n_represented))
    return anchor_bound(len(rotation.Q), pairs.weight, sampled) if sampled else 0.0


def _unit_pairs(basis: Basis, target: Target, reads: dict[str, TableRead], options: FitOptions) -> Pairs:
    """One more read of the aligned tables: pairs with every row scaled to length one once it has landed."""
    passes = {}
    for key in options.aligned:
        read = reads[key]
        if read.table is None:
            raise InputError(
                f"{option(unit_rows=True)} needs another read of the tables; moments alone do not hold it; fit from"
                " the tables"
            )
        reduction, aligned = unit_pairs_reduction(getattr(basis, key)), read.aligned or read.table
        weights = options.selection(key).row_weights(aligned)
        passes[key] = reduce_table(aligned, reduction, label="fit: unit rows", pairs=read.pairs, weights=weights)
        read.n_reads += 1
    found: dict[str, Pairs | None] = {}
    for key, done in run_all(passes).items():
        value, read = done.value, reads[key]
        found[key], read.energies = value.moments.pairs, (value.energy_x, value.energy_y)
        read.unit_zeros = replace(value.moments.zeros, rows=read.summary.moments.zeros.rows)
        read.reference_digests |= done.partner_digests
    require_matched(len(basis.items), _counted(target, reads), scores=basis.balance is not None)
    if all(pairs is not None and not pairs.weight > 0 for pairs in found.values()):
        raise InputError(
            f"{option(unit_rows=True)} needs matched rows that are not zero; all of them are; check how they were"
            " written"
        )
    stacked: Pairs = total(_require_pairs(found, reads).values())
    return stacked


def _pairings(
    tables: Mapping[str, Table], reference: Reference, options: FitOptions, how: Joining, *, whole: bool
) -> dict[str, tuple[Table, Pairing]]:
    """The rows that are aligned, and their reference rows: by id, or as the user listed them."""
    pairings = {}
    for key in options.aligned:
        theirs: Table | None = getattr(reference, key)
        if theirs is not None:
            _require_width(options, theirs.d)
        if key not in tables or theirs is None:
            whose = "the run" if key not in tables else "the reference"
            raise InputError(
                f"{option(align_on=options.align_on)} needs {key} in run and reference; {whose} has none",
                *(
                    f"{option(align_on=other)} aligns on the {other} that both have"
                    for other in ("items", "users")
                    if other in tables and getattr(reference, other) is not None
                ),
            )
        listed = options.selection(key).pairs
        if listed is not None:
            pairings[key] = pair_listed(tables[key], theirs, listed)
        else:
            pairings[key] = tables[key], pair(tables[key], theirs, how, live=reference.live.get(key), part=not whole)
    return pairings if whole else {key: found for key, found in pairings.items() if found[1].matched}


def _with_lags(
    pairs: Mapping[str, Beside], aligned: Mapping[str, Table], reference: Reference, options: FitOptions, how: Joining
) -> dict[str, Beside]:
    """The reference's rows and those of the lagged runs as one; a lag that shares no row is left out."""
    terms: dict[str, list[Term]] = {key: [] for key in pairs}
    for lag in reference.lags:
        found: dict[str, Beside] = {}
        for key in pairs:
            with contextlib.suppress(TooFewMatchedError):
                pairing = pair(aligned[key], lag.tables[key], how)
                chosen = options.selection(key).applied(pairing, aligned[key])
                found[key] = beside(chosen, aligned[key], how, label=f"fit: lag {lag.name}")
        n = sum(rows.pairing.n_used for rows in found.values())
        for key, rows in found.items():
            terms[key] += [Term(lag.name, rows, lag.weight / n)] if n else []
    if not any(terms.values()):
        return dict(pairs)
    n_rows = sum(aligned[key].n_rows for key in pairs)
    return {key: lagged_rows(own, reference.weight / n_rows, tuple(terms[key])) for key, own in pairs.items()}


def _beside(table: Table, pairing: Pairing, options: FitOptions, how: Joining, key: str) -> Beside:
    """The reference rows of those that decide the rotation, ready to be read beside the table's."""
    choice = options.selection(key)
    if pairing.listed:
        return beside(pairing, table, how, label="fit")
    found = beside(choice.applied(pairing, table), table, how, label="fit")
    return with_energy(found, how, weighted=choice.weighted, label="fit")


def _load(table: Table, reference: Reference | None, options: FitOptions, key: str) -> Load:
    """The least that the read of this table holds: before rows are paired, all of them may be."""
    width = _width(reference, options, key)
    beside_it = width * (1 + len(reference.lags)) if reference else 0
    values = (int(not width) + (options.method == "qr"), int(width > 0))
    return read_load(table, *plan(table, beside=beside_it), width=beside_it, values=values)


def _width(reference: Reference | None, options: FitOptions, key: str) -> int:
    """Components of the reference rows of this table, or 0."""
    theirs: Table | None = getattr(reference, key) if reference is not None and key in options.aligned else None
    return 0 if theirs is None else theirs.d


def _target(basis: Basis, reference_width: int | None, reads: dict[str, TableRead], options: FitOptions) -> Target:
    """How wide the aligned tables are: a silent loss of components is never an answer."""
    d, r = basis.items.shape
    rank_or_d = (options.rank or d) if reference_width is None else reference_width
    width = options.width or rank_or_d
    narrows = options.width is not None and options.keep == "geometry" and reference_width is not None
    if r > width and not narrows:
        raise _too_narrow(r, width, reference_width, options)
    target = Target(
        width,
        options.aligned,
        center=options.center,
        proper=options.rotation_only,
        unit_rows=options.unit_rows,
        min_matched=options.min_matched,
        max_lost_energy=options.max_lost_energy,
    )
    return _counted(target, reads)


def _counted(target: Target, reads: dict[str, TableRead]) -> Target:
    """The same with the shared rows and the rows of the smaller tables, as far as they were read."""
    aligned = [reads[key] for key in target.on if key in reads]
    matched, smaller = (sum(getattr(read, name) for read in aligned) for name in ("evidence", "smaller"))
    return replace(target, matched=matched, smaller=smaller)


def _require_width(options: FitOptions, reference_width: int) -> None:
    """Raise, before anything is read, where the aligned tables are to be narrower than the reference."""
    if options.width is not None and options.width < reference_width:
        raise InputError(
            f"{option(width=options.width)} is less than the {reference_width} components of the reference; give at"
            " least that many"
        )


def _too_narrow(r: int, width: int, reference_width: int | None, options: FitOptions) -> InputError:
    """What is wrong, and every way out of it."""
    scores = options.keep == "scores"
    name = "rank" if scores else "number of components"
    whose = "width" if reference_width is None or options.width else "reference"
    padded = "" if reference_width is None else " (the reference is zero-padded)"
    repairs = [f"{option(width=r)} keeps all of them{padded}"]
    if scores:
        repairs.append(f"{option(rank=width)} keeps the best scores of that rank")
    elif reference_width is not None:
        repairs.append(f"{option(width=reference_width)} rotates onto the reference's own components alone")
    return InputError(f"the {name} of the run is {r} and the {whose} has {width} components", *repairs)


def _require_rows(where: str, n: int, d: int) -> None:
    if n < d:
        raise InputError(
            f"keeping scores needs at least as many rows as components; {where} has {n} rows of {d} components; give"
            " more rows",
            f"{option(keep='geometry')} only rotates",
        )


def _require_nonzero(summary: TableMoments) -> None:
    if not np.trace(summary.gramian) > 0:
        raise ConditionError(f"every value of {summary.where} is zero, so it spans no space; check how it was written")
