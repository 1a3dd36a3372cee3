"""Which rows decide the rotation, and where are their reference rows? Asked before any vector is
read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dask_embstab.core.fit_transform import Target, require_matched
from dask_embstab.errors import InputError, TooFewMatchedError
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.reference import Reference
from dask_embstab.passes.fit.target import require_width
from dask_embstab.passes.join.lagged_rows import Term, lagged_rows
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.passes.join.reference_rows import ReferenceRows, plan_reference_read, with_energy
from dask_embstab.repairs import option
from dask_embstab.tables.table import Table


@dataclass(frozen=True, slots=True)
class AlignedRows:
    """A table (or a view of its listed rows) and the reference rows of those that decide the
    rotation.
    """

    table: Table
    pairs: ReferenceRows


Paired = tuple[Table, Pairing, Sequence[Pairing]]
"""The table (or a view of its listed rows), its pairing with the reference and, of listed rows,
with every lagged run.
"""


def aligned_rows(
    pairings: Mapping[str, Paired],
    reference: Reference | None,
    options: FitOptions,
    join: JoinOptions,
) -> dict[str, AlignedRows]:
    """Of every table that is paired: the rows that decide the rotation, and where their reference
    rows are read.
    """
    pairs = {}
    for key, (table, pairing, _) in pairings.items():
        choice = options.selection(key)
        used = pairing if pairing.listed else choice.applied(pairing, table)
        rows = plan_reference_read(used, table, join, label="fit")
        if not pairing.listed:
            rows = with_energy(rows, join, weighted=choice.weighted, label="fit")
        pairs[key] = rows
    aligned = {key: table for key, (table, *_) in pairings.items()}
    if reference is not None and reference.lags:
        lagged = {key: known for key, (*_, known) in pairings.items()}
        pairs = _with_lags(pairs, aligned, lagged, reference, options, join)
    return {key: AlignedRows(aligned[key], rows) for key, rows in pairs.items()}


def paired_tables(
    tables: Mapping[str, Table],
    reference: Reference | None,
    options: FitOptions,
    join: JoinOptions,
    *,
    whole: bool,
) -> dict[str, Paired]:
    """Every table that is aligned on, and its reference rows: by id, or as the user listed them.

    ``whole`` tables (not parts of one) that share too few rows are refused; a part may share none.
    """
    pairings: dict[str, Paired] = {}
    if reference is None:
        return pairings
    for key in options.aligned:
        theirs: Table | None = getattr(reference, key)
        if theirs is not None:
            require_width(options, theirs.d)
        if key not in tables or theirs is None:
            whose = "the run" if key not in tables else "the reference"
            raise InputError(
                f"{option(align_on=options.align_on)} needs {key} in run and reference; {whose} has"
                " none",
                *(
                    f"{option(align_on=other)} aligns on the {other} that both have"
                    for other in ("items", "users")
                    if other in tables and getattr(reference, other) is not None
                ),
            )
        listed = options.selection(key).pairs
        if listed is not None:
            lags = [lag.tables[key] for lag in reference.lags]
            from dask_embstab.passes.join.listed import pair_listed

            pairings[key] = pair_listed(tables[key], theirs, listed, lags)
        else:
            live = reference.live.get(key)
            joined = pair(tables[key], theirs, join, live=live, part=not whole)
            pairings[key] = tables[key], joined, []
    if not whole:
        return {key: paired for key, paired in pairings.items() if paired[1].matched}
    _require_shared(tables, reference, pairings, options)
    return pairings


def _require_shared(
    tables: Mapping[str, Table],
    reference: Reference,
    pairings: Mapping[str, Paired],
    options: FitOptions,
) -> None:
    """Raise where the tables share too few rows with the reference, as far as ids can tell."""
    shared = sum(pairing.changes[0] for _, pairing, _ in pairings.values())
    target = Target(
        0,
        min_matched=options.min_matched,
        matched=shared,
        shared=shared,
        others=tuple(
            key
            for key in tables
            if key not in options.aligned and getattr(reference, key) is not None
        ),
        listed=any(pairing.listed for _, pairing, _ in pairings.values()),
    )
    require_matched(tables["items"].d, target, scores=options.keep == "scores")


def _with_lags(
    pairs: Mapping[str, ReferenceRows],
    aligned: Mapping[str, Table],
    lagged: Mapping[str, Sequence[Pairing]],
    reference: Reference,
    options: FitOptions,
    join: JoinOptions,
) -> dict[str, ReferenceRows]:
    """The reference's rows and those of the lagged runs as one; a lag that shares no row is left
    out.
    """
    terms: dict[str, list[Term]] = {key: [] for key in pairs}
    for at, lag in enumerate(reference.lags):
        with_lags: dict[str, ReferenceRows] = {}
        for key, table in aligned.items():
            with contextlib.suppress(TooFewMatchedError):
                chosen = (
                    lagged[key][at]
                    if lagged[key]
                    else options.selection(key).applied(pair(table, lag.tables[key], join), table)
                )
                with_lags[key] = plan_reference_read(
                    chosen, table, join, label=f"fit: lag {lag.name}"
                )
        n = sum(rows.pairing.n_used for rows in with_lags.values())
        for key, rows in with_lags.items():
            terms[key] += [Term(lag.name, rows, lag.weight / n)] if n else []

    if not any(terms.values()):
        return dict(pairs)

    n_rows = sum(aligned[key].n_rows for key in pairs)
    return {
        key: lagged_rows(own, reference.weight / n_rows, tuple(terms[key]))
        for key, own in pairs.items()
    }
