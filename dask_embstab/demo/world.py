"""What a service would log whose users' tastes and whose catalogue change day by day.

Users and items are unit vectors in a space of tastes.  Every day

1. some items leave the catalogue and as many new ones enter it;
2. each user draws items with a probability proportional to ``popularity * exp(sharpness *
   cosine)``;
3. each user's taste takes one step along the sphere.

The interactions of a day are the events of a rolling window of days that ends there, as in a
service that retrains daily on its last days: consecutive models share most of their events, so they
are alike, not equal.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_FIRST_DAY = date(2026, 1, 1)
_ID_SPACE = 10**9
_PANEL_ROWS = 100  # at 5,000 items a panel of weights is 2 MB: it stays in the cache


@dataclass(frozen=True, kw_only=True)
class World:
    """The parameters of a simulated service.

    Parameters
    ----------
    n_users, n_items
        Rows of each day's interactions and size of each day's catalogue.
    n_days
        Length of the series.
    share_replaced
        Share of the first day's items that is gone on the last day, in equal daily steps.
    n_tastes
        Dimensions of the space of tastes.  Popularity takes one more, so ``n_tastes + 1``
        components hold all that a factorization can find; further ones hold noise.
    drift
        Angle in radians by which each user's taste turns between two days.
    events_per_day
        Events each user leaves per day.
    window_days
        Days of events that one day's interactions hold, its own day included.
    sharpness
        How strongly taste decides; 0 leaves popularity alone.
    popularity_exponent
        Exponent of the Pareto law of the items' popularity; the smaller, the heavier the few most
        popular.
    seed
        Everything is a function of these parameters and this seed.

    Raises
    ------
    ValueError
        If a size is not positive or ``share_replaced`` is not within 0..1.
    """

    n_users: int = 20_000
    n_items: int = 5_000
    n_days: int = 5
    share_replaced: float = 0.1
    n_tastes: int = 15
    drift: float = 0.15
    events_per_day: int = 7
    window_days: int = 7
    sharpness: float = 9.0
    popularity_exponent: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        for name in ("n_users", "n_items", "n_days", "n_tastes", "events_per_day", "window_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.share_replaced <= 1:
            raise ValueError(f"share_replaced must be within 0..1, got {self.share_replaced}")

    def n_replaced(self, day: int) -> int:
        """Count of the first day's items that are gone on ``day`` (0 is the first)."""
        elapsed = min(max(day, 0) / max(self.n_days - 1, 1), 1.0)
        return round(self.share_replaced * self.n_items * elapsed)


@dataclass(frozen=True)
class Day:
    """What one day's training sees.

    Only ids identify rows: users and items come in another order every day.

    Attributes
    ----------
    name
        ISO date, such as ``"2026-01-01"``.
    user_ids, item_ids
        Unique ids, int64, shapes (n_users,) and (n_items,), with gaps and in no order.
    interactions
        Counts of events, float32, shape (n_users, n_items).
    """

    name: str
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    interactions: sparse.csr_array

    def __post_init__(self) -> None:
        """Check that rows and columns have one id each."""
        if self.interactions.shape != (self.user_ids.size, self.item_ids.size):
            raise ValueError(
                f"interactions must have shape ({self.user_ids.size}, {self.item_ids.size}) to fit"
                f" the ids, got {self.interactions.shape}"
            )


@dataclass(frozen=True)
class _Catalogue:
    """Every item of the series; item j is on offer from day ``born[j]`` until before day
    ``gone[j]``.
    """

    ids: NDArray[np.int64]
    tastes: NDArray[np.float32]
    popularity: NDArray[np.float32]
    born: NDArray[np.int64]
    ends: NDArray[np.int64]

    def offered(self, day: int) -> NDArray[np.int64]:
        """Positions of the items on offer on a day, ascending."""
        return np.flatnonzero((self.born <= day) & (day < self.ends))


def simulate(world: World) -> Iterator[Day]:
    """Yield the days of a world in order.

    Parameters
    ----------
    world
        Its size, its pace of change and its seed.

    Yields
    ------
    Day
        One per day, ``world.n_days`` in all.  Memory is the events of one window plus a block of
        100 x n_items float32 weights.
    """
    rng = np.random.default_rng(world.seed)
    user_ids = _ids(world.n_users, rng)
    catalogue = _catalogue(world, rng)
    tastes = _unit_rows(rng.standard_normal((world.n_users, world.n_tastes), dtype=np.float32))
    window: deque[sparse.csr_array] = deque(maxlen=world.window_days)
    for day in range(1 - world.window_days, world.n_days):
        window.append(_events(world, tastes, catalogue, day, rng))
        if day >= 0:
            yield _day(day, user_ids, catalogue, window, rng)
        tastes = _step(tastes, world.drift, rng)


def _ids(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw n different ids, far from contiguous and in no order."""
    return rng.choice(_ID_SPACE, size=n, replace=False).astype(np.int64)


def _catalogue(world: World, rng: np.random.Generator) -> _Catalogue:
    """Lay out all items: the first day's, those that leave first, then the newcomers in order of
    entry.
    """
    n_replaced = [world.n_replaced(day) for day in range(world.n_days)]
    turns = np.repeat(np.arange(1, world.n_days), np.diff(n_replaced))
    n = world.n_items + turns.size
    born = np.concatenate([np.full(world.n_items, -world.window_days), turns])
    ends = np.concatenate([turns, np.full(n - turns.size, world.n_days)])
    popularity = 1 + rng.pareto(world.popularity_exponent, n).astype(np.float32)
    # Newcomers are promoted: they follow the law of the more popular half, so that they meet users
    # at once.
    popularity[world.n_items :] *= 2 ** (1 / world.popularity_exponent)
    return _Catalogue(
        ids=_ids(n, rng),
        tastes=_unit_rows(rng.standard_normal((n, world.n_tastes), dtype=np.float32)),
        popularity=popularity,
        born=born,
        ends=ends,
    )


def _unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1."""
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def _step(
    tastes: NDArray[np.float32], angle: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Turn each unit row by one angle in a random direction: a random walk that keeps the norm."""
    noise = rng.standard_normal(tastes.shape, dtype=np.float32)
    tangent = noise - np.sum(noise * tastes, axis=1, keepdims=True) * tastes
    # The second scaling changes nothing but the rounding, which would otherwise add up over a long
    # series.
    return _unit_rows(
        np.float32(np.cos(angle)) * tastes + np.float32(np.sin(angle)) * _unit_rows(tangent)
    )


def _events(
    world: World,
    tastes: NDArray[np.float32],
    catalogue: _Catalogue,
    day: int,
    rng: np.random.Generator,
) -> sparse.csr_array:
    """Count one day's events, shape (n_users, all items of the series)."""
    offered = catalogue.offered(day)
    items, popularity = world.sharpness * catalogue.tastes[offered].T, catalogue.popularity[offered]
    panels = (tastes[start : start + _PANEL_ROWS] for start in range(0, world.n_users, _PANEL_ROWS))
    drawn = [
        _draw(np.exp(panel @ items) * popularity, world.events_per_day, rng) for panel in panels
    ]
    columns = offered[np.concatenate(drawn)].ravel()
    row_ends = np.arange(0, columns.size + 1, world.events_per_day)
    shape = (world.n_users, catalogue.ids.size)
    counts = sparse.csr_array((np.ones(columns.size, np.float32), columns, row_ends), shape=shape)
    counts.sum_duplicates()
    return counts


def _draw(weights: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each row draw n columns with probability proportional to the weights, repeats allowed."""
    # In float32 a share is off by a few parts in ten thousand at most: nothing, beside the noise of
    # drawing.
    cumulated = np.cumsum(weights, axis=1)
    # random() < 1, so a level is at most the row's sum and the search ends within the row.
    levels = rng.random((len(weights), n), dtype=np.float32) * cumulated[:, -1:]
    drawn = [row.searchsorted(level) for row, level in zip(cumulated, levels, strict=True)]
    return np.asarray(drawn, dtype=np.int64)


def _day(
    day: int,
    user_ids: NDArray[np.int64],
    catalogue: _Catalogue,
    window: deque[sparse.csr_array],
    rng: np.random.Generator,
) -> Day:
    """Sum the window's events on the items on offer, in a fresh order of rows and columns."""
    users = rng.permutation(user_ids.size)
    items = rng.permutation(catalogue.offered(day))
    counts = reduce(add, window)[:, items][users]
    name = (_FIRST_DAY + timedelta(days=day)).isoformat()
    return Day(name, user_ids[users], catalogue.ids[items], counts)
