"""Tables in files of other formats on the command line."""

from __future__ import annotations

from typing import Any

from dask_embstab.cli.common import argument, command, described
from dask_embstab.cli.execution import clock, cluster
from dask_embstab.cli.options import given, options


@command(argument("source"), argument("out"), *options("ingest"))
def import_(source: str, out: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Write the table in SOURCE (Parquet, Arrow, npy, HDF5, safetensors, word2vec, CSV and others;
    a file, a folder or a pattern) as the run OUT.
    """
    from dask_embstab import api

    with cluster(scheduler), clock() as seconds:
        made = api.ingest(source, out, **given(chosen))
    return {**described(made), "seconds": seconds(), "out": made.path}
