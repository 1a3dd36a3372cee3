"""``embstab upgrade``: what a retraining means for an index."""

from __future__ import annotations

from typing import Any

import click

from dask_embstab.cli.common import argument, command, main
from dask_embstab.cli.execution import clock, cluster
from dask_embstab.cli.options import given, options


@main.group()
def upgrade() -> None:
    """Decide what becomes of an index once the model is retrained."""


@command(argument("old"), argument("new"), *options("upgrade_plan"), group=upgrade)
def plan(
    old: str, new: str, *, save: str | None, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Leave the index of OLD vectors, bridge the queries of the NEW model into its space, or build
    it anew: decided by the recall of each way on sampled queries.
    """
    from dask_embstab import api
    from dask_embstab.errors import InputError
    from dask_embstab.files.atomic import require_file_place
    from dask_embstab.files.published import publishing
    from dask_embstab.repairs import option

    if save is not None:
        require_file_place(save)
    with cluster(scheduler), clock() as seconds:
        result = api.upgrade_plan(old, new, **given(chosen))
        if save is not None:
            if result.transform is None:
                raise InputError(
                    f"{option('save')} writes the bridge, and there is none: {result.reason};"
                    " leave it out"
                )
            with publishing(save):
                result.transform.save(save)
    report = {**result.to_dict(), "seconds": seconds(), "out": save}
    return report if click.get_current_context().params["as_json"] else {"lines": lines(report)}


@command(
    argument("index"),
    argument("old"),
    argument("new"),
    argument("place"),
    *options("begin_backfill"),
    group=upgrade,
)
def run(
    index: str, old: str, new: str, place: str, *, steps: int | None, **chosen: Any
) -> dict[str, Any]:
    """Move INDEX, which holds OLD, to the vectors of NEW, part by part in PLACE; the same call goes
    on after an interruption.
    """
    import os

    from dask_embstab import api
    from dask_embstab.exchange.migrate.backfill import STATE, Backfill
    from dask_embstab.files.place import local_path

    root = local_path(place)
    begun = root is not None and os.path.lexists(root / STATE)
    with clock() as seconds:
        moving = (
            Backfill(root)
            if begun and root is not None
            else api.begin_backfill(place, index, old, new, **given(chosen))
        )
        state, left = moving.state, steps
        while state.done < state.rows and left != 0:
            state, left = moving.step(), None if left is None else left - 1
    return {"done": state.done, "rows": state.rows, "seconds": seconds(), "out": place}


@command(argument("place"), group=upgrade)
def rollback(place: str) -> dict[str, Any]:
    """Forget what was moved in PLACE: the old index alone is searched again."""
    from dask_embstab.exchange.migrate.backfill import Backfill
    from dask_embstab.verbs.index import local_index

    state = Backfill(local_index(place)).roll_back()
    return {"done": state.done, "rows": state.rows, "out": place}


def lines(plan: dict[str, Any]) -> list[str]:
    """For people: the decision, and the recall that it rests on."""
    shown = [f"{plan['decision']}: recall@{plan['k']} of at least {plan['needed']} is wanted"]
    for name, one in plan["recall"].items():
        if one is None:
            why = plan["reason"] if name == "bridge" else "the widths differ"
            shown.append(f"  {name}: impossible ({why})")
        elif one["queries"] is None:
            cost = plan["cost"][name]
            shown.append(f"  {name}: 1, and {cost['rows']} rows ({cost['bytes']} bytes) to write")
        else:
            shown.append(
                f"  {name}: {one['mean']:.4f} ({one['low']:.4f} to {one['high']:.4f}, 95 %,"
                f" {one['queries']} queries)"
            )
    if not plan["one_space"]:
        shown.append("  vectors of the two must never meet in one index")
    return shown
