"""How wide is the output, how many rows must be shared, and can these tables be fitted at all?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dask_embstab.core.fit_transform import Basis, Target
from dask_embstab.core.moments import LEAST_SQUARES
from dask_embstab.errors import ConditionError, InputError
from dask_embstab.passes.engine.reduce import underflow_of
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.state import TableRead
from dask_embstab.repairs import option
from dask_embstab.tables.table_moments import TableMoments


def target_of(
    basis: Basis, reads: Mapping[str, TableRead], options: FitOptions, *, rotated: bool
) -> Target:
    """How wide the aligned tables are: a silent loss of components is never an answer."""
    d, r = basis.items.shape
    reference_width = None
    for key in options.aligned if rotated else ():  # both have one width, where both know it
        pairs, shared = reads[key].pairs, reads[key].summary.shared
        if pairs is not None:
            reference_width = int(pairs.pairing.reference.shape[1])
        elif shared is not None:
            reference_width = shared.d
    rank_or_d = (options.rank or d) if reference_width is None else reference_width
    width = options.width or rank_or_d
    narrows = (
        options.width is not None and options.keep == "geometry" and reference_width is not None
    )
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
    return with_matched(target, reads)


def with_matched(target: Target, reads: Mapping[str, TableRead]) -> Target:
    """The same with the shared rows and the rows of the smaller tables, as far as they were
    read.
    """
    aligned = [reads[key] for key in target.on if key in reads]
    matched, shared, smaller = (
        sum(getattr(read, name) or 0 for read in aligned)
        for name in ("evidence", "matched", "smaller")
    )
    listed = any(read.pairs is not None and read.pairs.pairing.listed for read in aligned)
    return replace(target, matched=matched, shared=shared, smaller=smaller, listed=listed)


def require_width(options: FitOptions, reference_width: int) -> None:
    """Raise, before anything is read, where the aligned tables are to be narrower than the
    reference.
    """
    if options.width is not None and options.width < reference_width:
        raise InputError(
            f"{option(width=options.width)} is less than the {reference_width} components of the"
            " reference; give at least that many"
        )


def require_rows(where: str, n: int, d: int) -> None:
    """Raise where scores are to be kept of fewer rows than components."""
    if n < d:
        raise InputError(
            f"keeping scores needs at least as many rows as components; {where} has {n} rows of {d}"
            " components; give more rows",
            f"{option(keep='geometry')} only rotates",
        )


def require_nonzero(summary: TableMoments, *, every_component: bool) -> None:
    """Raise for a table of zeros, and where squares underflow: of all components, or of one that
    scores may need.
    """
    squares = np.diag(summary.gramian)
    least = squares[squares > 0].min(initial=np.inf) if every_component else squares.max()
    if summary.moments.n_nonzero and (least < LEAST_SQUARES or not squares.any()):
        raise underflow_of(summary.where)
    if not squares.any():
        raise ConditionError(
            f"every value of {summary.where} is zero, so it spans no space; check how it was"
            " written"
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
        repairs.append(
            f"{option(width=reference_width)} rotates onto the reference's own components alone"
        )

    return InputError(
        f"the {name} of the run is {r} and the {whose} has {width} components", *repairs
    )
