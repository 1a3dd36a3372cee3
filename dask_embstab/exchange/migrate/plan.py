"""A model was retrained and an index holds yesterday's vectors: leave it, bridge queries into its
space, or build it anew? Decided by what today's own queries would miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dask_embstab.core.metrics.estimates import CONFIDENCE, Estimate
from dask_embstab.core.types import Matrix
from dask_embstab.display import Displayed
from dask_embstab.errors import InputError, TooFewMatchedError
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.stale import best_ids, recall_of
from dask_embstab.passes.join.queries import QueryLog, asked_rows
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import Space
from dask_embstab.tables.transform import Transform

Decision = Literal["leave", "bridge", "reindex"]


@dataclass(frozen=True, slots=True, repr=False)
class UpgradePlan(Displayed):
    """What to do about an index of the ``old`` vectors once queries come from the ``new`` model.

    ``leave`` and ``bridge`` estimate recall@``k``: the share of what a rebuilt index would find
    that the old vectors find for the new model's queries as they are, and for queries multiplied by
    one matrix (moving the stored vectors by its inverse finds the same). Where no matrix leads from
    one space into the other ``bridge`` and ``transform`` are None, and ``reason`` says why.
    ``asked`` tells whose queries these are: ``from`` a sample or a log, how many were ``sampled``
    of how many (``of``), and of how many ids of the log the new run has no row (``unknown``).

    Examples
    --------
    >>> plan = es.upgrade_plan(monday, tuesday, k=5)
    >>> plan.decision, round(plan.bridge.mean, 2)
    ('bridge', 1.0)
    """

    decision: Decision
    k: int
    metric: Metric
    needed: float
    leave: Estimate | None
    bridge: Estimate | None
    reason: str | None
    transform: Transform | None
    spaces: dict[str, Space]
    rows: int
    row_bytes: int
    asked: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: recall with its 95 % interval, and what each way costs.

        Examples
        --------
        >>> sorted(es.upgrade_plan(monday, tuesday, k=5).to_dict())[:4]
        ['confidence', 'cost', 'decision', 'k']
        """
        recall = {"leave": self.leave, "bridge": self.bridge}
        matrix = None if self.transform is None else [self.transform.d, self.transform.width]
        return {
            "decision": self.decision,
            "k": self.k,
            "metric": self.metric,
            "needed": self.needed,
            "confidence": CONFIDENCE,
            "queries": self.asked,
            "recall": {name: _plain(estimate) for name, estimate in recall.items()}
            | {"reindex": {"mean": 1.0, "low": 1.0, "high": 1.0, "queries": None}},
            "reason": self.reason,
            "one_space": self.spaces["old"].origin == self.spaces["new"].origin,
            "spaces": {name: space.to_dict() for name, space in self.spaces.items()},
            "cost": {
                "leave": {"rows": 0, "bytes": 0},
                "bridge": {"rows": 0, "bytes": 0, "matrix": matrix},
                "reindex": {"rows": self.rows, "bytes": self.rows * self.row_bytes},
            },
        }

    def _facts(self) -> dict[str, object]:
        facts = {"leave": self.leave, "bridge": self.bridge}
        return {
            "decision": self.decision,
            **{
                name: None if one is None else f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"
                for name, one in facts.items()
            },
            "needed": f"recall@{self.k} of {self.needed}",
        }


def plan_upgrade(
    old: Run,
    new: Run,
    log: QueryLog | None,
    bridge: Callable[[], Transform],
    *,
    k: int,
    n_queries: int,
    seed: int,
    metric: Metric | None,
    needed: float,
) -> UpgradePlan:
    """Rank the items of both runs for sampled queries of the new model.

    ``log`` are the user's own queries (None: a sample of its users, without any its items);
    ``bridge`` fits the transform from the new space into the old one. Reads the new items once and
    the old ones twice.
    """
    key = "items" if new.users is None else "users"
    # A row of the items finds itself first: it is asked by id, or sampled.
    among_items = new.users is None and (log is None or log.ids is not None)
    metric = metric or ("cosine" if new.users is None else "dot")
    items, target = old.table("items"), new.table("items")
    least = min(items.n_rows, target.n_rows) - among_items
    if 2 * k > least:
        raise InputError(
            f"recall@{k} of tables of {least} rows says nothing: half of them are found by chance;"
            f" ask for at most {least // 2}"
        )
    theirs = new.table(key)
    with unchanged(items, target, theirs, None if log is None else log.vectors):
        rows, chosen, unknown = asked_rows(theirs, log, n_queries, seed, label="upgrade: queries")
        asked_of: dict[str, Any] = {
            "from": "sample" if log is None else log.kind,
            "of": theirs.n_rows if log is None else log.n,
            "unknown": unknown,
            "sampled": len(rows),
        }
        own = None
        if among_items and chosen is not None:
            own = np.asarray(plain(ids_at(theirs.row_ids, chosen)))

        # A log of queries stands for those to come, users for themselves.
        population = theirs.n_rows if log is None else math.inf
        transform, reason = _fitted(bridge)
        asked: dict[str, Matrix] = {}
        if rows.shape[1] == items.d:
            asked["leave"] = rows
        if transform is not None:
            of_items = new.users is None  # the users' matrix takes queries where there are users
            through = transform.transform_items if of_items else transform.transform_users
            asked["bridge"] = through(rows)
        label = "upgrade: rankings"
        fresh = best_ids(target, rows, k, metric, own, label=label)
        recall = {
            name: recall_of(
                best_ids(items, sent, k, metric, own, label=label), fresh, k, population
            )
            for name, sent in asked.items()
        }

    decision: Decision = "reindex"
    for name in ("bridge", "leave"):
        if name in recall and recall[name].low >= needed:
            decision = name
    return UpgradePlan(
        decision,
        k,
        metric,
        needed,
        recall.get("leave"),
        recall.get("bridge"),
        reason,
        transform,
        {"old": space_of_run(old), "new": space_of_run(new)},
        target.n_rows,
        target.d * target.dtype.itemsize,
        asked_of,
    )


def _fitted(bridge: Callable[[], Transform]) -> tuple[Transform | None, str | None]:
    """The bridge, or why there is none."""
    try:
        return bridge(), None
    except (TooFewMatchedError, InputError) as error:
        return None, str(error)


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "mean": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "queries": estimate.n,
    }
