"""``embstab index``: indexes of a run, built, searched and moved into another space."""

from __future__ import annotations

from typing import Any

import click

from dask_embstab.cli.common import argument, command, main
from dask_embstab.cli.execution import clock
from dask_embstab.cli.options import given, options


@main.group()
def index() -> None:
    """Build an index of a run, search it, or move it into another space."""


@command(argument("run"), argument("out"), *options("index_build"), group=index, through="export")
def build(run: str, out: str, *, engine: str, **chosen: Any) -> dict[str, Any]:
    """Build an index of RUN (or of a series' head) at OUT: `export` with an index's format."""
    from dask_embstab import api

    with clock() as seconds:
        done = api.export(run, out, format=engine, **{"table": "items", **given(chosen)})
    return {**done, "seconds": seconds()}


@command(argument("place"), argument("queries"), *options("query_index"), group=index)
def query(place: str, queries: str, **chosen: Any) -> dict[str, Any]:
    """Find the nearest vectors of the index PLACE for QUERIES (a run, SERIES@3, a table); refuses
    queries of another space (exit 2).
    """
    from dask_embstab import api
    from dask_embstab.tables.ids.kinds import plain

    with clock() as seconds:
        scores, ids = api.query_index(place, queries, **given(chosen))
    return {"scores": scores.tolist(), "ids": [plain(row) for row in ids], "seconds": seconds()}


@command(argument("place"), argument("out"), *options("upgrade_index"), group=index)
def upgrade_(place: str, out: str, *, transform: str | None, **chosen: Any) -> dict[str, Any]:
    """Move the stored vectors of the index PLACE by a transform, into a new index OUT."""
    if transform is None:
        raise click.UsageError("give the transform into the new space: --transform FILE")
    from dask_embstab import api

    with clock() as seconds:
        done = api.upgrade_index(place, out, transform, **given(chosen))
    return {**done, "out": out, "seconds": seconds()}
