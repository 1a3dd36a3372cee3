"""Moments on the command line: tables reduced where they lie, files of them added up."""

from __future__ import annotations

from typing import Any

from dask_embstab.cli.common import argument, command
from dask_embstab.cli.execution import clock, cluster
from dask_embstab.cli.options import given, options
from dask_embstab.files.published import publishing


@command(argument("run"), argument("out"), *options("moments"))
def moments(
    run: str,
    out: str,
    *,
    add: tuple[str, ...] | None,
    subtract: tuple[str, ...] | None,
    scheduler: str | None,
    sync: bool,
    **chosen: Any,
) -> dict[str, Any]:
    """Reduce a table of RUN to what `fit` needs of it, the file OUT; RUN may be such a file itself,
    to be added to.
    """
    from dask_embstab import api
    from dask_embstab.errors import InputError
    from dask_embstab.files.atomic import require_file_place
    from dask_embstab.repairs import option
    from dask_embstab.tables.table_moments import TableMoments, is_moments

    require_file_place(out)
    asked = given(chosen)
    about_rows = [name for name in asked if name != "key"]
    taken = is_moments(run)
    if taken and about_rows:
        raise InputError(
            f"{option(about_rows[0])} is about rows, and the moments {run} hold their sums alone;"
            " give it with the run"
        )
    with cluster(scheduler), clock() as seconds:
        sums = TableMoments.load(run) if taken else api.moments(run, **asked)
        for path in add or ():
            sums += TableMoments.load(path)
        for path in subtract or ():
            sums -= TableMoments.load(path)
        with publishing(out):
            sums.save(out, sync=sync)
    return {
        "table": sums.where,
        "rows": sums.n_rows,
        "components": sums.d,
        "dtype": sums.dtype,
        "matched": None if sums.shared is None else sums.matched,
        "zero_rows": sums.moments.zeros.rows,
        "seconds": seconds(),
        "out": out,
    }
