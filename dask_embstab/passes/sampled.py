"""How like are many tables, two by two? From a sample of each: the rows with the smallest hashes of
their ids, so that a row that two tables share is in both samples or in neither, mostly.

The mean cosine of unit rows U and V is tr(U'V) / n, and the largest that any rotation could reach
is the sum of the singular values of U'V over n: one small matrix per pair tells both.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.moments import row_lengths, unit
from dask_embstab.core.similarity import LEAST_TO_TURN, Likeness, likeness
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.join.sample import RowSample
from dask_embstab.tables.ids.ids import ID_RANGE, ids_at
from dask_embstab.tables.ids.keys import read_keys
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.ids.texts import Keys
from dask_embstab.tables.table import Table

_OTHERS, _MOVED = 256, 12


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Keys of ids, ascending, their row numbers and their rows (n, d), none of them zeros."""

    keys: Keys
    numbers: RowNumbers
    rows: Rows


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows of two samples with one id: row i of ``x`` (n, d) with row i of ``y``; the narrower
    table's are padded with zeros. ``numbers`` are those of the first table.
    """

    x: Rows
    y: Rows
    numbers: RowNumbers


def sampled_rows(table: Table, n: int, *, seed: int = 0) -> SampledRows:
    """About ``n`` rows of a table in float32: one read of its ids, and of these rows alone (without
    their chunks' checksums).
    """
    sample = RowSample.of(np.empty(0, np.int64), n, seed)
    reader = table.row_ids.open()
    for start in range(0, table.n_rows, ID_RANGE):
        stop = min(start + ID_RANGE, table.n_rows)
        keys = read_keys(reader, start, stop)
        sample += RowSample.of(np.arange(start, stop, dtype=np.int64), n, seed, keys)
    order = np.argsort(sample.rows)
    numbers = sample.rows[order]
    # The hash of a key is a bijection of it: it stands for the id as well.
    key = sample.hashes[order]
    rows = read_rows(table, numbers, label="sample", verified=False)
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32)
    kept = np.flatnonzero(rows.any(axis=1) & np.isfinite(rows).all(axis=1))
    kept = kept[np.argsort(key[kept])]
    return SampledRows(key[kept], numbers[kept], rows[kept])


def shared_rows(a: SampledRows, b: SampledRows) -> SharedRows:
    """The rows of both samples with one id, in the order of their keys."""
    _, ours, theirs = np.intersect1d(a.keys, b.keys, return_indices=True)
    width = max(a.rows.shape[1], b.rows.shape[1])
    x, y = (
        np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
        for rows in (a.rows[ours], b.rows[theirs])
    )
    return SharedRows(x, y, a.numbers[ours])


def cosine_and_ceiling(shared: SharedRows) -> tuple[float | None, float | None]:
    """Mean cosine of rows with one id, and the largest that a rotation could reach; None where too
    few rows are shared to say (of few, the best rotation fits noise).
    """
    n, d = shared.x.shape
    if not n:
        return None, None
    cross = unit(shared.x).T @ unit(shared.y)
    mean = float(np.trace(cross)) / n
    if n < LEAST_TO_TURN * d:
        return mean, None
    return mean, min(float(np.linalg.svd(cross, compute_uv=False).sum()) / n, 1.0)


def compared(
    table: Table, shared: SharedRows, *, unnamed: AbstractSet[Any] = frozenset()
) -> dict[str, Any]:
    """The figures of `evaluate` that these pairs of rows tell, as plain values of its names, and
    which rows of the first ``table`` moved most, ids ``unnamed`` left out of these.
    """
    n = len(shared.x)
    if not n:
        return {"rows": 0}
    x, y = shared.x.astype(np.float64), shared.y.astype(np.float64)
    spread = np.unique(np.linspace(0, n - 1, min(n, _OTHERS)).astype(np.int64))
    like = likeness(x, y, others=y[spread])
    _, ceiling = cosine_and_ceiling(shared)
    return {
        "rows": n,
        "mean_cosine": like.cosines / n,
        "norm_ratio": like.norm_ratio,
        "cosine": {
            "histogram": like.counts,
            "chance": like.chance if n > 1 else None,
            "beyond_chance": like.agreement if n > 1 else None,
            "low_beyond_chance": like.low_agreement if n > 1 else None,
            "share_at_chance": like.chance_share,
            "ceiling": ceiling,
        },
        "components": _components(like),
        "moved": most_moved(table, shared, unnamed=unnamed),
    }


def most_moved(
    table: Table, shared: SharedRows, *, unnamed: AbstractSet[Any] = frozenset()
) -> dict[str, list[dict[str, Any]]]:
    """The sampled rows with the lowest cosines, and those whose vectors lie farthest apart,
    with their ids, but for the ``unnamed``.
    """
    cosines = np.einsum("ij,ij->i", unit(shared.x), unit(shared.y))
    apart = row_lengths(shared.x - shared.y)
    lengths = [row_lengths(side) for side in (shared.x, shared.y)]

    def listed(order: RowNumbers) -> list[dict[str, Any]]:
        ids = plain(ids_at(table.row_ids, shared.numbers[order]))
        return [
            {
                "id": name,
                "cosine": float(cosines[k]),
                "distance": float(apart[k]),
                "norm_a": float(lengths[0][k]),
                "norm_b": float(lengths[1][k]),
            }
            for name, k in zip(ids, order, strict=True)
            if name not in unnamed
        ][:_MOVED]

    most = _MOVED + len(unnamed)
    lowest, farthest = (np.argsort(by, kind="stable")[:most] for by in (cosines, -apart))
    return {"lowest_cosine": listed(lowest), "farthest": listed(farthest)}


def _components(like: Likeness) -> dict[str, list[float | None]]:
    """By component: the correlation about 0 of unit rows, and its share of the sum of squares."""
    x, y = like.unit.squares_x, like.unit.squares_y
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.diag(like.unit.cross) / np.sqrt(x * y)
    shares = [np.diag(G) / np.trace(G) for G in (like.raw.gramian_x, like.raw.gramian_y)]
    return {
        "correlation": [float(c) if np.isfinite(c) else None for c in correlation],
        "share_a": [float(share) for share in shares[0]],
        "share_b": [float(share) for share in shares[1]],
    }
