"""The ways in which a delivery of a run goes wrong: what gates must hold, in tests and in
`benchmarks/gates.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import dask_embstab as es

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Week:
    """One training, in memory."""

    items: Array
    users: Array
    item_ids: Any
    user_ids: Any

    def write(self, path: Path, **options: Any) -> es.Run:
        """Store it as a run."""
        ids = {"item_ids": self.item_ids, "user_ids": self.user_ids}
        return es.create_run(path, self.items, self.users, **ids, **options)

    @classmethod
    def read(cls, path: Path) -> Week:
        """A stored run, which must be small."""
        run = es.open_run(path)
        items, users = run.table("items"), run.table("users")
        return cls(
            *(np.asarray(made) for made in (items.vectors, users.vectors, items.ids, users.ids))
        )


def unrelated(week: Week, seed: int = 0) -> Week:
    """A model of something else, with this one's ids and column sizes."""
    rng = np.random.default_rng(seed)
    tables = [
        rng.normal(size=rows.shape) * rows.std(0) + rows.mean(0)
        for rows in (week.items, week.users)
    ]
    return replace(week, items=tables[0], users=tables[1])


def shuffled(week: Week, *keys: str) -> Week:
    """The right ids in the wrong order."""
    rng = np.random.default_rng(1)
    return replace(
        week, **{f"{key}_ids": rng.permutation(getattr(week, f"{key}_ids")) for key in keys}
    )


def halved(week: Week, key: str) -> Week:
    """Half the rows of one table."""
    rows, ids = getattr(week, f"{key}s"), getattr(week, f"{key}_ids")
    return replace(week, **{f"{key}s": rows[::2], f"{key}_ids": ids[::2]})


def stale(week: Week, other: Week, key: str, share: float = 0.2) -> Week:
    """Some rows of one table are still those of another training."""
    rows, ids = getattr(week, f"{key}s").copy(), np.asarray(getattr(week, f"{key}_ids"))
    old, old_ids = getattr(other, f"{key}s"), np.asarray(getattr(other, f"{key}_ids"))
    _, mine, theirs = np.intersect1d(ids, old_ids, return_indices=True)
    chosen = np.random.default_rng(2).permutation(len(mine))[: int(share * len(mine))]
    rows[mine[chosen]] = old[theirs[chosen]]
    return replace(week, **{f"{key}s": rows})


def renumbered(week: Week, key: str, share: float = 0.42) -> Week:
    """Some ids of one table name other rows of it than before."""
    ids = np.asarray(getattr(week, f"{key}_ids")).copy()
    chosen = np.random.default_rng(3).permutation(len(ids))[: int(share * len(ids))]
    ids[chosen] = ids[np.roll(chosen, 1)]
    return replace(week, **{f"{key}_ids": ids})


def zeroed(week: Week, key: str) -> Week:
    """Half the rows of one table are zeros."""
    rows = getattr(week, f"{key}s").copy()
    rows[::2] = 0
    return replace(week, **{f"{key}s": rows})


_MINORITY = {"chance_share", "low_agreement"}
BAD: dict[str, tuple[Callable[[Week, Week], Week], set[str]]] = {
    "shuffled ids": (lambda week, _: shuffled(week, "item", "user"), {"agreement", "alignment"}),
    "shuffled item ids": (lambda week, _: shuffled(week, "item"), {"agreement", "alignment"}),
    "shuffled user ids": (lambda week, _: shuffled(week, "user"), {"agreement"}),
    "half the items gone": (lambda week, _: halved(week, "item"), {"rows"}),
    "half the users gone": (lambda week, _: halved(week, "user"), {"rows"}),
    "users of another model": (
        lambda week, other: replace(week, users=other.users, user_ids=other.user_ids),
        {"agreement", "rotation", "mirror"},
    ),
    "items of another model": (
        lambda week, other: replace(week, items=other.items, item_ids=other.item_ids),
        {"agreement", "rotation", "mirror"},
    ),
    "an unrelated model": (lambda week, _: unrelated(week), {"agreement", "alignment"}),
    "unrelated items": (
        lambda week, _: replace(week, items=unrelated(week).items),
        {"agreement", "alignment"},
    ),
    "a fifth of the items stale": (lambda week, other: stale(week, other, "item"), _MINORITY),
    "a fifth of the users stale": (lambda week, other: stale(week, other, "user"), _MINORITY),
    "42 % of the item ids re-numbered": (lambda week, _: renumbered(week, "item"), _MINORITY),
    "42 % of the user ids re-numbered": (lambda week, _: renumbered(week, "user"), _MINORITY),
    "half the items zeros": (lambda week, _: zeroed(week, "item"), {"rows"}),
    "half the users zeros": (lambda week, _: zeroed(week, "user"), {"rows"}),
    "items in other units": (
        lambda week, _: replace(week, items=week.items * 2.54),
        {"norm_ratio"},
    ),
    "users in other units": (
        lambda week, _: replace(week, users=week.users / 1000),
        {"norm_ratio"},
    ),
    "both in other units": (
        lambda week, _: replace(week, items=week.items * 100, users=week.users * 100),
        {"norm_ratio"},
    ),
}
"""How a delivery goes wrong (given the week's training and another training), and the gates of
which one must hold it.
"""
