"""Fit diagnostics as plain JSON values: rows read, accuracy, and the precision for the apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dask_embstab.core.error_bounds import column_lengths, product_errors
from dask_embstab.core.fit_transform import Basis
from dask_embstab.core.moments import Moments
from dask_embstab.core.square_root import Root
from dask_embstab.core.types import EPS
from dask_embstab.core.zero_rows import ZeroRows
from dask_embstab.passes.engine.blas import kernel_family
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.passes.fit.state import TableRead
from dask_embstab.passes.join.lagged_rows import LaggedRows
from dask_embstab.passes.join.reference_rows import ReferenceRows
from dask_embstab.tables.transform import Transform

_ROUTES = ("qr", "preconditioned", "gram")


def fit_diagnostics(
    transform: Transform,
    basis: Basis,
    reads: Mapping[str, TableRead],
    roots: Mapping[str, Root],
    n_users: int | None,
    reference: dict[str, Any] | None,
    options: FitOptions,
) -> dict[str, Any]:
    """The diagnostics of a fit, but for its alignment."""
    routes = {root.route for root in roots.values()}
    s = basis.singular_values
    # Of scores every component that was kept, however small: the product may span 24 decades.
    # Geometry keeps all; there it is the rank that float64 sees in the items' Gramian.
    seen = np.count_nonzero(s > np.sqrt(len(s) * EPS) * s[0])
    squares = float((s**2).sum() + (basis.discarded**2).sum())
    tables: dict[str, Any] = {key: _table(read, roots.get(key)) for key, read in reads.items()}
    if basis.certificates is not None:
        for key, bounds in zip(("items", "users"), basis.certificates, strict=True):
            tables[key]["certificate"] = float(bounds.max())

    truncation = None
    if len(basis.discarded):  # what ``rank=`` cost the scores, in both norms (Eckart & Young)
        truncation = {
            "discarded_singular_values": basis.discarded.tolist(),
            "spectral_error": float(basis.discarded[0]),
            "frobenius_error": float(np.linalg.norm(basis.discarded)),
        }

    return {
        "keep": options.keep,
        "method": next((route for route in _ROUTES if route in routes), "gram"),
        "rank": int(seen) if basis.balance is None else len(s),
        "width": transform.width,
        "balance": basis.balance,
        "balance_factor": basis.factor,
        "centred": options.center,
        "items": tables["items"],
        "users": (
            tables.get("users")
            or (None if n_users is None else {"rows": n_users, "matched": None, "zero_rows": None})
        ),
        "reference": reference,
        "singular_values": s.tolist(),
        "truncation": truncation,
        "explained_share": (s**2 / squares).tolist(),
        "product": _products(transform, roots),
        "kernel_family": kernel_family(),
    }


def _table(read: TableRead, root: Root | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "rows": read.summary.n_rows,
        "zero_rows": read.summary.moments.zeros.rows,
        "dtype": read.summary.dtype,
        "matched": read.matched,
        "reads": read.n_reads,
        "energy": float(np.trace(read.summary.gramian)),
        "moments_digest": read.summary.digest(),
        "digests": [read.digests[chunk] for chunk in sorted(read.digests)],
        "reference_digests": [
            read.reference_digests[chunk] for chunk in sorted(read.reference_digests)
        ],
    }
    if read.pairs is not None:
        figures |= _paired(read.pairs, read)
        if isinstance(read.pairs, LaggedRows):
            figures["lags"] = {term.name: term.rows.pairing.matched for term in read.pairs.terms}

    if root is not None:
        figures |= {
            "route": root.route,
            "rank": root.rank,
            "condition": root.condition,
            "equilibrated_singular_values": root.sigma.tolist(),
        }

    return figures


def _paired(pairs: ReferenceRows, read: TableRead) -> dict[str, Any]:
    """Counts of matched and unmatched rows of either side, and their shares of the energy."""
    pairing, moments, zeros = pairs.pairing, read.summary.moments, read.zeros
    energies = read.energies
    if energies is None and moments.pairs is not None:
        energies = (
            float(np.trace(moments.pairs.gramian_x)),
            float(np.trace(moments.pairs.gramian_y)),
        )

    # The unmatched rows' share of the reference's energy: none where they were not read, or where
    # it is not finite.
    unmatched, whole, share = pairs.unmatched_energy, pairs.energy, None
    if not pairing.unmatched_reference:
        share = 0.0
    elif unmatched is not None and pairing.live is None:
        if whole is None:
            whole = unmatched + zeros.reference_energy + (0.0 if energies is None else energies[1])
        share = unmatched / whole if whole and np.isfinite(whole) else None
    matched, new, unmatched_reference = pairing.changes
    return {
        "new": new,
        "unmatched_reference": unmatched_reference,
        "returned": pairing.matched - matched,
        "aligned": pairing.n_used - zeros.pairs,
        "zero_pairs": zeros.pairs,
        "reference_zero_rows": zeros.reference + pairs.unmatched_zero_rows,
        "paired_by": pairing.paired_by,
        "matched_energy": None if share is None else 1.0 - share,
        "unmatched_reference_energy": share,
        "new_energy": _new_energy(pairs, moments, zeros, energies),
        "vectors": pairs.strategy,
        "duplicates": dict(pairing.duplicates),
        "differ_only_by": dict(pairing.differ_only_by),
        "scratch_bytes": pairs.n_bytes,
    }


def _new_energy(
    pairs: ReferenceRows, moments: Moments, zeros: ZeroRows, energies: tuple[float, float] | None
) -> float | None:
    """The new rows' share of the run's own energy; None where a selection mixes them with rows that
    were left out.
    """
    pairing = pairs.pairing
    if not pairing.new:
        return 0.0
    if pairing.n_used < pairing.matched or pairing.listed or moments.rest is None:
        return None
    total = float(np.trace(moments.gramian))
    if moments.pairs is None and energies is not None:
        return max(0.0, 1.0 - (energies[0] + zeros.energy) / total)
    return (float(np.trace(moments.rest)) - zeros.energy) / total


def _products(transform: Transform, roots: Mapping[str, Root]) -> dict[str, Any]:
    """The precision in which `apply` shall multiply, and the estimates that say so."""
    if not roots:
        # A rotation: every column of the product is as long as its inputs allow, and nothing is
        # amplified.
        return {"items": "float32", "users": "float32", "column_error": None, "score_error": None}
    assert transform.users is not None
    size = float(np.linalg.norm(transform.singular_values))
    R_T, R_W, M_T, M_W = roots["items"].R, roots["users"].R, transform.items, transform.users
    ours, theirs = column_lengths(R_T @ M_T), column_lengths(R_W @ M_W)
    errors = {
        "items": product_errors(R_T, M_T, ours, theirs, size),
        "users": product_errors(R_W, M_W, theirs, ours, size),
    }
    return {
        **{key: error.product for key, error in errors.items()},
        "column_error": {key: error.columns for key, error in errors.items()},
        "score_error": {key: error.scores for key, error in errors.items()},
    }
