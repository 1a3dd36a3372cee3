"""How alike are the items of two runs of a series? Mean cosines by the weeks between them, and by
the age of an item.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from papers import Rows, unit
from scipy.linalg import orthogonal_procrustes

import dask_embstab as es

GAPS = (1, 4, 13, 26)
EVERY_GAP = range(1, 27)
AGES = {
    "0": (0, 0),
    "1": (1, 1),
    "2 to 3": (2, 3),
    "4 to 7": (4, 7),
    "8 and more": (8, 1 << 30),
    "in the first run": None,
}
CEILING, UNIT_CEILING = "ceiling", "ceiling, unit rows"


@dataclass(frozen=True)
class Items:
    """A run's items: ids, ascending, and their unit vectors; ``rows`` are the vectors as
    they are.
    """

    ids: NDArray[np.str_]
    rows: Rows

    @classmethod
    def of(cls, run: es.Run) -> Items:
        """Those of a run."""
        table = run.items
        assert table is not None, "every run has items"
        ids, rows = np.array(np.asarray(table.ids).tolist()), np.asarray(table.vectors, np.float64)
        order = np.argsort(ids)
        return cls(ids[order], rows[order])


def shared(a: Items, b: Items) -> tuple[NDArray[np.str_], Rows, Rows]:
    """The ids that both have, and their rows in either."""
    ids, i, j = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    return ids, a.rows[i], b.rows[j]


def cosines(a: Rows, b: Rows) -> Rows:
    """Row by row."""
    product: Rows = np.sum(unit(a) * unit(b), axis=1)
    return product


def turned(a: Rows, b: Rows, *, units: bool = False) -> Rows:
    """``b`` by the rotation that aligns it to ``a``, found on rows as they are or on their
    directions.
    """
    Q, _ = orthogonal_procrustes(*((unit(b), unit(a)) if units else (b, a)))
    rotated: Rows = b @ Q
    return rotated


def pairs(weeks: Sequence[Items | None], gap: int) -> Iterator[tuple[int, Items, Items]]:
    """Runs a gap apart, with the first one's number; those that were held are left out."""
    for k, (a, b) in enumerate(zip(weeks, weeks[gap:], strict=False)):
        if a is not None and b is not None:
            yield k, a, b


def by_gap(weeks: Sequence[Items | None], gap: int) -> dict[str, float | None]:
    """The mean cosine of runs a gap apart: as they were aligned, and at either ceiling."""
    shared_rows = [shared(a, b)[1:] for _, a, b in pairs(weeks, gap)]
    if not shared_rows:
        return dict.fromkeys(("transformed", CEILING, UNIT_CEILING))
    return {
        "transformed": statistics.fmean(cosines(a, b).mean() for a, b in shared_rows),
        CEILING: statistics.fmean(cosines(a, turned(a, b)).mean() for a, b in shared_rows),
        UNIT_CEILING: statistics.fmean(
            cosines(a, turned(a, b, units=True)).mean() for a, b in shared_rows
        ),
    }


def decides(ids: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Half of all ids, by their hash: the items that decide the rotations where the others are held
    out.
    """
    return np.array(
        [hashlib.blake2b(str(name).encode()).digest()[0] % 2 == 0 for name in ids], bool
    )


def shares(
    weeks: Sequence[Items | None], gap: int, *, halves: bool = False, late: bool | None = None
) -> dict[str, float | None]:
    """Mean cosines of runs a gap apart over their ceilings, in per cent: of all items, or of either
    half.

    The ceiling is that of orthogonal Procrustes between just the two runs, decided by the same
    items as the series' own rotations: all of them, or those of the one half, and measured on the
    other half too. With ``late`` the pairs whose later run is in the second half of the series,
    without (False) those of the first half alone.
    """
    sums: dict[str, list[tuple[float, float]]] = {}
    for k, a, b in pairs(weeks, gap):
        if late is not None and late != (k + gap >= len(weeks) // 2):
            continue
        ids, x, y = shared(a, b)
        half = decides(ids) if halves else np.ones(len(ids), bool)
        Q, _ = orthogonal_procrustes(y[half], x[half])
        named = {"deciding": half, "held out": ~half} if halves else {"all": half}
        for name, rows in named.items():
            both = cosines(x[rows], y[rows]).mean(), cosines(x[rows], y[rows] @ Q).mean()
            sums.setdefault(name, []).append((float(both[0]), float(both[1])))
    means = {name: np.mean(values, axis=0) for name, values in sums.items()}
    return {name: float(100 * transformed / best) for name, (transformed, best) in means.items()}


def by_age(weeks: Sequence[Items | None]) -> dict[str, dict[str, float]]:
    """Cosines between runs a week apart by the item's age in the earlier one: how many, mean as
    transformed, mean at the ceiling.

    The age is the weeks since the first run that has the item; items of the first run are a line of
    their own.
    """
    born: dict[str, int] = {}
    for k, week in enumerate(weeks):
        for name in [] if week is None else week.ids:
            born.setdefault(str(name), k)
    ages, transformed, best = [], [], []
    for k, a, b in pairs(weeks, 1):
        ids, x, y = shared(a, b)
        ages.append(np.array([k - born[name] if born[name] else -1 for name in map(str, ids)]))
        transformed.append(cosines(x, y))
        best.append(cosines(x, turned(x, y)))
    if not ages:
        return {}
    age, figures = (
        np.concatenate(ages),
        {"transformed": np.concatenate(transformed), CEILING: np.concatenate(best)},
    )
    by_age = {}
    for name, limits in AGES.items():
        chosen = age < 0 if limits is None else (age >= limits[0]) & (age <= limits[1])
        if chosen.any():
            by_age[name] = {
                "n": int(chosen.sum()),
                **{key: float(v[chosen].mean()) for key, v in figures.items()},
            }
    return by_age
