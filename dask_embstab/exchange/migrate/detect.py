"""Of which space are vectors that carry no fingerprint, and are two mixed among them?

Every row is compared with the rows of the same id in the versions of a series: as they are stored
(the series' space) and as each version's model made them (the space of that model alone).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_embstab.core.moments import unit
from dask_embstab.core.types import Rows
from dask_embstab.display import Displayed
from dask_embstab.errors import DamageError, TooFewMatchedError
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.passes.sampled import SampledRows, sampled_rows, shared_rows
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_LEAST_COSINE, _CHANCES, _ENOUGH = 0.5, 4.0, 0.9
"""A row is of a space where its cosine with its own id there is at least this, and so many standard
deviations (1 / sqrt(d)) of the cosine of unrelated rows, but never more than the last.
"""
_MIXED_ROWS, _MIXED_SHARE = 3, 0.02
"""Two spaces are mixed where each has so many of the sampled rows, and such a share of them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A space that vectors may be of: the series' (``version`` None), or that of the model of a
    ``version``, by its ``name``; ``origin`` of its fingerprint where that is known.
    """

    name: str
    version: int | None
    origin: str | None


@dataclass(frozen=True, slots=True)
class SpaceShare:
    """How many of the sampled rows are of a space, and their mean cosine with their own ids."""

    space: Candidate
    rows: int
    share: float
    mean_cosine: float


@dataclass(frozen=True, slots=True, repr=False)
class Detected(Displayed):
    """The spaces of a table's rows, the largest first; ``mixed`` where more than one has a say,
    ``unclear`` rows are near no space. ``rows`` of the table were sampled.

    Examples
    --------
    >>> detected = es.detect_space(series.open(1).items, series)
    >>> detected.mixed, detected.spaces[0].space.name
    (False, 'series')
    """

    spaces: tuple[SpaceShare, ...]
    mixed: bool
    rows: int
    unclear: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values.

        Examples
        --------
        >>> sorted(es.detect_space(monday.items, series).to_dict())
        ['mixed', 'rows', 'spaces', 'unclear']
        """
        spaces = [
            {
                "space": entry.space.name,
                "version": entry.space.version,
                "origin": entry.space.origin,
                "rows": entry.rows,
                "share": entry.share,
                "mean_cosine": entry.mean_cosine,
            }
            for entry in self.spaces
        ]
        report = {"mixed": self.mixed, "rows": self.rows, "unclear": self.unclear}
        return {"spaces": spaces, **report}

    def _facts(self) -> dict[str, object]:
        shares = {entry.space.name: f"{entry.share:.1%}" for entry in self.spaces}
        return {**shares, "mixed": self.mixed, "unclear": self.unclear}


def detect(
    table: Table,
    versions: Iterable[tuple[int, Run]],
    *,
    key: str,
    n: int,
    seed: int,
) -> Detected:
    """Of ``table``'s rows, sampled by a hash of their ids; ``versions`` are opened one at a time.

    Reads the ids of the table and of every version once, and ``n`` rows of each.
    """
    ours = sampled_rows(table, n, seed=seed)
    rows_of: dict[Candidate, Rows] = {}
    for number, run in versions:
        theirs = sampled_rows(run.table(key), n, seed=seed)
        if (made := run.transform) is None:
            raise DamageError(f"version {number}: {run.where} has lost its transform; restore it")
        back, space = made.inverse(), space_of_run(run)
        trained = back.transform_items if key == "items" else back.transform_users
        series = Candidate("series", None, space.origin)
        model = Candidate(space.name or run.name, number, None)
        for candidate, rows in ((series, theirs.rows), (model, trained(theirs.rows))):
            cosines = _cosines(ours, SampledRows(theirs.keys, theirs.numbers, rows))
            known = rows_of.get(candidate)
            rows_of[candidate] = cosines if known is None else np.fmax(known, cosines)

    names = list(rows_of)
    cosines = np.array([rows_of[name] for name in names])
    usable = np.isfinite(cosines).any(axis=0) if names else np.zeros(0, bool)
    if not usable.any():
        raise TooFewMatchedError(
            f"no sampled id of {table.where} is in a version that was looked at; give a table with"
            " ids of the series, or more of the series' versions"
        )
    cosines = np.nan_to_num(cosines[:, usable], nan=-1.0)
    best = cosines.argmax(axis=0)
    least = max(_LEAST_COSINE, min(_CHANCES / np.sqrt(table.d), _ENOUGH))
    clear = cosines.max(axis=0) >= least
    return _detected(names, cosines, best, clear)


def _detected(names: list[Candidate], cosines: Rows, best: Any, clear: Any) -> Detected:
    n = len(best)
    spaces = [
        SpaceShare(name, int(ours.sum()), float(ours.mean()), float(cosines[k][ours].mean()))
        for k, name in enumerate(names)
        if (ours := (best == k) & clear).any()
    ]
    spaces.sort(key=lambda one: -one.rows)
    mixed = [one for one in spaces if one.rows >= _MIXED_ROWS and one.share >= _MIXED_SHARE]
    return Detected(tuple(spaces), len(mixed) > 1, n, int((~clear).sum()))


def _cosines(ours: SampledRows, theirs: SampledRows) -> Rows:
    """Of our rows with theirs of the same id; NaN where they have none."""
    cosines = np.full(len(ours.numbers), np.nan)
    if ours.rows.shape[1] != theirs.rows.shape[1]:
        return cosines
    shared = shared_rows(ours, theirs)
    at = np.searchsorted(ours.numbers, shared.numbers, sorter=(order := np.argsort(ours.numbers)))
    with np.errstate(all="ignore"):  # rows of zeros have no direction
        cosines[order[at]] = np.sum(unit(shared.x) * unit(shared.y), axis=1)
    return cosines
